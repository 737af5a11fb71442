"""The command line: `posesweep VERB`, `python -m posesweep VERB`, and run_sweep.py (the verb `sweep`).

Only what a verb needs is imported, inside its function: `--help` answers at once.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from posesweep import __version__
from posesweep.errors import PoseSweepError

if TYPE_CHECKING:
    from posesweep.search_spaces.space import Sweep

EXAMPLES = """examples:
  python run_sweep.py                                  the demo: synthetic horses, minutes on a CPU
  python run_sweep.py sweep.yaml                       start a sweep, or go on with it
  python run_sweep.py sweep.yaml search.trials=20      with a setting changed
  python run_sweep.py sweep.yaml --debug               one short trial here, without Ray; breakpoints work
  python run_sweep.py sweep.yaml --extend 20           20 more trials on a sweep
  posesweep report runs/horse26                        rank it again and rebuild report.html
  posesweep export runs/horse26 winner/                best.yaml, weights and skeleton of the winner
  posesweep train runs/horse26/best.yaml --out runs/again
  posesweep eval runs/horse26                          score the winner's weights again
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; returns the exit code: 0 done, 2 something for the user to put right, 130 interrupted."""
    asked = _parse(arguments)
    try:
        asked.run(asked)
    except PoseSweepError as error:
        print(f"posesweep: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("posesweep: interrupted; nothing is lost, the same command goes on", file=sys.stderr)
        return 130
    return 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The arguments; settings (key=value) may also stand after options."""
    top = parser()
    asked, rest = top.parse_known_args(arguments)
    if rest and (not hasattr(asked, "settings") or any(r.startswith("-") or "=" not in r for r in rest)):
        top.error(f"unrecognized arguments: {' '.join(rest)}")
    if rest:
        asked.settings = [*asked.settings, *rest]
    return asked


def _count(text: str) -> int:
    """A whole number above 0."""
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"'{text}' must be a whole number above 0")
    return int(text)


def parser() -> argparse.ArgumentParser:
    """Every verb and option."""
    top = argparse.ArgumentParser(
        prog="posesweep",
        description="Finds the best keypoint model for your own data.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="version", version=f"posesweep {__version__}")
    verbs = top.add_subparsers(required=True, metavar="VERB")

    sweep = _verb(verbs, "sweep", run_sweep, "search, train and rank; the same command resumes")
    sweep.add_argument("file", nargs="?", help="a sweep file; without one, the demo on synthetic horses")
    sweep.add_argument("settings", nargs="*", metavar="key=value", help="settings that replace those of the file")
    sweep.add_argument("--runs", type=Path, default=Path("runs"), help="where sweep folders are kept (default: runs)")
    sweep.add_argument("--debug", action="store_true", help="one short trial in this process, no Ray, little data")
    sweep.add_argument(
        "--extend", type=_count, default=0, metavar="N", help="N more trials on a sweep that was started"
    )

    report = _verb(verbs, "report", run_report, "rank a sweep again and rebuild its report.html and best.yaml")
    report.add_argument("folder", type=Path, help="a sweep folder, such as runs/demo")

    export = _verb(verbs, "export", run_export, "copy the winner out: config, weights, skeleton, ONNX")
    export.add_argument("folder", type=Path, help="a sweep folder")
    export.add_argument("out", type=Path, help="where to put it")
    export.add_argument("--trial", type=int, help="another trial than the winner")
    export.add_argument("--onnx", action="store_true", help="also model.onnx (pip install '.[export]')")

    train = _verb(verbs, "train", run_train, "train one config, such as best.yaml, in this process")
    train.add_argument("config", type=Path, help="best.yaml, or any trial's config.yaml")
    train.add_argument("settings", nargs="*", metavar="key=value", help="settings that replace those of the file")
    train.add_argument("--out", type=Path, required=True, help="the folder of this training; repeated, it resumes")

    evaluate = _verb(verbs, "eval", run_eval, "score weights on a validation set")
    evaluate.add_argument("folder", type=Path, help="a sweep folder, or the folder of one trial or training")
    evaluate.add_argument("--data", type=Path, help="another COCO file than the validation split")
    evaluate.add_argument("--images", type=Path, help="the images of --data")
    return top


Run = Callable[[argparse.Namespace], None]


def _verb(
    verbs: "argparse._SubParsersAction[argparse.ArgumentParser]", name: str, run: Run, text: str
) -> argparse.ArgumentParser:
    verb = verbs.add_parser(
        name,
        help=text,
        description=text[0].upper() + text[1:] + ".",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verb.set_defaults(run=run)
    return verb


def run_sweep(asked: argparse.Namespace) -> None:
    """Start or resume a sweep; ends with the ranked table, best.yaml and report.html."""
    sweep = _read_sweep(asked.file, asked.settings)
    folder = asked.runs / sweep.name
    if asked.debug:
        from posesweep.trainables.debug import run_debug

        run_debug(sweep, folder.with_name(f".{folder.name}-debug"))  # no sweep can have this name
        return
    from posesweep.trainables import sweep as sweeping

    sweeping.run_sweep(sweep, folder, asked.extend)


def _read_sweep(file: str | None, settings: list[str]) -> "Sweep":
    from posesweep.search_spaces.space import read_sweep
    from posesweep.trainables.tasks import check_values, defaults_of

    if file is not None and "=" in file:  # run_sweep.py key=value: the demo with a setting changed
        settings = [file, *settings]
        file = None
    sweep = read_sweep(Path(file) if file else None, settings, check_values, defaults_of)
    for note in sweep.notes:
        print(f"note: {note}")
    return sweep


def run_report(asked: argparse.Namespace) -> None:
    """Rank again and rebuild the report."""
    from posesweep.trainables.winner import conclude

    conclude(asked.folder)


def run_export(asked: argparse.Namespace) -> None:
    """Copy the winner, or another trial, into a folder of its own."""
    from posesweep.trainables.winner import export

    export(asked.folder, asked.out, asked.trial, asked.onnx)


def run_train(asked: argparse.Namespace) -> None:
    """Train one config here."""
    from posesweep.trainables.winner import train_alone

    train_alone(asked.config, asked.settings, asked.out)


def run_eval(asked: argparse.Namespace) -> None:
    """Score a folder's best weights."""
    from posesweep.trainables.winner import evaluate

    evaluate(asked.folder, asked.data, asked.images)
