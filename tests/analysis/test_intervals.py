from dataclasses import replace

from matplotlib.figure import Figure

from posesweep.analysis.drawing import BASELINE, GREY, TIED, WINNER
from posesweep.analysis.intervals import draw_intervals, interval_rows
from posesweep.analysis.ranked import Standing, Standings
from posesweep.analysis.ranking import Interval

BEST = Standing(3, "search", "finished", "", {}, 9, 0.5, rank=1, ap=Interval(0.5, 0.4, 0.6), p_best=0.7, tied=True)


def test_the_baseline_is_shown_wherever_it_stands() -> None:
    rows = [replace(BEST, trial=10 + n, rank=n + 1, tied=n < 2, p_best=0.004) for n in range(5)]
    rows += [replace(BEST, trial=0, role="baseline", rank=6, tied=False)]
    rows += [replace(BEST, trial=99, rank=None), replace(BEST, trial=98, rank=7, ap=None)]
    shown = interval_rows(Standings(tuple(rows)), most=3)
    assert [row.label for row in shown] == ["trial 10", "trial 11", "trial 12", "trial 0 (baseline)"]
    assert [row.colour for row in shown] == [WINNER, TIED, GREY, BASELINE]


def test_a_winner_that_the_search_had_elsewhere_is_shown_and_painted() -> None:
    rows = [replace(BEST, trial=10 + n, rank=n + 1, tied=n < 2) for n in range(5)]
    shown = interval_rows(Standings(tuple(rows)), most=2, winner=14)
    assert [(row.label, row.colour) for row in shown] == [("trial 10", TIED), ("trial 11", TIED), ("trial 14", WINNER)]


def test_bars_span_the_intervals_best_on_top() -> None:
    rows = interval_rows(
        Standings((BEST, replace(BEST, trial=4, rank=2, ap=Interval(0.3, 0.2, 0.35), p_best=0.001))), 9
    )
    ax = Figure().subplots()
    draw_intervals(rows, ax)
    bars = [line.get_xdata() for line in ax.lines if len(line.get_xdata()) == 2 and line.get_linewidth() == 3]
    assert [list(bar) for bar in bars] == [[0.4, 0.6], [0.2, 0.35]]
    assert [text.get_text() for text in ax.texts] == ["70 %", "< 1 %", "P(best)"]
    assert ax.get_ylim()[0] > ax.get_ylim()[1]
