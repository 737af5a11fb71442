"""Label errors planted in the validation set of the demo's horses: how many of them the report's list names.

OMP_NUM_THREADS=1 nice -n 10 python -m posesweep.benchmarks.label_errors --runs /tmp/labels

Trains a real sweep (the demo's data, its network and its space, more epochs; a second call takes it as it is), then
corrupts the annotations many times and judges them with the same predictions. With --before, also a sweep whose
validation file was corrupted before it began, so that its best epochs and its ranking were chosen by wrong labels.

Corrupted are 5 % of the labelled keypoints: shifted by 0.15 to 0.5 of the box's longer side; left and right exchanged
(a pair, a limb, all, in turn; pairs that lie on each other are left alone: nobody could see it); or not labelled at
all. A fault is found when the list names one of its keypoints in its object. The list is as long as there are faults,
or twice as long, or the one that the report shows.
"""

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from posesweep.analysis.label_errors import LEAST_SURE, TRIALS, Candidate, candidates, consensus_of, labels_of
from posesweep.analysis.label_odds import Consensus, Labels, label_odds
from posesweep.analysis.results import Evidence, SweepResults, read_sweep_folder
from posesweep.analysis.sensitivity import ap_with
from posesweep.datasets.skeleton import Skeleton
from posesweep.datasets.swaps import Unit, swap_units

SIZE = (320, 240)  # width, height of the demo's images
SHARE = 0.05
SHIFT = (0.15, 0.5)  # of the longer side of the box
APART = 0.15
DRAWS = 500  # of an object for one kind of swap
FAR = 0.25  # shifts from here on are counted by themselves, too
KINDS = ("shifted", "swapped", "missing")
SWEEP = Path(__file__).parents[1] / "search_spaces" / "demo.yaml"
SETTINGS = ("baseline.lr0=1e-2", "parameters.lr0.min=5e-3", "early_terminate.min_epochs=8")


@dataclass(frozen=True)
class Fault:
    """One planted mistake."""

    kind: str
    row: int
    keypoints: frozenset[int]
    size: float = 0.0  # of a shift, in longer sides


@dataclass
class Corruption:
    """Annotations that are being spoilt; every keypoint at most once."""

    labels: Labels
    units: Sequence[Sequence[Unit]]  # pairs, limbs, all
    rng: np.random.Generator

    def __post_init__(self) -> None:
        points, visibility = self.labels.points.copy(), self.labels.visibility.copy()
        self.labels = replace(self.labels, points=points, visibility=visibility)
        self.spoilt = np.zeros(self.labels.visibility.shape, bool)

    def one(self, kind: str, turn: int) -> Fault:
        """Spoil something; object and keypoint are drawn until one can have the fault. A swap that none can have gives
        way to the next kind."""
        spoil: Callable[[int, int], Fault | None] = getattr(self, f"_{kind}")
        draws, fault = 0, None
        while fault is None:
            fault = spoil(int(self.rng.integers(len(self.spoilt))), turn + draws // DRAWS)
            draws += 1
        self.spoilt[fault.row, list(fault.keypoints)] = True
        return fault

    def _keypoint(self, row: int) -> int | None:
        free = np.flatnonzero((self.labels.visibility[row] > 0) & ~self.spoilt[row])
        return int(self.rng.choice(free)) if len(free) > 1 else None

    def _shifted(self, row: int, turn: int) -> Fault | None:
        k = self._keypoint(row)
        if k is None:
            return None
        angle, size = self.rng.uniform(0, 2 * np.pi), self.rng.uniform(*SHIFT)
        place = self.labels.points[row, k] + size * self.labels.side[row, 0] * np.array([np.cos(angle), np.sin(angle)])
        if (place < 0).any() or (place > np.array(SIZE) - 1).any():
            return None
        self.labels.points[row, k] = place
        return Fault("shifted", row, frozenset([k]), float(size))

    def _missing(self, row: int, turn: int) -> Fault | None:
        k = self._keypoint(row)
        if k is None:
            return None
        self.labels.points[row, k], self.labels.visibility[row, k] = 0, 0
        return Fault("missing", row, frozenset([k]))

    def _swapped(self, row: int, turn: int) -> Fault | None:
        kind = self.units[turn % len(self.units)]
        unit = kind[int(self.rng.integers(len(kind)))]
        members = np.array(unit.pairs)
        known = (self.labels.visibility[row, members] > 0).all(axis=1)
        points = self.labels.points[row, members[known]]
        distances = np.linalg.norm(points[:, 0] - points[:, 1], axis=-1) / self.labels.side[row, 0]
        if known.sum() < 0.75 * len(known) or self.spoilt[row, members].any():
            return None
        if len(unit.pairs) <= 6 and distances.mean() < APART:
            return None
        labelled = [k for k in members.ravel().tolist() if self.labels.visibility[row, k] > 0]
        for column in (self.labels.points, self.labels.visibility):
            column[row, members] = column[row, members[:, ::-1]]
        self.spoilt[row, members] = True
        return Fault("swapped", row, frozenset(labelled))


def corrupt(
    labels: Labels, skeleton: Skeleton, kinds: Sequence[str], rng: np.random.Generator, objects: bool = False
) -> tuple[Labels, list[Fault]]:
    """Spoil SHARE of the labelled keypoints, the kinds in turn; with `objects`, one thing in SHARE of the objects."""
    units = swap_units(skeleton)
    whole = max(len(unit.pairs) for unit in units)
    sorted_units = [[u for u in units if len(u.pairs) == 1], [u for u in units if 1 < len(u.pairs) < whole]]
    spoiling = Corruption(labels, [*filter(None, sorted_units), [u for u in units if len(u.pairs) == whole]], rng)
    budget = SHARE * (len(labels.points) if objects else float(labels.labelled.sum()))
    faults: list[Fault] = []
    while budget > 0:
        fault = spoiling.one(kinds[len(faults) % len(kinds)], len(faults) // len(kinds))
        budget -= 1 if objects else len(fault.keypoints)
        faults.append(fault)
    return spoiling.labels, faults


@dataclass(frozen=True)
class Outcome:
    """What a list of some length holds."""

    found: list[bool]  # of each fault
    precision: float


def outcome(listed: Sequence[Candidate], faults: Sequence[Fault]) -> Outcome:
    """Compare a list with what was planted."""
    by_row: dict[int, list[int]] = {}
    for i, fault in enumerate(faults):
        by_row.setdefault(fault.row, []).append(i)
    found, right = [False] * len(faults), 0
    for one in listed:
        hits = [i for i in by_row.get(one.row, []) if faults[i].keypoints & set(one.keypoints)]
        right += bool(hits)
        for i in hits:
            found[i] = True
    return Outcome(found, right / max(1, len(listed)))


def judge(labels: Labels, consensus: Consensus, skeleton: Skeleton) -> list[Candidate]:
    """All candidates, as the report finds them."""
    last = np.array(SIZE) - 1
    margins = np.minimum(consensus.middle, last - consensus.middle).min(axis=-1) / labels.side
    return candidates(label_odds(labels, consensus, skeleton, margins), labels.labelled)


def best_of(evidences: Sequence[Evidence], labels: Labels, skeleton: Skeleton, trials: int) -> list[Evidence]:
    """The trials that would have been ranked best with these labels."""
    known = (labels.visibility > 0)[..., None]
    points, visibility = np.where(known, labels.points, 0.0), labels.visibility.astype(np.uint8)
    seen = [replace(evidence, true_keypoints=points, visibility=visibility) for evidence in evidences]
    order = np.argsort([-ap_with(evidence, skeleton.sigmas) for evidence in seen], kind="stable")
    return [evidences[i] for i in order[:trials]]


# ------------------------------------------------------------------------------------------------------------ the rows


@dataclass(frozen=True)
class Row:
    """One line of the table: recall by kind and in all, and precision, at one and two list lengths and as shown."""

    name: str
    faults: float
    shown: float  # entries of the report's list
    recall: list[float]
    low: float  # the worst repetition's recall at twice the length
    precision: list[float]
    by_kind: str


def repeated(evidences: Sequence[Evidence], skeleton: Skeleton, kinds: Sequence[str], asked: argparse.Namespace) -> Row:
    """Corrupt, judge and compare, many times."""
    pairs, planted, shown = [], [], []
    for repeat in range(asked.repeats):
        rng = np.random.default_rng([asked.seed, repeat])
        labels, faults = corrupt(labels_of(evidences[0]), skeleton, kinds, rng, asked.objects)
        best = best_of(evidences, labels, skeleton, asked.judges)
        listed = judge(labels, consensus_of(best, labels), skeleton)
        pairs.append([outcome(some, faults) for some in lists(listed, len(faults))])
        planted.append(faults)
        shown.append(len(lists(listed, 0)[-1]))
    return _row(" + ".join(kinds), pairs, planted, shown)


def lists(listed: Sequence[Candidate], faults: int) -> list[Sequence[Candidate]]:
    """As long as there are faults, twice as long, and what the report shows."""
    return [listed[:faults], listed[: 2 * faults], [one for one in listed if one.sure >= LEAST_SURE]]


def _row(
    name: str, pairs: Sequence[Sequence[Outcome]], planted: Sequence[Sequence[Fault]], shown: Sequence[int]
) -> Row:
    recall = [[float(np.mean(pair[i].found)) for pair in pairs] for i in range(3)]
    precision = [float(np.mean([pair[i].precision for pair in pairs])) for i in range(3)]
    flat = [
        (fault, *(one.found[j] for one in pair))
        for pair, faults in zip(pairs, planted, strict=True)
        for j, fault in enumerate(faults)
    ]
    parts = {kind: [one for one in flat if one[0].kind == kind] for kind in KINDS}
    parts[f"shifted by {FAR} or more"] = [one for one in flat if one[0].kind == "shifted" and one[0].size >= FAR]
    for size, label in ((2, "a pair"), (8, "a limb"), (99, "all")):
        low = {2: 0, 8: 2, 99: 8}[size]
        parts[f"swapped {label}"] = [
            one for one in flat if one[0].kind == "swapped" and low < len(one[0].keypoints) <= size
        ]
    said = [f"{k} {slashed([float(np.mean([o[i] for o in v])) for i in (1, 2, 3)])}" for k, v in parts.items() if v]
    number = float(np.mean([len(faults) for faults in planted]))
    return Row(
        name,
        number,
        float(np.mean(shown)),
        [float(np.mean(each)) for each in recall],
        min(recall[1]),
        precision,
        ", ".join(said),
    )


def slashed(values: Sequence[float]) -> str:
    """'0.71 / 0.89 / 0.85'."""
    return " / ".join(f"{value:.2f}" for value in values)


def print_rows(rows: Sequence[Row]) -> None:
    """As a table; "x / y / z": a list as long as there are faults / twice as long / as the report shows it."""
    table = Table("faults", "planted", "shown", "recall", "worst of the repeats", "precision", "recall by kind")
    for row in rows:
        recall, precision = slashed(row.recall), slashed(row.precision)
        numbers = (f"{row.faults:.0f}", f"{row.shown:.0f}", recall, f"{row.low:.2f}", precision)
        table.add_row(row.name, *numbers, row.by_kind)
    Console(width=170).print(table)


# ---------------------------------------------------------------------------------------------------------- the sweeps


def swept(runs: Path, name: str, settings: Sequence[str], as_is: bool) -> SweepResults:
    """The results of a sweep of the demo with these settings, trained now unless it was before; or what there is."""
    from posesweep.search_spaces.space import read_sweep
    from posesweep.trainables.sweep import run_sweep
    from posesweep.trainables.tasks import check_values, defaults_of

    folder = runs / name
    if not as_is and not (folder / "report.html").is_file():
        run_sweep(read_sweep(SWEEP, [f"name={name}", *settings], check_values, defaults_of), folder)
    return read_sweep_folder(folder)


def evidences_of(results: SweepResults) -> list[Evidence]:
    """Of all trials that have predictions, the best first: of a sweep as small as this, few end."""
    table = results.trials[results.trials["has_evidence"]].sort_values("value", ascending=False)
    found = [results.evidence(int(trial)) for trial in table["trial"]]
    return [evidence for evidence in found if evidence is not None]


def corrupted_before(runs: Path, clean: SweepResults, settings: Sequence[str], asked: argparse.Namespace) -> Row:
    """A sweep that was validated with wrong labels from its first epoch on."""
    images = Path(next(iter(clean.split["images"].values()))).parents[1].parent  # <set>/<side>/images/<file>
    file = runs / "corrupted_val.json"
    document = json.loads((images / "val" / "annotations.json").read_text(encoding="utf-8"))
    rows = np.array([one["keypoints"] for one in document["annotations"]], float).reshape(
        len(document["annotations"]), -1, 3
    )
    boxes = np.array([one["bbox"] for one in document["annotations"]], float)
    skeleton = clean.skeleton
    assert skeleton is not None
    given = Labels(rows[..., :2], rows[..., 2].astype(np.int64), boxes)
    labels, faults = corrupt(given, skeleton, KINDS, np.random.default_rng(asked.seed + 1), asked.objects)
    for one, points, visibility in zip(document["annotations"], labels.points, labels.visibility, strict=True):
        one["keypoints"] = np.column_stack([points, visibility]).ravel().tolist()
    if not file.is_file():
        file.write_text(json.dumps(document), encoding="utf-8")
    data = [f"data.train={images / 'train' / 'annotations.json'}", f"data.val={file}"]
    data += [f"data.val_images={images / 'val' / 'images'}", "data.skeleton=horse26", "data.synthetic=null"]
    results = swept(runs, "labels_corrupted", [*settings, *data, f"search.trials={asked.trials_before}"], asked.as_is)
    evidences = evidences_of(results)[: asked.judges]
    ids = {int(one["id"]): row for row, one in enumerate(document["annotations"])}
    rows_of = {ids[int(i)]: row for row, i in enumerate(evidences[0].ids)}
    moved = [replace(fault, row=rows_of[fault.row]) for fault in faults if fault.row in rows_of]
    listed = judge(labels_of(evidences[0]), consensus_of(evidences, labels_of(evidences[0])), skeleton)
    pair = [outcome(some, moved) for some in lists(listed, len(moved))]
    name = f"mixed, there before the sweep (AP {results.trials['value'].max():.3f} on them)"
    return _row(name, [pair], [moved], [len(lists(listed, 0)[-1])])


def main() -> None:
    """Train, corrupt, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=Path, default=Path("/tmp/label-errors"), help="where the sweeps are kept")
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--trials", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--judges", type=int, default=TRIALS, help="how many of the best trials judge")
    parser.add_argument(
        "--objects", action="store_true", help="one fault in 5 %% of the objects, not 5 %% of the labels"
    )
    parser.add_argument("--before", action="store_true", help="also a sweep on labels that were wrong from the start")
    parser.add_argument("--as-is", action="store_true", help="do not go on with a sweep: judge with what it has")
    parser.add_argument("--trials-before", type=int, default=4, help="of the sweep of --before")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    settings = [f"fixed.epochs={asked.epochs}", *SETTINGS]
    results = swept(asked.runs, "labels", [*settings, f"search.trials={asked.trials}"], asked.as_is)
    skeleton, evidences = results.skeleton, evidences_of(results)
    assert skeleton is not None
    best = results.trials.sort_values("value", ascending=False).head(asked.judges)
    columns = ["trial", "state", "epochs", "best_epoch", "value", "PCK@0.05", "PCK@0.2", "RMSE_px"]
    print(best[columns].to_string(index=False, float_format="%.3f"), flush=True)
    kinds = [[kind] for kind in KINDS] + [list(KINDS)]
    rows = [repeated(evidences, skeleton, each, asked) for each in kinds]
    if asked.before:
        rows.append(corrupted_before(asked.runs, results, settings, asked))
    print_rows(rows)


if __name__ == "__main__":
    main()
