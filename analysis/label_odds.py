"""How probable an annotation is, given what several trials predicted: the odds behind `label_errors.py`.

Lengths are in longer sides of the object's box. Everything is estimated from the set itself, by methods that a few
wrong labels in a hundred do not move.

Shifted. A label lies about each trial's prediction with a distance whose logarithm follows a t distribution (4 degrees
of freedom, heavy tails) about the distance that is typical of this keypoint, this object, this much disagreement among
the trials and this confidence; the trials are averaged, so a label that any of them agrees with is no surprise. Where
the trials mistake a keypoint for its mirror image in a share of the objects, it may lie about the partner's prediction
with that probability. A wrong label lies anywhere in the box and its surroundings.

Swapped. The same densities after the exchange against before; at most `INDEPENDENT` keypoints count, as the trials are
wrong in whole legs. Networks may not know left from right at all, so what the poses of the set say (datasets/swaps.py)
is added.

Missing. A logistic regression tells what is labelled from what is not, by disagreement, confidence, the predicted
place's distance from the border of the image, and how often the keypoint is labelled. What it takes for labelled with
certainty, and is not, is suspect; the other way round a label is.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import lgamma, log, pi

import numpy as np
from jaxtyping import Bool, Float, Int

from posesweep.datasets.label_checks import own_poses
from posesweep.datasets.limbs import measure_limbs
from posesweep.datasets.skeleton import Skeleton
from posesweep.datasets.swaps import Unit, swap_odds

PRIOR = log(0.01)  # one label in a hundred is wrong, before anything is seen
FLOOR = 0.002  # of the longer side: nobody labels more exactly, and a distance of 0 has no logarithm
FREEDOM = 4.0  # of the t distribution
SURROUNDINGS = 1.5  # times the box: where a wrong label may lie
INDEPENDENT = 4  # keypoints of a swap that count
MOST_FITTED = 500  # poses behind the odds of swaps: the fit costs their number to the third power
LEAST_UNLABELLED = 10  # fewer say nothing about what is rightly left out
SUSPECT = -3.0  # log odds from which on a keypoint counts as one that seems shifted
BORDER = 0.1  # of the longer side: further inside, the border no longer matters
APART = 0.15  # of the longer side: labels of a pair that are nearer change places without harm
RIDGE = 0.3  # of the logistic regression
BOUND = 30.0  # on logarithms of odds


@dataclass(frozen=True)
class Labels:
    """The annotations of n objects."""

    points: Float[np.ndarray, "n K 2"]  # image pixels
    visibility: Int[np.ndarray, "n K"]  # 0 not labelled
    boxes: Float[np.ndarray, "n 4"]

    @property
    def labelled(self) -> Bool[np.ndarray, "n K"]:
        return np.asarray(self.visibility > 0)

    @property
    def side(self) -> Float[np.ndarray, "n 1"]:
        """The longer side of the box, pixels."""
        return np.maximum(self.boxes[:, 2:].max(axis=1, keepdims=True), 1.0)


@dataclass(frozen=True)
class Consensus:
    """What T trials predicted of n objects."""

    points: Float[np.ndarray, "T n K 2"]  # image pixels
    confidence: Float[np.ndarray, "n K"]  # mean keypoint score
    middle: Float[np.ndarray, "n K 2"]  # median over the trials, image pixels
    spread: Float[np.ndarray, "n K"]  # mean distance of the trials from the middle, in longer sides; 0 for one trial

    @classmethod
    def of(
        cls, points: Float[np.ndarray, "T n K 2"], scores: Float[np.ndarray, "T n K"], side: Float[np.ndarray, "n 1"]
    ) -> "Consensus":
        middle = np.median(points, axis=0)
        spread = np.linalg.norm(points - middle, axis=-1).mean(axis=0) / side
        return cls(points, np.clip(scores.mean(axis=0), 0, 1), middle, spread)


@dataclass(frozen=True)
class Odds:
    """Natural logarithms of the odds that something is wrong, the prior included; -inf where it cannot be."""

    shifted: Float[np.ndarray, "n K"]
    missing: Float[np.ndarray, "n K"]
    present: Float[np.ndarray, "n K"]  # labelled where nothing should be
    swapped: Float[np.ndarray, "n u"]
    units: Sequence[Unit]
    better: Float[np.ndarray, "n K"]  # how much nearer to the trials the label would be on the other side
    confused: Float[np.ndarray, "K"]  # the share of objects in which the trials take a keypoint for its mirror image


def label_odds(labels: Labels, consensus: Consensus, skeleton: Skeleton, margins: Float[np.ndarray, "n K"]) -> Odds:
    """Judge every annotation. `margins`: how far inside the image the consensus lies, longer sides; nan: not known."""
    flip = skeleton.flip_index
    here, there, confused = _densities(labels, consensus, flip)
    labelled = labels.labelled
    area = SURROUNDINGS * np.maximum(labels.boxes[:, 2] * labels.boxes[:, 3], 1.0) / labels.side[:, 0] ** 2
    better = np.where(labelled & labelled[:, flip], there - here, 0.0)
    units, poses = _odds_of_poses(labels, skeleton)
    swapped = [_of_unit(unit, better) + np.clip(poses[:, u], -BOUND, BOUND) for u, unit in enumerate(units)]
    looks_labelled = _looks_labelled(labels, consensus, margins)
    few = int((~labelled).sum()) < LEAST_UNLABELLED
    return Odds(
        shifted=_alone(np.where(labelled, PRIOR - np.log(area)[:, None] - here, -np.inf)),
        missing=np.where(labelled, -np.inf, PRIOR + looks_labelled),
        present=np.where(labelled & (not few), PRIOR - looks_labelled, -np.inf),
        swapped=PRIOR + np.stack(swapped, axis=1) if units else np.zeros((len(labelled), 0)),
        units=units,
        better=better,
        confused=confused,
    )


def _alone(odds: Float[np.ndarray, "n K"]) -> Float[np.ndarray, "n K"]:
    """Divided by one more than the number of the object's other suspects: where many keypoints of one object seem
    shifted, the trials have rather looked at another animal."""
    suspect = odds > SUSPECT
    return odds - np.log1p(suspect.sum(axis=1, keepdims=True) - suspect)


def _of_unit(unit: Unit, better: Float[np.ndarray, "n K"]) -> Float[np.ndarray, "n"]:
    members = np.array(unit.pairs).ravel()
    return better[:, members].sum(axis=1) * min(1.0, INDEPENDENT / len(members))


def _odds_of_poses(labels: Labels, skeleton: Skeleton) -> tuple[list[Unit], Float[np.ndarray, "n u"]]:
    """What the poses alone say of every unit; 0, which is nothing, where they are too few."""
    known = labels.labelled
    poses = own_poses(labels.points, known, measure_limbs(labels.points, known, skeleton), labels.boxes)
    units, odds = swap_odds(poses, labels.visibility, skeleton, MOST_FITTED)
    return units, np.where(np.isfinite(odds), odds, 0.0)


# --------------------------------------------------------------------------------------------------------- densities


def _densities(
    labels: Labels, consensus: Consensus, flip: Int[np.ndarray, "K"]
) -> tuple[Float[np.ndarray, "n K"], Float[np.ndarray, "n K"], Float[np.ndarray, "K"]]:
    """(log density of each label as it is, as one of its mirror image, share of objects in which trials confuse the
    two). Per longer side squared."""
    expected, scale = _expected(labels, consensus)
    own = _about(labels, consensus.points, expected, scale)
    other = _about(labels, consensus.points[:, :, flip], expected[:, flip], scale)
    paired = flip != np.arange(len(flip))
    share = _confused(labels, consensus, flip)
    keeps, turns = np.log1p(-share), np.log(share)
    here = np.where(paired, np.logaddexp(keeps + own, turns + other), own)
    there = np.where(paired, np.logaddexp(keeps + other, turns + own), own)
    return here, there, np.where(paired, share, 0.0)


def _about(
    labels: Labels, points: Float[np.ndarray, "T n K 2"], expected: Float[np.ndarray, "n K"], scale: float
) -> Float[np.ndarray, "n K"]:
    """Log density of the labels about the predictions, averaged over the trials."""
    log_distance = _log_distance(points, labels)
    t = ((log_distance - expected) / scale) ** 2 / FREEDOM
    constant = lgamma((FREEDOM + 1) / 2) - lgamma(FREEDOM / 2) - log(scale) - log(FREEDOM * pi) / 2 - log(2 * pi)
    density = constant - (FREEDOM + 1) / 2 * np.log1p(t) - 2 * log_distance  # of a ring about the prediction
    return np.logaddexp.reduce(density, axis=0) - log(len(points))


def _log_distance(points: Float[np.ndarray, "T n K 2"], labels: Labels) -> Float[np.ndarray, "T n K"]:
    return np.log(np.linalg.norm(points - labels.points, axis=-1) / labels.side + FLOOR)


def _confused(labels: Labels, consensus: Consensus, flip: Int[np.ndarray, "K"]) -> Float[np.ndarray, "K"]:
    """The share of objects in which the consensus is nearer to the label of a keypoint's mirror image, both sides
    together; only where the two labels are `APART` can that be seen. A tenth where nothing can."""
    both = labels.labelled & labels.labelled[:, flip]
    apart = np.linalg.norm(labels.points - labels.points[:, flip], axis=-1) > APART * labels.side
    own = np.linalg.norm(consensus.middle - labels.points, axis=-1)
    other = np.linalg.norm(consensus.middle - labels.points[:, flip], axis=-1)
    counts = np.stack([(both & apart & (other < own)).sum(axis=0), (both & apart).sum(axis=0)])
    counts = counts + counts[:, flip]
    return (counts[0] + 1) / (counts[1] + 10)


# ---------------------------------------------------------------------------------------------- what error is typical


def _expected(labels: Labels, consensus: Consensus) -> tuple[Float[np.ndarray, "n K"], float]:
    """(expected log distance of a trial's prediction from the label, its spread), by a robust regression on
    disagreement and confidence, with a term for each keypoint and, drawn towards 0, for each object."""
    known = labels.labelled
    distances = _log_distance(consensus.points, labels)
    target = np.median(distances, axis=0)
    features = np.stack([np.ones_like(target), *_features(consensus)], axis=-1)
    of_keypoint, of_object = np.zeros(target.shape[1]), np.zeros((len(target), 1))
    number = known.sum(axis=1, keepdims=True)
    for _ in range(6):
        weights = _robust_fit(features[known], (target - of_keypoint - of_object)[known])
        rest = target - features @ weights
        of_keypoint = _medians(rest - of_object, known, axis=0)
        of_object = _medians(rest - of_keypoint, known, axis=1)[:, None] * number / (number + 5)
    expected = features @ weights + of_keypoint + of_object
    errors = (distances - expected)[:, known]
    middle = float(np.median(errors))
    return expected + middle, max(0.1, 1.4826 * float(np.median(np.abs(errors - middle))))


def _features(consensus: Consensus) -> list[Float[np.ndarray, "n K"]]:
    """Logarithms of how much the trials disagree and of how unsure they are."""
    return [np.log(consensus.spread + 0.005), np.log(np.clip(1 - consensus.confidence, 0.01, 1))]


def _robust_fit(features: Float[np.ndarray, "r f"], target: Float[np.ndarray, "r"]) -> Float[np.ndarray, "f"]:
    """Linear regression with Huber's weights."""
    weights = np.ones(len(target))
    for _ in range(12):
        weighted = features * weights[:, None]  # lstsq: of one trial the disagreement is always 0, a second constant
        found: np.ndarray = np.linalg.lstsq(weighted.T @ features, weighted.T @ target, rcond=None)[0]
        errors = np.abs(target - features @ found)
        weights = 1 / np.maximum(1, errors / (1.5 * 1.4826 * np.median(errors) + 1e-9))
    return found


def _medians(values: Float[np.ndarray, "n K"], known: Bool[np.ndarray, "n K"], axis: int) -> Float[np.ndarray, "_"]:
    """Medians of what is known; 0 where nothing is."""
    there = known.any(axis=axis, keepdims=True)
    return np.asarray(np.nanmedian(np.where(there, np.where(known, values, np.nan), 0.0), axis=axis))


# ------------------------------------------------------------------------------------------------ labelled or left out


def _looks_labelled(
    labels: Labels, consensus: Consensus, margins: Float[np.ndarray, "n K"]
) -> Float[np.ndarray, "n K"]:
    """Log odds that an annotator labels such a keypoint; +BOUND everywhere where nothing was ever left out."""
    labelled = labels.labelled
    if labelled.all():
        return np.full(labelled.shape, BOUND)
    margin = np.clip(np.where(np.isfinite(margins), margins, BORDER), -BORDER, BORDER) / BORDER
    rate = (labelled.sum(axis=0) + 1) / (len(labelled) + 2)
    usual = np.broadcast_to(np.log(rate) - np.log1p(-rate), labelled.shape)
    columns = [np.ones_like(margin), *_features(consensus), consensus.confidence, margin, np.minimum(margin, 0)]
    features = np.stack(columns, axis=-1)
    weights = _logistic_fit(features.reshape(-1, len(columns)), labelled.ravel().astype(float), usual.ravel())
    return np.clip(features @ weights + usual, -BOUND, BOUND)


def _logistic_fit(
    features: Float[np.ndarray, "r f"], answers: Float[np.ndarray, "r"], offset: Float[np.ndarray, "r"]
) -> Float[np.ndarray, "f"]:
    """Logistic regression by Newton's method, with a ridge: where the two can be told apart it stays finite, and a few
    that lie on the wrong side are not fitted at any price."""
    weights = np.zeros(features.shape[1])
    ridge = RIDGE * np.eye(features.shape[1])
    for _ in range(25):
        chance = _logistic(np.clip(features @ weights + offset, -BOUND, BOUND))
        slope = features.T @ (answers - chance) - ridge @ weights
        curve = (features * (chance * (1 - chance) + 1e-9)[:, None]).T @ features + ridge
        weights = weights + np.linalg.solve(curve, slope)
    return weights


def _logistic(values: np.ndarray) -> np.ndarray:
    return np.asarray(1 / (1 + np.exp(-values)))
