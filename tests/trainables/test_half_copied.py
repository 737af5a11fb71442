"""`posesweep report` on folders that something is missing from: it says so, and shows what there is."""

import io
import json
from pathlib import Path

import pytest
import yaml
from rich.console import Console

from posesweep.analysis import story
from posesweep.analysis.confirmed import Candidate, Confirmed
from posesweep.analysis.ranked import ranked
from posesweep.cli import main
from posesweep.files import trial_folder
from posesweep.trainables.winner import confirmed_table
from tests.analysis.fake_sweep import TRIALS, write_fake_sweep


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    """Two trials, trial 1 the winner, as this version writes them."""
    folder = write_fake_sweep(tmp_path / "ponies", (TRIALS[0], TRIALS[7]), objects=8)
    for number in range(2):
        _change(trial_folder(folder, number) / "status.json", workers=1, threads=1)
        config = trial_folder(folder, number) / "config.yaml"
        data = {"train": "data/train.json", "val": "data/val.json"}
        config.write_text(yaml.safe_dump(yaml.safe_load(config.read_text()) | {"data": data}))
    return folder


def _change(path: Path, without: tuple[str, ...] = (), **fields: object) -> None:
    stored = json.loads(path.read_text()) | fields
    path.write_text(json.dumps({key: value for key, value in stored.items() if key not in without}))


def _said(folder: Path, capsys: pytest.CaptureFixture[str]) -> str:
    assert main(["report", str(folder)]) == 0
    assert (folder / "report.html").is_file()
    assert (folder / "results.csv").is_file()
    return " ".join(capsys.readouterr().out.split())


def test_a_whole_folder_gets_its_best_yaml(sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert f"winner: trial 1; {sweep / 'best.yaml'} trains it again" in _said(sweep, capsys)
    assert "# The best of sweep 'ponies': trial 1" in (sweep / "best.yaml").read_text()


def test_without_its_config_the_winner_cannot_be_handed_over(sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = trial_folder(sweep, 1) / "config.yaml"
    config.unlink()
    assert f"winner: trial 1; no best.yaml: {config} is missing" in _said(sweep, capsys)


@pytest.mark.parametrize("left", [None, '{"hash": "12'])
def test_without_the_split(sweep: Path, capsys: pytest.CaptureFixture[str], left: str | None) -> None:
    (sweep / "split.json").unlink()
    if left:
        (sweep / "split.json").write_text(left)
    assert "no best.yaml: split.json is missing, or only partly copied" in _said(sweep, capsys)


def test_a_folder_of_an_older_version(sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status = trial_folder(sweep, 1) / "status.json"
    _change(status, without=("workers", "threads", "versions", "cost", "role", "parameters", "attempt"))
    assert f"no best.yaml: {status} does not say workers, threads, versions" in _said(sweep, capsys)
    assert not (sweep / "best.yaml").exists()


def test_records_that_are_only_partly_copied(sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("confirm.json", "promote-30.json", "test.json"):
        (sweep / name).write_text('{"runs": [')
    said = _said(sweep, capsys)
    assert "note: confirm.json cannot be read; it may be only partly copied." in said
    assert "note: test.json cannot be read; it may be only partly copied" in said
    assert "winner: trial 1" in said


def test_a_sweep_is_resampled_once(
    sweep: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The ranking is the slow part of a report: what the terminal has worked out, the page takes over."""
    calls = []
    monkeypatch.setattr(story, "ranked", lambda results: calls.append(results) or ranked(results))
    said = _said(sweep, capsys)
    assert len(calls) == 1
    assert "latency not measured" not in said, "equal networks are no news"


def test_brackets_in_a_reason_or_a_value_are_shown_as_they_are(sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _change(trial_folder(sweep, 0) / "status.json", state="failed", reason="cannot open [/usr/lib/x.so]")
    _change(trial_folder(sweep, 1) / "status.json", params={"lr0": 0.01, "head": "[/b]"})
    said = _said(sweep, capsys)
    assert "cannot open [/usr/lib/x.so]" in said
    assert "head=[/b]" in said


def test_brackets_in_the_reason_of_a_candidate() -> None:
    row = Candidate(3, "search", reason="diverged in [/usr/lib/x.so]")
    out = io.StringIO()
    Console(file=out, width=200).print(confirmed_table(Confirmed((row,), 9, (1,), None, ()), "val/AP"))
    assert "diverged in [/usr/lib/x.so]" in out.getvalue()
