"""The errors a user can cause, each one plain sentence: what, where, the rule, the way out.

`PoseSweepError` is the root: the command line prints its text without a traceback and ends with exit code 2.
Anything else that escapes is our own bug and keeps its traceback.
"""

from collections.abc import Iterable
from difflib import get_close_matches


class PoseSweepError(Exception):
    """Something the user can put right; its text is one sentence, or one line per mistake."""


class ConfigError(PoseSweepError):
    """Mistakes in a sweep file or a training config, all of them at once, one line each."""

    def __init__(self, mistakes: str | Iterable[str], where: str = "") -> None:
        self.mistakes = [mistakes] if isinstance(mistakes, str) else list(mistakes)
        lines = self.mistakes
        if where:
            count = "1 mistake" if len(lines) == 1 else f"{len(lines)} mistakes"
            lines = [f"{where}: {count}", *(f"  {line}" for line in lines)]
        super().__init__("\n".join(lines))


class DataError(PoseSweepError):
    """Annotations or images that cannot be used as they are; names the file and the id."""


class SweepError(PoseSweepError):
    """A sweep folder that cannot be used as asked: in use, of another sweep, unfinished, empty."""


class StorageError(SweepError):
    """The disk of a sweep cannot be written: full, read-only, gone. No trial is to blame, and the sweep stops."""


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name most like `name`, or None when nothing is close."""
    matches = get_close_matches(str(name), [str(k) for k in known], n=1, cutoff=0.55)
    return matches[0] if matches else None


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """'; did you mean X?' for the nearest known name, else '; known: a, b, c'."""
    known = sorted(str(k) for k in known)
    best = nearest(name, known)
    return f"; did you mean '{best}'?" if best else f"; known: {', '.join(known)}"
