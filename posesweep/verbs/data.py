"""The verbs that look at annotations and images, or make and remove them; none needs a sweep."""

import argparse
from dataclasses import replace
from pathlib import Path

from posesweep.verbs import Verbs, add_verb, count

EXAMPLES = {
    "init": "posesweep init data/ --minutes 30",
    "check": "posesweep check sweep.yaml\nposesweep check data/train.json --val data/val.json --images data/images",
    "convert": "posesweep convert CollectedData_me.csv coco/\nposesweep convert data.yaml csv/ --to csv",
    "show": "posesweep show data/train.json --images data/images --augment aggressive",
    "sigmas": "posesweep sigmas anna.json ben.json --out skeleton.yaml",
    "synth": "posesweep synth horses/ --n 1000 --keypoints 68",
    "clean": "posesweep clean --older-than 7",
}


def add(verbs: Verbs) -> None:
    """The verbs that look at annotations and images, and need no sweep."""
    start = add_verb(
        verbs, "init", run_init, "look at annotations and write a commented sweep file that runs", EXAMPLES["init"]
    )
    start.add_argument("data", type=Path, help="annotations in any format that is read, their folder or project")
    start.add_argument("--out", type=Path, default=Path("sweep.yaml"), help="the file to write (default: sweep.yaml)")
    start.add_argument("--images", type=Path, help="the folder of the images; found without it where it can be")
    start.add_argument("--name", help="of the sweep (default: after the data)")
    start.add_argument("--minutes", type=float, help="how long it may take (default: 10 on a CPU, 240 on a GPU)")

    check = add_verb(
        verbs,
        "check",
        run_check,
        "look for faults in annotations and images, and for leaks into validation",
        EXAMPLES["check"],
    )
    check.add_argument("data", type=Path, help="annotations in any format that is read, their folder, or a sweep file")
    check.add_argument("--val", type=Path, help="the validation annotations, to look for leaks")
    check.add_argument("--images", type=Path, help="the folder of the images")
    check.add_argument("--skeleton", help="a shipped skeleton's name or a YAML file")
    check.add_argument("--group-by", help="a pattern with one group on file names, a key of the images, or identity")
    check.add_argument("--split", choices=("random", "stratified", "auto"), help="check the split a sweep would make")
    check.add_argument("--folds", type=count, help="with --split: validation is one of so many parts")
    check.add_argument("--fold", type=int, help="which one, from 0 on (default: 0)")
    check.add_argument("--out", type=Path, default=Path("check"), help="where the page goes (default: check)")

    convert = add_verb(
        verbs, "convert", run_convert, "annotations in any format -> COCO, YOLO-pose or CSV", EXAMPLES["convert"]
    )
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
    show = add_verb(
        verbs,
        "show",
        run_show,
        "pictures of annotated, mirrored and augmented samples and of the targets",
        EXAMPLES["show"],
    )
    show.add_argument("data", type=Path, help="annotations in any format that is read")
    show.add_argument("--images", type=Path, help="the folder of the images")
    show.add_argument("--skeleton", help="a shipped skeleton's name or a YAML file")
    show.add_argument("--out", type=Path, default=Path("pictures"), help="where the PNG files go (default: pictures)")
    show.add_argument("--imgsz", type=count, nargs=2, default=(192, 256), metavar=("W", "H"), help="network input")
    show.add_argument("--augment", default="medium", help="the augmentation preset (default: medium)")
    show.add_argument("--sigma", type=float, default=2.0, help="of the targets, in heatmap cells (default: 2)")
    show.add_argument("--count", type=count, default=12, help="samples on the first page (default: 12)")

    sigmas = add_verb(
        verbs, "sigmas", run_sigmas, "measure OKS sigmas on objects that two people annotated", EXAMPLES["sigmas"]
    )
    sigmas.add_argument("first", type=Path, help="annotations in any format that is read")
    sigmas.add_argument("second", type=Path, help="the same images, annotated again")
    sigmas.add_argument("--out", type=Path, required=True, help="the skeleton file to write")
    sigmas.add_argument("--images", type=Path, help="the folder of the images")
    sigmas.add_argument("--skeleton", help="a shipped skeleton's name or a YAML file")
    sigmas.add_argument("--truth", action="store_true", help="the second file is as good as exact")

    synth = add_verb(
        verbs,
        "synth",
        run_synth,
        "draw horses with exact 2D and 3D keypoints: images, COCO JSON, CSV",
        EXAMPLES["synth"],
    )
    synth.add_argument("out", type=Path, help="the folder to make; nothing is written over")
    synth.add_argument("--n", type=count, default=1000, help="pictures (default: 1000)")
    synth.add_argument("--keypoints", type=int, default=26, choices=(26, 68), help="of each horse (default: 26)")
    synth.add_argument("--seed", type=int, default=0, help="another seed gives other pictures (default: 0)")
    synth.add_argument("--size", type=count, nargs=2, default=(320, 240), metavar=("W", "H"), help="of a picture")
    synth.add_argument("--workers", type=count, help="processes (default: one for each CPU)")

    clean = add_verb(
        verbs, "clean", run_clean, "remove crop stores that nothing uses, and say what it frees", EXAMPLES["clean"]
    )
    clean.add_argument(
        "--older-than", type=float, default=30.0, metavar="DAYS", help="last used so long ago (default: 30)"
    )
    clean.add_argument("--all", action="store_true", help="every store that no process uses now")


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
