"""The verbs that read sweep folders: report, compare."""

import argparse
from pathlib import Path

from posesweep.verbs import Verbs, add_verb


def add(verbs: Verbs) -> None:
    """report, compare."""
    report = add_verb(
        verbs,
        "report",
        run_report,
        "rank a sweep again and rebuild its report.html and best.yaml",
        "posesweep report runs/mice",
    )
    report.add_argument("folder", type=Path, help="a sweep folder, such as runs/demo")

    compare = add_verb(
        verbs,
        "compare",
        run_compare,
        "set sweeps beside each other: winners on the same images, settings that differ",
        "posesweep compare runs/before runs/after",
    )
    compare.add_argument("folders", type=Path, nargs="+", metavar="RUN", help="two or more sweep folders")
    compare.add_argument("--out", type=Path, help="the page to write (default: compare.html beside the first folder)")


def run_report(asked: argparse.Namespace) -> None:
    """Rank again and rebuild the report."""
    from posesweep.trainables.winner import conclude

    conclude(asked.folder)


def run_compare(asked: argparse.Namespace) -> None:
    """Print the winners beside each other and write the page."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from posesweep.analysis.compare import verdict
    from posesweep.analysis.comparison import COLUMNS, compare_folders, comparison_rows

    compared, path = compare_folders(asked.folders, asked.out)
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for name in COLUMNS:
        table.add_column(name, overflow="fold", justify="left" if name == "run" else "right")
    for row in comparison_rows(compared):
        table.add_row(*map(escape, row))
    console = Console() if Console().is_terminal else Console(width=140)
    console.print(table)
    for one in compared.contenders[1:]:
        console.print(f"{one.run.label}: {verdict(one, compared.contenders[0])}", markup=False)
    for note in compared.notes:
        console.print(f"note: {note}", markup=False)
    console.print(f"page: {path}", markup=False)
