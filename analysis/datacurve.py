"""What would more data buy? A power law through trainings on parts of the data, with an interval.

    numbers = datacurve(results)                 # reads datacurve/, which `posesweep datacurve RUN` makes
    draw_datacurve(numbers, ax); numbers.table.to_csv(...); numbers.sentence

error = b n^-c on 1 - AP, fitted on logarithms; with at least five sizes a + b n^-c, a >= 0 (Hestness et al., Deep
learning scaling is predictable, empirically, 2017). The interval resamples the validation images (whole groups
where there are groups), the same for all trainings, and adds to every training an error as large as the fit leaves:
the luck of seeds and of the parts that were drawn.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, NullFormatter

from posesweep.analysis.drawing import GREY, INK, OTHER, WINNER
from posesweep.analysis.keypoint_ap import Matches, bootstrap_ap, keypoint_ap
from posesweep.analysis.ranked import groups_of
from posesweep.analysis.ranking import Bootstrap, Interval, matches_at
from posesweep.analysis.results import SweepResults
from posesweep.errors import SweepError

FOLDER, FILE = "datacurve", "datacurve.json"
LEAST_SIZES = 3  # fewer do not show whether a curve bends
LEAST_RANGE = 2.0  # the largest part is at least so much larger than the smallest
THREE_PARAMETERS = 5  # sizes from which on a floor is fitted, too
SMALLEST_ERROR = 1e-3  # of 1 - AP: what is perfect on this set has no logarithm
EXPONENTS = np.linspace(0.05, 2.0, 40)  # tried for the curve with a floor
RESAMPLES = 500


@dataclass(frozen=True)
class PowerLaw:
    """error(n) = floor + factor n^-exponent."""

    floor: float
    factor: float
    exponent: float

    def error(self, n: Float[np.ndarray, "g"] | float) -> Any:
        """1 - AP with n training objects."""
        return self.floor + self.factor * np.asarray(n, float) ** -self.exponent


@dataclass(frozen=True)
class DataCurve:
    """`table`: one row per training: share, seed, objects, AP, low, high (95 %, of the validation images alone), state.
    `curve`: objects, AP, low, high along the fit, from the smallest part to twice the data; empty without a fit.
    `gain`: AP that twice the data would buy; None: not known. `sentence` says it, or why it is not known."""

    table: pd.DataFrame
    law: PowerLaw | None
    gain: Interval | None
    sentence: str
    curve: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=["objects", "AP", "low", "high"]))


COLUMNS = ["share", "seed", "objects", "AP", "low", "high", "state"]
UNKNOWN = "What twice the data would buy is not known"


def datacurve(results: SweepResults) -> DataCurve:
    """Read the trainings on parts of the data, fit and look ahead. Whatever is missing is said in the sentence."""
    points = _points(results.folder / FOLDER / FILE)
    if points is None:
        return DataCurve(pd.DataFrame(columns=COLUMNS), None, None, untried(results))
    matches = [matches_at(results.folder / FOLDER / str(point["folder"]) / "evidence.npz") for point in points]
    kept = [i for i, one in enumerate(matches) if one is not None and points[i]["state"] == "finished"]
    samples, alone = _samples(results, [matches[i] for i in kept])
    table = _table(points, kept, samples)
    known = table.dropna(subset=["AP"])
    if reason := alone or _too_little(known):
        return DataCurve(table, None, None, f"{UNKNOWN}: {reason}.")
    sizes, aps = known["objects"].to_numpy(float), known["AP"].to_numpy(float)
    law = fit(sizes, 1 - aps)
    draws = _draws(sizes, 1 - aps, law, samples[:, 1:])
    full = float(sizes.max())
    gains = np.array([one.error(full) - one.error(2 * full) for one in draws])
    gain = Interval(
        float(law.error(full) - law.error(2 * full)), *(float(q) for q in np.quantile(gains, (0.025, 0.975)))
    )
    return DataCurve(
        table, law, gain, _sentence(gain, full, known["seed"].nunique()), _curve(law, draws, sizes.min(), 2 * full)
    )


def untried(results: SweepResults) -> str:
    """What is to be said where there is no (readable) record of trainings on parts of the data; "" where there is."""
    if _points(results.folder / FOLDER / FILE) is not None:
        return ""
    return f"{UNKNOWN}; `posesweep datacurve {results.folder}` finds out."


def fit(sizes: Float[np.ndarray, "p"], errors: Float[np.ndarray, "p"]) -> PowerLaw:
    """The power law with the least squares on logarithms of the errors; with a floor where there are sizes enough."""
    logs = np.log(np.maximum(errors, SMALLEST_ERROR))
    slope, start = np.polyfit(np.log(sizes), logs, 1)
    plain = PowerLaw(0.0, float(np.exp(start)), float(-slope))
    if len(np.unique(sizes)) < THREE_PARAMETERS or slope >= 0:
        return plain
    tried = [plain, *filter(None, (_with_floor(sizes, np.exp(logs), c) for c in EXPONENTS))]
    return min(tried, key=lambda law: float(((np.log(law.error(sizes)) - logs) ** 2).sum()))


def _with_floor(sizes: np.ndarray, errors: np.ndarray, exponent: float) -> PowerLaw | None:
    """Floor and factor by linear least squares on relative errors; None where one of them is below 0."""
    columns = np.column_stack([np.ones(len(sizes)), sizes**-exponent]) / errors[:, None]
    floor, factor = np.linalg.lstsq(columns, np.ones(len(sizes)), rcond=None)[0]
    return PowerLaw(float(floor), float(factor), exponent) if floor > 0 and factor > 0 else None


def _points(file: Path) -> list[dict[str, Any]] | None:
    """The trainings on record; None where there is no readable record."""
    if not file.is_file():
        return None
    try:
        points = json.loads(file.read_text(encoding="utf-8"))["points"]
    except (ValueError, KeyError, TypeError):
        return None
    return points or None


def _samples(results: SweepResults, matches: list[Matches | None]) -> tuple[Float[np.ndarray, "p b"], str]:
    """AP of every training: first on the set as it is, then on resamples of its images; nan, and why, where those
    would all be the same."""
    found = [one for one in matches if one is not None]
    if not found:
        return np.zeros((0, 1 + RESAMPLES)), ""
    samples = np.full((len(found), 1 + RESAMPLES), np.nan)
    samples[:, 0] = [keypoint_ap(one)["AP"] for one in found]
    images, why = found[0].images, ""
    try:
        weights = Bootstrap(groups=groups_of(results, images), resamples=RESAMPLES).weights(len(images))
    except SweepError as error:
        why = str(error)
    else:
        samples[:, 1:] = [bootstrap_ap(one, weights) for one in found]
    return np.where(samples < 0, np.nan, samples), why


def _table(points: list[dict[str, Any]], kept: list[int], samples: Float[np.ndarray, "p b"]) -> pd.DataFrame:
    table = pd.DataFrame(points, columns=["share", "seed", "objects", "state"])
    for name in ("AP", "low", "high"):
        table[name] = np.nan
    for i, row in zip(kept, samples, strict=True):
        low, high = np.nanquantile(row[1:], (0.025, 0.975)) if np.isfinite(row[1:]).any() else (np.nan, np.nan)
        table.loc[i, ["AP", "low", "high"]] = [row[0], low, high]
    return table[COLUMNS]


def _too_little(known: pd.DataFrame) -> str:
    """Why the points do not allow a look ahead; "" where they do."""
    sizes = known["objects"].nunique()
    if sizes < LEAST_SIZES:
        return f"trainings on {sizes} different amounts of data have an AP, and it takes {LEAST_SIZES}"
    if known["objects"].max() < LEAST_RANGE * known["objects"].min():
        return "the parts that were trained on are too much alike in size; the smallest should be at most half of all"
    if (known["AP"] <= 0).all():
        return "no training reached an AP above 0"
    return ""


def _draws(
    sizes: Float[np.ndarray, "p"], errors: Float[np.ndarray, "p"], law: PowerLaw, aps: Float[np.ndarray, "p b"]
) -> list[PowerLaw]:
    """The curves that other validation images and other luck in training would have given."""
    left = np.log(np.maximum(errors, SMALLEST_ERROR)) - np.log(np.maximum(law.error(sizes), SMALLEST_ERROR))
    parameters = 3 if law.floor > 0 else 2
    spread = float(np.sqrt((left**2).sum() / max(1, len(sizes) - parameters)))
    noise = np.random.default_rng(0).normal(0, spread, aps.shape)
    drawn = np.maximum(1 - aps, SMALLEST_ERROR) * np.exp(noise)
    return [fit(sizes, column) for column in drawn.T[np.isfinite(drawn).all(axis=0)]]


def _curve(law: PowerLaw, draws: list[PowerLaw], low: float, high: float) -> pd.DataFrame:
    grid = np.geomspace(low, high, 40)
    band = np.quantile([1 - one.error(grid) for one in draws], (0.025, 0.975), axis=0)
    return pd.DataFrame({"objects": grid, "AP": 1 - law.error(grid), "low": band[0], "high": band[1]})


def _sentence(gain: Interval, objects: float, seeds: int) -> str:
    span = f"{gain.low:+.3f} to {gain.high:+.3f}"
    if gain.low <= 0:
        more = f"; more of them, with other seeds, say more (--seeds {seeds + 2})"
        return f"{UNKNOWN}: anything from {span} AP goes with these trainings (95 % interval){more}."
    return (
        f"Twice the training data ({2 * objects:,.0f} instead of {objects:,.0f} objects) would buy about "
        f"{gain.value:+.3f} AP (95 % interval {span}), if the curve goes on as it did."
    )


def draw_datacurve(numbers: DataCurve, ax: Axes) -> None:
    """A dot for each training, the power law with its interval, dashed where it looks ahead."""
    known = numbers.table.dropna(subset=["AP"])
    if len(numbers.curve):
        grid, full = numbers.curve, known["objects"].max()
        ax.fill_between(grid["objects"], grid["low"], grid["high"], color=GREY, alpha=0.18, linewidth=0)
        for part, dashes in ((grid[grid["objects"] <= full * 1.04], "-"), (grid[grid["objects"] >= full * 0.96], "--")):
            ax.plot(part["objects"], part["AP"], dashes, color=OTHER)
        last = grid.iloc[-1]
        ax.annotate("twice the data ", (last["objects"], last["AP"]), ha="right", va="bottom", fontsize=8.5, color=INK)
    ax.scatter(known["objects"], known["AP"], 34, color=WINNER, zorder=3)
    ax.set_xscale("log")
    ticks = sorted({int(n) for n in known["objects"]} | ({int(2 * known["objects"].max())} if len(known) else set()))
    ax.set_xticks(ticks)
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.set_xlabel("training objects")
    ax.set_ylabel("AP")
