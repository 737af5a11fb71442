"""Two or more sweeps beside each other: their decisions, their winners on the same images, what differs."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from posesweep.analysis.confirmed import Confirmed
from posesweep.analysis.cost import cost
from posesweep.analysis.ranked import AP, Standings, groups_of, matches_of
from posesweep.analysis.ranking import Bootstrap, Interval, TrialEvidence, rank
from posesweep.analysis.results import Evidence, SweepResults
from posesweep.analysis.wording import flattened
from posesweep.errors import SweepError


@dataclass(frozen=True)
class Run:
    """One sweep as it stands."""

    label: str  # its folder, as the user named it
    results: SweepResults
    table: Standings
    confirmed: Confirmed | None = None  # one that decides; the comparison itself is of the search's trainings


@dataclass(frozen=True)
class Contender:
    """One sweep's winner. `gain`: its AP less the first run's winner's, paired; `apart`: why there is none."""

    run: Run
    trial: int | None
    value: float | None  # the run's own metric
    ap: Interval | None
    gain: Interval | None = None
    p_best: float | None = None
    apart: str = ""

    @property
    def total_s(self) -> float:
        """Wall time of all trials of the run."""
        return cost(self.run.results).total_s


@dataclass(frozen=True)
class Difference:
    """One setting and its value in each run, in their order."""

    key: str
    values: tuple[Any, ...]


@dataclass(frozen=True)
class Comparison:
    """`contenders` in the order in which the runs were named, the first being what the others are compared with."""

    contenders: tuple[Contender, ...]
    searched: tuple[Difference, ...]  # the sweep files
    settings: tuple[Difference, ...]  # the winners' configs
    notes: tuple[str, ...]


def compare(runs: Sequence[Run]) -> Comparison:
    """Compare the winners of at least two runs with the first's, where they were validated on the same objects.

    Raises SweepError for fewer than two different runs.
    """
    if len({run.results.folder.resolve() for run in runs}) < len(runs) or len(runs) < 2:
        raise SweepError("compare needs two or more different sweep folders: posesweep compare runs/before runs/after")
    plain = [_contender(run) for run in runs]
    first, others = plain[0], [_checked(plain[0], other) for other in plain[1:]]
    contenders = _paired(first, others)
    winners = [run.results.settings(run.table.winner.trial) if run.table.winner else {} for run in runs]
    return Comparison(
        contenders=contenders,
        searched=differences([run.results.sweep for run in runs], leave_out=("name",)),
        settings=differences(winners),
        notes=_notes(contenders),
    )


def differences(documents: Sequence[dict[str, Any]], leave_out: Sequence[str] = ()) -> tuple[Difference, ...]:
    """Dotted keys whose values are not the same in all documents; None where one has no such key."""
    flat = [flattened(document) for document in documents]
    keys = [key for key in dict.fromkeys(key for one in flat for key in one) if key not in leave_out]
    found = [Difference(key, tuple(one.get(key) for one in flat)) for key in keys]
    return tuple(one for one in found if any(value != one.values[0] for value in one.values[1:]))


def _contender(run: Run) -> Contender:
    winner = run.table.winner
    if winner is None:
        return Contender(run, None, None, None, apart=f"{run.label} has no winner yet")
    contender = Contender(run, winner.trial, winner.value, winner.ap)
    if _evidence(contender) is None:
        return _with_reason(contender, f"{run.label} holds no predictions of its winner, trial {winner.trial}")
    return contender


def _with_reason(contender: Contender, apart: str) -> Contender:
    return Contender(contender.run, contender.trial, contender.value, contender.ap, apart=apart)


def _evidence(contender: Contender) -> Evidence | None:
    """The winner's predictions, if they can be ranked."""
    evidence = contender.run.results.evidence(contender.trial) if contender.trial is not None else None
    return evidence if evidence is not None and matches_of(evidence) is not None else None


def _checked(first: Contender, other: Contender) -> Contender:
    """`other` with the reason why it cannot be set against `first`, if there is one."""
    apart = first.apart or other.apart or _why_apart(first, other)
    return _with_reason(other, apart) if apart else other


def _why_apart(first: Contender, other: Contender) -> str:
    metrics = [contender.run.results.metric for contender in (first, other)]
    if metrics != [AP, AP]:
        return f"{first.run.label} is ranked by {metrics[0]} and {other.run.label} by {metrics[1]}; only {AP} is paired"
    a, b = _evidence(first), _evidence(other)
    assert a is not None
    assert b is not None
    if _same_truth(a, b) and _same_sigmas(first.run.results, other.run.results):
        return ""
    if _same_truth(a, b):
        return f"{other.run.label} has other OKS sigmas than {first.run.label}, so AP is not the same thing in both"
    return (
        f"{other.run.label} was validated on other objects than {first.run.label}, so a difference between their APs "
        "may be one between the objects"
    )


def _same_truth(a: Evidence, b: Evidence) -> bool:
    pairs = [(getattr(a, name), getattr(b, name)) for name in ("ids", "image_ids", "visibility", "areas", "boxes")]
    pairs.append((a.true_keypoints, b.true_keypoints))
    return all(np.array_equal(x, y) for x, y in pairs)


def _same_sigmas(a: SweepResults, b: SweepResults) -> bool:
    """Whether OKS means the same in both, as far as the skeletons are known."""
    if a.skeleton is None or b.skeleton is None:
        return True
    return np.array_equal(a.skeleton.sigmas, b.skeleton.sigmas)


def _paired(first: Contender, others: Sequence[Contender]) -> tuple[Contender, ...]:
    """The contenders with what the paired bootstrap says of those that share the first's validation objects."""
    runs = [first, *others]
    shared = [i for i, contender in enumerate(runs) if not contender.apart]
    evidence = {i: _evidence(runs[i]) for i in shared}
    found = {i: matches_of(one) for i, one in evidence.items() if one is not None}
    if len(found) < 2:
        return tuple(runs)
    images = next(matches.images for matches in found.values() if matches is not None)
    try:
        bootstrap = Bootstrap(groups=groups_of(first.run.results, images))
        ranking = rank([TrialEvidence(i, matches) for i, matches in found.items()], 0, bootstrap)
    except SweepError as error:  # they are shown side by side all the same
        return tuple(one if one.apart else _with_reason(one, str(error)) for one in runs)
    rows = {row.trial: row for row in ranking.rows}
    return tuple(
        Contender(one.run, one.trial, one.value, rows[i].ap, rows[i].to_baseline if i else None, rows[i].p_best)
        if i in rows and rows[i].ap is not None
        else one
        for i, one in enumerate(runs)
    )


def _notes(contenders: Sequence[Contender]) -> tuple[str, ...]:
    notes = []
    paired = [one for one in contenders if one.p_best is not None]
    hashes = {str(one.run.results.split.get("hash", "")) for one in paired}
    if len(hashes) > 1:
        notes.append("The validation objects are the same, the training data are not: a gain may come from either.")
    notes += [said for one in contenders if (said := _other_winner(one))]
    counts = {one.run.table.ranked_count for one in paired}
    if len(counts) > 1:
        listed = ", ".join(f"{one.run.label} {one.run.table.ranked_count}" for one in paired)
        notes.append(
            f"Each winner was picked on these images, which flatters the one picked from more trials ({listed})."
        )
    if len(paired) > 1:
        notes.append("One training each: another seed may turn this round.")
    return tuple(notes)


def _other_winner(one: Contender) -> str:
    """A note where a confirmation has named another winner than the search."""
    again = one.run.confirmed.winner if one.run.confirmed is not None else None
    if again is None or one.trial in (None, again.trial):
        return ""
    return f"{one.run.label} confirmed trial {again.trial}; compared is trial {one.trial}, the search's best."


def verdict(contender: Contender, first: Contender) -> str:
    """What the comparison with the first run says of another, in a sentence."""
    if contender.gain is None:
        return f"Not comparable: {contender.apart}." if contender.apart else "Not comparable: its AP is not defined."
    low, high = contender.gain.low, contender.gain.high
    size = f"{contender.gain.value:+.3f} AP, 95 % interval {low:+.3f} to {high:+.3f}"
    if low > 0:
        return f"Better than {first.run.label}: {size}."
    return f"Worse than {first.run.label}: {size}." if high < 0 else f"Cannot be told from {first.run.label}: {size}."
