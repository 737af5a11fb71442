"""The test split at the very end of a sweep: the winner and the baseline are scored on it, once and never again.

`test.json` holds the outcome; the predictions lie beside it (test/<trial>.npz). The second score on a test split is
already one that was chosen by, so whatever the sweep does later, this one stays.
"""

from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Shaped

from posesweep.analysis.chosen import Chosen, best_seed, chosen
from posesweep.analysis.ranked import check_several
from posesweep.analysis.ranking import Bootstrap, Ranked, TrialEvidence, rank
from posesweep.analysis.results import read_sweep_folder
from posesweep.analysis.story import Story
from posesweep.analysis.tested import FILE
from posesweep.datasets.split import image_groups
from posesweep.errors import SweepError
from posesweep.files import replacing, write_json
from posesweep.search_spaces.schema import DataSpec
from posesweep.trainables.context import Context, pick_device, prepare_process
from posesweep.trainables.task import Score
from posesweep.trainables.tasks.topdown import TopDown, build_on
from posesweep.trainables.trained import Trained, amp_on, find_trained, load_network
from posesweep.trainables.trial import score_network


@dataclass(frozen=True)
class Tested:
    """One training on the test split."""

    picked: Chosen
    role: str
    task: TopDown
    score: Score
    predictions: Path


def use_test_split(data: DataSpec, folder: Path) -> None:
    """Score the winner and the baseline on `data.test`, unless that was done before.

    Without a winner nothing is done. Raises DataError where the annotations cannot be read.
    """
    if (folder / FILE).is_file():
        return
    story = Story.of(read_sweep_folder(folder))
    if story.picked is None:
        print("note: test: there is no winner yet, so the test split stays unused")
        return
    found = [_tested(data, folder, one, role) for one, role in _contestants(story, story.picked)]
    write_json(folder / FILE, _record(data, folder, found))


def _contestants(story: Story, winner: Chosen) -> list[tuple[Chosen, str]]:
    """The winner and the baseline, with confirmed weights where there are."""
    results, table = story.results, story.table
    roles = {row.trial: row.role for row in table.rows}
    found = [(winner, roles[winner.trial])]
    if results.baseline is None or winner.trial == results.baseline:
        return found
    row = story.decisive.baseline if story.decisive is not None else None
    baseline = (
        best_seed(results, row) if row is not None and row.seed_values else chosen(results, table, results.baseline)
    )
    if not (baseline.folder / "best" / "weights.safetensors").is_file():
        print("note: test: the baseline's weights were not kept, so the gain over it is not known there")
        return found
    return [*found, (baseline, "baseline")]


def _tested(data: DataSpec, folder: Path, picked: Chosen, role: str) -> Tested:
    assert data.test is not None
    trained = find_trained(picked.folder)
    images = data.test_images or data.images
    task = build_on(trained.config, Path(data.test), Path(images) if images is not None else None, trained.skeleton)
    score = score_on(trained, task)
    path = folder / "test" / f"{picked.trial:04d}.npz"
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **score.evidence)
    return Tested(picked, role, task, score, path)


def score_on(trained: Trained, task: TopDown) -> Score:
    """What a training reaches on the validation samples of `task`."""
    device = pick_device()
    prepare_process(trained.config.threads, trained.config.seed)
    config = trained.config.model_copy(update={"amp": amp_on(trained.config, device)})
    context = Context(trained.folder, lambda row: None, device)
    return score_network(load_network(trained).to(device), task, task.val, config, context)


def _record(data: DataSpec, folder: Path, found: list[Tested]) -> dict[str, Any]:
    """What test.json holds: the winner first."""
    truth = found[0].task.truth
    groups = image_groups(truth, data.group_by)
    of_image = dict(zip(truth.image_ids.tolist(), groups, strict=True))
    evidence = [TrialEvidence.read(one.picked.trial, one.predictions) for one in found]
    images = next(each.matches.images for each in evidence if each.matches is not None)
    rows, notes = _ranked(evidence, found, np.array([of_image[int(image)] for image in images]))
    return {
        "used": datetime.now(UTC).isoformat(timespec="seconds"),
        "test": data.test,
        "images": len(images),
        "objects": len(found[0].task.val),
        "trials": [_row(one, rows.get(one.picked.trial, Ranked(one.picked.trial)), folder) for one in found],
        "notes": notes,
    }


def _ranked(
    evidence: list[TrialEvidence], found: list[Tested], groups: Shaped[np.ndarray, "m"]
) -> tuple[dict[int, Ranked], list[str]]:
    """What the paired bootstrap says of each trial, and notes. At a sweep's end nothing may stop the record."""
    baseline = next((one.picked.trial for one in found if one.role == "baseline"), None)
    try:
        check_several(groups, len(groups))
        ranking = rank(evidence, baseline, Bootstrap(groups=groups))
    except SweepError as error:
        return {}, [f"No intervals: {error}."]
    return {row.trial: row for row in ranking.rows}, list(ranking.notes)


def _row(one: Tested, row: Ranked, folder: Path) -> dict[str, Any]:
    gain = row.to_baseline
    return {
        "trial": one.picked.trial,
        "role": one.role,
        "seed": one.picked.seed,
        "folder": str(one.picked.folder.relative_to(folder)),
        "metrics": one.score.metrics,
        "AP": asdict(row.ap) if row.ap is not None else None,
        "gain": asdict(gain) if gain is not None else None,
    }
