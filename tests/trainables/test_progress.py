"""What a user reads while a sweep runs."""

import io
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from posesweep.trainables.progress import (
    Board,
    Progress,
    TrialView,
    duration,
    epoch_line,
    epochs_left,
    eta,
    params_text,
    shown,
    spark,
    status_line,
    table,
)
from posesweep.trainables.stopping import Early

ASHA = Early("asha", max_epochs=27, min_epochs=3, eta=3)
FULL = Early("none", max_epochs=10)


def board_of(rule: Early = FULL, wanted: int = 4, concurrent: int = 1) -> Board:
    return Board("horse26", wanted, concurrent, rule)


def train(board: Board, number: int, *values: float, seconds: float = 2.0) -> None:
    board.started(number, {"lr0": 5e-4})
    for epoch, value in enumerate(values, 1):
        board.epoch(number, {"epoch": epoch, "val/AP": value, "train_s": seconds - 0.5, "val_s": 0.5})


def test_status_line_as_promised() -> None:
    board = board_of(wanted=20, concurrent=2)
    assert status_line(board) == "horse26: 0 of 20 done, 0 running"
    train(board, 0, *[0.1] * 10)
    board.ended(0, "finished")
    train(board, 1, 0.3, 0.612, 0.5)
    # trial 1 has 7 epochs left, 18 trials of 10 are to come: 187 epochs of 2 s, two at a time
    assert status_line(board) == "horse26: 1 of 20 done, 1 running, best 0.612 (trial 1), ETA 3 min"
    board.ended(1, "diverged", "the loss is nan in epoch 4")
    assert status_line(board).startswith("horse26: 2 of 20 done, 0 running, 1 diverged, best 0.612 (trial 1), ETA")


def test_the_best_of_a_metric_to_be_minimised() -> None:
    board = board_of(Early("none", 10, metric="val/NME", goal="minimize"))
    for number, value in enumerate([0.3, 0.1, 0.1, 0.2]):
        board.started(number, {})
        board.epoch(number, {"epoch": 1, "val/NME": value})
        board.epoch(number, {"epoch": 2, "val/NME": value + 1})
    assert board.best == (1, 0.1), "the earlier of equals, and its best epoch"


@given(st.lists(st.tuples(st.integers(0, 4), st.sampled_from(["starts", "epoch", "finished", "pruned"])), max_size=40))
def test_what_is_counted_as_it_is_told_is_what_the_trials_say(events: list[tuple[int, str]]) -> None:
    """In any order: trials that go on after they ended, epochs told of a trial that has."""
    board = board_of()
    for i, (number, event) in enumerate(events):
        if event == "starts" or number not in board.trials:
            board.started(number, {})
        elif event == "epoch":
            board.epoch(number, {"epoch": board.trials[number].epoch + 1, "val/AP": (7 * i % 5) / 10})
        else:
            board.ended(number, event)
    trials = board.trials
    assert +board.states == Counter(trial.state for trial in trials.values())
    assert board.running == {number for number, trial in trials.items() if trial.state == "running"}
    assert board.epochs_ended == sum(trial.epoch for trial in trials.values() if trial.state != "running")
    scored = [(-trial.best, number) for number, trial in trials.items() if trial.best is not None]
    assert board.best == ((min(scored)[1], -min(scored)[0]) if scored else None)


def test_epochs_left_when_one_in_three_survives_each_rung() -> None:
    """Rungs 3 and 9 of 27: 3 epochs for all, 6 more for a third, 18 more for a ninth."""
    assert epochs_left(ASHA, 0) == pytest.approx(3 + 6 / 3 + 18 / 9)
    assert epochs_left(ASHA, 3) == pytest.approx(6 + 18 / 3), "it survived the first rung"
    assert epochs_left(ASHA, 5) == pytest.approx(4 + 18 / 3)
    assert epochs_left(ASHA, 20) == 7
    assert epochs_left(ASHA, 27) == 0
    assert epochs_left(ASHA, 0, number=0) == 27, "the baseline is never stopped"
    assert epochs_left(Early("median", 27), 10) == 17


def test_eta() -> None:
    board = board_of(FULL, wanted=3, concurrent=2)
    assert eta(board) is None
    train(board, 0, 0.1, 0.2, seconds=3)
    assert eta(board) == pytest.approx(3 * (8 + 10 + 10) / 2)
    train(board, 1, *[0.1] * 9, seconds=3)
    train(board, 2, *[0.1] * 9, seconds=3)
    assert eta(board) == pytest.approx(3 * 8), "no sooner than the longest trial that runs"
    for number in range(3):
        board.ended(number, "finished")
    assert eta(board) == 0


def test_eta_knows_of_the_finalists() -> None:
    """Two wait and nothing runs: the rule wants four to be trained to the end, the baseline apart."""
    board = board_of(ASHA, wanted=4, concurrent=2)
    train(board, 0, *[0.1] * 27, seconds=3)
    board.ended(0, "finished")
    for number in (1, 2):
        train(board, number, *[0.1] * 9, seconds=3)
        board.ended(number, "waiting")
    train(board, 3, *[0.1] * 3, seconds=3)
    board.ended(3, "pruned")
    assert eta(board) == pytest.approx(3 * (18 + 18) / 2)
    board.ended(2, "pruned")
    assert eta(board) == pytest.approx(3 * 18)


def test_eta_learns_from_what_trials_really_took() -> None:
    board = board_of(ASHA, wanted=16)
    for number in range(15):
        train(board, number, *[0.1] * 27, seconds=1)
        board.ended(number, "finished")
    # 7 epochs expected by the rule, with the weight of 5 trials; 15 took 27
    assert eta(board) == pytest.approx((5 * 7 + 15 * 27) / 20)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0 s"), (45.4, "45 s"), (59.7, "1 min"), (3569, "59 min"), (12_000, "3 h 20 min"), (187_200, "2 d 4 h")],
)
def test_duration(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_spark() -> None:
    assert spark([]) == ""
    assert spark([0.5]) == "▁"
    assert spark([0.0, 0.5, 1.0]) == "▁▅█"


def test_params_text() -> None:
    assert params_text({"lr0": 0.00051234, "codec": "simcc", "freeze": 2}) == "lr0=0.000512 codec=simcc freeze=2"


def test_epoch_line_without_and_with_a_value() -> None:
    board = board_of()
    board.started(7, {"epochs": 60})
    board.epoch(7, {"epoch": 1})
    assert epoch_line(board, 7) == "trial 7: epoch 1/60"
    board.epoch(7, {"epoch": 2, "val/AP": 0.5301})
    board.epoch(7, {"epoch": 3, "val/AP": 0.512})
    assert epoch_line(board, 7) == "trial 7: epoch 3/60, val/AP 0.512 (best 0.530)"


class Told:
    """A progress that prints into memory, at a time that the test sets."""

    def __init__(self, terminal: bool = False, height: int = 30) -> None:
        self.out = io.StringIO()
        self.now = 0.0
        self.console = Console(file=self.out, force_terminal=terminal, width=120, height=height)
        self.progress = Progress(board_of(ASHA, wanted=3), self.console, clock=lambda: self.now)

    def lines(self) -> list[str]:
        return self.out.getvalue().splitlines()


def test_piped_it_says_little_in_plain_lines() -> None:
    told = Told()
    reason = "stopped at epoch 9: val/AP 0.312 is below 0.418, the best third of the 7 trials that came this far"
    with told.progress as progress:
        progress.started(2, {"lr0": 5e-4, "aug": "[a]"})
        for epoch in range(1, 10):
            told.now += 4.0
            progress.epoch(2, {"epoch": epoch, "val/AP": epoch / 100})
        progress.ended(2, "pruned", reason)
        progress.ended(2, "waiting", "waits at epoch 9: only 2 trials came this far, and one in 3 goes on")
        progress.board.started(1, {})  # what it did before this run of the sweep
        progress.board.epoch(1, {"epoch": 1, "val/AP": 0.5})
        progress.started(1, {"lr0": 1e-3})
    assert told.lines() == [
        "trial 2: starts  lr0=0.0005 aug=[a]",
        "trial 2: epoch 1/27, val/AP 0.010 (best 0.010)",
        "trial 2: epoch 4/27, val/AP 0.040 (best 0.040)",
        "trial 2: epoch 7/27, val/AP 0.070 (best 0.070)",
        f"trial 2: pruned after 9 epochs, best val/AP 0.090: {reason}",
        "horse26: 1 of 3 done, 0 running, best 0.090 (trial 2)",
        "trial 2: waits at epoch 9: only 2 trials came this far, and one in 3 goes on",
        "horse26: 0 of 3 done, 0 running, 1 waiting, best 0.090 (trial 2)",
        "trial 1: goes on after epoch 1  lr0=0.001",
        "horse26: 0 of 3 done, 1 running, 1 waiting, best 0.500 (trial 1)",
    ]


def test_on_a_terminal_it_is_a_table() -> None:
    told = Told(terminal=True)
    with told.progress as progress:
        progress.started(0, {"lr0": 5e-4})
        progress.epoch(0, {"epoch": 1, "val/AP": 0.25})
        progress.started(1, {"lr0": 1e-3})
        progress.ended(1, "failed", "RuntimeError: [CUDA] out of memory")
    text = told.out.getvalue()
    assert "horse26: 1 of 3 done, 1 running, 1 failed, best 0.250 (trial 0)" in text
    assert "RuntimeError: [CUDA] out of memory" in text, "brackets are text, not markup"
    assert "1/27" in text
    assert "starts" not in text


def test_a_low_terminal_shows_what_runs_and_the_best() -> None:
    board = board_of(wanted=50)
    for number in range(40):
        board.add(number, TrialView({}, state="running" if number in (3, 30) else "pruned", best=number % 7))
    assert shown(board, 5) == [3, 6, 30, 38, 39]
    assert table(board, 5).row_count == 5
    assert table(board, 100).row_count == 40
