"""Left and right labels that changed places, suspected from the set's own poses.

Nothing is known about the body but its flip pairs. What changes its sign when labels are exchanged (differences left
minus right) is "odd", all else "even". For one pair or one chain of pairs its odd part is predicted from the whole rest
of the pose; a pose that lies nearer to minus the prediction is suspect. Exchanging all pairs leaves no rest that would
say which side is which, so a function odd x polynomial(even) is fitted to 1 on all poses as they are labelled; it is -1
on their mirror images by construction, so it learns which sign belongs to which situation: facing left or right, seen
from above, which eye is hidden. Both are kernel ridge regressions, and every pose is judged by a fit without it.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from posesweep.datasets.skeleton import Skeleton

LEAST_POSES = 30  # fewer say nothing about what is usual
MOST_FITTED = 1500  # the fit costs their number to the third power; the others are judged by it
AT_ONCE = 4096  # poses judged in one go: bounds the memory
RIDGES = (0.03, 0.3, 3.0, 30.0)
DEGREES = (1, 2)  # of the polynomial of even features
ODDS = 3.5  # natural logarithm of the odds from which on a swap is suspected
ROUNDS = 2  # fits; the second leaves out what the first suspects
HIDDEN = 0.15  # of a box: what being hidden counts beside a distance
HEAVY_TAILS = 4.0  # degrees of freedom of the t distribution that errors of prediction follow
INDEPENDENT = 5  # target columns of a chain that count: its errors go together
NORMAL = 1e6  # degrees of freedom from which on nobody sees a difference to the normal distribution
LEAST_SPREAD = 0.2  # of values fitted to 1: their own spread is smaller, but not where poses are rare


@dataclass(frozen=True)
class Unit:
    """Pairs that are exchanged together."""

    name: str
    pairs: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Swaps:
    """For every pose the unit whose exchange would explain it best, and the log odds that it was exchanged."""

    units: list[Unit]
    unit: Int[np.ndarray, "n"]
    log_odds: Float[np.ndarray, "n"]

    @property
    def suspected(self) -> Bool[np.ndarray, "n"]:
        return self.log_odds > ODDS


def swap_units(skeleton: Skeleton) -> list[Unit]:
    """Every flip pair, every chain of pairs that limbs join on both sides (a pair of legs), and all pairs together."""
    index = {name: k for k, name in enumerate(skeleton.keypoints)}
    pairs = [(index[left], index[right]) for left, right in skeleton.flip_pairs]
    units = [
        Unit(f"{left} and {right}", (pair,)) for (left, right), pair in zip(skeleton.flip_pairs, pairs, strict=True)
    ]
    for chain in _chains(pairs, [(index[a], index[b]) for a, b in skeleton.edges]):
        names = ", ".join(f"{skeleton.keypoints[left]}/{skeleton.keypoints[right]}" for left, right in chain)
        units.append(Unit(names, tuple(chain)))
    if len(pairs) > 1 and not any(len(unit.pairs) == len(pairs) for unit in units):
        units.append(Unit("all left and right keypoints", tuple(pairs)))
    return units


def _chains(pairs: list[tuple[int, int]], edges: list[tuple[int, int]]) -> list[list[tuple[int, int]]]:
    """The groups of two or more pairs that are joined by limbs on the left and on the right."""
    limbs = {frozenset(edge) for edge in edges}
    group = list(range(len(pairs)))
    for i, (left, right) in enumerate(pairs):
        for j, (other_left, other_right) in enumerate(pairs[:i]):
            if {frozenset((left, other_left)), frozenset((right, other_right))} <= limbs:
                old, new = group[i], group[j]
                group = [new if g == old else g for g in group]
    chains = [[pair for pair, g in zip(pairs, group, strict=True) if g == number] for number in sorted(set(group))]
    return [chain for chain in chains if len(chain) > 1]


def find_swaps(poses: Float[np.ndarray, "n K 2"], visibility: Int[np.ndarray, "n K"], skeleton: Skeleton) -> Swaps:
    """Judge `n` poses in coordinates of their own box (a length of 1 is the box's size); visibility 0: not known.

    With fewer than 30 poses, or no flip pair, there are no units and nothing is suspected."""
    units, odds = swap_odds(poses, visibility, skeleton)
    if not units:
        return Swaps([], np.zeros(len(poses), dtype=np.int64), np.full(len(poses), -np.inf))
    best = odds.argmax(axis=1)
    return Swaps(units, best, odds[np.arange(len(poses)), best])


def swap_odds(
    poses: Float[np.ndarray, "n K 2"],
    visibility: Int[np.ndarray, "n K"],
    skeleton: Skeleton,
    most_fitted: int = MOST_FITTED,
) -> tuple[list[Unit], Float[np.ndarray, "n u"]]:
    """Every unit, and the log odds of each pose that it was exchanged in it; see `find_swaps`."""
    units = swap_units(skeleton) if len(poses) >= LEAST_POSES else []
    odds = [_log_odds(_problem(poses, visibility, unit, skeleton), most_fitted) for unit in units]
    return units, np.stack(odds, axis=1) if units else np.zeros((len(poses), 0))


def exchanged(columns: Shaped[np.ndarray, "n K *_"], units: Iterable[Unit]) -> Shaped[np.ndarray, "n K *_"]:
    """`columns` with the keypoints of row i's unit exchanged; one unit for each row."""
    turned = columns.copy()
    for row, unit in enumerate(units):
        for left, right in unit.pairs:
            turned[row, [left, right]] = columns[row, [right, left]]
    return turned


# ------------------------------------------------------------------------------------------------- what is regressed


@dataclass(frozen=True)
class _Problem:
    """Regress `target` on the kernel (gate . gate') (1 + context . context')^degree; `known`: rows that can be."""

    gate: Float[np.ndarray, "n g"]
    context: Float[np.ndarray, "n e"]
    target: Float[np.ndarray, "n t"]
    known: Bool[np.ndarray, "n"]
    freedom: float
    least_spread: float


def _problem(poses: np.ndarray, visibility: np.ndarray, unit: Unit, skeleton: Skeleton) -> _Problem:
    odd, even = _features(poses, visibility, unit, skeleton)
    ones = np.ones((len(poses), 1))
    if len(unit.pairs) == len(skeleton.flip_pairs) > 1:
        return _Problem(odd, even, ones, np.asarray(odd.any(axis=1)), NORMAL, LEAST_SPREAD)
    known = np.asarray((visibility[:, np.array(unit.pairs).ravel()] > 0).all(axis=1))
    return _Problem(ones, even, odd, known, HEAVY_TAILS, 0.01)


def _features(
    poses: np.ndarray, visibility: np.ndarray, unit: Unit, skeleton: Skeleton
) -> tuple[Float[np.ndarray, "n o"], Float[np.ndarray, "n e"]]:
    """(odd, even) features for one unit, of mean square length 1, the even ones centred; what is not known is 0."""
    known = (visibility > 0)[:, :, None]
    hidden = HIDDEN * (visibility == 1)[:, :, None]
    columns = np.where(known, np.concatenate([poses, hidden], axis=2), np.nan)
    left, right = np.array(unit.pairs).T
    index = {name: k for k, name in enumerate(skeleton.keypoints)}
    rest = [k for k in range(len(skeleton.keypoints)) if k not in {*left.tolist(), *right.tolist()}]
    apart = [(index[a], index[b]) for a, b in skeleton.flip_pairs if index[a] in rest]
    even = [columns[:, left] + columns[:, right], columns[:, rest]]
    even += [columns[:, [a]] - columns[:, [b]] for a, b in apart]
    flat = np.concatenate([part.reshape(len(poses), -1) for part in even], axis=1)
    centred = np.nan_to_num(flat) - np.isfinite(flat) * _column_means(flat)
    odd = np.nan_to_num(columns[:, left] - columns[:, right]).reshape(len(poses), -1)
    return _unit_length(odd), _unit_length(centred)


def _column_means(flat: np.ndarray) -> np.ndarray:
    return np.nan_to_num(flat).sum(axis=0) / np.isfinite(flat).sum(axis=0).clip(1)


def _unit_length(features: np.ndarray) -> np.ndarray:
    scale = np.sqrt((features**2).sum(axis=1).mean()) if features.size else 0.0
    return features / scale if scale > 0 else features


# --------------------------------------------------------------------------------------------------- the regression


def _log_odds(problem: _Problem, most_fitted: int) -> Float[np.ndarray, "n"]:
    """Log odds that each pose was exchanged: of the target's negative against the target, given the prediction."""
    odds = np.full(len(problem.target), -np.inf)
    known = np.flatnonzero(problem.known)
    if len(known) < LEAST_POSES:
        return odds
    fitted = known[np.linspace(0, len(known) - 1, min(len(known), most_fitted)).astype(int)]
    settings = _best_settings(problem, fitted)
    for _ in range(ROUNDS):
        fitted = fitted[odds[fitted] < ODDS]
        if len(fitted) < LEAST_POSES // 2:  # so many suspects that nothing is left to suspect them by
            break
        predicted = _predict(problem, fitted, *settings)
        spread = _scatter((problem.target - predicted)[fitted], problem.freedom, problem.least_spread)
        labelled, turned = (_distance(sign * problem.target - predicted, spread) for sign in (1, -1))
        freedom = problem.freedom
        weight = (freedom + min(problem.target.shape[1], INDEPENDENT)) / 2
        odds[known] = (weight * (np.log1p(labelled / freedom) - np.log1p(turned / freedom)))[known]
    return odds


def _best_settings(problem: _Problem, fitted: Int[np.ndarray, "f"]) -> tuple[int, float]:
    """The (degree, ridge) with the least error on poses left out, large errors counted as four times the target's."""
    target = problem.target[fitted]
    most = 4 * (target**2).mean()

    def error(settings: tuple[int, float]) -> float:
        left_out = _left_out(_kernel(problem, fitted, fitted, settings[0]), settings[1], target)[0]
        return float(np.minimum((target - left_out) ** 2, most).mean())

    return min(((degree, ridge) for degree in DEGREES for ridge in RIDGES), key=error)


def _predict(problem: _Problem, fitted: Int[np.ndarray, "f"], degree: int, ridge: float) -> Float[np.ndarray, "n t"]:
    """The target of every row; of a fitted row as if it had been left out."""
    own = _kernel(problem, fitted, fitted, degree)
    left_out, weights = _left_out(own, ridge, problem.target[fitted])
    rows = np.arange(len(problem.target))
    parts = [rows[start : start + AT_ONCE] for start in range(0, len(rows), AT_ONCE)]
    predicted = np.concatenate([_kernel(problem, part, fitted, degree) @ weights for part in parts])
    predicted[fitted] = left_out
    return predicted


def _left_out(kernel: np.ndarray, ridge: float, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(prediction of each row by a ridge regression on all others, weights of the regression on all).

    In closed form: y_i - a_i / G_ii with G = (K + ridge I)^-1 and a = G y (Rifkin and Lippert, 2007)."""
    inverse = np.linalg.inv(kernel + ridge * np.eye(len(kernel)))
    weights = inverse @ target
    return target - weights / inverse.diagonal()[:, None], weights


def _kernel(problem: _Problem, rows: np.ndarray, columns: np.ndarray, degree: int) -> np.ndarray:
    gate = problem.gate[rows] @ problem.gate[columns].T
    return gate * (1 + problem.context[rows] @ problem.context[columns].T) ** degree


def _scatter(errors: Float[np.ndarray, "f t"], freedom: float, least: float) -> Float[np.ndarray, "t t"]:
    """Scatter matrix of a t distribution around 0 by expectation and maximisation, at least `least`^2 in every way."""
    dimensions = errors.shape[1]
    weights = np.ones(len(errors))
    for _ in range(5):
        scatter = (errors * weights[:, None]).T @ errors / weights.sum() + least**2 * np.eye(dimensions)
        weights = (freedom + dimensions) / (freedom + _distance(errors, scatter))
    return scatter


def _distance(errors: np.ndarray, scatter: np.ndarray) -> Float[np.ndarray, "_"]:
    """Squared Mahalanobis distance of every row from 0."""
    return np.einsum("ni,ij,nj->n", errors, np.linalg.inv(scatter), errors)
