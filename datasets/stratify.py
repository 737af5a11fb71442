"""Which groups of images go to which side, so that every side has its share of everything."""

import hashlib
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

from posesweep.datasets.instances import Instances
from posesweep.errors import DataError

SIZES, VISIBLE = 4, 3  # classes of box area and of the share of labelled keypoints, equally many objects in each
DIGITS = 9  # costs are compared to: the last bits of a sum differ between processors


def hash_order(names: Sequence[str], seed: int) -> list[int]:
    """Positions of the names in the order of a hash of (seed, name): random, and the same everywhere."""
    keys = [hashlib.sha256(f"{seed}\n{name}".encode()).digest() for name in names]
    return sorted(range(len(names)), key=keys.__getitem__)


def image_strata(instances: Instances) -> Int[np.ndarray, "m S"]:
    """Per image: 1, then its objects by class of size, by class of labelled share, and by category."""
    images, objects = len(instances.image_files), instances.image_index
    labelled = (instances.visibility > 0).sum(axis=1)
    classes = [
        _by_rank(instances.areas, SIZES),
        _by_rank(labelled, VISIBLE),
        np.unique(instances.category_ids, return_inverse=True)[1],
    ]
    columns = [np.ones((images, 1), dtype=np.int64)]
    for of_object in classes:
        counts = np.zeros((images, int(of_object.max(initial=0)) + 1), dtype=np.int64)
        np.add.at(counts, (objects, of_object), 1)
        columns.append(counts)
    return np.concatenate(columns, axis=1)


def spread_out(
    strata: Int[np.ndarray, "g S"], names: Sequence[str], shares: Sequence[float], seed: int
) -> Int[np.ndarray, "g"]:
    """The side of each group, such that every side gets about its share of every column of `strata`.

    Greedy, the largest group first, as in Sechidis et al., On the stratification of multi-label data (2011): each goes
    where it lowers the squared distance from what is wanted, relative to it, most. No side stays empty.
    DataError: fewer groups than sides."""
    if len(names) == 1 and strata[0, 0] > 1:
        raise DataError(
            f"all {strata[0, 0]} images are of one group, or one video, which a split may not part: give data.val, or "
            "set split: auto, which cuts a video into blocks of frames"
        )
    if len(names) < len(shares):
        raise DataError(f"{len(names)} groups of images cannot be spread over {len(shares)} sides; give more data")
    order = sorted(hash_order(names, seed), key=lambda group: -int(strata[group, 0]))
    wanted = np.asarray(shares)[:, None] * strata.sum(axis=0).clip(1)
    importance = np.ones(strata.shape[1])
    importance[0] = strata.shape[1]  # the number of images as much as all else together
    have = np.zeros_like(wanted)
    side_of = np.zeros(len(names), dtype=np.int64)
    for group in order:
        row = strata[group]
        costs = (importance * row * (2 * (have - wanted) + row) / wanted).sum(axis=1)
        side_of[group] = int(np.argmin(np.round(costs, DIGITS)))
        have[side_of[group]] += row
    _fill_empty(side_of, strata[:, 0], order, len(shares))
    return side_of


def _by_rank(values: np.ndarray, classes: int) -> Int[np.ndarray, "n"]:
    """Classes of equally many values; equal values are of one class."""
    ranked = np.sort(values)
    twice = np.searchsorted(ranked, values, side="left") + np.searchsorted(ranked, values, side="right")
    return (twice * classes // max(1, 2 * len(values))).astype(np.int64)  # by the middle of the ranks of equal values


def _fill_empty(side_of: np.ndarray, images: np.ndarray, order: Sequence[int], sides: int) -> None:
    """Give every empty side the smallest group of a side that has several."""
    for side in range(sides):
        if (side_of == side).any():
            continue
        spare = [group for group in reversed(order) if (side_of == side_of[group]).sum() > 1]
        side_of[min(spare, key=lambda group: int(images[group]))] = side
