"""Which searched parameters matter: the share of the differences between trials that each explains, with an interval.

Under early stopping only trials that looked good have a final score, and they are alike in what matters most;
importance computed on final scores, or on the last score of each, then points to the wrong parameter. So trials are
compared at the last epoch that all of them came to (with ASHA, its first rung). What matters there need not be what
matters at the end: `rungs` says how far the one foretells the other.

The model is a functional analysis of variance with main effects, on the scores themselves: ranks would forget how bad
the bad trials were, and a search that soon keeps to good values has few of those. A diverged trial counts as the worst
of all others. Each parameter has a smooth function: of a range, Legendre polynomials of degree 1 to 3 on its own scale;
of choices, a level each. How large each function may be
is a variance component of its own, found by expectation maximisation (as MacKay, Neural Computation 4, 1992, "Bayesian
interpolation"): functions that nothing speaks for shrink to nothing. A parameter's share is the variance of its
function over the parameter's whole range, evenly, wherever the search has looked most; what no function explains (other
seeds, interactions) is the rest. Intervals: the 2.5 and 97.5 % quantiles over a bootstrap of the trials that weights
each at random instead of drawing some twice (Rubin, Annals of Statistics 9, 1981).
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float
from matplotlib.axes import Axes

from posesweep.analysis.drawing import GREY, OTHER
from posesweep.analysis.ranking import CONFIDENCE, Interval
from posesweep.analysis.results import PARAMS, SweepResults
from posesweep.analysis.rungs import values_at
from posesweep.analysis.searched import Axis, axes

FEWEST = 12  # trials
RESAMPLES = 100
GRID = 33  # places at which a function is looked at
STEPS, STEPS_AGAIN = 60, 12  # of the iteration, from scratch and from a solution close by
TINY = 1e-9


@dataclass(frozen=True)
class Effect:
    """One parameter. `share` of the differences between trials that it explains, 0..1."""

    axis: Axis
    trials: int  # in which it was active
    share: Interval
    places: Float[np.ndarray, "g"]  # of the range, 0..1, or the positions of the choices
    scores: Float[np.ndarray, "g"]  # the sweep's metric, as the model has it there, all else in the middle

    @property
    def swing(self) -> float:
        """How far the metric goes from the worst place to the best."""
        return float(np.ptp(self.scores))


@dataclass(frozen=True)
class Importance:
    """Effects, the most important first; () with the `reason` when there is too little to go by."""

    metric: str
    epoch: int | None  # at which the trials were compared; None: at the end of their training
    trials: int
    effects: tuple[Effect, ...]
    rest: Interval | None  # the share that no parameter explains
    reason: str = ""


def numbers(results: SweepResults, resamples: int = RESAMPLES, seed: int = 0) -> Importance:
    """The importance of every searched parameter."""
    searched = axes(results)
    scores, epoch = common_scores(results)
    count = len(scores)
    needed = max(FEWEST, 2 * len(searched))
    if reason := _too_little(searched, scores, needed):
        return Importance(results.metric, epoch, count, (), None, reason)
    rows = results.trials.set_index("trial").loc[scores.index]
    y = scores.to_numpy(float) if results.maximize else -scores.to_numpy(float)
    blocks = [_Block.of(axis, axis.places(rows[PARAMS + axis.name])) for axis in searched]
    fit = _Fit.of(blocks, (y - y.mean()) / y.std())
    rng = np.random.default_rng(seed)
    shares = [fit.again(rng.exponential(1, count)).shares() for _ in range(resamples)]
    low, high = np.quantile(shares, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2], axis=0)
    value = fit.shares()
    raw = fit.of_scores(scores.to_numpy(float))
    intervals = [
        Interval(float(v), float(min(a, v)), float(max(b, v))) for v, a, b in zip(value, low, high, strict=True)
    ]
    effects = [
        Effect(block.axis, int(block.active.sum()), interval, block.places, curve)
        for block, interval, curve in zip(blocks, intervals[:-1], raw, strict=True)
    ]
    ordered = sorted(effects, key=lambda effect: -effect.share.value)
    return Importance(results.metric, epoch, count, tuple(ordered), intervals[-1])


def common_scores(results: SweepResults) -> tuple["pd.Series[float]", int | None]:
    """(score by trial, the epoch at which all have it; None: each has its best).

    The epoch is the last that all trials that were stopped early came to. A trial that ended of itself before counts
    with its best score; a diverged one with the worst score of all; failed ones, and running ones that have not come so
    far, are left out.
    """
    trials = results.trials.set_index("trial")
    best = trials["value"].astype(float).dropna()
    state = trials["state"]
    reached = results.curves.dropna(subset=["value"]).groupby("trial")["epoch"].max()
    stopped = reached[reached.index.map(state.get) == "pruned"]
    finished = best[best.index.map(state.get) == "finished"]
    epoch = int(stopped.min()) if len(stopped) else None
    scores = finished
    if epoch is not None:
        there = values_at(results, epoch)
        there = there[there.index.map(state.get).isin(["finished", "pruned", "running"])]
        scores = there.combine_first(finished)
    diverged = state.index[state == "diverged"]
    if len(scores) and len(diverged):
        worst = scores.min() if results.maximize else scores.max()
        scores = pd.concat([scores, pd.Series(worst, index=diverged, dtype=float)])
    return scores.sort_index(), epoch


def _too_little(searched: tuple[Axis, ...], scores: "pd.Series[float]", needed: int) -> str:
    if not searched:
        return "No parameter took more than one value."
    if len(scores) < needed:
        which = "this parameter matters" if len(searched) == 1 else f"which of {len(searched)} parameters matter"
        return f"{len(scores)} trials that can be compared are too few to tell {which}; {needed} are needed."
    if np.ptp(scores.to_numpy(float)) == 0:
        return "All trials have the same score, so nothing explains a difference."
    return ""


# --- the model -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Block:
    """The columns of one parameter, and the same functions over its whole range."""

    axis: Axis
    active: Bool[np.ndarray, "n"]
    columns: Float[np.ndarray, "n d"]  # 0 where it is not active
    places: Float[np.ndarray, "g"]
    grid: Float[np.ndarray, "g d"]

    @classmethod
    def of(cls, axis: Axis, at: Float[np.ndarray, "n"]) -> "_Block":
        """Given the places of the trials."""
        active = np.isfinite(at)
        places = np.arange(len(axis.choices), dtype=float) if axis.choices else np.linspace(0, 1, GRID)
        different = len(np.unique(at[active]))
        columns = _functions(axis, np.where(active, at, 0), different) * active[:, None]
        return cls(axis, active, columns, places, _functions(axis, places, different))

    @property
    def spread(self) -> Float[np.ndarray, "d d"]:
        """The covariance of the functions over the range, times how often the parameter is active."""
        centred = self.grid - self.grid.mean(axis=0)
        return centred.T @ centred / len(self.grid) * self.active.mean()


def _functions(axis: Axis, at: Float[np.ndarray, "n"], different: int) -> Float[np.ndarray, "n d"]:
    """Functions of variance 1 over the range; the higher the degree, the less is thought of it. A polynomial has a
    degree below the number of `different` places."""
    if axis.choices:
        count = len(axis.choices)
        return (at[:, None] == np.arange(count)) * np.sqrt(count) - 1 / np.sqrt(count)
    x = 2 * at - 1
    legendre = [x, (3 * x**2 - 1) / 2, (5 * x**3 - 3 * x) / 2]
    kept = legendre[: max(1, min(3, different - 1))]
    return np.stack([f * np.sqrt(2 * k + 1) / k for k, f in enumerate(kept, start=1)], axis=1)


@dataclass(frozen=True)
class _Fit:
    """Ridge regression with a strength for each parameter, all found from the data."""

    blocks: list[_Block]
    y: Float[np.ndarray, "n"]
    weights: Float[np.ndarray, "n"]
    coefficients: Float[np.ndarray, "D"]
    strength: Float[np.ndarray, "p"]  # variance of a coefficient of each parameter
    noise: float  # variance that is left

    @classmethod
    def of(cls, blocks: list[_Block], y: Float[np.ndarray, "n"]) -> "_Fit":
        """Each trial counting as one."""
        start = np.full(len(blocks), 1 / len(blocks))
        return _solve(blocks, y, np.ones(len(y)), start, STEPS)

    def again(self, weights: Float[np.ndarray, "n"]) -> "_Fit":
        """With other weights."""
        start = np.maximum(self.strength, 0.02)  # what has shrunk to nothing would stay there
        return _solve(self.blocks, self.y, weights * len(weights) / weights.sum(), start, STEPS_AGAIN)

    def shares(self) -> Float[np.ndarray, "shares"]:
        """Of each parameter, and of the rest."""
        parts = _parts(self.blocks, self.coefficients)
        variance = [b @ block.spread @ b for block, b in zip(self.blocks, parts, strict=True)]
        found = np.array([*variance, self.noise])
        return found / found.sum()

    def of_scores(self, scores: Float[np.ndarray, "n"]) -> list[Float[np.ndarray, "g"]]:
        """The effect of each parameter on the scores themselves, by the same smoothing."""
        design, prior = _design(self.blocks), _prior(self.blocks, self.strength)
        centre = scores.mean()
        kept = design - design.mean(axis=0)
        b = np.linalg.solve(kept.T @ kept + self.noise * prior, kept.T @ (scores - centre))
        parts = _parts(self.blocks, b)
        return [centre + block.grid @ part for block, part in zip(self.blocks, parts, strict=True)]


def _design(blocks: list[_Block]) -> Float[np.ndarray, "n D"]:
    return np.concatenate([block.columns for block in blocks], axis=1)


def _prior(blocks: list[_Block], strength: Float[np.ndarray, "p"]) -> Float[np.ndarray, "D D"]:
    """One over the variance of each coefficient, on the diagonal."""
    widths = [block.columns.shape[1] for block in blocks]
    return np.diag(1 / np.maximum(np.repeat(strength, widths), TINY))


def _parts(blocks: list[_Block], b: Float[np.ndarray, "D"]) -> list[Float[np.ndarray, "_"]]:
    """The coefficients of each parameter."""
    return np.split(b, np.cumsum([block.columns.shape[1] for block in blocks])[:-1])


def _solve(
    blocks: list[_Block],
    y: Float[np.ndarray, "n"],
    w: Float[np.ndarray, "n"],
    strength: Float[np.ndarray, "p"],
    steps: int,
) -> _Fit:
    """Coefficients and variances, by turns."""
    design = _design(blocks)
    n = w.sum()
    design = design - w @ design / n
    centred = y - w @ y / n
    gram, moment = (design * w[:, None]).T @ design, design.T @ (w * centred)
    total = float(w @ centred**2)
    owner = np.repeat(np.arange(len(blocks)), [block.columns.shape[1] for block in blocks])
    noise = 0.5 * total / n
    b = np.zeros(len(moment))
    for _ in range(steps):
        precision = gram / noise + np.diag(1 / np.maximum(strength[owner], TINY))
        covariance = np.linalg.inv(precision)
        b = covariance @ moment / noise
        residual = total - 2 * b @ moment + b @ gram @ b
        used = len(b) - float((np.diag(covariance) / np.maximum(strength[owner], TINY)).sum())
        strength = np.bincount(owner, b**2 + np.diag(covariance)) / np.bincount(owner)
        noise = max(residual / max(n - 1 - used, 1.0), 1e-3 * total / n)
    return _Fit(blocks, y, w, b, strength, noise)


# --- the picture -----------------------------------------------------------------------------------------------------


def draw(numbers: Importance, ax: Axes, most: int = 12) -> None:
    """Bars, the most important on top, with their intervals."""
    shown = numbers.effects[:most][::-1]
    places = np.arange(len(shown))
    value = np.array([effect.share.value for effect in shown])
    low = np.array([effect.share.low for effect in shown])
    high = np.array([effect.share.high for effect in shown])
    ax.barh(places, 100 * value, color=OTHER, height=0.6)
    ax.hlines(places, 100 * low, 100 * high, color=GREY, linewidth=2)
    ax.set_yticks(places, [effect.axis.name for effect in shown])
    ax.set_xlim(0, 100)
    ax.set_xlabel("% of the differences between trials")
    ax.grid(axis="y", visible=False)
