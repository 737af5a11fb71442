"""Was it right to stop trials where they were stopped: how well the score at a rung foretells the final one."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float

from posesweep.analysis.curves import rung_epochs
from posesweep.analysis.ranking import Interval
from posesweep.analysis.results import SweepResults

FEWEST = 5  # trials; with fewer, the interval of a rank correlation says nothing
Z = 1.959964  # of 95 %


@dataclass(frozen=True)
class RungCorrelation:
    """One rung. `spearman` is None with fewer than FEWEST trials, or where all scores are equal.

    Only trials that trained to the end can be compared. They are the ones that were good at the rung, so the
    correlation over all trials would be higher: this one is on the safe side.
    """

    epoch: int
    trials: int
    spearman: Interval | None


def rung_correlations(results: SweepResults) -> tuple[RungCorrelation, ...]:
    """Spearman's rank correlation of the score at each rung with the best score, over the finished trials.

    () for a sweep that has no rungs.
    """
    epochs = rung_epochs(results.sweep, results.full_epochs)
    finished = results.trials[results.trials["state"] == "finished"].set_index("trial")["value"].astype(float)
    found = []
    for epoch, until in zip(epochs, [*epochs, np.inf][1:], strict=True):
        pairs = pd.DataFrame({"rung": values_at(results, epoch, until), "final": finished}).dropna()
        found.append(RungCorrelation(epoch, len(pairs), spearman(pairs["rung"].to_numpy(), pairs["final"].to_numpy())))
    return tuple(found)


def values_at(results: SweepResults, epoch: float, until: float = np.inf) -> "pd.Series[float]":
    """By trial, the first score at or after `epoch` and before `until`: what the search compared there."""
    rows = results.curves.dropna(subset=["value"])
    rows = rows[(rows["epoch"] >= epoch) & (rows["epoch"] < until)].sort_values("epoch", kind="stable")
    return rows.drop_duplicates("trial").set_index("trial")["value"]


def spearman(x: Float[np.ndarray, "n"], y: Float[np.ndarray, "n"]) -> Interval | None:
    """Spearman's rank correlation with its 95 % interval: Fisher's z, standard error sqrt((1 + r^2 / 2) / (n - 3)) of
    Bonett and Wright (Psychometrika 65, 2000). None where it is not defined or n < FEWEST."""
    if len(x) < FEWEST or np.ptp(x) == 0 or np.ptp(y) == 0:
        return None
    r = min(1.0, max(-1.0, float(pd.Series(x).rank().corr(pd.Series(y).rank()))))
    if abs(r) > 1 - 1e-12:
        return Interval(r, *((-1.0, -1.0) if r < 0 else (1.0, 1.0)))
    half = Z * np.sqrt((1 + r**2 / 2) / (len(x) - 3))
    return Interval(r, float(np.tanh(np.arctanh(r) - half)), float(np.tanh(np.arctanh(r) + half)))
