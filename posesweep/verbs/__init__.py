"""The verbs of the command line, a file for each kind; each has `add(verbs)`.

Only what a verb needs is imported, inside its function: `--help` answers at once.
"""

import argparse
from collections.abc import Callable
from typing import TypeAlias

Run = Callable[[argparse.Namespace], int | None]  # the exit code, where a verb has more than one
Verbs: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def add_verb(verbs: Verbs, name: str, run: Run, text: str, examples: str) -> argparse.ArgumentParser:
    """A verb whose help says `text` and shows `examples`, one command a line."""
    lines = "".join(f"\n  {line.strip()}" for line in examples.strip().splitlines())
    verb = verbs.add_parser(
        name,
        help=text,
        description=text[0].upper() + text[1:] + ".",
        epilog=f"example{'s' if lines.count(chr(10)) > 1 else ''}:{lines}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verb.set_defaults(run=run, verb=name)
    return verb


def add_settings(verb: argparse.ArgumentParser) -> None:
    """`key=value` after the verb's own arguments."""
    verb.add_argument("settings", nargs="*", metavar="key=value", help="settings that replace those of the file")


def count(text: str) -> int:
    """A whole number above 0."""
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"'{text}' must be a whole number above 0")
    return int(text)


def share(text: str) -> float:
    """A number from 0 to 1."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"'{text}' must be a number from 0 to 1")
    return value
