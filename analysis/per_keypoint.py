"""Which keypoints a model finds and which it misses: OKS, error and PCK of each, and a heat map over trials."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float, Int
from matplotlib.axes import Axes

from posesweep.analysis.drawing import INK
from posesweep.analysis.keypoint_errors import PCK_FRACTIONS, KeypointErrors, keypoint_similarity
from posesweep.analysis.results import Evidence
from posesweep.datasets.skeleton import Skeleton

PCK_SHARE = PCK_FRACTIONS[0]  # of the longer side of the object's box

WELL_LEARNED = 0.5  # PCK from which a keypoint can be learned
HARDLY = 1 / 3  # of that: below, it was not


@dataclass(frozen=True)
class PerKeypoint:
    """Means over the validation objects in which the keypoint is labelled; nan where it never is."""

    names: tuple[str, ...]
    count: Int[np.ndarray, "K"]
    oks: Float[np.ndarray, "K"]
    error_px: Float[np.ndarray, "K"]  # image pixels
    pck: Float[np.ndarray, "K"]  # share found within PCK_SHARE of the longer side of the box


def per_keypoint(evidence: Evidence, skeleton: Skeleton) -> PerKeypoint:
    """Numbers of each keypoint. An object's OKS is the mean over its labelled keypoints; here each keypoint's part is
    averaged over the objects."""
    labelled = evidence.visibility > 0
    errors = KeypointErrors(np.where(labelled, evidence.error_px, np.nan), evidence.boxes)
    return PerKeypoint(
        names=skeleton.keypoints,
        count=labelled.sum(axis=0),
        oks=_mean(keypoint_similarity(errors, evidence.areas, skeleton.sigmas), labelled),
        error_px=_mean(errors.distance_px, labelled),
        pck=_mean((errors.of_longer_side <= PCK_SHARE).astype(float), labelled),
    )


def _mean(values: Float[np.ndarray, "D K"], labelled: np.ndarray) -> Float[np.ndarray, "K"]:
    count = labelled.sum(axis=0)
    total = np.where(labelled, values, 0.0).sum(axis=0)
    return np.divide(total, count, out=np.full(len(count), np.nan), where=count > 0)


def comparison(winner: PerKeypoint, baseline: PerKeypoint | None) -> pd.DataFrame:
    """One row per keypoint, the winner's worst first: keypoint, labelled, oks, error_px, pck, and what the winner has
    over the baseline: oks_gain, error_px_gain, pck_gain (nan without a baseline). A negative error gain is good."""
    table = pd.DataFrame({"keypoint": winner.names, "labelled": winner.count})
    for name in ("oks", "error_px", "pck"):
        table[name] = getattr(winner, name)
        table[f"{name}_gain"] = table[name] - getattr(baseline, name) if baseline is not None else np.nan
    return table.sort_values("oks", kind="stable", na_position="last").reset_index(drop=True)


@dataclass(frozen=True)
class Unlearned:
    """A keypoint that one trial hardly finds and another finds well; both as shares of the labelled ones (PCK)."""

    keypoint: str
    pck: float
    trial: int  # the one that finds it best
    pck_there: float


def unlearned(by_trial: dict[int, PerKeypoint], trial: int) -> tuple[Unlearned, ...]:
    """The keypoints that `trial` did not learn though they can be: another trial finds them in most objects, and this
    one in less than a third as many. Such a network's AP looks like that of one that is a little worse everywhere."""
    pck = np.column_stack([numbers.pck for numbers in by_trial.values()])
    trials, mine = list(by_trial), by_trial[trial].pck
    best = np.nan_to_num(pck, nan=-1.0).argmax(axis=1)
    found = [(k, trials[best[k]], float(pck[k, best[k]])) for k in range(len(mine))]
    return tuple(
        Unlearned(by_trial[trial].names[k], float(mine[k]), other, there)
        for k, other, there in found
        if there >= WELL_LEARNED and mine[k] < HARDLY * there
    )


@dataclass(frozen=True)
class KeypointMap:
    """Mean OKS of K keypoints (rows) in T trials (columns)."""

    names: tuple[str, ...]
    trials: tuple[int, ...]
    oks: Float[np.ndarray, "K T"]


def keypoint_map(by_trial: dict[int, PerKeypoint]) -> KeypointMap:
    """The OKS of every keypoint in several trials, in the given order. At least one trial."""
    names = next(iter(by_trial.values())).names
    return KeypointMap(names, tuple(by_trial), np.column_stack([numbers.oks for numbers in by_trial.values()]))


def draw_keypoint_map(numbers: KeypointMap, ax: Axes, labels: dict[int, str] | None = None) -> None:
    """Darker is better; each cell says its OKS in hundredths. `labels` names trials that are more than a number."""
    low = min(float(np.nanmin(numbers.oks, initial=1.0)), 0.9)
    ax.pcolormesh(numbers.oks, cmap="YlGnBu", vmin=low, vmax=1.0, edgecolors="none")
    for (k, t), oks in np.ndenumerate(numbers.oks):
        if np.isfinite(oks):
            # on a pale cell near-black, not the page's ink: the cell stays pale on a dark page
            shade = "white" if (oks - low) / (1 - low) > 0.55 else "#1f2937"
            ax.text(t + 0.5, k + 0.5, f"{100 * oks:.0f}", ha="center", va="center", fontsize=7.5, color=shade)
    ax.set_yticks(np.arange(len(numbers.names)) + 0.5, numbers.names)
    ax.set_xticks(
        np.arange(len(numbers.trials)) + 0.5, [(labels or {}).get(trial, str(trial)) for trial in numbers.trials]
    )
    ax.invert_yaxis()
    ax.xaxis.tick_top()
    ax.tick_params(length=0, labelcolor=INK)
    ax.grid(False)
    ax.spines[:].set_visible(False)
