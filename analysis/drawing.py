"""The look of the report's figures: plain SVG that takes its text colour from the page, light or dark.

Object-oriented Matplotlib only: no pyplot, so no global list of figures and no display is ever needed.
"""

import io
import re
from collections.abc import Callable
from typing import Any, TypeAlias

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

Draw: TypeAlias = Callable[[Axes], None]  # puts something on a pair of axes
INK = "#0a0b0c"  # becomes currentColor in the SVG
GREY = "#8b95a5"  # readable on white and on black
WINNER, TIED, BASELINE, BAD, OTHER = "#0d9488", "#5eb5ac", "#d97706", "#dc2626", "#6b8fc9"
STYLE: dict[Any, Any] = {
    "font.size": 9.5,
    "svg.fonttype": "none",  # text stays text: the page's font, searchable
    "svg.hashsalt": "posesweep",  # the same numbers give the same bytes
    "text.parse_math": False,  # a $ in a user's name is a $
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": GREY,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GREY,
    "grid.alpha": 0.22,
    "grid.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "axes.titlesize": 10,
    "axes.unicode_minus": False,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "lines.linewidth": 1.6,
}


def svg(draw: Draw, size_in: tuple[float, float], name: str, alt: str) -> str:
    """What `draw` puts on a pair of axes, as an inline <svg> element that scales with the page.

    `size_in` is (width, height) in inches, `name` (letters and digits) keeps ids apart on a page, `alt` describes the
    figure to a screen reader.
    """
    buffer = io.StringIO()
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=size_in, layout="constrained")
        draw(figure.subplots())
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    return _inline(buffer.getvalue(), name, alt)


def _inline(text: str, name: str, alt: str) -> str:
    """An SVG file -> an element of an HTML page: no XML header, no foreign addresses, ids of its own."""
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r' xmlns(:\w+)?="[^"]*"', "", text)  # not needed inside HTML
    text = text.replace("xlink:href", "href").replace(INK, "currentColor")
    text = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", text)
    label = alt.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
    return text.replace("<svg ", f'<svg role="img" aria-label="{label}" ', 1)
