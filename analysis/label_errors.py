"""Annotations of the validation set that the best trials, taken together, contradict: candidates for a second look.

    numbers = label_errors(results, ranked(results))           # LabelErrors: a ranked table, and sentences
    numbers.table.to_csv(...)
    draw_label_errors(numbers, ax)                             # how many of each kind, by keypoint
    crops, missing = label_crops(numbers, results, most=24)    # JPEGs: annotation white, consensus coloured, red rings

Kinds: shifted (a keypoint somewhere else), swapped (left and right of a pair, a limb or the whole object exchanged),
missing (not labelled, though all trials place it confidently), wrongly present (labelled, though the trials see
nothing there). `label_odds.py` says how sure each is. Only validation objects can be judged: the trials have learnt
the training labels, wrong ones too.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
from jaxtyping import Bool, Float
from matplotlib.axes import Axes

from posesweep.analysis.drawing import BAD, BASELINE, GREY, INK, OTHER, WINNER
from posesweep.analysis.label_odds import BOUND, PRIOR, Consensus, Labels, Odds, label_odds
from posesweep.analysis.pictures import (
    RED,
    WHITE,
    dot,
    find_image,
    jpeg,
    line,
    moved,
    read_image,
    side_colours,
    view_of,
)
from posesweep.analysis.ranked import Standings
from posesweep.analysis.results import Evidence, SweepResults
from posesweep.datasets.headers import read_header
from posesweep.datasets.skeleton import Skeleton
from posesweep.datasets.swaps import Unit
from posesweep.errors import DataError

KINDS = ("shifted", "swapped", "missing", "wrongly present")
COLOURS = dict(zip(KINDS, (OTHER, BASELINE, WINNER, BAD), strict=True))
TRIALS = 5  # the best of the ranking; more agree no better, and cost time
LEAST_SURE = 0.1  # what is less sure is not listed
FEW_TRIALS = 3  # fewer cannot outvote one that is wrong
FEW_OBJECTS = 30
CONFUSED = 0.25  # the share of objects from which on trials do not know left from right
MOST_HEADERS = 4000  # images whose size is looked up
EXPLAINED = 0.5  # a swap this sure answers for its keypoints: they are not called shifted as well


@dataclass(frozen=True)
class LabelErrors:
    """`table`, the surest first: kind, keypoint (names, "/" between those that change places), annotation_id,
    image_id, image, sure (0 to 1, the estimated probability of a mistake), suggestion, labelled_x, labelled_y, x, y
    (of the first keypoint: as annotated, nan where it is not, and as the trials have it, image pixels), off_px, and
    spread_px (how far the trials are apart). `reason` says why it is empty where nothing could be judged."""

    table: pd.DataFrame
    trials: tuple[int, ...]  # that were asked
    objects: int
    notes: tuple[str, ...] = ()
    reason: str = ""
    judged: "Judged | None" = None  # for the crops


@dataclass(frozen=True)
class Judged:
    """What the candidates were made from."""

    evidence: Evidence
    consensus: Consensus
    skeleton: Skeleton
    candidates: tuple["Candidate", ...]  # in the order of the table


@dataclass(frozen=True)
class Candidate:
    """One suspect annotation: of the object at `row`, the keypoints by number."""

    kind: str
    row: int
    keypoints: tuple[int, ...]
    log_odds: float

    @property
    def sure(self) -> float:
        return float(1 / (1 + np.exp(-np.clip(self.log_odds, -BOUND, BOUND))))


COLUMNS = ["kind", "keypoint", "annotation_id", "image_id", "image", "sure", "suggestion"]
COLUMNS += ["labelled_x", "labelled_y", "x", "y", "off_px", "spread_px"]


def label_errors(results: SweepResults, standings: Standings, least_sure: float = LEAST_SURE) -> LabelErrors:
    """Look for label errors with the best trials of a sweep. Raises SweepError for predictions that cannot be read."""
    chosen, reason = _best_trials(results, standings)
    skeleton = results.skeleton
    if not chosen or skeleton is None:
        return LabelErrors(pd.DataFrame(columns=COLUMNS), (), 0, (), reason)
    first = next(iter(chosen.values()))
    labels = labels_of(first)
    consensus = consensus_of(list(chosen.values()), labels)
    odds = label_odds(labels, consensus, skeleton, _margins(results, first, consensus, labels))
    found = [one for one in candidates(odds, labels.labelled) if one.sure >= least_sure]
    judged = Judged(first, consensus, skeleton, tuple(found))
    table = pd.DataFrame([_row(one, judged, results) for one in found], columns=COLUMNS)
    notes = (*_notes(chosen, len(first.ids)), *_note_on_sides(odds, skeleton))
    return LabelErrors(table, tuple(chosen), len(first.ids), notes, "", judged)


def _best_trials(results: SweepResults, standings: Standings) -> tuple[dict[int, Evidence], str]:
    """The evidence of the best trials that judged the same objects, or why there is none."""
    if results.skeleton is None:
        return {}, "split.json does not say which keypoints these are, so labels cannot be judged."
    found: dict[int, Evidence] = {}
    for row in standings.rows:
        evidence = results.evidence(row.trial) if row.rank is not None else None
        if evidence is None or "keypoint_score" not in evidence.arrays or not len(evidence.ids):
            continue
        first = next(iter(found.values()), evidence)
        if evidence.keypoints.shape == first.keypoints.shape and np.array_equal(evidence.ids, first.ids):
            found[row.trial] = evidence
        if len(found) == TRIALS:
            break
    if found and next(iter(found.values())).keypoints.shape[1] != len(results.skeleton.keypoints):
        return {}, "The predictions are of other keypoints than split.json names, so labels cannot be judged."
    return found, "" if found else "No ranked trial has predictions, so labels cannot be judged."


def labels_of(evidence: Evidence) -> Labels:
    """The annotations that a trial was scored against."""
    points = evidence.true_keypoints.astype(np.float64)
    return Labels(points, evidence.visibility.astype(np.int64), evidence.boxes.astype(np.float64))


def consensus_of(evidences: Sequence[Evidence], labels: Labels) -> Consensus:
    """What the trials of these evidences predict together."""
    points = np.stack([evidence.keypoints for evidence in evidences]).astype(np.float64)
    scores = np.stack([evidence.arrays["keypoint_score"] for evidence in evidences]).astype(np.float64)
    return Consensus.of(points, scores, labels.side)


def _margins(
    results: SweepResults, evidence: Evidence, consensus: Consensus, labels: Labels
) -> Float[np.ndarray, "n K"]:
    """How far inside its image the consensus lies, in longer sides of the box; nan where the image is not there."""
    images = results.split.get("images") or {}
    sizes = {
        int(i): _size(str(images.get(str(i), "")), results.folder) for i in np.unique(evidence.image_ids)[:MOST_HEADERS]
    }
    unknown = (np.nan, np.nan)
    last = np.array([sizes.get(int(i), unknown) for i in evidence.image_ids])[:, None] - 1  # of the pixels
    return np.minimum(consensus.middle, last - consensus.middle).min(axis=-1) / labels.side


def _size(name: str, folder: Path) -> tuple[float, float]:
    """Width and height in pixels; nan where the image is not there or cannot be read."""
    path = find_image(name, folder)
    try:
        header = read_header(path) if path is not None else None
    except DataError:
        header = None  # the crops say which images cannot be read
    return (header.width, header.height) if header is not None else (np.nan, np.nan)


# -------------------------------------------------------------------------------------------------------- candidates


def candidates(odds: Odds, labelled: Bool[np.ndarray, "n K"]) -> list[Candidate]:
    """Every annotation with its most probable mistake, the surest first. In each object, swaps that do not overlap are
    taken from the most probable down; what a sure swap explains is not listed a second time."""
    found: list[Candidate] = []
    explained = np.zeros(labelled.shape, bool)
    for row, of_units in enumerate(odds.swapped):
        for swap in _swaps_of(row, of_units, odds.units, labelled[row]):
            found.append(swap)
            if swap.sure >= EXPLAINED:
                explained[row, list(swap.keypoints)] = True
    wrong = np.logaddexp(odds.shifted, odds.present)
    for row, k in np.argwhere(labelled & ~explained):
        kind = (
            "wrongly present" if odds.present[row, k] > PRIOR else "shifted"
        )  # of what looks left out, no place to be
        found.append(Candidate(kind, int(row), (int(k),), float(wrong[row, k])))
    for row, k in np.argwhere(~labelled):
        found.append(Candidate("missing", int(row), (int(k),), float(odds.missing[row, k])))
    return sorted(found, key=lambda one: -one.log_odds)


def _swaps_of(row: int, odds: Float[np.ndarray, "u"], units: Sequence[Unit], labelled: np.ndarray) -> list[Candidate]:
    taken: set[int] = set()
    swaps = []
    for u in np.argsort(-odds, kind="stable"):
        members = [k for pair in units[u].pairs for k in pair]
        known = tuple(k for k in members if labelled[k])
        if known and not taken & set(members):
            taken |= set(members)
            swaps.append(Candidate("swapped", row, known, float(odds[u])))
    return swaps


def _row(one: Candidate, judged: Judged, results: SweepResults) -> dict[str, Any]:
    evidence, consensus, names = judged.evidence, judged.consensus, judged.skeleton.keypoints
    row, k = one.row, one.keypoints[0]
    image_id = int(evidence.image_ids[row])
    labelled = evidence.visibility[row, k] > 0
    at = evidence.true_keypoints[row, k].astype(float) if labelled else np.full(2, np.nan)
    seen = consensus.middle[row, k]
    side = max(float(evidence.boxes[row, 2:].max()), 1.0)
    return {
        "kind": one.kind,
        "keypoint": "/".join(names[i] for i in one.keypoints),
        "annotation_id": int(evidence.ids[row]),
        "image_id": image_id,
        "image": str((results.split.get("images") or {}).get(str(image_id), "")),
        "sure": one.sure,
        "suggestion": _suggestion(one, names, seen, float(np.linalg.norm(seen - at))),
        "labelled_x": at[0],
        "labelled_y": at[1],
        "x": float(seen[0]),
        "y": float(seen[1]),
        "off_px": float(np.linalg.norm(seen - at)),
        "spread_px": float(consensus.spread[row, k]) * side,
    }


def _suggestion(one: Candidate, names: Sequence[str], seen: Float[np.ndarray, "2"], off_px: float) -> str:
    place = f"({seen[0]:.0f}, {seen[1]:.0f})"
    if one.kind == "swapped":
        return f"exchange left and right of {len(one.keypoints)} keypoints"
    if one.kind == "missing":
        return f"label {names[one.keypoints[0]]} near {place}"
    if one.kind == "wrongly present":
        return f"can {names[one.keypoints[0]]} be seen at all? if not, take its label out"
    return f"move {names[one.keypoints[0]]} by {off_px:.0f} px to {place}"


def _notes(chosen: dict[int, Evidence], objects: int) -> list[str]:
    """What makes the list weaker than it might be."""
    notes = []
    if len(chosen) < FEW_TRIALS:
        who = f"trial {next(iter(chosen))} alone" if len(chosen) == 1 else "two trials"
        notes.append(
            f"Judged by {who}: a keypoint that a network finds hard cannot be told from a wrong label as well."
        )
    if objects < FEW_OBJECTS:
        notes.append(f"With {objects} validation objects, what is usual is hardly known; take the list as a hint.")
    return notes


def _note_on_sides(odds: Odds, skeleton: Skeleton) -> list[str]:
    pairs = [(skeleton.keypoints.index(a), skeleton.keypoints.index(b)) for a, b in skeleton.flip_pairs]
    unsure = [f"{skeleton.keypoints[a]}/{skeleton.keypoints[b]}" for a, b in pairs if odds.confused[a] >= CONFUSED]
    if not unsure:
        return []
    listed = ", ".join(unsure[:4]) + (f" and {len(unsure) - 4} more pairs" if len(unsure) > 4 else "")
    return [f"The trials often take left for right at {listed}; swaps there are told by the poses of the set alone."]


# ----------------------------------------------------------------------------------------------------------- drawing


def draw_label_errors(numbers: LabelErrors, ax: Axes, most: int = 20) -> None:
    """How many candidates of each kind there are for the `most` suspected keypoints, one bar each."""
    if numbers.table.empty:
        ax.text(0.5, 0.5, numbers.reason or "no suspect label", ha="center", transform=ax.transAxes, color=GREY)
        ax.set_axis_off()
        return
    apart = numbers.table.assign(keypoint=numbers.table["keypoint"].str.split("/")).explode("keypoint")
    counts = apart.groupby(["keypoint", "kind"]).size().unstack(fill_value=0)
    counts = counts.loc[counts.sum(axis=1).sort_values(ascending=False, kind="stable").index[:most]][::-1]
    left = np.zeros(len(counts))
    for kind in (kind for kind in KINDS if kind in counts):
        width = counts[kind].to_numpy(float)
        ax.barh(range(len(counts)), width, left=left, color=COLOURS[kind], label=kind, height=0.72)
        left += width
    ax.set_yticks(range(len(counts)), [str(name) for name in counts.index])
    ax.tick_params(axis="y", length=0, labelcolor=INK)
    ax.set_xlabel("labels to look at")
    ax.grid(False, axis="y")
    ax.legend(loc="lower right")


@dataclass(frozen=True)
class LabelCrop:
    """One candidate, cut out and drawn upon; `place` is its row in the table."""

    place: int
    width: int
    height: int
    jpeg: bytes


def label_crops(numbers: LabelErrors, results: SweepResults, most: int = 24) -> tuple[list[LabelCrop], list[str]]:
    """(crops of the surest candidates whose image can be read, image files that cannot). The annotation is white, what
    the trials agree on coloured by side, a red line joins the two, and a ring is around what is suspected."""
    if numbers.judged is None:
        return [], []
    crops, missing = [], []
    for place, one in enumerate(numbers.judged.candidates[:most]):
        name = str(numbers.table["image"].iloc[place])
        image = read_image(name, results.folder)
        if image is None:
            missing.append(name or f"image id {numbers.table['image_id'].iloc[place]}")
        else:
            crops.append(_crop(image, place, one, numbers.judged))
    return crops, list(dict.fromkeys(missing))


def _crop(image: np.ndarray, place: int, one: Candidate, judged: Judged) -> LabelCrop:
    view, (width, height) = view_of(judged.evidence.boxes[one.row].astype(np.float64))
    flags = cv2.INTER_AREA if view[0, 0] < 1 else cv2.INTER_CUBIC
    canvas = cv2.warpAffine(image, view, (width, height), flags=flags, borderValue=(128, 128, 128))
    truth = moved(judged.evidence.true_keypoints[one.row].astype(np.float64), view)
    seen = moved(judged.consensus.middle[one.row], view)
    labelled = judged.evidence.visibility[one.row] > 0
    index = {name: k for k, name in enumerate(judged.skeleton.keypoints)}
    for a, b in ((index[a], index[b]) for a, b in judged.skeleton.edges if a in index and b in index):
        if labelled[a] and labelled[b]:
            line(canvas, truth[a], truth[b], WHITE, 1)
    colours = side_colours(judged.skeleton)
    for k in one.keypoints:
        if labelled[k]:
            line(canvas, truth[k], seen[k], RED, 2)
            _ring(canvas, truth[k])
        else:
            _ring(canvas, seen[k])
    for point in truth[labelled]:
        dot(canvas, point, WHITE)
    for k in one.keypoints:
        dot(canvas, seen[k], colours[k])
    return LabelCrop(place, width, height, jpeg(canvas))


def _ring(canvas: np.ndarray, at: Float[np.ndarray, "2"]) -> None:
    x, y = np.clip(at, -2000, 2000).round().astype(int).tolist()
    cv2.circle(canvas, (x, y), 11, RED, 2, cv2.LINE_AA)
