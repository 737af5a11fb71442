"""The command line: `posesweep VERB`, `python -m posesweep VERB`, and run_sweep.py (the verb `sweep`).

Only what a verb needs is imported, inside its function: `--help` answers at once.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from posesweep import __version__
from posesweep.errors import PoseSweepError

if TYPE_CHECKING:
    from posesweep.search_spaces.space import Sweep

Run = Callable[[argparse.Namespace], int | None]  # the exit code, where a verb has more than one
Verbs: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"

EXAMPLES = """examples:
  posesweep init data/                                 look at your data and write sweep.yaml
  posesweep check sweep.yaml                           faults in labels and images, with pictures
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
OWN_EXAMPLES = {  # of a verb that the list above says too little of
    "fit": "posesweep fit sweep.yaml model=hrnet_w48",
    "weights": "posesweep weights td-hm_hrnet-w32_coco.pth",
    "init": "posesweep init data/ --minutes 30",
    "check": "posesweep check data/train.json --val data/val.json --images data/images",
    "convert": "posesweep convert CollectedData_me.csv coco/\n  posesweep convert data.yaml csv/ --to csv",
    "show": "posesweep show data/train.json --images data/images --augment aggressive",
    "sigmas": "posesweep sigmas anna.json ben.json --out skeleton.yaml",
    "synth": "posesweep synth horses/ --n 1000 --keypoints 68",
    "clean": "posesweep clean --older-than 7",
}
RESUMES = ("sweep", "train")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; returns the exit code: 0 done, 1 faults found, 2 for the user to put right, 130 interrupted."""
    asked = _parse(arguments)
    try:
        return asked.run(asked) or 0
    except PoseSweepError as error:
        print(f"posesweep: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        kept = "nothing is lost, the same command goes on" if asked.verb in RESUMES else "nothing half-written is left"
        print(f"posesweep: interrupted; {kept}", file=sys.stderr)
        return 130
    except OSError as error:
        if error.filename is None:
            raise
        print(f"posesweep: {error.filename}: {error.strerror}; look at the path and its permissions", file=sys.stderr)
        return 2


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
    evaluate.add_argument("--data", type=Path, help="other annotations than the validation split")
    evaluate.add_argument("--images", type=Path, help="the images of --data")

    fit = _verb(verbs, "fit", run_fit, "find the largest batch that fits into memory; changes nothing")
    fit.add_argument("config", type=Path, help="best.yaml, a trial's config.yaml, or a sweep file (its baseline)")
    fit.add_argument("settings", nargs="*", metavar="key=value", help="settings that replace those of the file")
    fit.add_argument("--fraction", type=float, default=0.9, help="share of the memory that may be used (default: 0.9)")

    weights = _verb(verbs, "weights", run_weights, "what a checkpoint holds, and which of our networks it fits")
    weights.add_argument("file", type=Path, help="a .safetensors, .pth or .pt file")
    _add_data_verbs(verbs)
    return top


def _add_data_verbs(verbs: Verbs) -> None:
    """The verbs that look at annotations and images, and need no sweep."""
    start = _verb(verbs, "init", run_init, "look at annotations and write a commented sweep file that runs")
    start.add_argument("data", type=Path, help="annotations in any format that is read, their folder or project")
    start.add_argument("--out", type=Path, default=Path("sweep.yaml"), help="the file to write (default: sweep.yaml)")
    start.add_argument("--images", type=Path, help="the folder of the images; found without it where it can be")
    start.add_argument("--name", help="of the sweep (default: after the data)")
    start.add_argument("--minutes", type=float, help="how long it may take (default: 10 on a CPU, 240 on a GPU)")

    check = _verb(verbs, "check", run_check, "look for faults in annotations and images, and for leaks into validation")
    check.add_argument("data", type=Path, help="annotations in any format that is read, their folder, or a sweep file")
    check.add_argument("--val", type=Path, help="the validation annotations, to look for leaks")
    check.add_argument("--images", type=Path, help="the folder of the images")
    check.add_argument("--skeleton", help="a shipped skeleton's name or a YAML file")
    check.add_argument("--group-by", help="a pattern with one group on file names, a key of the images, or identity")
    check.add_argument("--split", choices=("random", "stratified", "auto"), help="check the split a sweep would make")
    check.add_argument("--folds", type=_count, help="with --split: validation is one of so many parts")
    check.add_argument("--fold", type=int, help="which one, from 0 on (default: 0)")
    check.add_argument("--out", type=Path, default=Path("check"), help="where the page goes (default: check)")

    convert = _verb(verbs, "convert", run_convert, "annotations in any format -> COCO, YOLO-pose or CSV")
    convert.add_argument(
        "source",
        type=Path,
        help="COCO, YOLO-pose, DeepLabCut, CSV, Parquet, LabelMe, CVAT or SLEAP: a file or a folder",
    )
    convert.add_argument("out", type=Path, help="the folder to make; nothing is written over")
    convert.add_argument("--to", default="coco", choices=("coco", "yolo", "csv"), help="what to make (default: coco)")
    convert.add_argument(
        "--images", type=Path, help="the folder of the images; found beside the annotations without it"
    )
    convert.add_argument("--skeleton", help="a shipped skeleton's name or a YAML file")
    convert.add_argument("--categories", nargs="+", help="only these")
    convert.add_argument("--subset", help="of a YOLO-pose set: train, val or test")
    convert.add_argument("--parts", nargs="+", help="of COCO-WholeBody: body foot face lefthand righthand")
    convert.add_argument(
        "--box-margin", type=float, default=0.25, help="around keypoints without a box (default: 0.25)"
    )
    convert.add_argument("--copy", action="store_true", help="copy the images too")
    convert.add_argument("--no-quality", action="store_true", help="do not decode the images for quality.csv")

    _add_drawing_verbs(verbs)


def _add_drawing_verbs(verbs: Verbs) -> None:
    """The verbs that make pictures and data, and free what they take."""
    show = _verb(verbs, "show", run_show, "pictures of annotated, mirrored and augmented samples and of the targets")
    show.add_argument("data", type=Path, help="annotations in any format that is read")
    show.add_argument("--images", type=Path, help="the folder of the images")
    show.add_argument("--skeleton", help="a shipped skeleton's name or a YAML file")
    show.add_argument("--out", type=Path, default=Path("pictures"), help="where the PNG files go (default: pictures)")
    show.add_argument("--imgsz", type=_count, nargs=2, default=(192, 256), metavar=("W", "H"), help="network input")
    show.add_argument("--augment", default="medium", help="the augmentation preset (default: medium)")
    show.add_argument("--sigma", type=float, default=2.0, help="of the targets, in heatmap cells (default: 2)")
    show.add_argument("--count", type=_count, default=12, help="samples on the first page (default: 12)")

    sigmas = _verb(verbs, "sigmas", run_sigmas, "measure OKS sigmas on objects that two people annotated")
    sigmas.add_argument("first", type=Path, help="annotations in any format that is read")
    sigmas.add_argument("second", type=Path, help="the same images, annotated again")
    sigmas.add_argument("--out", type=Path, required=True, help="the skeleton file to write")
    sigmas.add_argument("--images", type=Path, help="the folder of the images")
    sigmas.add_argument("--skeleton", help="a shipped skeleton's name or a YAML file")
    sigmas.add_argument("--truth", action="store_true", help="the second file is as good as exact")

    synth = _verb(verbs, "synth", run_synth, "draw horses with exact 2D and 3D keypoints: images, COCO JSON, CSV")
    synth.add_argument("out", type=Path, help="the folder to make; nothing is written over")
    synth.add_argument("--n", type=_count, default=1000, help="pictures (default: 1000)")
    synth.add_argument("--keypoints", type=int, default=26, choices=(26, 68), help="of each horse (default: 26)")
    synth.add_argument("--seed", type=int, default=0, help="another seed gives other pictures (default: 0)")
    synth.add_argument("--size", type=_count, nargs=2, default=(320, 240), metavar=("W", "H"), help="of a picture")
    synth.add_argument("--workers", type=_count, help="processes (default: one for each CPU)")

    clean = _verb(verbs, "clean", run_clean, "remove crop stores that nothing uses, and say what it frees")
    clean.add_argument(
        "--older-than", type=float, default=30.0, metavar="DAYS", help="last used so long ago (default: 30)"
    )
    clean.add_argument("--all", action="store_true", help="every store that no process uses now")


def _verb(verbs: Verbs, name: str, run: Run, text: str) -> argparse.ArgumentParser:
    verb = verbs.add_parser(
        name,
        help=text,
        description=text[0].upper() + text[1:] + ".",
        epilog=f"example:\n  {OWN_EXAMPLES[name]}" if name in OWN_EXAMPLES else EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verb.set_defaults(run=run, verb=name)
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


def run_fit(asked: argparse.Namespace) -> None:
    """Find the batch that fits."""
    from posesweep.trainables.fit import run

    run(asked.config, asked.settings, asked.fraction)


def run_weights(asked: argparse.Namespace) -> None:
    """Look into a checkpoint; nothing in it is run."""
    from posesweep.trainables.candidates import describe

    describe(asked.file)


def run_init(asked: argparse.Namespace) -> None:
    """Write a sweep file for new data."""
    from posesweep.trainables.init import run

    run(asked.data, asked.out, asked.images, asked.name, asked.minutes)


def run_check(asked: argparse.Namespace) -> int:
    """Look for faults; 1 when there are errors."""
    from posesweep.datasets.check import run
    from posesweep.datasets.findings import exit_code
    from posesweep.trainables.init import data_to_check

    request, split = data_to_check(asked.data, asked.images)
    names = ("val", "images", "skeleton", "group_by", "split", "folds", "fold")
    given = {name: value for name in names if (value := getattr(asked, name)) is not None}
    return exit_code(run(replace(request, **given), asked.out, split=split or asked.split is not None))


def run_convert(asked: argparse.Namespace) -> None:
    """Write the annotations in another format."""
    from posesweep.datasets.convert import Conversion, run

    asked_for = Conversion(
        to=asked.to,
        images=asked.images,
        skeleton=asked.skeleton,
        categories=tuple(asked.categories) if asked.categories else None,
        box_margin=asked.box_margin,
        subset=asked.subset,
        parts=tuple(asked.parts) if asked.parts else None,
        copy=asked.copy,
        quality=not asked.no_quality,
    )
    run(asked.source, asked.out, asked_for)


def run_show(asked: argparse.Namespace) -> None:
    """Draw the pages."""
    from posesweep.datasets.show import Shown, run

    run(
        asked.data,
        asked.images,
        asked.skeleton,
        asked.out,
        Shown(tuple(asked.imgsz), asked.augment, asked.sigma, asked.count),
    )


def run_sigmas(asked: argparse.Namespace) -> None:
    """Estimate sigmas."""
    from posesweep.datasets.sigmas import run_sigmas as run

    run(asked.first, asked.second, asked.out, asked.images, asked.skeleton, asked.truth)


def run_synth(asked: argparse.Namespace) -> None:
    """Draw a set."""
    from posesweep.datasets.synthetic_set import SynthRequest, run

    run(asked.out, SynthRequest(asked.n, asked.keypoints, asked.seed, tuple(asked.size), asked.workers))


def run_clean(asked: argparse.Namespace) -> None:
    """Free what crop stores take."""
    from posesweep.datasets.cleaning import run
    from posesweep.trainables.context import default_cache

    run(default_cache(), asked.older_than, asked.all)
