"""One self-contained HTML page about a sweep: the decision first, then everything it rests on."""

import base64
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import cv2
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from posesweep import __version__
from posesweep.analysis.curves import draw_curves, learning_curves
from posesweep.analysis.decision import decision, listed
from posesweep.analysis.drawing import svg
from posesweep.analysis.intervals import draw_intervals, height_in, interval_rows
from posesweep.analysis.parameters import draw_slice, slices
from posesweep.analysis.per_keypoint import (
    PCK_SHARE,
    PerKeypoint,
    comparison,
    draw_keypoint_map,
    keypoint_map,
    per_keypoint,
)
from posesweep.analysis.pictures import Picture, best_and_worst, draw_pictures, jpeg
from posesweep.analysis.ranked import STATE_WORDS, Standing, Standings, ranked
from posesweep.analysis.results import Evidence, SweepResults, moments, read_sweep_folder
from posesweep.files import write_text

BEST_PICTURES, WORST_PICTURES = 4, 8
MAP_TRIALS = 8  # columns of the heat map, the baseline's included
MOST_CURVES = 150  # more are unreadable, and make a heavy page
FIGURE_IN = 5.0  # width of the large figures
ROWS_SHOWN = 15  # of each table; the rest is folded away


def build_report(folder: Path) -> Path:
    """Write report.html into the sweep folder, whatever state the sweep is in, and return its path.

    Raises SweepError when the folder is not a sweep's.
    """
    results = read_sweep_folder(folder)
    path = results.folder / "report.html"
    write_text(path, render(results, ranked(results)))
    return path


def render(results: SweepResults, table: Standings) -> str:
    """The page as HTML."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"setting": setting_text, "signed": signed}
    predictions = _predictions(results, table)
    return environment.get_template("report.html").render(
        results=results,
        table=table,
        rows_shown=ROWS_SHOWN,
        state_words=STATE_WORDS,
        decision=decision(results, table),
        notes=[*results.notes, *table.notes, *predictions.notes],
        intervals=_intervals(table),
        curves=_curves(results, table),
        slices=_slices(results, table),
        keypoints=predictions,
        pck_percent=round(100 * PCK_SHARE),
        settings=_settings(results, table),
        course=_course(results),
        data=_data(results),
        samples=_samples(results),
        versions=_versions(results, table),
        written=f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
    )


# --- figures ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Figure:
    """A drawing and what to say below it."""

    svg: Markup
    caption: str


def _intervals(table: Standings) -> Figure | None:
    rows = interval_rows(table, most=ROWS_SHOWN)
    if not rows:
        return None
    alt = f"AP of {len(rows)} trials with 95 % intervals, best on top"
    drawn = svg(partial(draw_intervals, rows), (FIGURE_IN, height_in(len(rows))), "intervals", alt)
    caption = (
        "Dots: AP on the validation set; bars: its 95 % interval. "
        "Ties are judged trial against trial on the same images, so trials whose bars overlap may still differ."
    )
    return Figure(Markup(drawn), caption)


def _curves(results: SweepResults, table: Standings) -> Figure | None:
    numbers = learning_curves(results)
    if not numbers.curves:
        return None
    winner, baseline = _trial(table.winner), _trial(table.baseline)
    first = [row.trial for row in table.rows][:MOST_CURVES]
    kept = tuple(curve for curve in numbers.curves if curve.trial in {*first, winner, baseline})
    draw = partial(draw_curves, replace(numbers, curves=kept), winner=winner, baseline=baseline)
    drawn = svg(draw, (FIGURE_IN, 3.4), "curves", f"{results.metric} over the epochs of {len(kept)} trials")
    caption = "A cross: stopped there by the search or, in red, failed."
    if numbers.rungs:
        caption += f" Dotted: epochs at which the search decides who goes on ({listed(list(map(str, numbers.rungs)))})."
    if len(kept) < len(numbers.curves):
        caption += f" The best {len(kept)} of {len(numbers.curves)} trials."
    return Figure(Markup(drawn), caption)


def _slices(results: SweepResults, table: Standings) -> list[Markup]:
    winner, baseline = _trial(table.winner), _trial(table.baseline)
    drawn = []
    for i, numbers in enumerate(slices(results)):
        draw = partial(draw_slice, numbers, winner=winner, baseline=baseline)
        drawn.append(Markup(svg(draw, (3.1, 2.3), f"slice{i}", f"{results.metric} by {numbers.name}")))
    return drawn


def _trial(row: Standing | None) -> int | None:
    return None if row is None else row.trial


# --- predictions -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Shot:
    """A picture, ready for an <img>."""

    picture: Picture
    source: str


@dataclass(frozen=True)
class Predictions:
    """The sections made from evidence.npz; empty where there is none."""

    table: list[dict[str, Any]]  # rows of per_keypoint.comparison
    compared: bool  # with a baseline other than the winner
    figure: Markup | None
    best: list[Shot]
    worst: list[Shot]
    notes: list[str]


def _predictions(results: SweepResults, table: Standings) -> Predictions:
    winner, skeleton = table.winner, results.skeleton
    evidence = results.evidence(winner.trial) if winner is not None else None
    if winner is None or evidence is None:
        return Predictions([], False, None, [], [], [])
    if skeleton is None or len(skeleton.keypoints) != evidence.keypoints.shape[1]:
        why = "split.json does not say which keypoints these are, so they cannot be named or drawn."
        return Predictions([], False, None, [], [], [why])
    by_trial = _by_trial(results, table)
    base = _trial(table.baseline)
    other = by_trial.get(base) if base is not None and base != winner.trial else None
    best, worst, notes = _shots(results, evidence)
    rows = comparison(by_trial[winner.trial], other).to_dict("records")
    plain_rows = [{str(key): value for key, value in row.items()} for row in rows]
    return Predictions(plain_rows, other is not None, _map(by_trial, winner.trial, base), best, worst, notes)


def _by_trial(results: SweepResults, table: Standings) -> dict[int, PerKeypoint]:
    """The best trials' numbers per keypoint, the baseline's among them, in the ranking's order."""
    skeleton = results.skeleton
    assert skeleton is not None
    chosen = [row.trial for row in table.rows if row.rank is not None]
    kept = {*chosen[: MAP_TRIALS - 1], _trial(table.baseline)}
    kept |= set(chosen[:MAP_TRIALS]) if _trial(table.baseline) in chosen[: MAP_TRIALS - 1] else set()
    found = {trial: results.evidence(trial) for trial in chosen if trial in kept}
    K = len(skeleton.keypoints)
    return {
        trial: per_keypoint(evidence, skeleton)
        for trial, evidence in found.items()
        if evidence is not None and evidence.keypoints.shape[1] == K
    }


def _map(by_trial: dict[int, PerKeypoint], winner: int, baseline: int | None) -> Markup:
    numbers = keypoint_map(by_trial)
    labels = {winner: f"{winner}\nwinner"} | ({baseline: f"{baseline}\nbaseline"} if baseline is not None else {})
    size = (1.7 + 0.5 * len(numbers.trials), 0.6 + 0.23 * len(numbers.names))
    alt = f"mean OKS of {len(numbers.names)} keypoints in {len(numbers.trials)} trials"
    return Markup(svg(partial(draw_keypoint_map, numbers, labels=labels), size, "keypointmap", alt))


def _shots(results: SweepResults, evidence: Evidence) -> tuple[list[Shot], list[Shot], list[str]]:
    skeleton = results.skeleton
    assert skeleton is not None
    best_rows, worst_rows = best_and_worst(evidence.oks, BEST_PICTURES, WORST_PICTURES)
    best, missing = draw_pictures(results, evidence, skeleton, best_rows)
    worst, missing_too = draw_pictures(results, evidence, skeleton, worst_rows)
    gone = list(dict.fromkeys([*missing, *missing_too]))
    notes = [f"Not shown, because the image cannot be read from here: {listed(gone, most=4)}."] if gone else []
    return [_shot(picture) for picture in best], [_shot(picture) for picture in worst], notes


def _shot(picture: Picture) -> Shot:
    return Shot(picture, _embedded(picture.jpeg))


# --- words and small tables ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Setting:
    """One line of the winner's config beside the baseline's."""

    key: str
    winner: Any
    baseline: Any
    differs: bool


def _settings(results: SweepResults, table: Standings) -> list[Setting]:
    """The winner's whole config, dotted keys, those that differ from the baseline first."""
    if table.winner is None:
        return []
    ours = flattened(results.settings(table.winner.trial))
    base = _trial(table.baseline)
    theirs = flattened(results.settings(base)) if base is not None else {}
    keys = list(dict.fromkeys([*ours, *theirs]))
    found = [Setting(k, ours.get(k), theirs.get(k), bool(theirs) and ours.get(k) != theirs.get(k)) for k in keys]
    return sorted(found, key=lambda setting: not setting.differs)


def flattened(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings with dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= flattened(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


@dataclass(frozen=True)
class Course:
    """How the sweep went."""

    counts: list[tuple[str, int]]  # state, trials
    trial_time: str  # summed over trials
    training_share: float | None  # of that time
    validation_share: float | None
    elapsed: str  # first start to last end
    epochs: int
    unhappy: list[tuple[int, str, str]]  # trial, state, reason of those that failed or diverged


def _course(results: SweepResults) -> Course:
    trials = results.trials
    count = trials["state"].value_counts()
    timed = trials.dropna(subset=["wall_s"])
    total = float(timed["wall_s"].sum())
    unhappy = trials[trials["state"].isin(["failed", "diverged", "unknown"])]
    return Course(
        counts=[(state, int(count[state])) for state in STATE_WORDS if state in count],
        trial_time=duration(total) if total else "not known",
        training_share=float(timed["train_s"].sum()) / total if total else None,
        validation_share=float(timed["val_s"].sum()) / total if total else None,
        elapsed=_elapsed(results),
        epochs=int(trials["epochs"].sum()),
        unhappy=list(zip(unhappy["trial"], unhappy["state"], unhappy["reason"], strict=True)),
    )


def _elapsed(results: SweepResults) -> str:
    times = [time for status in results.statuses.values() for time in moments(status)]
    return duration((max(times) - min(times)).total_seconds()) if len(times) > 1 else "not known"


@dataclass(frozen=True)
class DataFacts:
    """The frozen split."""

    train: int | None
    val: int | None
    images: int | None
    skeleton: str
    split_hash: str
    notes: list[str]


def _data(results: SweepResults) -> DataFacts:
    split = results.split
    skeleton = results.skeleton
    named = f"{skeleton.name}, {len(skeleton.keypoints)} keypoints" if skeleton is not None else "not known"
    return DataFacts(
        train=len(split["train"]) if "train" in split else None,
        val=len(split["val"]) if "val" in split else None,
        images=len(split["images"]) if "images" in split else None,
        skeleton=named,
        split_hash=str(split.get("hash", "not known")),
        notes=[str(note) for note in split.get("notes") or ()],
    )


def _samples(results: SweepResults) -> str | None:
    """The picture of augmented training samples that the sweep made at its start; None where there is none."""
    file = results.folder / "pictures" / "augmented.png"
    picture = cv2.imread(str(file)) if file.is_file() else None
    return _embedded(jpeg(picture)) if picture is not None else None


def _embedded(image: bytes) -> str:
    """A JPEG as the source of an <img>."""
    return "data:image/jpeg;base64," + base64.b64encode(image).decode()


def _versions(results: SweepResults, table: Standings) -> list[tuple[str, str]]:
    """What the winner ran with (or the first trial that says), and what wrote this page."""
    order = [row.trial for row in table.rows]
    stated = (results.statuses.get(trial, {}).get("versions") for trial in order)
    said: dict[str, str] = next(filter(None, stated), {})
    return [(str(name), str(version)) for name, version in said.items()] + [("this page: posesweep", __version__)]


def duration(seconds: float) -> str:
    """'42 s', '3 min 5 s', '2 h 10 min', '3 d 4 h'."""
    units = (("d", 86400), ("h", 3600), ("min", 60), ("s", 1))
    whole = round(seconds)
    for position, (name, length) in enumerate(units[:-1]):
        if whole >= length:
            smaller, small = units[position + 1]
            rest = whole % length // small
            return f"{whole // length} {name}" + (f" {rest} {smaller}" if rest else "")
    return f"{whole} s"


def setting_text(value: Any) -> str:
    """A setting as people write it: 0.0015, heatmap, 192 x 256, yes."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.3g}"
    if isinstance(value, list | tuple):
        return ", ".join(setting_text(item) for item in value)
    return str(value)


def signed(value: float, digits: int = 3) -> str:
    """+0.012, with a true minus sign; a dash for nan."""
    return "–" if value != value else f"{value:+.{digits}f}".replace("-", "−")
