"""Mistakes found in one file, raised together: a user should not have to start ten times to see ten of them."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from posesweep.errors import DataError

SHOWN = 10


class Mistakes:
    """Collects sentences about `file`; `raise_any` raises a DataError with the first ten and the count."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.sentences: list[str] = []

    @contextmanager
    def collected(self, what: str = "") -> Iterator[None]:
        """A DataError raised inside is remembered as a mistake of `what`, and the work goes on after the block."""
        try:
            yield
        except DataError as mistake:
            self.add(f"{what}: {mistake}" if what else str(mistake))

    def add(self, sentence: str) -> None:
        """Remember one sentence."""
        self.sentences.append(sentence)

    def raise_any(self) -> None:
        """Raise DataError if anything was added."""
        count = len(self.sentences)
        if count == 1:
            raise DataError(f"{self.file}: {self.sentences[0]}")
        if count > 1:
            which = f"{count} mistakes, the first {SHOWN}" if count > SHOWN else f"{count} mistakes"
            raise DataError("\n  ".join([f"{self.file}: {which}", *self.sentences[:SHOWN]]))
