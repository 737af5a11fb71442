"""Progress with its pace."""

import io

from rich.console import Console

from posesweep.datasets import pace as module
from posesweep.datasets.pace import pace, plain


def test_the_plain_line():
    assert plain("pictures", 120, 400, 12.5) == "pictures: 120 of 400, 12.5/s, 22 s left"
    assert plain("pictures", 1, 4001, 1.0) == "pictures: 1 of 4001, 1.0/s, 67 min left"


def test_lines_where_the_output_is_piped(monkeypatch):
    monkeypatch.setattr(module, "PLAIN_INTERVAL_S", 0.0)
    out = io.StringIO()
    with pace("frames", 2, Console(file=out, width=80)) as watched:
        for _ in range(3):  # one more than the container said
            watched.step()
    lines = out.getvalue().splitlines()
    assert [line.split(",")[0] for line in lines] == ["frames: 1 of 2", "frames: 2 of 2", "frames: 3 of 3"]


def test_a_bar_on_a_terminal():
    out = io.StringIO()
    with pace("frames", 2, Console(file=out, width=80, force_terminal=True)) as watched:
        watched.step(2)
    assert "2/2" in out.getvalue()
