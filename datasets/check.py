"""Checks data before anything is trained on them: `posesweep check`.

The images are decoded once, in threads, for everything that is asked of them; what is suspected of labels comes from
the set's own statistics, train and val together.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from posesweep.datasets.check_page import write_page
from posesweep.datasets.counting import counting
from posesweep.datasets.findings import Finding, as_table, in_order, verdict, write_csv
from posesweep.datasets.image_checks import check_groups, check_images
from posesweep.datasets.instances import Instances
from posesweep.datasets.label_checks import Labels, check_labels
from posesweep.datasets.lenient import read_despite
from posesweep.datasets.load import DataRequest, of_val, split_plan, subsets_given
from posesweep.datasets.near_duplicates import Progress as Reporter
from posesweep.datasets.near_duplicates import look_at_all
from posesweep.datasets.skeleton import load_skeleton
from posesweep.datasets.split import image_groups, on_images
from posesweep.datasets.splitting import seen_in, split_data
from posesweep.errors import ConfigError, DataError
from posesweep.files import cpus


@dataclass(frozen=True)
class Checked:
    """What was found, and in what."""

    findings: list[Finding]  # in the order of findings.in_order
    labels: Labels
    notes: tuple[str, ...]  # what the readers and the split have to say


def check(request: DataRequest, split: bool = False, progress: Reporter | None = None) -> Checked:
    """Check what `request` names: train alone, train and val, or with `split` the two that a sweep would make of train.

    DataError: files that cannot be read even with their faults left out, or cannot be split. ConfigError: no files,
    or options that contradict each other or the data."""
    if request.train is None:
        raise ConfigError("check: give the file of annotations")
    _check_options(request, split)
    train, val, found = _read(request, request.train, split)
    if val is None and request.group_by is not None:
        image_groups(train, request.group_by)  # says what is wrong with it
    whole = train if val is None else pooled(train, val)
    looks = look_at_all(whole.image_files, cpus(), progress)
    if split and val is None:
        # only images that can be read, as a sweep has them
        train, val = split_data(whole, split_plan(request), Path(), seen_in(whole, looks))
        kept = np.isin(whole.image_ids, [*train.image_ids, *val.image_ids])
        looks = looks.take(kept)
        whole = on_images(whole, kept)
    sides = _sides(whole, train, val)
    found += check_images(whole, looks, sides)
    if val is not None:
        found += check_groups(train, val, request.group_by)
    labels = Labels(whole, looks.sizes, sides)
    found += check_labels(labels)
    notes = tuple(dict.fromkeys((*train.notes, *(val.notes if val is not None else ()))))
    return Checked(in_order(found), labels, notes)


def _check_options(request: DataRequest, split: bool) -> None:
    if split and request.val is not None:
        raise ConfigError(
            f"check: the data are to be split, and {request.val} is there to validate with; leave out --split to check "
            "the two sides as they are, or name the one file that is to be split"
        )
    if not split and (request.folds is not None or request.fold):
        raise ConfigError("check: --folds and --fold say how the data are split; give --split too, or leave them out")


def output_folder(path: Path) -> Path:
    """`path` as a folder that exists. DataError: it cannot be made."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"{path}: cannot be made a folder ({error.strerror}); give another one as --out") from None
    return path


def run(request: DataRequest, out: Path, split: bool = False) -> list[Finding]:
    """Check, print the verdict and write `out`/check.html and `out`/check.csv; the findings decide the exit code.

    Raises what `check` does, and DataError where `out` cannot be made."""
    output_folder(out)
    console = Console()
    with counting("looking at images") as count:
        checked = check(request, split, count)
    for note in checked.notes:
        console.print(f"note: {note}", markup=False, highlight=False)
    instances = checked.labels.instances
    if checked.findings:
        console.print(as_table(checked.findings))
    console.print(verdict(checked.findings, len(instances), len(instances.image_files)), highlight=False)
    write_csv(out / "check.csv", checked.findings)
    page = write_page(out / "check.html", checked.findings, checked.labels, checked.notes)
    console.print(f"pictures: {page}; every finding: {out / 'check.csv'}", markup=False, highlight=False)
    return checked.findings


def pooled(train: Instances, val: Instances) -> Instances:
    """Both sides as one set, train first; image and annotation ids may then occur twice."""
    names = ("image_ids", "ids", "category_ids", "boxes", "keypoints", "visibility", "areas", "crowd")
    columns: dict[str, Any] = {name: np.concatenate([getattr(train, name), getattr(val, name)]) for name in names}
    shift = len(train.image_files)
    both_named = bool(train.identities) and bool(val.identities)
    return replace(
        train,
        image_files=(*train.image_files, *val.image_files),
        image_groups=(*train.image_groups, *val.image_groups),
        image_index=np.concatenate([train.image_index, val.image_index + shift]),
        category_names={**train.category_names, **val.category_names},
        identities=(*train.identities, *val.identities) if both_named else (),
        image_fields={},
        **columns,
    )


def _read(request: DataRequest, path: Path, split: bool) -> tuple[Instances, Instances | None, list[Finding]]:
    """Train, val where it is given, and what was wrong with the files."""
    skeleton = None if request.skeleton is None else load_skeleton(request.skeleton)
    both = {"train", "val"} <= set(subsets_given(path, request.val))
    side = "train" if both or split or request.val is not None else ""
    train, found = read_despite(path, request, skeleton, side, "train" if both else None)
    val_path = path if both else request.val
    if val_path is None:
        return train, None, found
    val, more = read_despite(val_path, of_val(request), train.skeleton, "val", "val" if both else None)
    return train, val, found + more


def _sides(whole: Instances, train: Instances, val: Instances | None) -> tuple[str, ...]:
    """The side of every image of `whole`, which is train, both one after the other, or both mingled by a split."""
    if val is None:
        return ("",) * len(whole.image_files)
    if whole.image_files == (*train.image_files, *val.image_files):
        return ("train",) * len(train.image_files) + ("val",) * len(val.image_files)
    validated = set(val.image_files)
    return tuple("val" if file in validated else "train" for file in whole.image_files)
