"""Label errors planted in the fake sweep: found, told by kind, with a suggestion; and sweeps with little to go by."""

import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from posesweep.analysis.label_errors import (
    COLUMNS,
    Candidate,
    LabelErrors,
    consensus_of,
    draw_label_errors,
    label_crops,
    label_errors,
    labels_of,
)
from posesweep.analysis.ranked import ranked
from posesweep.analysis.results import Evidence, SweepResults, read_sweep_folder
from posesweep.benchmarks.label_errors import KINDS, Fault, corrupt, judge, outcome
from posesweep.files import trial_folder
from tests.analysis.fake_sweep import SKELETON, TRIALS, FakeTrial, write_fake_sweep

K = {name: k for k, name in enumerate(SKELETON.keypoints)}
Arrays = dict[str, np.ndarray]


def change(folder: Path, edit: Callable[[Arrays], None]) -> None:
    """Change the arrays of every trial's evidence: labels are the same for all of them."""
    for file in sorted((folder / "trials").glob("*/evidence.npz")):
        with np.load(file) as stored:
            arrays = {name: stored[name].copy() for name in stored.files}
        edit(arrays)
        np.savez(file, **arrays)


def plant(arrays: Arrays) -> None:
    """One mistake in each of three objects; what is rightly not labelled the trials are unsure of."""
    points, visibility = arrays["true_keypoints"], arrays["visibility"]
    arrays["keypoint_score"][visibility == 0] *= 0.3
    arrays["keypoint_score"][[10, 20, 30]] = 0.9
    side = arrays["box"][:, 2:].max(axis=1)
    visibility[[10, 20, 30]] = 2
    points[[10, 20, 30]] = arrays["keypoints"][[10, 20, 30]]  # hidden ones had no place
    points[10, K["nose"]] += [0.0, 0.45 * side[10]]
    left, right = (np.array([k for name, k in K.items() if name.startswith(word)]) for word in ("left", "right"))
    points[20, np.r_[left, right]] = points[20, np.r_[right, left]]
    points[30, K["withers"]], visibility[30, K["withers"]] = 0, 0


def found(folder: Path, least_sure: float = 0.1) -> tuple[LabelErrors, SweepResults]:
    results = read_sweep_folder(folder)
    return label_errors(results, ranked(results), least_sure), results


@pytest.fixture(scope="module")
def spoilt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_fake_sweep(tmp_path_factory.mktemp("fake") / "ponies", TRIALS, objects=80)
    change(folder, plant)
    return folder


@pytest.fixture(scope="module")
def judged(spoilt: Path) -> tuple[LabelErrors, SweepResults]:
    return found(spoilt)


def of_object(table: pd.DataFrame, row: int) -> pd.DataFrame:
    return table[table["annotation_id"] == 1000 + row]


def test_what_was_planted_is_on_top_with_its_kind(judged):
    numbers, results = judged
    assert numbers.trials == tuple(row.trial for row in ranked(results).rows[:5])
    assert numbers.objects == 80
    assert {1010, 1020, 1030} == set(numbers.table.head(3)["annotation_id"])
    shifted = of_object(numbers.table, 10).iloc[0]
    assert (shifted["kind"], shifted["keypoint"]) == ("shifted", "nose")
    assert shifted["sure"] > 0.5
    swapped = of_object(numbers.table, 20).iloc[0]
    assert swapped["kind"] == "swapped"
    assert swapped["sure"] > 0.9
    assert "left_front_hoof" in swapped["keypoint"].split("/")
    missing = of_object(numbers.table, 30).iloc[0]
    assert (missing["kind"], missing["keypoint"]) == ("missing", "withers")


def test_suggestions_say_what_to_do_and_where(judged):
    numbers, _ = judged
    shifted = of_object(numbers.table, 10).iloc[0]
    assert (
        shifted["suggestion"] == f"move nose by {shifted['off_px']:.0f} px to ({shifted['x']:.0f}, {shifted['y']:.0f})"
    )
    off = np.hypot(shifted["x"] - shifted["labelled_x"], shifted["y"] - shifted["labelled_y"])
    assert off == pytest.approx(shifted["off_px"])
    missing = of_object(numbers.table, 30).iloc[0]
    assert missing["suggestion"].startswith("label withers near (")
    assert np.isnan(missing["labelled_x"])
    swap = of_object(numbers.table, 20).iloc[0]
    assert swap["suggestion"].startswith("exchange left and right of ")
    assert Path(swap["image"]).name == f"pony_{100 + 20 // 2}.jpg"


def test_a_swap_is_not_told_a_second_time_as_shifts(judged):
    numbers, _ = judged
    rows = of_object(numbers.table, 20)
    swapped = {name for names in rows.loc[rows["kind"] == "swapped", "keypoint"] for name in names.split("/")}
    assert not swapped & set(rows.loc[rows["kind"] == "shifted", "keypoint"])


def test_few_clean_labels_are_called_wrong(judged):
    numbers, _ = judged
    others = numbers.table[~numbers.table["annotation_id"].isin([1010, 1020, 1030])]
    assert (others["sure"] > 0.5).sum() <= 0.005 * 80 * len(K)


def test_the_table_is_ranked_and_has_its_columns(judged):
    table = judged[0].table
    assert list(table.columns) == COLUMNS
    assert table["sure"].is_monotonic_decreasing
    assert table["sure"].between(0.1, 1).all()


def test_a_label_where_no_trial_sees_anything_is_wrongly_present(tmp_path):
    """Keypoints that are not labelled are found with low confidence and at odds; so is one that is labelled."""
    folder = write_fake_sweep(tmp_path / "ponies", TRIALS, objects=80)
    calls = iter(range(100))

    def lose(arrays: Arrays) -> None:
        rng = np.random.default_rng(next(calls))
        hidden = arrays["visibility"] == 0
        hidden[40, K["poll"]] = True
        arrays["visibility"][40, K["poll"]] = 2
        arrays["true_keypoints"][40, K["poll"]] = arrays["box"][40, :2] + 5
        arrays["keypoint_score"][hidden] = rng.uniform(0.0, 0.1, hidden.sum())
        arrays["keypoints"][hidden] += rng.normal(0, 40, (hidden.sum(), 2))

    change(folder, lose)
    numbers, _ = found(folder, least_sure=0.0)
    assert 1040 in set(numbers.table.head(3)["annotation_id"])
    first = of_object(numbers.table, 40).iloc[0]
    assert (first["kind"], first["keypoint"]) == ("wrongly present", "poll")
    assert first["suggestion"] == "can poll be seen at all? if not, take its label out"
    left_out = numbers.table.loc[numbers.table["kind"] == "missing", "sure"]
    assert left_out.max() < 0.1, "what is rightly left out is not asked for"


def test_one_trial_judges_more_weakly_and_says_so(tmp_path):
    folder = write_fake_sweep(tmp_path / "ponies", [FakeTrial(0.03)], objects=40)
    change(folder, plant_one)
    numbers, _ = found(folder)
    assert numbers.trials == (0,)
    assert numbers.notes[0] == (
        "Judged by trial 0 alone: a keypoint that a network finds hard cannot be told from a wrong label as well."
    )
    assert numbers.table.iloc[0]["annotation_id"] == 1010


def plant_one(arrays: Arrays) -> None:
    arrays["visibility"][10] = 2
    arrays["true_keypoints"][10] = arrays["keypoints"][10]
    arrays["true_keypoints"][10, K["nose"]] += 60.0


def test_few_objects_are_said_to_be_few(tmp_path):
    numbers, _ = found(write_fake_sweep(tmp_path / "ponies", TRIALS[:2], objects=6))
    assert "With 6 validation objects, what is usual is hardly known; take the list as a hint." in numbers.notes
    assert numbers.notes[0].startswith("Judged by two trials:")


def test_trials_that_take_left_for_right_are_told(tmp_path):
    folder = write_fake_sweep(tmp_path / "ponies", TRIALS, objects=60)
    flip = SKELETON.flip_index

    def confuse(arrays: Arrays) -> None:
        arrays["keypoints"][::2] = arrays["keypoints"][::2][:, flip]

    change(folder, confuse)
    numbers, _ = found(folder)
    assert any(note.startswith("The trials often take left for right at left_") for note in numbers.notes)


def test_nothing_to_judge_with(tmp_path):
    folder = write_fake_sweep(tmp_path / "ponies", TRIALS[:2], objects=6)
    for trial in (0, 1):
        (trial_folder(folder, trial) / "evidence.npz").unlink()
    numbers, results = found(folder)
    assert numbers.table.empty
    assert numbers.reason == "No ranked trial has predictions, so labels cannot be judged."
    assert label_crops(numbers, results) == ([], [])
    ax = Figure().subplots()
    draw_label_errors(numbers, ax)
    assert ax.texts[0].get_text() == numbers.reason
    (folder / "split.json").unlink()
    numbers, _ = found(folder)
    assert numbers.reason.startswith("split.json does not say which keypoints these are")


def test_a_set_without_left_and_right_and_without_gaps(tmp_path):
    """No flip pairs, everything labelled: nothing can be swapped or missing, shifts are found all the same."""
    folder = write_fake_sweep(tmp_path / "ponies", TRIALS[:2], objects=40)
    split = json.loads((folder / "split.json").read_text())
    split["skeleton"]["flip_pairs"] = []
    (folder / "split.json").write_text(json.dumps(split))

    def fill(arrays: Arrays) -> None:
        gone = arrays["visibility"] == 0
        arrays["true_keypoints"][gone], arrays["visibility"][gone] = arrays["keypoints"][gone], 2
        plant_one(arrays)

    change(folder, fill)
    numbers, _ = found(folder)
    assert set(numbers.table["kind"]) <= {"shifted"}
    assert numbers.table.iloc[0]["annotation_id"] == 1010


def test_crops_show_the_annotation_and_name_images_that_are_gone(spoilt, tmp_path):
    numbers, results = found(spoilt)
    crops, missing = label_crops(numbers, results, most=3)
    assert missing == []
    assert [crop.place for crop in crops] == [0, 1, 2]
    canvas = cv2.imdecode(np.frombuffer(crops[0].jpeg, np.uint8), cv2.IMREAD_COLOR)
    assert canvas.shape == (crops[0].height, crops[0].width, 3)
    gone = Path(numbers.table["image"].iloc[0])
    gone.rename(gone.with_suffix(".bak"))
    try:
        crops, missing = label_crops(numbers, results, most=3)
        assert missing == [str(gone)]
        assert len(crops) < 3
    finally:
        gone.with_suffix(".bak").rename(gone)


def test_bars_count_the_table(judged):
    numbers, _ = judged
    ax = Figure().subplots()
    draw_label_errors(numbers, ax)
    total = sum(patch.get_width() for patch in ax.patches)
    assert total == numbers.table["keypoint"].str.split("/").map(len).sum()


@pytest.mark.parametrize("kinds", [("shifted",), ("swapped",), ("missing",), KINDS], ids=" ".join)
def test_most_of_what_the_benchmark_plants_is_found(clean, kinds):
    """5 % of the labels spoilt, the list twice as long; what is rightly not labelled the trials are unsure of."""
    labels = labels_of(clean[0])
    spoilt, faults = corrupt(labels, SKELETON, kinds, np.random.default_rng(5))
    assert {fault.kind for fault in faults} == set(kinds)
    changed = (spoilt.points != labels.points).any(axis=-1) | (spoilt.visibility != labels.visibility)
    named = np.zeros_like(changed)
    for fault in faults:
        named[fault.row, list(fault.keypoints)] = True
    assert (changed == named).mean() > 0.99  # a swap leaves the unlabelled one of a pair unnamed
    listed = judge(spoilt, consensus_of(clean, spoilt), SKELETON)
    assert np.mean(outcome(listed[: 2 * len(faults)], faults).found) >= 0.8


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> list[Evidence]:
    folder = write_fake_sweep(tmp_path_factory.mktemp("fake") / "ponies", TRIALS, objects=80)

    def unsure(arrays: Arrays) -> None:
        arrays["keypoint_score"][arrays["visibility"] == 0] *= 0.3

    change(folder, unsure)
    results = read_sweep_folder(folder)
    found = [results.evidence(row.trial) for row in ranked(results).rows[:5]]
    return [evidence for evidence in found if evidence is not None]


def test_the_benchmark_counts_by_hand() -> None:
    """A swap that names one of the planted keypoints counts, another object or keypoint does not."""
    faults = [
        Fault("shifted", 3, frozenset([1])),
        Fault("swapped", 5, frozenset([2, 3])),
        Fault("missing", 7, frozenset([0])),
    ]
    listed = [
        Candidate("swapped", 5, (3, 4), 2.0),
        Candidate("shifted", 3, (2,), 1.0),
        Candidate("shifted", 3, (1,), 0.5),
        Candidate("missing", 8, (0,), 0.0),
    ]
    found = outcome(listed, faults)
    assert found.found == [True, True, False]
    assert found.precision == 0.5
