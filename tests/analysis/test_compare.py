import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from posesweep.analysis.compare import Comparison, compare, differences, verdict
from posesweep.analysis.comparison import compare_folders, comparison_page, comparison_rows, read_run
from posesweep.analysis.confirmed import Candidate, Confirmed
from posesweep.analysis.page import render
from posesweep.analysis.ranking import Interval
from posesweep.cli import main
from posesweep.errors import SweepError
from posesweep.files import trial_folder
from tests.analysis.fake_sweep import TRIALS, write_fake_sweep


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """strong, weak: the same 60 validation objects; other: 12 other ones; empty: nothing trained."""
    folder = tmp_path_factory.mktemp("runs")
    write_fake_sweep(folder / "strong", (TRIALS[0], TRIALS[7]), name="strong")
    write_fake_sweep(folder / "weak", (TRIALS[0], TRIALS[4], TRIALS[2]), name="weak")
    write_fake_sweep(folder / "other", TRIALS[:2], objects=12, name="other")
    write_fake_sweep(folder / "empty", (), name="empty")
    return folder


def _compared(runs: Path, *names: str) -> Comparison:
    return compare([read_run(runs / name) for name in names])


def _said(compared: Comparison) -> list[str]:
    return [verdict(one, compared.contenders[0]) for one in compared.contenders[1:]]


def test_winners_on_the_same_objects_are_paired(runs: Path) -> None:
    compared = _compared(runs, "strong", "weak")
    first, second = compared.contenders
    assert first.gain is None
    assert second.gain is not None
    assert first.ap is not None
    assert second.ap is not None
    assert second.gain.value == pytest.approx(second.ap.value - first.ap.value)
    assert second.gain.high < 0
    # paired: what is hard is hard for both, so the difference is surer than the intervals of the two suggest
    assert second.gain.high - second.gain.low < 0.7 * (second.ap.high - second.ap.low)
    assert _said(compared)[0].startswith(f"Worse than {runs / 'strong'}: -0.")
    assert _said(_compared(runs, "weak", "strong"))[0].startswith(f"Better than {runs / 'weak'}: +0.")


def test_a_sweep_cannot_be_told_from_its_copy(runs: Path, tmp_path: Path) -> None:
    shutil.copytree(runs / "weak", tmp_path / "copy")
    compared = compare([read_run(runs / "weak"), read_run(tmp_path / "copy")])
    assert _said(compared) == [f"Cannot be told from {runs / 'weak'}: +0.000 AP, 95 % interval +0.000 to +0.000."]
    assert compared.settings == ()


def test_other_validation_objects_stand_side_by_side_with_the_reason(runs: Path) -> None:
    compared = _compared(runs, "strong", "other", "empty")
    assert _said(compared) == [
        f"Not comparable: {runs / 'other'} was validated on other objects than {runs / 'strong'}, so a difference "
        "between their APs may be one between the objects.",
        f"Not comparable: {runs / 'empty'} has no winner yet.",
    ]
    assert [row[1] for row in comparison_rows(compared)] == ["trial 1", "trial 1", "none yet"]
    assert comparison_rows(compared)[1][2].startswith("0.")  # its own AP is shown


def test_what_makes_two_sweeps_incomparable_is_said(runs: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(runs / "weak", tmp_path / "copy"))
    split = json.loads((copy / "split.json").read_text())
    split["skeleton"]["sigmas"][0] *= 2
    (copy / "split.json").write_text(json.dumps(split))
    assert "has other OKS sigmas than" in _said(compare([read_run(runs / "weak"), read_run(copy)]))[0]
    space = json.loads((copy / "space.json").read_text()) | {"metric": {"name": "val/PCK"}}
    (copy / "space.json").write_text(json.dumps(space))
    said = _said(compare([read_run(runs / "weak"), read_run(copy)]))[0]
    assert said.endswith(f"is ranked by val/AP and {copy} by val/PCK; only val/AP is paired.")
    for file in copy.glob("trials/*/evidence.npz"):
        file.unlink()
    said = _said(compare([read_run(runs / "weak"), read_run(copy)]))[0]
    assert said.endswith("copy holds no predictions of its winner, trial 1.")


def test_validation_images_of_one_group_stand_side_by_side(runs: Path, tmp_path: Path) -> None:
    copies = [Path(shutil.copytree(runs / name, tmp_path / name)) for name in ("strong", "weak")]
    for copy in copies:
        split = json.loads((copy / "split.json").read_text())
        (copy / "split.json").write_text(json.dumps(split | {"groups": dict.fromkeys(split["images"], "video 1")}))
    compared = compare([read_run(copy) for copy in copies])
    assert _said(compared)[0].startswith("Not comparable: all validation images are of one group")
    assert all(one.p_best is None and one.ap is None for one in compared.contenders)


def test_more_training_data_with_the_same_validation_is_comparable_and_said(runs: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(runs / "weak", tmp_path / "copy"))
    split = json.loads((copy / "split.json").read_text())
    (copy / "split.json").write_text(json.dumps(split | {"hash": "0" * 16, "train": [1, 2, 3]}))
    compared = compare([read_run(runs / "weak"), read_run(copy)])
    assert compared.contenders[1].gain is not None
    assert compared.notes == (
        "The validation objects are the same, the training data are not: a gain may come from either.",
        "One training each: another seed may turn this round.",
    )


def test_a_confirmation_that_names_another_winner_is_told(runs: Path) -> None:
    strong, weak = read_run(runs / "strong"), read_run(runs / "weak")
    ap, gain = Interval(0.6, 0.5, 0.7), Interval(0.1, 0.05, 0.15)
    again = Candidate(2, "search", ap, gain, 1.0, True, {1: 0.6, 2: 0.6}, 0.5)
    compared = compare([strong, replace(weak, confirmed=Confirmed((again,), 18, (1, 2), 0.01, ()))])
    assert f"{runs / 'weak'} confirmed trial 2; compared is trial 1, the search's best." in compared.notes
    words = render(comparison_page(compared))
    assert "Trial 2 is the best config: AP 0.600" in words
    assert not any("confirmed" in note for note in compare([strong, weak]).notes)


def test_settings_and_sweep_files_are_compared_key_by_key(runs: Path, tmp_path: Path) -> None:
    compared = _compared(runs, "strong", "weak")
    assert {one.key: one.values for one in compared.settings}["codec"] == ("simcc", "heatmap")
    assert compared.searched == ()  # the name is no difference
    found = differences([{"a": {"b": 1}, "c": [1, 2]}, {"a": {"b": 2}, "c": [1, 2], "d": None}])
    assert [(one.key, one.values) for one in found] == [("a.b", (1, 2))]


def test_the_command_prints_a_table_and_writes_the_page(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", str(runs / "strong"), str(runs / "weak"), str(runs / "other")]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "over the first" in said
    assert "Worse than" in said
    assert f"page: {runs / 'compare.html'}" in said
    html = (runs / "compare.html").read_text()
    for words in ("The winners", "Settings of the winners that differ", "beyond chance", "strong / weak / other"):
        assert words in html
    assert not (runs / "csv").exists()


@pytest.mark.parametrize("names", [("strong",), ("strong", "strong")])
def test_it_takes_two(runs: Path, names: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", *(str(runs / name) for name in names)]) == 2
    assert "compare needs two or more different sweep folders" in capsys.readouterr().err


def test_a_folder_that_is_no_sweep_is_named(runs: Path, tmp_path: Path) -> None:
    with pytest.raises(SweepError, match="there is no such folder"):
        compare_folders([runs / "strong", tmp_path / "gone"])


def test_names_are_escaped(runs: Path, tmp_path: Path) -> None:
    evil = "<script>alert(1)</script>"
    write_fake_sweep(tmp_path / "a", (TRIALS[0],), objects=4, name=evil)
    write_fake_sweep(tmp_path / "b", (TRIALS[1],), objects=4)
    config = trial_folder(tmp_path / "b", 0) / "config.yaml"
    config.write_text(config.read_text() + f"'{evil}': '{evil}'\n")
    _, path = compare_folders([tmp_path / "a", tmp_path / "b"])
    assert "<script" not in path.read_text()
