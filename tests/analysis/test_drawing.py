from html.parser import HTMLParser

from matplotlib.axes import Axes

from posesweep.analysis.drawing import INK, svg


def _draw(ax: Axes) -> None:
    ax.plot([1, 2], [3, 4], "o-")
    ax.set_title("costs $5 & <b>$")


def test_svg_is_inline_escaped_and_takes_the_pages_colour() -> None:
    text = svg(_draw, (3, 2), "one", 'a "<b>" & more')
    assert text.startswith('<svg role="img" aria-label="a &quot;&lt;b>&quot; &amp; more" ')
    assert "://" not in text
    assert INK not in text
    assert "currentColor" in text
    assert "costs $5 &amp; &lt;b&gt;$" in text


def test_the_same_drawing_gives_the_same_bytes_and_another_name_other_ids() -> None:
    def ids(text: str) -> set[str]:
        found: set[str] = set()
        parser = HTMLParser()
        parser.handle_starttag = lambda tag, attrs: found.update(v for k, v in attrs if k == "id" and v)  # type: ignore
        parser.feed(text)
        return found

    first, again, other = (svg(_draw, (3, 2), name, "") for name in ("one", "one", "two"))
    assert first == again
    assert ids(first)
    assert not ids(first) & ids(other)
