"""The Python API, and the example that shows it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import posesweep
from posesweep import load, sweep
from posesweep.api import Results, Winner
from posesweep.errors import ConfigError, SweepError
from tests.trainables import in_process

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
SMALL = {
    "name": "small",
    "data": {"synthetic": {"train": 16, "val": 8, "seed": 1, "width": 96, "height": 80}},
    "fixed": {"model": "tiny", "imgsz": (64, 64), "epochs": 2, "batch": 8, "augment": "none", "flip_test": False},
    "parameters": {"lr0": {"min": 1e-3, "max": 1e-2, "log": True}},
    "search": {"trials": 3},
    "early_terminate": {"type": "none"},
}


@pytest.fixture(autouse=True)
def without_ray(monkeypatch, tmp_path):
    monkeypatch.setattr("posesweep.trainables.sweep.run_sweep", in_process.run_sweep)
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> Results:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("posesweep.trainables.sweep.run_sweep", in_process.run_sweep)
        return sweep(SMALL, runs=tmp_path_factory.mktemp("runs"), epochs=1, search={"trials": 2})


def test_a_sweep_from_a_mapping_with_settings_over_it(small):
    written = yaml.safe_load((small.folder / "sweep.yaml").read_text())
    assert small.folder.name == "small"
    assert (written["fixed"]["epochs"], written["search"]) == (1, {"trials": 2})
    assert written["fixed"]["imgsz"] == [64, 64]


def test_its_tables(small):
    assert list(small.trials["trial"]) == [0, 1]
    assert list(small.curves.columns) == ["trial", "epoch", "value", "loss", "lr"]
    ranking = small.ranking
    assert sorted(ranking["trial"]) == [0, 1]
    assert list(ranking["rank"]) == [1, 2]
    assert {"ap", "ap_low", "ap_high", "gain", "p_best", "tied", "lr0", "in_words"} <= set(ranking.columns)
    del small.trials["trial"]  # a copy: what one does to it does no harm
    assert "trial" in small.trials


def test_its_winner(small):
    winner = small.winner
    assert isinstance(winner, Winner)
    assert winner.trial == small.ranking["trial"][0]
    assert winner.settings["lr0"] == small.ranking["lr0"][0]
    assert winner.weights.is_file()
    assert winner.ap.low <= winner.ap.value <= winner.ap.high


def test_its_report(small):
    (small.folder / "report.html").unlink()
    assert small.report() == small.folder / "report.html"
    assert (small.folder / "report.html").is_file()


def test_loading_reads_and_says_what_is_no_sweep(small, tmp_path):
    assert load(str(small.folder)).winner.trial == small.winner.trial
    with pytest.raises(SweepError, match="there is no such folder"):
        load(tmp_path / "nothing")


@pytest.mark.parametrize(
    ("content", "overrides", "said"),
    [
        ({"data": {"train": "a.json"}}, {}, "a sweep that is given as a mapping needs a name"),
        (
            {**SMALL, "parameters": {"lr0": object()}},
            {},
            "a sweep holds text, numbers, lists and mappings, not <object",
        ),
        (SMALL, {"lr": 1e-3}, "did you mean 'lr0'?"),
        (SMALL, {"search": {"trails": 3}}, "did you mean 'trials'?"),
    ],
)
def test_mistakes_are_sentences(content, overrides, said):
    with pytest.raises(ConfigError) as refused:
        sweep(content, **overrides)
    assert said in str(refused.value)


def test_paths_of_a_mapping_count_from_here(tmp_path):
    with pytest.raises(posesweep.errors.DataError) as refused:
        sweep({**SMALL, "data": {"train": "labels.json"}})
    assert str(tmp_path / "labels.json") in str(refused.value)


def test_importing_posesweep_loads_nothing_heavy():
    code = "import sys, posesweep; print({'yaml', 'pandas', 'torch', 'posesweep.api'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
    assert {"load", "sweep"} <= set(posesweep.__all__)
    with pytest.raises(AttributeError, match="module 'posesweep' has no attribute 'swep'"):
        _ = posesweep.swep


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_examples_run_with_less_data(example, capsys):
    text = example.read_text(encoding="utf-8").replace('"train": 192, "val": 48', '"train": 24, "val": 8')
    exec(compile(text.replace('"epochs": 6', '"epochs": 3'), str(example), "exec"), {"__name__": "__main__"})
    assert "report.html in a browser" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_examples_run_as_they_are(example, tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, str(example)], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
