"""Progress with its pace: a bar on a terminal, a line every ten seconds where the output is piped or logged."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

PLAIN_INTERVAL_S = 10.0


@dataclass
class Pace:
    """Counts things done; `total` may be an estimate, and is raised when more are done."""

    what: str
    total: int
    bar: Progress
    task: TaskID
    console: Console
    started_s: float = field(default_factory=time.monotonic)
    said_s: float = field(default_factory=time.monotonic)
    done: int = 0

    def step(self, number: int = 1) -> None:
        """So many more are done."""
        self.done += number
        self.total = max(self.total, self.done)
        rate = f"{self.per_second():.1f}/s"
        self.bar.update(self.task, completed=self.done, total=self.total, rate=rate)
        if self.bar.disable and time.monotonic() - self.said_s >= PLAIN_INTERVAL_S:
            self.said_s = time.monotonic()
            self.console.print(plain(self.what, self.done, self.total, self.per_second()), highlight=False)

    def per_second(self) -> float:
        """Things done a second, so far."""
        return self.done / max(1e-9, time.monotonic() - self.started_s)


def plain(what: str, done: int, total: int, per_second: float) -> str:
    """'pictures: 120 of 400, 12.3/s, 23 s left'."""
    left_s = (total - done) / per_second if per_second > 0 else 0.0
    left = f"{left_s:.0f} s" if left_s < 120 else f"{left_s / 60:.0f} min"
    return f"{what}: {done} of {total}, {per_second:.1f}/s, {left} left"


@contextmanager
def pace(what: str, total: int, console: Console | None = None) -> Iterator[Pace]:
    """Yields what counts; written to the console, by default standard error."""
    console = console or Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"))
    with Progress(
        *columns, TimeRemainingColumn(), console=console, transient=True, disable=not console.is_terminal
    ) as bar:
        yield Pace(what, total, bar, bar.add_task(what, total=total, rate=""), console)
