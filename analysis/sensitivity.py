"""Would other OKS sigmas have named another winner? AP with all sigmas halved and doubled, and what that does to ranks.

    numbers = sensitivity(results, ranked(results))
    draw_sensitivity(numbers, ax); numbers.table.to_csv(...); numbers.sentence

Sigmas say how many pixels off still count. Where nobody measured them they are a guess, and a ranking that turns with
the guess says little.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from posesweep.analysis.drawing import GREY, INK, OTHER, WINNER
from posesweep.analysis.keypoint_ap import Detections, Truth, keypoint_ap, match
from posesweep.analysis.ranked import Standings
from posesweep.analysis.results import Evidence, SweepResults

FACTORS = (0.5, 1.0, 2.0)  # on every sigma
LEAST_RANKED = 3  # fewer trials have no order to speak of


@dataclass(frozen=True)
class Sensitivity:
    """`table`: one row per trial that has a rank and predictions, the best with the sigmas as they are first: trial,
    AP x0.5, AP x1, AP x2, rank x0.5, rank x1, rank x2 (equal APs share the better rank). Its APs are of the objects
    that were predicted: crowds, which can only take false detections out of the count, are not among them.
    `correlation`: Spearman's, of each factor's order with that of factor 1; nan below three trials."""

    table: pd.DataFrame
    factors: tuple[float, ...]
    correlation: tuple[float, ...]
    winners: tuple[int, ...]  # of each factor; () without a trial
    sentence: str


def sensitivity(results: SweepResults, standings: Standings) -> Sensitivity:
    """Score the predictions of every ranked trial again. Raises SweepError for predictions that cannot be read."""
    skeleton = results.skeleton
    found = {row.trial: results.evidence(row.trial) for row in standings.rows if row.rank is not None}
    usable = {
        trial: evidence
        for trial, evidence in found.items()
        if evidence is not None and skeleton is not None and evidence.keypoints.shape[1] == len(skeleton.keypoints)
    }
    if skeleton is None or not usable:
        why = "No trial has predictions" if skeleton is not None else "split.json does not give the OKS sigmas"
        return Sensitivity(_table([], np.zeros((0, len(FACTORS)))), FACTORS, (), (), f"{why}: nothing can be said.")
    aps = np.array([[ap_with(each, factor * skeleton.sigmas) for factor in FACTORS] for each in usable.values()])
    trials = list(usable)
    winners = tuple(trials[int(column.argmax())] for column in aps.T)
    correlation = tuple(_spearman(aps[:, FACTORS.index(1.0)], column) for column in aps.T)
    return Sensitivity(_table(trials, aps), FACTORS, correlation, winners, _sentence(len(trials), correlation, winners))


def ap_with(evidence: Evidence, sigmas: Float[np.ndarray, "K"]) -> float:
    """Keypoint AP of a trial's predictions with these sigmas; nan where it is not defined."""
    arrays = evidence.arrays
    truth = Truth(
        image_ids=evidence.image_ids,
        category_ids=arrays["category_id"],
        keypoints=evidence.true_keypoints.astype(np.float64),
        visibility=evidence.visibility,
        areas=evidence.areas.astype(np.float64),
        boxes=evidence.boxes.astype(np.float64),
        crowd=np.zeros(len(evidence.ids), bool),
        ids=evidence.ids,
    )
    points = evidence.keypoints.astype(np.float64)
    ap = keypoint_ap(match(truth, Detections(evidence.image_ids, truth.category_ids, points, arrays["score"]), sigmas))
    return ap["AP"] if ap["AP"] != -1 else float("nan")


def _table(trials: list[int], aps: Float[np.ndarray, "n f"]) -> pd.DataFrame:
    table = pd.DataFrame({"trial": pd.Series(trials, dtype=int)})
    for name, ranks in (("AP", False), ("rank", True)):
        for factor, column in zip(FACTORS, aps.T, strict=True):
            ordered = pd.Series(column).rank(ascending=False, method="min")
            table[f"{name} x{factor:g}"] = ordered if ranks else column
    return table.sort_values("rank x1", kind="stable").reset_index(drop=True)


def _spearman(a: Float[np.ndarray, "n"], b: Float[np.ndarray, "n"]) -> float:
    """Spearman's rank correlation, equal values at their mean rank; nan where an order is missing."""
    ranks = [pd.Series(values).rank() for values in (a, b)]
    if len(a) < LEAST_RANKED or any(each.nunique() < 2 for each in ranks):
        return float("nan")
    return float(np.corrcoef(ranks)[0, 1])


def _sentence(trials: int, correlation: tuple[float, ...], winners: tuple[int, ...]) -> str:
    if trials == 1:
        return f"Only trial {winners[0]} has predictions, so there is no order that sigmas could change."
    usual = winners[FACTORS.index(1.0)]
    others = [f"trial {w} with sigmas x {f:g}" for f, w in zip(FACTORS, winners, strict=True) if w != usual]
    if others:
        said = f"The winner hangs on the OKS sigmas: trial {usual} with those given, {' and '.join(others)}"
    else:
        said = f"Trial {usual} has the highest AP with the OKS sigmas halved and doubled, too"
    known = [f"{c:.2f} (x {f:g})" for f, c in zip(FACTORS, correlation, strict=True) if f != 1 and np.isfinite(c)]
    return f"{said}; rank correlation of all {trials} trials: {' and '.join(known)}." if known else f"{said}."


def draw_sensitivity(numbers: Sensitivity, ax: Axes, most: int = 30, winner: int | None = None) -> None:
    """The place of the best `most` trials with each set of sigmas, one line a trial; whoever wins once is named.
    `winner`: where it is not the best of the search."""
    names = [f"rank x{factor:g}" for factor in numbers.factors]
    shown = numbers.table[(numbers.table["rank x1"] <= most) | numbers.table["trial"].isin(numbers.winners)]
    places = np.arange(len(names))
    green = numbers.winners[names.index("rank x1")] if winner is None and numbers.winners else winner
    for trial, ranks in zip(shown["trial"], shown[names].to_numpy(float), strict=True):
        wins = trial in numbers.winners
        colour, width = (WINNER, 2.2) if trial == green else (OTHER, 1.2)
        ax.plot(places, ranks, "o-", color=colour, linewidth=width, markersize=4, alpha=1.0 if wins else 0.6)
        if wins and np.isfinite(ranks[-1]):
            ax.annotate(f" trial {trial}", (places[-1], ranks[-1]), va="center", fontsize=9, color=INK)
    ax.set_xticks(places, [f"sigmas x {factor:g}" for factor in numbers.factors])
    ax.set_xlim(-0.2, len(names) - 0.55)
    ax.yaxis.set_major_locator(MaxNLocator(integer=True))
    ax.invert_yaxis()
    ax.set_ylabel("place by AP")
    ax.tick_params(axis="y", labelcolor=GREY)
