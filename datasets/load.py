"""From what a sweep file says about data to checked training and validation instances."""

import hashlib
from collections.abc import Collection
from dataclasses import astuple, dataclass, replace
from pathlib import Path

from posesweep.datasets.gather import BOX_MARGIN
from posesweep.datasets.instances import Instances
from posesweep.datasets.read import Reading, detect, read_any
from posesweep.datasets.skeleton import Skeleton, load_skeleton
from posesweep.datasets.split import check_apart, split_hash
from posesweep.datasets.splitting import SplitPlan, split_data
from posesweep.datasets.yolo_pose import subsets_of
from posesweep.errors import ConfigError, DataError


@dataclass(frozen=True)
class SyntheticRequest:
    """How much embedded demo data to draw: numbers of images, and their size in pixels."""

    train: int
    val: int
    seed: int
    width: int
    height: int


@dataclass(frozen=True)
class DataRequest:
    """The `data:` part of a sweep file with its paths resolved; either `train` or `synthetic` is given.

    `train` and `val` are annotations in any format of `read.FORMATS`; without `val`, `train` is split, or for a
    YOLO-pose data.yaml with both is read as it says."""

    train: Path | None = None
    val: Path | None = None
    images: Path | None = None  # None: found from where the annotations lie, as each reader says
    skeleton: str | Path | None = None  # a shipped name or a YAML file; None: what the annotations say
    group_by: str | None = None
    val_fraction: float = 0.2
    split_seed: int = 0
    split: str = "random"  # or stratified, auto: see splitting.py
    folds: int | None = None  # with it, val is part `fold` of that many
    fold: int = 0
    categories: Collection[str] | None = None
    box_margin: float = BOX_MARGIN
    synthetic: SyntheticRequest | None = None
    split_hash: str | None = None  # of the sweep that is resumed
    val_images: Path | None = None  # None: as images


@dataclass(frozen=True)
class Data:
    """Checked data. `notes` are sentences to be said once; `split_hash` is what a resumed sweep must find again."""

    train: Instances  # every instance has a labelled keypoint and is no crowd
    val: Instances  # with the crowd and unlabelled instances that evaluation ignores
    notes: tuple[str, ...]
    split_hash: str


def load_data(request: DataRequest, cache: Path) -> Data:
    """Read, split and check what `request` asks for; synthetic images are drawn once, below `cache`.

    DataError: mistakes in the files, an image on both sides, a side without labels, data that changed since
    `request.split_hash`. ConfigError: a request that cannot be met."""
    if request.synthetic is not None:
        request = _drawn(request, request.synthetic, cache)
    if request.train is None:
        raise ConfigError("data: give either train (COCO, DeepLabCut, YOLO-pose or other annotations) or synthetic")
    train, val = _read_both(request, request.train, cache)
    check_apart(train, val, request.group_by)
    notes = list(dict.fromkeys((*train.notes, *val.notes)))
    trainable = train.labelled & ~train.crowd
    if not trainable.all():
        notes.append(
            f"{(~trainable).sum()} training annotations are crowds or have no labelled keypoint: not trained on"
        )
    train = train.take(trainable)
    _check_labels(train, val)
    found = split_hash(train, val)
    if request.split_hash not in (None, found):
        raise DataError(
            f"the data changed since this sweep began: its split has the hash {found}, it was {request.split_hash}, so "
            "new scores could not be compared with old ones; put the files back, or start a sweep under a new name"
        )
    return Data(train, val, tuple(notes), found)


def _read_both(request: DataRequest, train_path: Path, cache: Path) -> tuple[Instances, Instances]:
    skeleton = None if request.skeleton is None else load_skeleton(request.skeleton)
    subsets = subsets_given(train_path, request.val)
    if "train" in subsets and "val" in subsets:
        train = read_annotations(train_path, request, skeleton, "train")
        return train, read_annotations(train_path, request, train.skeleton, "val")
    train = read_annotations(train_path, request, skeleton)
    if request.val is None:
        return split_data(train, split_plan(request), cache)
    return train, read_annotations(request.val, of_val(request), train.skeleton)


def of_val(request: DataRequest) -> DataRequest:
    """The request as the validation annotations are read."""
    return replace(request, images=request.val_images or request.images)


def split_plan(request: DataRequest) -> SplitPlan:
    """How `request` wants its one set to be split."""
    return SplitPlan(
        method=request.split,
        val_fraction=request.val_fraction,
        seed=request.split_seed,
        group_by=request.group_by,
        folds=request.folds,
        fold=request.fold,
    )


def subsets_given(train_path: Path, val_path: Path | None) -> list[str]:
    """The subsets of a YOLO-pose file that is given for training and for nothing else but validation."""
    alone = val_path is None or val_path == train_path
    return subsets_of(train_path) if alone and train_path.is_file() and detect(train_path) == "yolo" else []


def read_annotations(
    path: Path, request: DataRequest, skeleton: Skeleton | None, subset: str | None = None
) -> Instances:
    """One annotation file in any format; `subset` as in `read_yolo`. Raises what `read_any` does."""
    return read_any(path, request.images, Reading(skeleton, request.categories, request.box_margin, subset))


def _check_labels(train: Instances, val: Instances) -> None:
    if not len(train):
        raise DataError("no training annotation has a labelled keypoint and is no crowd; nothing to learn from")
    if not (val.labelled & ~val.crowd).any():
        raise DataError("no validation annotation has a labelled keypoint and is no crowd; nothing to score")


def _drawn(request: DataRequest, synthetic: SyntheticRequest, cache: Path) -> DataRequest:
    """The request with the synthetic images, drawn now or earlier, as its train and val files.

    Seeds 2 x seed and 2 x seed + 1: no seed's validation images are another's training images."""
    from posesweep.datasets.synthetic import write_synthetic  # 3D rendering: only the demo needs it

    key = hashlib.sha256(repr(astuple(synthetic)).encode()).hexdigest()[:12]
    size = (synthetic.width, synthetic.height)
    folder = cache / f"synthetic-{key}"
    train = write_synthetic(folder / "train", synthetic.train, 2 * synthetic.seed, size)
    val = write_synthetic(folder / "val", synthetic.val, 2 * synthetic.seed + 1, size)
    return replace(request, train=train, val=val, images=None, skeleton=request.skeleton or "horse26")
