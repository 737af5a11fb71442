"""Limbs of a length that the set does not otherwise show."""

from dataclasses import dataclass
from itertools import combinations

import numpy as np
from jaxtyping import Bool, Float, Int

from posesweep.datasets.skeleton import Skeleton

LEAST_MEASURED = 20  # fewer lengths of a limb say nothing about what is usual
STABLE_PARTNERS = 2  # keypoints that each is measured against where the skeleton has no limbs
SPREADS = 5.0  # from the median to where a length is improbable
LEAST_SPREAD = 0.06  # of a natural logarithm: labels are no more exact than that
QUANTILE, OF_NORMAL = 0.90, 1.2816  # the spread is what puts this quantile of a normal distribution there
ROUNDS = 5  # of the median polish


@dataclass(frozen=True)
class Limbs:
    """Lengths of E limbs in n poses: the natural logarithm, less the pose's size and the limb's median."""

    edges: Int[np.ndarray, "E 2"]  # keypoints
    sizes: Float[np.ndarray, "n"]  # pixels; the pose's own unit of length; nan where no limb is labelled
    excess: Float[np.ndarray, "n E"]  # nan where not labelled
    most: Float[np.ndarray, "E"]  # improbable above; nan where too few are labelled to say

    def improbable(self) -> Bool[np.ndarray, "n E"]:
        """Which limbs are of a length that the set does not otherwise show."""
        return np.asarray(self.excess > self.most)


def measure_limbs(keypoints: Float[np.ndarray, "n K 2"], known: Bool[np.ndarray, "n K"], skeleton: Skeleton) -> Limbs:
    """Measure the limbs of the skeleton or, if it has none, between each keypoint and those at the steadiest distance.

    log length = size of the pose + median of the limb + excess, fitted by Tukey's median polish: neither a cut-off box
    nor a misplaced keypoint moves it. Only lengths above the usual count, by the spread above the median alone: every
    limb that points at the camera is short, and none is longer than the body has it."""
    index = {name: k for k, name in enumerate(skeleton.keypoints)}
    edges = np.array([(index[a], index[b]) for a, b in skeleton.edges], dtype=np.int64).reshape(-1, 2)
    if not len(edges):
        edges = _steadiest(keypoints, known)
    sizes, excess = _polished(_log_lengths(keypoints, known, edges))
    few = np.isfinite(excess).sum(axis=0) < LEAST_MEASURED
    return Limbs(edges, np.exp(sizes), excess, np.where(few, np.nan, SPREADS * _spreads(excess)))


def _log_lengths(keypoints: np.ndarray, known: np.ndarray, edges: np.ndarray) -> Float[np.ndarray, "n E"]:
    """Half a pixel is added, so that a length of 0 has a logarithm."""
    a, b = edges.T
    lengths = np.linalg.norm(keypoints[:, a] - keypoints[:, b], axis=2)
    return np.where(known[:, a] & known[:, b], np.log(lengths + 0.5), np.nan)


def _polished(logs: Float[np.ndarray, "n E"]) -> tuple[Float[np.ndarray, "n"], Float[np.ndarray, "n E"]]:
    """(size of each row, what remains after sizes and the medians of the columns)."""
    sizes = np.zeros(len(logs))
    for _ in range(ROUNDS):
        typical = _median(logs - sizes[:, None], axis=0)
        sizes = _median(logs - typical, axis=1)
    excess = logs - typical - sizes[:, None]
    return sizes, excess - _median(excess, axis=0)


def _spreads(excess: Float[np.ndarray, "n E"]) -> Float[np.ndarray, "E"]:
    """Above the median (which is 0): the spread of the normal distribution with that quantile."""
    return np.maximum(_quantile(excess, QUANTILE) / OF_NORMAL, LEAST_SPREAD)


def _steadiest(keypoints: np.ndarray, known: np.ndarray) -> Int[np.ndarray, "E 2"]:
    """For every keypoint the limbs to those whose distance, relative to the pose's size, varies least upwards."""
    count = keypoints.shape[1]
    every = np.array(list(combinations(range(count), 2)), dtype=np.int64).reshape(-1, 2)
    if not len(every):
        return every
    varies = np.full((count, count), np.inf)
    above = _spreads(_polished(_log_lengths(keypoints, known, every))[1])
    varies[every[:, 0], every[:, 1]] = varies[every[:, 1], every[:, 0]] = above
    partners = np.argsort(varies, axis=1, kind="stable")[:, : min(STABLE_PARTNERS, count - 1)]
    chosen = {(min(k, j), max(k, j)) for k in range(count) for j in partners[k].tolist()}
    return np.array(sorted(chosen), dtype=np.int64)


def _median(values: np.ndarray, axis: int) -> np.ndarray:
    """Median of what is known along an axis; nan where nothing is, without numpy's warning."""
    return _quantile(values if axis == 0 else values.T, 0.5)


def _quantile(values: Float[np.ndarray, "n E"], q: float) -> Float[np.ndarray, "E"]:
    ranked = np.sort(values, axis=0)  # nan goes last
    counts = np.isfinite(values).sum(axis=0)
    if not len(values):
        return np.full(values.shape[1], np.nan)
    place = q * (counts - 1).clip(0)
    low, part = np.floor(place).astype(int), place % 1
    columns = np.arange(values.shape[1])
    upper = ranked[np.minimum(low + 1, (counts - 1).clip(0)), columns]
    return ranked[low, columns] * (1 - part) + upper * part
