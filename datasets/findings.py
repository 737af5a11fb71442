"""What a check of data found, in words; and what to do about each kind."""

import csv
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass, fields
from io import StringIO
from pathlib import Path
from typing import Literal

from rich.table import Table

from posesweep.files import write_text

Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")

KINDS = {  # in the order they are told, with what to do
    "missing image": "put the files back, or take their entries out",
    "unreadable image": "replace the files, or take their entries out",
    "duplicate image": "keep one copy, with one set of annotations",
    "near-duplicate images": "keep them on one side: split: auto does; within one side they add little",
    "neighbouring frames apart": "keep each video on one side, or let split: auto cut it with a gap",
    "group on both sides": "keep each video or individual on one side: group_by",
    "unusable label": "correct the numbers; training refuses them",
    "box outside the image": "draw the box again, in the pixels of this image",
    "keypoint outside the image": "move the keypoint, or label it not visible (0)",
    "keypoint far from its box": "it may belong to another animal: look at the box and at the keypoint",
    "improbable limb": "look whether the keypoint is where it belongs",
    "left and right swapped": "exchange the labels where the picture says so",
    "visibility": "0 means not labelled, 1 labelled but hidden, 2 visible",
    "empty annotation": "label it or take it out; it is not trained on",
    "rare keypoint": "label it more often, or take it out of the skeleton",
    "rare category": "collect more of it, or leave it out with data.categories",
}


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong (error), looks wrong (warning) or is worth knowing (note)."""

    kind: str  # a key of KINDS
    severity: Severity
    text: str  # one sentence
    image: str = ""  # its file
    side: str = ""  # train, val, or "" where there is one side only
    annotation: int | None = None  # its id
    keypoint: str = ""
    score: float | None = None  # the larger the worse; of what, the sentence says
    other_image: str = ""  # what `image` is like


def in_order(findings: Iterable[Finding]) -> list[Finding]:
    """By kind as in KINDS, then errors first, the worst score first, and by image and annotation."""
    kinds = {kind: number for number, kind in enumerate(KINDS)}
    return sorted(
        findings,
        key=lambda one: (
            kinds[one.kind],
            SEVERITIES.index(one.severity),
            -(one.score or 0.0),
            one.image,
            one.annotation or 0,
            one.text,
        ),
    )


def exit_code(findings: Iterable[Finding]) -> int:
    """1 where there is an error, else 0."""
    return int(any(one.severity == "error" for one in findings))


def verdict(findings: Sequence[Finding], objects: int, images: int) -> str:
    """The outcome in one sentence."""
    counts = Counter(one.severity for one in findings)
    of = f"{objects} annotations on {images} images"
    if counts["error"]:
        return (
            f"{of}: {_many(counts['error'], 'error')} and {_many(counts['warning'], 'warning')}; mend the errors first"
        )
    if counts["warning"]:
        return f"{of}: no errors, {_many(counts['warning'], 'warning')}; it can be trained on, but look at them"
    return f"{of}: nothing wrong was found"


def by_kind(findings: Iterable[Finding]) -> list[tuple[str, Severity, int, str]]:
    """(kind, severity, count, what to do), in the order of `in_order`."""
    counts = Counter((one.kind, one.severity) for one in in_order(findings))
    return [(kind, severity, count, KINDS[kind]) for (kind, severity), count in counts.items()]


def as_table(findings: Iterable[Finding]) -> Table:
    """The counts for the terminal."""
    table = Table("found", "count", "", "what to do", box=None, pad_edge=False)
    table.columns[1].justify = "right"
    colours = {"error": "red", "warning": "yellow", "note": "dim"}
    for kind, severity, count, advice in by_kind(findings):
        table.add_row(kind, str(count), f"[{colours[severity]}]{severity}[/]", advice)
    return table


def write_csv(path: Path, findings: Iterable[Finding]) -> None:
    """Every finding as a row."""
    text = StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(field.name for field in fields(Finding))
    for one in in_order(findings):
        writer.writerow(["" if value is None else value for value in astuple(one)])
    write_text(path, text.getvalue())


def _many(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"
