"""How the sweep went: cost and ends, the data it ran on, the winner's settings."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import pandas as pd

from posesweep import __version__
from posesweep.analysis.chosen import Chosen
from posesweep.analysis.cost import Cost, cost, draw_cost
from posesweep.analysis.datacurve import untried
from posesweep.analysis.page import (
    Block,
    Cell,
    Chip,
    Column,
    Csv,
    Facts,
    Row,
    Section,
    Shot,
    Shots,
    Table,
    Words,
    embedded,
    figure,
    plain_table,
)
from posesweep.analysis.pictures import jpeg
from posesweep.analysis.ranked import STATE_WORDS, Standings
from posesweep.analysis.results import SweepResults, moments, settings_in
from posesweep.analysis.sections.ranking import params_cells, trial_cell
from posesweep.analysis.story import Story
from posesweep.analysis.wording import duration, flattened, number, percent, setting_text, trials_text
from posesweep.files import trial_folder


def cost_section(story: Story) -> Section | None:
    """What was spent, on what, what stopping saved; each trial's part, and why it ended."""
    if story.results.trials.empty:
        return None
    numbers = cost(story.results)
    blocks: list[Block] = [Facts(_course(story.results, numbers))]
    if numbers.total_s > 0:
        blocks.append(
            figure(
                partial(draw_cost, numbers, winner=story.winner_trial),
                (5.6, 2.6),
                f"time of each of {trials_text(len(numbers.trials))}",
                Csv("cost", numbers.trials),
                most_px=800,
            )
        )
    blocks.append(_ends(story, numbers))
    return Section("cost", "Cost, and how each trial ended", tuple(blocks), short="Cost")


def _course(results: SweepResults, numbers: Cost) -> tuple[tuple[str, str], ...]:
    trials = results.trials
    count = trials["state"].value_counts()
    states = [f"{count[state]} {words}" for state, words in STATE_WORDS.items() if state in count]
    facts = [("trials", ", ".join(states)), ("epochs trained", str(int(trials["epochs"].sum())))]
    facts.append(("trial time", _time_text(results, numbers)))
    for name, unit in (("gpu_s", "GPU time"), ("cpu_s", "CPU time reserved")):
        if (spent := numbers.trials[name].sum()) > 0:
            facts.append((unit, f"{duration(spent)} ({spent / 3600:.2f} hours)"))
    facts.append(("start to end", _elapsed(results)))
    if numbers.saved_share is not None:
        stopped = int((numbers.trials["saved_s"] > 0).sum())
        saved = f"{duration(numbers.saved_s)}, {percent(numbers.saved_share)} of what full length would have taken"
        facts.append(("saved by stopping", f"{saved} ({trials_text(stopped)} stopped early)"))
    return tuple(facts)


def _time_text(results: SweepResults, numbers: Cost) -> str:
    total = numbers.total_s
    if not total > 0:
        return "not known"
    timed = results.trials.dropna(subset=["wall_s"])
    shares = [float(timed[name].sum()) / total for name in ("train_s", "val_s")]
    rest = max(1 - sum(shares), 0.0)
    return f"{duration(total)}: {percent(shares[0])} training, {percent(shares[1])} validating, {percent(rest)} neither"


def _elapsed(results: SweepResults) -> str:
    times = [time for status in results.statuses.values() for time in moments(status)]
    return duration((max(times) - min(times)).total_seconds()) if len(times) > 1 else "not known"


def _ends(story: Story, numbers: Cost) -> Table:
    """A row per trial, in the order in which they began: why it ended, what it reached and cost, its settings."""
    results = story.results
    devices = [(name, title) for name, title in (("gpu_s", "GPU-s"), ("cpu_s", "CPU-s")) if numbers.trials[name].any()]
    titles = [f"best {results.metric.removeprefix('val/')}", "epochs", "time", *(title for _, title in devices)]
    titles += ["of all", *results.params]
    columns = (Column("trial", "name"), Column("why it ended", "why"), *(Column(title, "num") for title in titles))
    standing = {row.trial: row for row in story.table.rows}
    rows = [
        Row(
            (
                trial_cell(standing[row["trial"]], story),
                Cell(chips=(Chip(STATE_WORDS[row["state"]], row["state"]),), soft=_own_words(row)),
                Cell(number(standing[row["trial"]].value)),
                Cell(str(row["epochs"])),
                Cell(duration(row["wall_s"]) if row["wall_s"] == row["wall_s"] else "–"),
                *(Cell(number(row[name], 0)) for name, _ in devices),
                Cell(percent(row["share"])),
                *params_cells(standing[row["trial"]], results),
            )
        )
        for row in numbers.trials.to_dict("records")
    ]
    return Table(columns, tuple(rows), Csv("trials", results.trials), title="Each trial")


def _own_words(row: Any) -> str:
    return "" if row["why"] == STATE_WORDS[row["state"]] else row["why"]


@dataclass(frozen=True)
class Setting:
    """One line of the winner's config beside the baseline's."""

    key: str
    winner: Any
    baseline: Any
    differs: bool


def winner_settings(story: Story) -> list[Setting]:
    """The whole config of the training that is handed over, dotted keys, those that differ from the baseline first."""
    picked, base = story.picked, story.baseline_trial
    if picked is None:
        return []
    ours = flattened(settings_in(picked.folder))
    theirs = flattened(settings_in(_baseline_beside(picked, base))) if base is not None else {}
    keys = list(dict.fromkeys([*ours, *theirs]))
    found = [Setting(k, ours.get(k), theirs.get(k), bool(theirs) and ours.get(k) != theirs.get(k)) for k in keys]
    return sorted(found, key=lambda setting: not setting.differs)


def _baseline_beside(picked: Chosen, base: int) -> Path:
    """The baseline's training with the same seed in the same confirmation, else that of the search."""
    beside = picked.folder.with_name(picked.folder.name.replace(f"{picked.trial:04d}", f"{base:04d}", 1))
    return beside if beside.is_dir() else trial_folder(picked.folder.parents[1], base)


def settings_section(story: Story) -> Section | None:
    """The winner's settings; those that the baseline has otherwise first."""
    found = winner_settings(story)
    if not found:
        return None
    differ = [one for one in found if one.differs]
    same = tuple((one.key, setting_text(one.winner)) for one in found if not one.differs)
    blocks: list[Block] = []
    if differ:
        rows = [(one.key, setting_text(one.winner), setting_text(one.baseline)) for one in differ]
        frame = pd.DataFrame([(s.key, s.winner, s.baseline, s.differs) for s in found])
        frame.columns = pd.Index(["setting", "winner", "baseline", "differs"])
        blocks.append(plain_table(("setting", "winner", "baseline"), rows, csv=Csv("settings", frame), shown=100))
    if same:
        count = "1 setting" if len(same) == 1 else f"{len(same)} settings"
        blocks.append(Facts(same, f"{count} the same in both" if differ else count))
    return Section("settings", "Settings of the winner", tuple(blocks), short="Its settings")


def data_section(story: Story) -> Section:
    """The frozen split, what the data were found to be, versions."""
    results = story.results
    split, skeleton = results.split, results.skeleton
    named = {"train": "training objects", "val": "validation objects", "images": "images"}
    facts = [(words, str(len(split[key]))) for key, words in named.items() if isinstance(split.get(key), list | dict)]
    facts.append(
        ("skeleton", f"{skeleton.name}, {len(skeleton.keypoints)} keypoints" if skeleton is not None else "not known")
    )
    facts.append(("split", str(split.get("hash", "not known"))))
    blocks: list[Block] = [Facts((*facts, *_versions(results, story.table)))]
    notes = tuple(str(note) for note in split.get("notes") or ())
    if notes:
        blocks.append(Words(notes, "Notes on the data", points=True))
    if said := untried(results):
        blocks.append(Words((said,)))
    if (samples := _samples(results)) is not None:
        blocks.append(samples)
    return Section("data", "Data and versions", tuple(blocks), short="Data")


def _versions(results: SweepResults, table: Standings) -> list[tuple[str, str]]:
    """What the winner ran with (or the first trial that says), and what wrote this page."""
    order = [row.trial for row in table.rows]
    stated = (results.statuses.get(trial, {}).get("versions") for trial in order)
    said = next((one for one in stated if one and isinstance(one, dict)), {})
    return [(str(name), str(version)) for name, version in said.items()] + [("this page: posesweep", __version__)]


def _samples(results: SweepResults) -> Shots | None:
    """The picture of augmented training samples that the sweep made at its start; None where there is none."""
    file = results.folder / "pictures" / "augmented.png"
    picture = cv2.imread(str(file)) if file.is_file() else None
    if picture is None:
        return None
    about = "Training samples as they are, then at rising strengths of the augmentation (aug_strength)."
    shot = Shot(
        source=embedded(jpeg(picture)),
        width=picture.shape[1],
        height=picture.shape[0],
        alt="training samples at rising strengths of the augmentation",
        head="",
        lines=(about,),
    )
    return Shots((shot,), "What the training sees", wide=True)
