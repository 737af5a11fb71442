"""A sweep that confirms its winner, killed while it does: it ends bit for bit as if nothing had happened."""

import subprocess
from pathlib import Path

import pytest
import yaml

from posesweep.files import read_json, read_json_lines
from tests.integration.test_sweep import SWEEP, TIMES, command, posesweep, run, wait_for

pytestmark = pytest.mark.slow

CONFIRM = (
    SWEEP.replace("trials: 6", "trials: 3").replace("epochs: 4", "epochs: 3").replace("type: asha", "type: none")
    + "confirm: {top_k: 1, seeds: 2}\n"  # nobody is stopped: another trial than the baseline has to finish
)


def rows(training: Path) -> list[dict]:
    found = read_json_lines(training / "metrics.jsonl")
    return [{name: value for name, value in row.items() if name not in TIMES} for row in found]


def record(folder: Path) -> dict:
    """What must be the same however often the confirmation was killed."""
    sweep = folder / "runs" / "small"
    trainings = {path.name: (path / "config.yaml", rows(path)) for path in sorted((sweep / "confirm").iterdir())}
    return {name: (config.read_text(), metrics) for name, (config, metrics) in trainings.items()}


def kill_in_confirm(folder: Path, name: str, epochs: int) -> None:
    """Start the sweep; kill its driver when this training of the confirmation has so many epochs on record."""
    metrics = folder / "runs" / "small" / "confirm" / name / "metrics.jsonl"
    process = subprocess.Popen(command("small.yaml"), cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    assert wait_for(lambda: len(read_json_lines(metrics)) >= epochs or process.poll() is not None, 400)
    assert process.poll() is None, "it ended before it could be killed"
    process.kill()
    process.wait(60)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A confirmed sweep that nobody disturbed."""
    folder = tmp_path_factory.mktemp("whole")
    (folder / "small.yaml").write_text(CONFIRM)
    (folder / "stdout.txt").write_text(run(folder, "small.yaml").stdout)
    return folder


def test_the_confirmed_winner_is_handed_over(whole):
    sweep, said = whole / "runs" / "small", (whole / "stdout.txt").read_text()
    plan = read_json(sweep / "confirm.json")
    assert (plan["baseline"], plan["seeds"], plan["epochs"], len(plan["runs"])) == (0, [101, 102], 3, 4)
    for one in plan["runs"]:
        status = read_json(sweep / one["folder"] / "status.json")
        assert (status["role"], status["trial"], status["seed"]) == ("confirm", one["trial"], one["seed"])
        assert (status["state"], status["epochs"]) == ("finished", 3)
        assert yaml.safe_load((sweep / one["folder"] / "config.yaml").read_text())["seed"] == one["seed"]
        assert (sweep / one["folder"] / "evidence.npz").is_file()
    assert "Confirmed with other seeds" in said
    assert "confirmed with seeds 101, 102" in (sweep / "best.yaml").read_text()


def test_best_yaml_trains_the_confirmed_seed_again_bit_for_bit(whole):
    sweep = whole / "runs" / "small"
    best = yaml.safe_load((sweep / "best.yaml").read_text())
    posesweep(whole, "train", str(sweep / "best.yaml"), "--out", "again")
    same = [path for path in (sweep / "confirm").glob(f"*-s{best['seed']}") if rows(path) == rows(whole / "again")]
    assert len(same) == 1
    assert (same[0] / "best" / "weights.safetensors").is_file(), "the winner's weights are kept"


def test_a_killed_confirmation_goes_on_bit_for_bit(whole, tmp_path):
    (tmp_path / "small.yaml").write_text(CONFIRM)
    first, second = (one["folder"].split("/")[1] for one in read_json(whole / "runs/small/confirm.json")["runs"][:2])
    kill_in_confirm(tmp_path, second, 1)
    finished = tmp_path / "runs" / "small" / "confirm" / first / "status.json"
    before = finished.read_bytes()
    said = run(tmp_path, "small.yaml").stdout
    assert "small: 3 done, none to start" in said
    assert "1 of 4 done" in said
    assert finished.read_bytes() == before
    assert record(tmp_path) == record(whole)
    for training in (tmp_path / "runs" / "small" / "confirm").iterdir():
        epochs = [row["epoch"] for row in read_json_lines(training / "metrics.jsonl")]
        assert epochs == [1, 2, 3], "an epoch was lost or written twice"
