"""Findings in order, in words, as rows, and as an exit code."""

import csv

import pytest
from rich.console import Console

from posesweep.datasets.findings import KINDS, Finding, as_table, by_kind, exit_code, in_order, verdict, write_csv

LIMB = Finding("improbable limb", "warning", "too long", "a.png", "train", 7, "snout", 1.5)
WORSE = Finding("improbable limb", "warning", "far too long", "b.png", "train", 8, "snout", 2.5)
GONE = Finding("missing image", "error", "is not there", "c,d.png")
NOTE = Finding("visibility", "note", "nothing is hidden")


def test_worst_first_within_a_kind():
    assert in_order([NOTE, LIMB, WORSE, GONE]) == [GONE, WORSE, LIMB, NOTE]


def test_counts_come_with_advice():
    assert by_kind([LIMB, GONE, WORSE]) == [
        ("missing image", "error", 1, KINDS["missing image"]),
        ("improbable limb", "warning", 2, KINDS["improbable limb"]),
    ]


@pytest.mark.parametrize(
    ("findings", "code", "sentence"),
    [
        ([], 0, "9 annotations on 5 images: nothing wrong was found"),
        ([NOTE], 0, "9 annotations on 5 images: nothing wrong was found"),
        ([LIMB], 0, "9 annotations on 5 images: no errors, 1 warning; it can be trained on, but look at them"),
        ([LIMB, WORSE, GONE], 1, "9 annotations on 5 images: 1 error and 2 warnings; mend the errors first"),
    ],
)
def test_the_verdict_and_the_exit_code(findings, code, sentence):
    assert exit_code(findings) == code
    assert verdict(findings, 9, 5) == sentence


def test_every_finding_is_a_row(tmp_path):
    write_csv(tmp_path / "check.csv", [LIMB, GONE])
    with (tmp_path / "check.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["kind"] for row in rows] == ["missing image", "improbable limb"]
    assert rows[0]["image"] == "c,d.png"
    assert (rows[0]["annotation"], rows[1]["annotation"], rows[1]["score"]) == ("", "7", "1.5")


def test_the_table_of_the_terminal():
    console = Console(width=200)
    with console.capture() as shown:
        console.print(as_table([LIMB, WORSE, GONE]))
    lines = shown.get().splitlines()
    assert lines[1].split()[:4] == ["missing", "image", "1", "error"]
    assert lines[2].split()[:4] == ["improbable", "limb", "2", "warning"]
