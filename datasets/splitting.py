"""The ways to split one set into training and validation: at random, stratified, or with near-duplicates together.

    random      groups in the order of a hash; `split.split_groups`
    stratified  groups such that both sides have their share of every size, visibility and category
    auto        stratified; images that look alike, and frames of one video, are of one group. Where one such group
                holds most of the images (one video, a camera that stands still) it is cut into blocks of consecutive
                frames, and training images that adjoin or resemble a validation image are left out

All of them keep `group_by` groups whole and depend on nothing but the data and the settings. `auto` looks at pixels:
decoders that differ in the last bit may, rarely, disagree about a pair; the split's hash then says so.
"""

from collections import Counter
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Int

from posesweep.datasets.crops import CropSpec, content_key
from posesweep.datasets.instances import Instances
from posesweep.datasets.near_duplicates import (
    ALIKE,
    NEAR_BITS,
    SIDE,
    Looks,
    Video,
    alike_pairs,
    find_videos,
    in_order,
    look_at_all,
    neighbours,
)
from posesweep.datasets.split import components, image_groups, on_images, split_groups
from posesweep.datasets.stratify import image_strata, spread_out
from posesweep.errors import ConfigError, DataError
from posesweep.files import cpus, read_json, write_json

METHODS = ("random", "stratified", "auto")
MOST_IN_ONE = 0.5  # share of the images that one group of `auto` may hold before it is cut
BLOCKS, LEAST_BLOCK = 10, 5  # blocks that are aimed at, frames that each should have
GUARD_STEPS = 2  # frames, counted in the video's usual step, that are left out on either side of validation frames
MOST_LEFT_OUT = 0.5  # share of the training images that may be
_VERSION = 2  # raised when the same pictures would give other pairs


@dataclass(frozen=True)
class SplitPlan:
    """How to split. With `folds`, validation is part `fold` (0 ... folds - 1) of that many, else `val_fraction`."""

    method: str = "random"
    val_fraction: float = 0.2
    seed: int = 0
    group_by: str | None = None
    folds: int | None = None
    fold: int = 0

    @property
    def shares(self) -> tuple[float, ...]:
        """Of the images, for each side that is made."""
        return (1 / self.folds,) * self.folds if self.folds else (1 - self.val_fraction, self.val_fraction)


@dataclass(frozen=True)
class Resemblance:
    """What pixels say about which images belong together."""

    pairs: Int[np.ndarray, "p 2"]  # positions of near-duplicates
    videos: list[Video]


def split_data(
    instances: Instances, plan: SplitPlan, cache: Path, seen: Resemblance | None = None
) -> tuple[Instances, Instances]:
    """(train, val) of `instances`; what `auto` did is among the notes of train.

    `cache` keeps what was seen in the pixels; whoever has looked at them already gives it as `seen`.
    ConfigError: a plan that makes no sense. DataError: fewer groups than sides, or images too alike to be parted."""
    _check(plan)
    if plan.method == "auto":
        return _split_auto(instances, plan, seen or resemblance(instances, cache))
    if plan.method == "random" and plan.folds is None:
        return split_groups(instances, plan.val_fraction, plan.seed, plan.group_by)
    names = image_groups(instances, plan.group_by)
    in_val = _val_side(instances, names, plan)
    return on_images(instances, ~in_val), on_images(instances, in_val)


def resemblance(instances: Instances, cache: Path) -> Resemblance:
    """Near-duplicates and videos among the images, kept below `cache` by the content of the files."""
    names = "\n".join(f"{file.parent.name}/{file.name}" for file in instances.image_files)
    key = f"{_VERSION} {NEAR_BITS} {ALIKE} {content_key(instances, CropSpec(SIDE, SIDE))}\n{names}"
    file = cache / f"alike-{blake2b(key.encode(), digest_size=12).hexdigest()}.json"
    if not file.is_file():
        seen = seen_in(instances, look_at_all(instances.image_files, cpus()))
        videos = [(video.name, video.images.tolist()) for video in seen.videos]
        write_json(file, {"pairs": seen.pairs.tolist(), "videos": videos})
        return seen
    kept = read_json(file)
    pairs = np.array(kept["pairs"], dtype=np.int64).reshape(-1, 2)
    return Resemblance(pairs, [in_order(name, instances.image_files, images) for name, images in kept["videos"]])


def seen_in(instances: Instances, looks: Looks) -> Resemblance:
    """What the looks of the images of `instances`, in their order, say."""
    alike = alike_pairs(looks, instances)
    return Resemblance(np.stack([alike.first, alike.second], axis=1), find_videos(instances.image_files, looks))


def _check(plan: SplitPlan) -> None:
    if plan.method not in METHODS:
        raise ConfigError(f"data.split: '{plan.method}' is not known; take {', '.join(METHODS)}")
    if not 0 < plan.val_fraction < 1:
        raise ConfigError(f"data.val_fraction: {plan.val_fraction} must lie between 0 and 1; try 0.2")
    if plan.folds is not None and plan.folds < 2:
        raise ConfigError(f"data.folds: {plan.folds} must be 2 or more")
    if plan.fold != 0 and (plan.folds is None or not 0 <= plan.fold < plan.folds):
        raise ConfigError(f"data.fold: {plan.fold} must be one of 0 to {(plan.folds or 1) - 1}, see data.folds")


def _val_side(instances: Instances, names: list[str], plan: SplitPlan) -> Bool[np.ndarray, "m"]:
    """Which images are validated with, given the name of every image's group."""
    known, of_image = np.unique(np.array(names), return_inverse=True)
    of_each = image_strata(instances) if plan.method != "random" else np.ones((len(names), 1), dtype=np.int64)
    strata = np.zeros((len(known), of_each.shape[1]), dtype=np.int64)
    np.add.at(strata, of_image, of_each)
    sides = spread_out(strata, known.tolist(), plan.shares, plan.seed)
    return np.asarray(sides[of_image] == (plan.fold if plan.folds else 1))


# --------------------------------------------------------------------------------------------------------------- auto


def _split_auto(instances: Instances, plan: SplitPlan, seen: Resemblance) -> tuple[Instances, Instances]:
    names = image_groups(instances, plan.group_by)
    units = _units(instances, names, plan, seen)
    unit, images_in_it = Counter(units.tolist()).most_common(1)[0]
    if images_in_it <= MOST_IN_ONE * len(units):
        in_val = _val_side(instances, [f"images like {i}" for i in units], plan)
        note = (
            f"split: auto: near-duplicates ({len(seen.pairs)} pairs) and frames of one video stay on one side; "
            f"{len(units)} images are {len(np.unique(units))} groups"
        )
        return _with_note(on_images(instances, ~in_val), note), on_images(instances, in_val)
    if plan.group_by is not None:
        raise DataError(
            f"split: auto: {images_in_it} of {len(units)} images are of one group, because images of several "
            "data.group_by groups are near-duplicates of each other; leave group_by out, or give data.val"
        )
    return _split_blocks(instances, plan, seen, units == unit)


def _units(instances: Instances, names: list[str], plan: SplitPlan, seen: Resemblance) -> Int[np.ndarray, "m"]:
    """For every image the first of those it must stay with."""
    first_of: dict[str, int] = {}
    joined = [(first_of.setdefault(name, i), i) for i, name in enumerate(names)]
    if plan.group_by is None and not any(instances.image_groups):  # nobody said what belongs together
        joined += [(int(video.images[0]), int(i)) for video in seen.videos for i in video.images[1:]]
    return components(len(names), np.concatenate([np.array(joined, dtype=np.int64), seen.pairs]))


def _split_blocks(
    instances: Instances, plan: SplitPlan, seen: Resemblance, cut: Bool[np.ndarray, "m"]
) -> tuple[Instances, Instances]:
    """A split where the images of the mask `cut` are too many for one side, so their frames are parted in blocks."""
    video = in_order("", instances.image_files, np.flatnonzero(cut).tolist())
    names = [f"image {i}" for i in range(len(cut))]
    count = max(2, min(max(BLOCKS, 2 * (plan.folds or 0)), len(video.images) // LEAST_BLOCK))
    for number, block in enumerate(np.array_split(video.images, count), start=1):
        for position in block.tolist():
            names[position] = f"frames {number} of {count}"
    instances = replace(instances, image_groups=tuple(names))  # what ranking resamples, too
    in_val = _val_side(instances, names, plan)
    near = _too_near(seen, video, in_val)
    if near.sum() > MOST_LEFT_OUT * (~in_val).sum():
        raise DataError(
            f"split: auto: {near.sum()} of {(~in_val).sum()} training images are near-duplicates of validation images; "
            "these data are too alike to be split: give data.val from another video, or take fewer frames"
        )
    note = (
        f"split: auto: {len(video.images)} of {len(cut)} images are of one video or look alike, too many for one side: "
        f"cut into {count} blocks of consecutive frames; {near.sum()} training images that adjoin or resemble a "
        "validation image are left out. Scores tell how well a model does on these videos, not on new ones"
    )
    return _with_note(on_images(instances, ~in_val & ~near), note), on_images(instances, in_val)


def _too_near(seen: Resemblance, video: Video, in_val: Bool[np.ndarray, "m"]) -> Bool[np.ndarray, "m"]:
    """Which training images are near-duplicates of a validation image, or within the guard of one."""
    near = np.zeros(len(in_val), dtype=bool)
    for a, b in (seen.pairs.T, seen.pairs.T[::-1]):
        near[a[~in_val[a] & in_val[b]]] = True
    for one in (video, *seen.videos):
        guarded = neighbours(one, in_val, ~in_val, GUARD_STEPS * one.step)
        near[guarded[:, 1]] = True
    return near


def _with_note(side: Instances, note: str) -> Instances:
    return replace(side, notes=(*side.notes, note))
