"""The view of a running sweep: a live table on a terminal, a few plain lines where the output is piped or logged.

Fed by events and by nothing else; it keeps what it was told in a `Board`, and every text is a pure function of a board.
"""

import math
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from posesweep.trainables.stopping import BASELINE, Early, rungs

Row = Mapping[str, Any]  # one line of metrics.jsonl

PLAIN_INTERVAL_S = 10.0
RECENT_EPOCHS = 12
EXPECTATION_TRIALS = 5  # what the rule leads us to expect weighs as much as this many trials that have ended
BARS = "▁▂▃▄▅▆▇█"
STYLES = {
    "running": "cyan",
    "waiting": "blue",
    "finished": "green",
    "pruned": "yellow",
    "diverged": "red",
    "failed": "bold red",
}


@dataclass
class TrialView:
    """What is known of one trial. `epoch` counts finished epochs; `best` is in the metric's own sign."""

    params: Mapping[str, Any]
    state: str = "running"
    epoch: int = 0
    value: float | None = None
    best: float | None = None
    recent: deque[float] = field(default_factory=lambda: deque(maxlen=RECENT_EPOCHS))
    reason: str | None = None
    told_s: float = -math.inf  # when a plain line last spoke of it


@dataclass
class Board:
    """All that the view shows. `trials_wanted` are all trials of the sweep, `concurrent` how many run at a time;
    `names` is what trials are called where their number does not say it. What is said of all trials together is counted
    as it is told, so that it takes no longer the more there are."""

    name: str
    trials_wanted: int
    concurrent: int
    rule: Early
    trials: dict[int, TrialView] = field(default_factory=dict)
    epochs_timed: int = 0
    seconds_timed: float = 0.0
    names: Mapping[int, str] = field(default_factory=dict)
    states: Counter[str] = field(default_factory=Counter)
    running: set[int] = field(default_factory=set)
    epochs_ended: int = 0  # trained by trials that do not run any more
    best: tuple[int, float] | None = None  # (number, value) of the best trial so far, the earlier of equals

    def called(self, number: int) -> str:
        """What a line calls a trial."""
        return self.names.get(number, f"trial {number}")

    def better(self, a: float, b: float) -> bool:
        """Whether `a` is better than `b`."""
        return a > b if self.rule.goal == "maximize" else a < b

    def add(self, number: int, trial: TrialView) -> None:
        """A trial as far as it is known."""
        self.trials[number] = trial
        self._count(number)
        self._compare(number)

    def started(self, number: int, params: Mapping[str, Any]) -> None:
        """A trial begins, or goes on after an interruption."""
        if number in self.trials:
            self.ended(number, "running")
        else:
            self.add(number, TrialView(params))

    def epoch(self, number: int, row: Row) -> None:
        """A trial finished an epoch; `row` may lack the metric and the times."""
        trial = self.trials[number]
        if int(row["epoch"]) <= trial.epoch:
            return  # told again by a trial that was resumed
        self._count(number, -1)
        trial.epoch = int(row["epoch"])
        self._count(number)
        if "train_s" in row:
            self.epochs_timed += 1
            self.seconds_timed += sum(row.get(part, 0.0) for part in ("train_s", "val_s", "save_s"))
        value = row.get(self.rule.metric)
        if value is None:
            return
        trial.value = float(value)
        trial.recent.append(trial.value)
        if trial.best is None or self.better(trial.value, trial.best):
            trial.best = trial.value
            self._compare(number)

    def ended(self, number: int, state: str, reason: str | None = None) -> None:
        """A trial finished, was pruned, diverged or failed, or waits."""
        self._count(number, -1)
        self.trials[number].state, self.trials[number].reason = state, reason
        self._count(number)

    def _count(self, number: int, times: int = 1) -> None:
        """Count a trial as it is, or with -1 no longer."""
        trial = self.trials[number]
        self.states[trial.state] += times
        if trial.state != "running":
            self.epochs_ended += times * trial.epoch
        elif times > 0:
            self.running.add(number)
        else:
            self.running.remove(number)

    def _compare(self, number: int) -> None:
        """Is it the best trial now?"""
        value = self.trials[number].best
        if value is None:
            return
        if self.best is None or self.better(value, self.best[1]) or (value == self.best[1] and number < self.best[0]):
            self.best = (number, value)


def status_line(board: Board) -> str:
    """'horse26: 12 done, 3 running, best 0.612 (trial 7), ETA 12 min'."""
    states = board.states
    done = len(board.trials) - states["running"] - states["waiting"]
    parts = [f"{done} of {board.trials_wanted} done", f"{states['running']} running"]
    parts += [f"{states[state]} {state}" for state in ("waiting", "diverged", "failed") if states[state]]
    best = board.best
    if best is not None:
        parts.append(f"best {best[1]:.3f} ({board.called(best[0])})")
    left_s = eta(board)
    if left_s is not None:
        parts.append(f"ETA {duration(left_s)}")
    return f"{board.name}: {', '.join(parts)}"


def eta(board: Board) -> float | None:
    """Seconds until the sweep is through: the epochs that are to be expected, at the mean pace so far.

    None before the first timed epoch. The last trials run with fewer at a time than there is room for: no less than
    the longest single trial is promised.
    """
    if not board.epochs_timed:
        return None
    left = [epochs_left(board.rule, board.trials[number].epoch, number) for number in sorted(board.running)]
    to_come = max(board.trials_wanted - len(board.trials), 0)
    if not to_come:
        left += _finalists_to_come(board)
    each = _epochs_of_a_trial(board) if to_come else 0.0
    pace_s = board.seconds_timed / board.epochs_timed
    return pace_s * max([(sum(left) + to_come * each) / max(board.concurrent, 1), each, *left])


def _finalists_to_come(board: Board) -> list[float]:
    """The epochs of those that wait at a rung and will be trained to the end because too few others were: as if each
    waited at the last one."""
    states, rule, baseline = board.states, board.rule, board.trials.get(BASELINE)
    under_way = states["finished"] + states["running"]
    if baseline is not None and baseline.state in ("finished", "running"):
        under_way -= 1
    count = min(rule.finalists - under_way, states["waiting"])
    return [rule.max_epochs - rungs(rule)[-1]] * count if count > 0 else []


def epochs_left(rule: Early, epoch: int, number: int | None = None) -> float:
    """The epochs a trial that has done `epoch` is expected to train on, when one in eta survives each rung."""
    marks = [] if number == BASELINE else [rung for rung in rungs(rule) if rung > epoch]
    expected, survives, at = 0.0, 1.0, float(epoch)
    for mark in [*marks, rule.max_epochs]:
        expected += survives * (mark - at)
        survives, at = survives / rule.eta, mark
    return max(expected, 0.0)


def _epochs_of_a_trial(board: Board) -> float:
    """What a new trial costs, in epochs: the rule's expectation, and more and more what ended trials really took."""
    ended = len(board.trials) - len(board.running)
    return (epochs_left(board.rule, 0) * EXPECTATION_TRIALS + board.epochs_ended) / (EXPECTATION_TRIALS + ended)


def duration(seconds: float) -> str:
    """'45 s', '12 min', '3 h 20 min', '2 d 4 h'."""
    if seconds < 59.5:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    if minutes < 48 * 60:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{minutes // (24 * 60)} d {minutes % (24 * 60) // 60} h"


def spark(values: Iterable[float]) -> str:
    """The course of a few values as bars, the lowest of them the shortest."""
    values = list(values)
    if not values:
        return ""
    low, span = min(values), max(values) - min(values)
    return "".join(BARS[round((value - low) / span * (len(BARS) - 1)) if span else 0] for value in values)


def params_text(params: Mapping[str, Any]) -> str:
    """'lr0=0.000512 codec=simcc'; floats with three digits."""
    return " ".join(
        f"{name}={value:.3g}" if isinstance(value, float) else f"{name}={value}" for name, value in params.items()
    )


def epoch_line(board: Board, number: int) -> str:
    """'trial 7: epoch 12/60, val/AP 0.512 (best 0.530)'."""
    trial = board.trials[number]
    value = "" if trial.value is None else f", {board.rule.metric} {trial.value:.3f} (best {trial.best:.3f})"
    return f"{board.called(number)}: epoch {trial.epoch}/{_epochs(board, trial)}{value}"


def end_line(board: Board, number: int) -> str:
    """'trial 7: pruned after 9 epochs, best val/AP 0.312: <reason>', 'trial 7: waits at epoch 3: <reason>'."""
    trial = board.trials[number]
    if trial.state == "waiting":
        return f"{board.called(number)}: {trial.reason}"
    epochs = "1 epoch" if trial.epoch == 1 else f"{trial.epoch} epochs"
    best = "" if trial.best is None else f", best {board.rule.metric} {trial.best:.3f}"
    state = "interrupted" if trial.state == "running" else trial.state
    return f"{board.called(number)}: {state} after {epochs}{best}{f': {trial.reason}' if trial.reason else ''}"


def shown(board: Board, rows: int) -> list[int]:
    """The trials for a table of `rows` lines: the running ones, the best, then the latest; in order of number."""
    trials = board.trials
    best = board.best
    latest = sorted(trials, reverse=True)
    wanted = dict.fromkeys([*sorted(board.running), *([best[0]] if best else []), *latest])
    return sorted(list(wanted)[:rows])


def table(board: Board, rows: int) -> Table:
    """The live table."""
    view = Table(box=None, pad_edge=False, expand=True)
    for title in ("trial", "state", "epoch", board.rule.metric, "best"):
        view.add_column(title, no_wrap=True, justify="left" if title == "state" else "right")
    view.add_column("recent", no_wrap=True, width=RECENT_EPOCHS)
    view.add_column("why it ended, or what it tries", no_wrap=True, overflow="ellipsis", ratio=1)
    best = board.best
    for number in shown(board, rows):
        trial = board.trials[number]
        view.add_row(
            board.called(number).removeprefix("trial "),
            Text(trial.state, STYLES.get(trial.state, "")),
            f"{trial.epoch}/{_epochs(board, trial)}",
            "" if trial.value is None else f"{trial.value:.3f}",
            "" if trial.best is None else f"{trial.best:.3f}",
            spark(trial.recent),
            Text(trial.reason or params_text(trial.params)),
            style="bold" if best and best[0] == number else "",
        )
    return view


def _epochs(board: Board, trial: TrialView) -> int:
    return int(trial.params.get("epochs", board.rule.max_epochs))


class Progress:
    """Shows a running sweep; use as a context manager. On a terminal a live table, else plain lines: one when a trial
    starts, one when it ends, and for its epochs at most one every ten seconds."""

    def __init__(
        self, board: Board, console: Console | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.board = board
        self._console = console or Console()
        self._clock = clock
        self._live: Live | None = None

    def __enter__(self) -> "Progress":
        if self._console.is_terminal:
            self._live = Live(get_renderable=self._render, console=self._console, refresh_per_second=2)
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()
        else:
            self._say(status_line(self.board))

    def started(self, number: int, params: Mapping[str, Any]) -> None:
        """A trial begins or goes on."""
        self.board.started(number, params)
        begun = self.board.trials[number].epoch
        how = f"goes on after epoch {begun}" if begun else "starts"
        self._say(f"{self.board.called(number)}: {how}  {params_text(params)}".rstrip())

    def epoch(self, number: int, row: Row) -> None:
        """A trial finished an epoch."""
        self.board.epoch(number, row)
        trial, now = self.board.trials[number], self._clock()
        if now - trial.told_s >= PLAIN_INTERVAL_S:
            trial.told_s = now
            self._say(epoch_line(self.board, number))

    def retried(self, number: int, reason: str) -> None:
        """A trial failed, and will be tried again."""
        self._say(f"{self.board.called(number)}: {reason}")

    def ended(self, number: int, state: str, reason: str | None = None) -> None:
        """A trial finished, was pruned, diverged or failed, or waits."""
        self.board.ended(number, state, reason)
        if self._live is None:
            self._say(end_line(self.board, number))
            self._say(status_line(self.board))

    def _say(self, line: str) -> None:
        if self._live is None:
            self._console.print(line, markup=False, highlight=False, soft_wrap=True)

    def _render(self) -> Group:
        rows = max(self._console.height - 4, 3)
        return Group(Text(status_line(self.board), style="bold"), table(self.board, rows))
