"""The power law and what it says of more data: by hand, on planted curves, and where the points do not allow it."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure

from posesweep.analysis.datacurve import PowerLaw, datacurve, draw_datacurve, fit
from posesweep.analysis.page import Figure as Figure_
from posesweep.analysis.ranked import Standings
from posesweep.analysis.results import read_sweep_folder
from posesweep.analysis.sections.labels import datacurve_section
from posesweep.analysis.story import Story
from posesweep.files import trial_folder
from tests.analysis.fake_sweep import FakeTrial, write_fake_sweep


@settings(max_examples=30, deadline=None)
@given(factor=st.floats(0.5, 3), exponent=st.floats(0.1, 1.0))
def test_a_plain_power_law_is_found_again(factor, exponent):
    sizes = np.array([100.0, 200, 300, 400])
    law = fit(sizes, np.minimum(factor * sizes**-exponent, 5))
    assert (law.floor, law.factor, law.exponent) == (0, pytest.approx(factor), pytest.approx(exponent))


def test_with_sizes_enough_a_floor_is_found():
    sizes = np.array([50.0, 100, 200, 400, 800, 1600])
    law = fit(sizes, 0.2 + 5 * sizes**-0.8)
    assert law.floor == pytest.approx(0.2, abs=0.01)
    assert law.exponent == pytest.approx(0.8, abs=0.05)
    assert float(law.error(3200)) == pytest.approx(0.2 + 5 * 3200**-0.8, abs=1e-3)


def test_by_hand():
    """error 0.4 with 100 and 0.2 with 400 objects: it halves with four times the data, so n^-1/2."""
    law = fit(np.array([100.0, 400.0]), np.array([0.4, 0.2]))
    assert law.exponent == pytest.approx(0.5)
    assert float(law.error(200)) == pytest.approx(0.4 / np.sqrt(2))
    assert PowerLaw(0.1, 2.0, 1.0).error(np.array([10.0, 20.0])).tolist() == pytest.approx([0.3, 0.2])


def write_curve(folder: Path, noises: list[float], objects: list[int]) -> Path:
    """A sweep whose trials are taken for trainings on ever more data, the noise being that of each."""
    write_fake_sweep(folder, [FakeTrial(noise) for noise in noises], objects=60)
    points = []
    for i, number in enumerate(objects):
        (folder / "datacurve").mkdir(exist_ok=True)
        trial_folder(folder, i).rename(folder / "datacurve" / f"part{i}")
        point = {
            "share": number / max(objects),
            "seed": 1,
            "objects": number,
            "state": "finished",
            "folder": f"part{i}",
        }
        points.append(point)
    (folder / "datacurve" / "datacurve.json").write_text(json.dumps({"trial": 0, "points": points}))
    return folder


def test_a_steep_curve_says_what_twice_the_data_would_buy(tmp_path):
    folder = write_curve(tmp_path / "ponies", [0.11, 0.075, 0.055, 0.045], [60, 120, 180, 240])
    numbers = datacurve(read_sweep_folder(folder))
    assert numbers.table["AP"].is_monotonic_increasing
    assert (numbers.table["low"] < numbers.table["AP"]).all()
    assert numbers.law is not None
    assert numbers.gain is not None
    assert 0 < numbers.gain.low < numbers.gain.value < numbers.gain.high < 1
    law = fit(np.array([60.0, 120, 180, 240]), 1 - numbers.table["AP"].to_numpy())
    assert numbers.gain.value == pytest.approx(float(law.error(240) - law.error(480)))
    assert numbers.sentence.startswith("Twice the training data (480 instead of 240 objects) would buy about +0.")
    assert numbers.curve["objects"].iloc[[0, -1]].tolist() == pytest.approx([60, 480])


def test_a_flat_curve_promises_nothing(tmp_path):
    folder = write_curve(tmp_path / "ponies", [0.05, 0.052, 0.049, 0.051], [60, 120, 180, 240])
    numbers = datacurve(read_sweep_folder(folder))
    assert numbers.gain is not None
    assert numbers.gain.low <= 0
    assert numbers.sentence.startswith("What twice the data would buy is not known: anything from -0.")
    assert numbers.sentence.endswith("; more of them, with other seeds, say more (--seeds 3).")


@pytest.mark.parametrize(
    ("objects", "said"),
    [
        ([60, 120], "trainings on 2 different amounts of data have an AP, and it takes 3"),
        ([200, 220, 240], "the parts that were trained on are too much alike in size"),
    ],
)
def test_points_that_do_not_allow_it(tmp_path, objects, said):
    folder = write_curve(tmp_path / "ponies", [0.09, 0.07, 0.05][: len(objects)], objects)
    numbers = datacurve(read_sweep_folder(folder))
    assert numbers.gain is None
    assert said in numbers.sentence
    section = datacurve_section(Story(read_sweep_folder(folder), Standings(())))
    assert section is not None
    assert [block.caption for block in section.blocks if isinstance(block, Figure_)] == ["Dots: trainings."]
    draw_datacurve(numbers, Figure().subplots())


def test_a_training_that_diverged_is_left_out(tmp_path):
    folder = write_curve(tmp_path / "ponies", [0.11, 0.075, 0.055, 0.045], [60, 120, 180, 240])
    record = json.loads((folder / "datacurve" / "datacurve.json").read_text())
    record["points"][1]["state"] = "diverged"
    (folder / "datacurve" / "datacurve.json").write_text(json.dumps(record))
    numbers = datacurve(read_sweep_folder(folder))
    assert np.isnan(numbers.table.loc[1, "AP"])
    assert numbers.gain is not None


def test_a_torn_evidence_file_is_one_training_less(tmp_path):
    folder = write_curve(tmp_path / "ponies", [0.11, 0.075, 0.055, 0.045], [60, 120, 180, 240])
    (folder / "datacurve" / "part1" / "evidence.npz").write_bytes(b"PK torn")
    numbers = datacurve(read_sweep_folder(folder))
    assert numbers.table["AP"].isna().tolist() == [False, True, False, False]
    assert numbers.gain is not None


def test_validation_images_of_one_group_allow_no_look_ahead(tmp_path):
    folder = write_curve(tmp_path / "ponies", [0.11, 0.075, 0.055, 0.045], [60, 120, 180, 240])
    split = json.loads((folder / "split.json").read_text())
    (folder / "split.json").write_text(json.dumps(split | {"groups": dict.fromkeys(split["images"], "video 1")}))
    numbers = datacurve(read_sweep_folder(folder))
    assert "not known: all validation images are of one group" in numbers.sentence
    assert numbers.gain is None
    assert numbers.table["AP"].is_monotonic_increasing
    assert numbers.table["low"].isna().all()


def test_never_run_or_torn(tmp_path):
    folder = write_fake_sweep(tmp_path / "ponies", [FakeTrial(0.05)], objects=6)
    said = f"What twice the data would buy is not known; `posesweep datacurve {folder}` finds out."
    assert datacurve(read_sweep_folder(folder)).sentence == said
    (folder / "datacurve").mkdir()
    (folder / "datacurve" / "datacurve.json").write_text('{"points": [')
    assert datacurve(read_sweep_folder(folder)).sentence == said


def test_drawn_are_the_points_and_twice_the_data(tmp_path):
    folder = write_curve(tmp_path / "ponies", [0.11, 0.075, 0.055, 0.045], [60, 120, 180, 240])
    numbers = datacurve(read_sweep_folder(folder))
    ax = Figure().subplots()
    draw_datacurve(numbers, ax)
    assert ax.collections[-1].get_offsets()[:, 0].tolist() == [60, 120, 180, 240]
    assert [text.get_text() for text in ax.texts] == ["twice the data "]
    assert ax.get_xticks().tolist() == [60, 120, 180, 240, 480]
