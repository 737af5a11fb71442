"""Which config is best, and which only seem to be: a paired bootstrap over the validation images.

All trials are scored on the same resamples, so what is hard in an image is hard for all of them and cancels in the
differences. Frames of one video or pictures of one animal are not independent: given their groups, whole groups are
resampled.

The best of many equal configs looks better than it is, so "tied" means: in the model confidence set of Hansen, Lunde
and Nason (Econometrica 79, 2011), range statistic. The critical value is the 95 % quantile, over the resamples, of
the largest studentised difference between any two trials that are still in the set (each centred on its own mean);
trials behind the best by more leave, and the value is found again for those that stay. With many images the set holds
the truly best network in 95 % of sweeps, and of equal networks all stay in 95 %.

An interval of an AP, too, holds for all trials at once, so also for the one that was picked. It is made on the scale of
log(AP / (1 - AP)), on which the spread depends less on the AP itself: a set on which a model did well by luck seems to
spread less than it does. A bootstrap of n images is too narrow by a factor sqrt(1 - 1/n), and its quantiles are those
of endless images; both are made good (`Bootstrap.widened`). `benchmarks/trust.py` counts how often all this is true.

All this is the uncertainty of a finite validation set: it compares trained networks. What another training seed would
have given is not in it, so a config may be better here and not better at all. That takes training the best again with
several seeds: see `confirmed`.
"""

import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int, Shaped

from posesweep.analysis.keypoint_ap import Matches, bootstrap_ap, keypoint_ap
from posesweep.errors import SweepError

CONFIDENCE = 0.95
Z = 1.959964  # the normal quantile of CONFIDENCE
FEW_GROUPS = 20  # below this, a bootstrap interval is too narrow
MATCH_PREFIX = "match/"
SAME_AP = 1e-12  # two sums of the same numbers differ by less


@dataclass(frozen=True)
class TrialEvidence:
    """What one trial found on the validation set; without matches, `reason` says why there are none."""

    trial: int
    matches: Matches | None
    reason: str = ""

    @classmethod
    def read(cls, trial: int, path: Path) -> "TrialEvidence":
        """The evidence in a trial's evidence.npz; a file that is not there is a reason, not an error."""
        if not path.is_file():
            return cls(trial, None, "no evidence: it ended before its first validation")
        return cls(trial, _stored_matches(path))


def matches_at(path: Path) -> Matches | None:
    """The matches in an evidence.npz; None where it is missing, torn, or of a kind that has no AP."""
    try:
        return _stored_matches(path)
    except (OSError, ValueError, KeyError, EOFError, zlib.error, zipfile.BadZipFile):
        return None


def _stored_matches(path: Path) -> Matches:
    with np.load(path, allow_pickle=False) as arrays:
        saved = {key.removeprefix(MATCH_PREFIX): arrays[key] for key in arrays.files if key.startswith(MATCH_PREFIX)}
    return Matches.from_arrays(saved)


@dataclass(frozen=True)
class Interval:
    """An estimate and the interval that holds the true value with 95 % confidence."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


@dataclass(frozen=True)
class Ranked:
    """One trial's place. The intervals hold for all trials at once, so also for one chosen by rank."""

    trial: int
    ap: Interval | None = None
    p_best: float = 0.0  # share of the resamples in which it is the best; equals share theirs
    to_best: Interval | None = None  # AP less the best trial's
    tied: bool = False  # with the best, which is itself tied
    to_baseline: Interval | None = None  # AP less the baseline's; None without a baseline that has evidence
    reason: str = ""  # why it has no place


@dataclass(frozen=True)
class Ranking:
    """Trials from the best down; those without a place last."""

    rows: tuple[Ranked, ...]
    images: int
    groups: int
    resamples: int
    notes: tuple[str, ...] = ()

    @property
    def best(self) -> Ranked | None:
        """The first, if any trial has a place."""
        return self.rows[0] if self.rows and self.rows[0].ap else None

    @property
    def tied(self) -> tuple[int, ...]:
        """The trials among which the truly best is, the first included."""
        return tuple(row.trial for row in self.rows if row.tied)

    def table(self) -> pd.DataFrame:
        """One row per trial; columns trial, AP, p_best, to_best, tied, to_baseline, reason, and _low, _high of each."""
        return pd.DataFrame([_flat(row) for row in self.rows])


def _flat(row: Ranked) -> dict[str, Any]:
    found: dict[str, Any] = {"trial": row.trial}
    for name, interval in (("AP", row.ap), ("to_best", row.to_best), ("to_baseline", row.to_baseline)):
        value = interval or Interval(np.nan, np.nan, np.nan)
        found |= {name: value.value, f"{name}_low": value.low, f"{name}_high": value.high}
    return found | {"p_best": row.p_best, "tied": row.tied, "reason": row.reason}


@dataclass(frozen=True)
class Bootstrap:
    """How to resample. `groups` names the group of each validated image (in the order of `Matches.images`)."""

    groups: Shaped[np.ndarray, "m"] | None = None
    resamples: int = 1000
    seed: int = 0

    def weights(self, images: int) -> Int[np.ndarray, "B m"]:
        """How often each image is taken in each resample; the same for the same seed."""
        group = self.group_index(images)
        number = group.max(initial=-1) + 1
        drawn = np.random.default_rng(self.seed).integers(0, max(number, 1), (self.resamples, number))
        drawn += np.arange(self.resamples)[:, None] * number
        return np.bincount(drawn.ravel(), minlength=self.resamples * number).reshape(self.resamples, number)[:, group]

    def widened(self, samples: Float[np.ndarray, "M B"], images: int) -> Float[np.ndarray, "M B"]:
        """Samples of this bootstrap, drawn away from their mean as far as its few groups make it too narrow.

        A resample of n has (n - 1) / n of the variance, and a normal quantile stands for Student's with n - 1 degrees
        of freedom, which is larger by (z^2 + 1) / 4 (n - 1) (Abramowitz and Stegun 26.7.5).
        """
        free = max(int(self.group_index(images).max(initial=0)), 1)
        factor = np.sqrt((free + 1) / free) * (1 + (Z**2 + 1) / (4 * free))
        mean = samples.mean(axis=1, keepdims=True)
        return mean + factor * (samples - mean)

    def group_index(self, images: int) -> Int[np.ndarray, "m"]:
        """The group of each image as a number from 0; without groups, each image is its own. Raises SweepError."""
        if self.groups is None:
            return np.arange(images)
        if len(self.groups) != images:
            raise SweepError(f"groups: {len(self.groups)} for {images} validated images; give one for each")
        return np.unique(self.groups, return_inverse=True)[1]


def rank(trials: Sequence[TrialEvidence], baseline: int | None = None, bootstrap: Bootstrap | None = None) -> Ranking:
    """Rank trials by AP, with intervals, ties and the difference to the `baseline` trial.

    Raises SweepError where trials were validated on different images or truths: their APs cannot be compared.
    """
    bootstrap = bootstrap or Bootstrap()
    scored, left_out = _with_ap(trials)
    if not scored:
        return Ranking(tuple(left_out), 0, 0, bootstrap.resamples)
    same_truth([(each.trial, each.matches) for each in scored])
    images = len(scored[0].matches.images)
    weights = bootstrap.weights(images)
    samples = np.stack([bootstrap_ap(each.matches, weights) for each in scored])
    samples = samples[:, np.isfinite(samples).all(axis=0)]  # a resample without a truth that counts says nothing
    rows = _ranked(scored, bootstrap.widened(samples, images), baseline)
    groups = int(bootstrap.group_index(images).max()) + 1
    return Ranking((*rows, *left_out), images, groups, samples.shape[1], size_notes(images, groups))


@dataclass(frozen=True)
class _Scored:
    trial: int
    matches: Matches
    ap: float


def _with_ap(trials: Sequence[TrialEvidence]) -> tuple[list[_Scored], list[Ranked]]:
    """The trials that have an AP, best first (then by number), and the others with the reason."""
    scored, left_out = [], []
    for each in sorted(trials, key=lambda each: each.trial):
        if each.matches is None:
            left_out.append(Ranked(each.trial, reason=each.reason or "no evidence"))
            continue
        ap = keypoint_ap(each.matches)["AP"]
        if ap == -1:
            left_out.append(Ranked(each.trial, reason="AP is not defined: no labelled object in the validation images"))
        else:
            scored.append(_Scored(each.trial, each.matches, ap))
    return sorted(scored, key=lambda each: -each.ap), left_out


def same_truth(trials: Sequence[tuple[int, Matches]]) -> None:
    """Raise SweepError unless all trials were validated on the same images with the same truths."""
    if not trials:
        return
    (first, reference), *others = trials
    for trial, matches in others:
        if not np.array_equal(matches.images, reference.images):
            raise SweepError(
                f"trial {trial} was validated on other images than trial {first} "
                f"({len(matches.images)} and {len(reference.images)}); rank only trials of one split"
            )
        for name in ("truth_image", "truth_category", "truth_count", "categories"):
            if not np.array_equal(getattr(matches, name), getattr(reference, name)):
                raise SweepError(
                    f"trial {trial} was validated on other annotations than trial {first}, of the same "
                    "images; has the annotation file changed between them? validate one of them again"
                )


def _ranked(scored: Sequence[_Scored], samples: Float[np.ndarray, "M B"], baseline: int | None) -> list[Ranked]:
    """The rows of trials that are sorted by AP, from their APs in each resample."""
    ap = np.array([each.ap for each in scored])
    luck = Luck.none(samples)
    to_best, tied = against_best(ap, samples, luck)
    order = [each.trial for each in scored]
    to_baseline: Sequence[Interval | None] = [None] * len(order)
    if baseline in order:
        to_baseline = against(ap, samples, order.index(baseline), luck)
    p_best = share_best(samples).tolist()
    columns = zip(order, of_each(ap, samples, luck), p_best, to_best, tied.tolist(), to_baseline, strict=True)
    return [Ranked(*row) for row in columns]


def share_best(samples: Float[np.ndarray, "M B"]) -> Float[np.ndarray, "M"]:
    """The share of the resamples in which each trial is the best; equals share a resample."""
    leads = samples >= samples.max(axis=0) - SAME_AP
    return (leads / leads.sum(axis=0)).mean(axis=1)


@dataclass(frozen=True)
class Luck:
    """What another seed would have given, beside what other images would: added to the AP of M trials."""

    draws: Float[np.ndarray, "M B"]  # one in each resample, about 0
    variance: Float[np.ndarray, "M"]

    @classmethod
    def none(cls, samples: Float[np.ndarray, "M B"]) -> "Luck":
        """These trained networks are meant, not their configs."""
        return cls(np.zeros_like(samples), np.zeros(len(samples)))

    def take(self, rows: Bool[np.ndarray, "M"]) -> "Luck":
        """That of some of the trials."""
        return Luck(self.draws[rows], self.variance[rows])


def critical_value(largest: Float[np.ndarray, "B"]) -> float:
    """What the next draw exceeds with a probability of 5 %: of B draws the 0.95 (B + 1)-th smallest, not the 0.95 B-th
    (Davison and Hinkley, Bootstrap Methods and their Application, 1997, section 4.2.5)."""
    return float(np.quantile(largest, CONFIDENCE, method="weibull"))


def of_each(ap: Float[np.ndarray, "M"], samples: Float[np.ndarray, "M B"], luck: Luck) -> list[Interval]:
    """The AP of each trial, with intervals that hold for all at once (see the top of this file)."""
    spread = np.sqrt(samples.var(axis=1) + luck.variance)
    critical = critical_value(_studentised(samples, spread, luck.draws).max(axis=0))
    slope = ap * (1 - ap)
    half = np.divide(critical * spread, slope, out=np.zeros_like(ap), where=slope > 0)
    odds = np.divide(ap, 1 - ap, out=np.full_like(ap, np.inf), where=ap < 1)
    bounds = [1 / (1 + np.exp(sign * half) / np.maximum(odds, SAME_AP)) for sign in (1, -1)]
    certain = (half == 0) | (slope <= 0)
    low, high = (np.where(certain, ap, bound) for bound in bounds)
    return [Interval(float(v), float(a), float(b)) for v, a, b in zip(ap, low, high, strict=True)]


def against_best(
    ap: Float[np.ndarray, "M"], samples: Float[np.ndarray, "M B"], luck: Luck
) -> tuple[list[Interval], Bool[np.ndarray, "M"]]:
    """Differences to the first trial, the best, and which trials are tied with it (see the top of this file)."""
    tied = np.ones(len(ap), bool)
    half = np.zeros(len(ap))  # of each interval, found in the last set that the trial was in
    while True:
        members, theirs = samples[tied], luck.take(tied)
        pooled = _mean_variance(members)
        critical = critical_value(_largest_between(members, theirs, pooled))
        half[tied] = critical * _with_luck(_spread(members - members[0], pooled), theirs.variance, 0)
        stay = tied & (ap[0] - ap <= half + SAME_AP)
        if stay.sum() == tied.sum():
            return _intervals(ap - ap[0], half), tied
        tied = stay


def against(
    ap: Float[np.ndarray, "M"],
    samples: Float[np.ndarray, "M B"],
    control: int,
    luck: Luck,
    others: Float[np.ndarray, "N B"] | None = None,
) -> list[Interval]:
    """Differences to one trial chosen beforehand, with intervals that hold for all at once (Dunnett's comparison with
    a control, its critical value taken from the resamples). `others`: differences of further trials in the resamples,
    from among which these were chosen; the intervals hold for them as well."""
    difference = samples - samples[control]
    spread = _with_luck(_spread(difference, _pooled(difference)), luck.variance, control)
    largest = _studentised(difference, spread, luck.draws - luck.draws[control]).max(axis=0)
    if others is not None and len(others):
        largest = np.maximum(largest, _studentised(others, _spread(others, _pooled(others))).max(axis=0))
    return _intervals(ap - ap[control], critical_value(largest) * spread)


def _pooled(difference: Float[np.ndarray, "M B"]) -> float:
    """The variance of a difference to the control, mean of all trials; the control's own is none."""
    varying = difference.var(axis=1)
    return float(varying.sum() / max(1, (varying > 0).sum()))


def _with_luck(spread: Float[np.ndarray, "M"], luck: Float[np.ndarray, "M"], control: int) -> Float[np.ndarray, "M"]:
    """The standard errors of differences to trial `control`, the luck of two seeds added to that of the images."""
    both = np.sqrt(spread**2 + luck + luck[control])
    both[control] = 0.0
    return both


def _largest_between(samples: Float[np.ndarray, "M B"], luck: Luck, pooled: float) -> Float[np.ndarray, "B"]:
    """In each resample, the largest studentised difference between two trials."""
    largest = np.zeros(samples.shape[1])
    for i in range(len(samples) - 1):
        difference = samples[i + 1 :] - samples[i]
        spread = np.sqrt(_spread(difference, pooled) ** 2 + luck.variance[i + 1 :] + luck.variance[i])
        between = _studentised(difference, spread, luck.draws[i + 1 :] - luck.draws[i])
        np.maximum(largest, between.max(axis=0), out=largest)
    return largest


def _mean_variance(samples: Float[np.ndarray, "M B"]) -> float:
    """The variance of a difference between two trials over the resamples, mean of all pairs."""
    beside_mean = samples - samples.mean(axis=0)
    return float(2 * beside_mean.var(axis=1).sum() / max(len(samples) - 1, 1))


def _spread(differences: Float[np.ndarray, "M B"], pooled: float) -> Float[np.ndarray, "M"]:
    """The standard error of each difference, from the mean of its own variance and the pooled one.

    Its own is uncertain with few images, and the largest of a thousand studentised differences is often one whose
    variance came out too small; moderated so (after Smyth, Stat. Appl. Genet. Mol. Biol. 3, 2004), it is not.
    """
    own = differences.var(axis=1)
    return np.where(own < SAME_AP**2, 0.0, np.sqrt((own + pooled) / 2))


def _studentised(
    difference: Float[np.ndarray, "M B"], spread: Float[np.ndarray, "M"], luck: Float[np.ndarray, "M B"] | float = 0.0
) -> Float[np.ndarray, "M B"]:
    """The size of each difference, centred on its mean, in standard errors; 0 where it never varies."""
    centred = np.abs(difference - difference.mean(axis=1, keepdims=True) + luck)
    return np.divide(centred, spread[:, None], out=np.zeros_like(centred), where=spread[:, None] > 0)


def _intervals(value: Float[np.ndarray, "M"], half: Float[np.ndarray, "M"]) -> list[Interval]:
    return [Interval(float(v), float(v - h), float(v + h)) for v, h in zip(value, half, strict=True)]


def size_notes(images: int, groups: int) -> tuple[str, ...]:
    """What a reader must know before trusting the intervals."""
    if groups >= FEW_GROUPS:
        return ()
    what = f"{groups} validation images" if groups == images else f"{groups} groups of validation images"
    return (f"Only {what}: below {FEW_GROUPS} the intervals are too narrow and ties are missed; validate on more.",)
