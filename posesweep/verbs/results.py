"""The verbs that read sweep folders: report."""

import argparse
from pathlib import Path

from posesweep.verbs import Verbs, add_verb


def add(verbs: Verbs) -> None:
    """report."""
    report = add_verb(
        verbs,
        "report",
        run_report,
        "rank a sweep again and rebuild its report.html and best.yaml",
        "posesweep report runs/mice",
    )
    report.add_argument("folder", type=Path, help="a sweep folder, such as runs/demo")


def run_report(asked: argparse.Namespace) -> None:
    """Rank again and rebuild the report."""
    from posesweep.trainables.winner import conclude

    conclude(asked.folder)
