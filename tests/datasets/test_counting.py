import io

from rich.console import Console

from posesweep.datasets.counting import bar, counting


def test_the_bar_counts_and_goes():
    text = io.StringIO()
    with bar(Console(file=text, force_terminal=True, width=80)) as shown:
        task = shown.add_task("crops", total=3)
        shown.update(task, completed=2)
        shown.refresh()
    assert "crops" in text.getvalue()
    assert "2/3" in text.getvalue()


def test_nothing_is_written_where_nobody_looks(capsys):
    with counting("crops") as count:
        count(1, 2)
        count(2, 2)
        count(1, 5)
    captured = capsys.readouterr()
    assert captured.out + captured.err == ""
