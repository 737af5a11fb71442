"""The verbs for a sweep that runs, here or on another machine that writes to the same folder: status, stop."""

import argparse
from pathlib import Path

from posesweep.verbs import Verbs, add_verb

LOOK_EVERY_S = 2.0


def add(verbs: Verbs) -> None:
    """status, stop."""
    status = add_verb(
        verbs,
        "status",
        run_status,
        "how a sweep stands: trials, best, ETA, and whether anyone is at work on it",
        "posesweep status runs/mice\nposesweep status runs/mice --watch",
    )
    status.add_argument("folder", type=Path, help="a sweep folder, such as runs/mice, on any machine that sees it")
    status.add_argument("--watch", action="store_true", help="look again every two seconds, until nobody is at work")

    stop = add_verb(
        verbs,
        "stop",
        run_stop,
        "let a sweep finish its running epochs and stop; its command goes on later",
        "posesweep stop runs/mice --wait",
    )
    stop.add_argument("folder", type=Path, help="a sweep folder, such as runs/mice, on any machine that sees it")
    stop.add_argument("--wait", action="store_true", help="return only when it has stopped")


def run_status(asked: argparse.Namespace) -> None:
    """Print how a sweep stands."""
    from posesweep.trainables.overview import overview, overview_text

    if asked.watch:
        _watch(asked.folder)
    else:
        print(overview_text(overview(asked.folder)))


def _watch(folder: Path) -> None:
    """On a terminal the text is kept up to date in its place; elsewhere it is printed whenever it has changed."""
    import time

    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    from posesweep.trainables.overview import moment, overview, overview_text

    console = Console()
    before = ""
    with Live(console=console, auto_refresh=False, transient=False) as live:
        while True:
            seen = overview(folder)
            text = overview_text(seen)
            if console.is_terminal:
                live.update(Text(f"{moment()}\n{text}"), refresh=True)
            elif text.splitlines()[0] != before:
                before = text.splitlines()[0]
                print(text, flush=True)
            if not seen.driver:
                return
            time.sleep(LOOK_EVERY_S)


def run_stop(asked: argparse.Namespace) -> None:
    """Ask for the end of a sweep."""
    import time

    from posesweep.trainables.housekeeping import ask_to_stop, is_driven

    who = ask_to_stop(asked.folder)
    print(
        f"{asked.folder}: process {who.get('pid')} on {who.get('host')} is asked to stop after the running epochs; "
        f"`posesweep status {asked.folder}` shows how far it is",
        flush=True,
    )
    while asked.wait and is_driven(asked.folder):
        time.sleep(LOOK_EVERY_S / 4)
