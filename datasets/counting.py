"""The progress bar of long work on images: what is done, how many there are, how long it will take."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

Count = Callable[[int, int], None]  # done, of how many


def bar(console: Console | None = None) -> Progress:
    """A bar on the console (None: standard error) which goes when the work is done; none where nobody looks."""
    console = console or Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)


@contextmanager
def counting(what: str) -> Iterator[Count]:
    """Yields what to call with the work done and the whole; the bar begins with its first call."""
    with bar() as shown:
        tasks: list = []

        def count(done: int, total: int) -> None:
            if not tasks or done < shown.tasks[-1].completed:  # the next piece of work under the same name
                tasks.append(shown.add_task(what, total=total))
            shown.update(tasks[-1], completed=done, total=total)

        yield count
