"""Real sweeps on Ray, as a user runs them: to the end, killed and repeated, extended, exported, retrained."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from posesweep.files import read_json, read_json_lines
from posesweep.trainables.checkpoint import take_weights
from posesweep.trainables.tasks import build_task
from posesweep.trainables.winner import read_config

ROOT = Path(__file__).resolve().parents[2]
TIMES = {"train_s", "val_s", "worked_until", "attempt"}

SWEEP = """
name: small
data: {synthetic: {train: 48, val: 19, seed: 1, width: 160, height: 120}}
metric: {name: val/NME}
fixed: {model: tiny, imgsz: [64, 64], epochs: 4, batch: 8, ema: 0.9}
parameters:
  lr0: {min: 1.0e-4, max: 1.0e-2, log: true}
  codec: {values: [heatmap, simcc]}
  sigma: {min: 1.0, max: 3.0, when: {codec: heatmap}}
baseline: {lr0: 1.0e-3, codec: heatmap, sigma: 2.0}
search: {method: tpe, trials: 6, startup_trials: 3, seed: 3}
early_terminate: {type: asha, min_epochs: 1, eta: 2}
resources: {concurrent: 1}
"""


def command(*arguments: str) -> list[str]:
    return [sys.executable, str(ROOT / "run_sweep.py"), *arguments]


def run(folder: Path, *arguments: str, expect: int = 0) -> subprocess.CompletedProcess:
    done = subprocess.run(command(*arguments), cwd=folder, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == expect, done.stdout + done.stderr
    return done


def posesweep(folder: Path, *arguments: str, expect: int = 0) -> subprocess.CompletedProcess:
    done = subprocess.run(
        [sys.executable, "-m", "posesweep", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == expect, done.stdout + done.stderr
    return done


def record(sweep: Path) -> dict:
    """What must be equal bit for bit however often the sweep was killed: configs, metrics, ends, predictions."""
    found = {}
    for trial in sorted((sweep / "trials").iterdir()):
        rows = [{k: v for k, v in row.items() if k not in TIMES} for row in read_json_lines(trial / "metrics.jsonl")]
        status = read_json(trial / "status.json")
        with np.load(trial / "evidence.npz") as evidence:
            keypoints = evidence["keypoints"].tobytes()
        config = (trial / "config.yaml").read_text()
        found[trial.name] = (config, rows, status["state"], status["reason"], status["params"], keypoints)
    return found


def wait_for(condition, timeout_s: float) -> bool:
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.02)
    return False


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """A sweep that nobody disturbed."""
    folder = tmp_path_factory.mktemp("whole")
    (folder / "small.yaml").write_text(SWEEP)
    done = run(folder, "small.yaml")
    (folder / "stdout.txt").write_text(done.stdout)
    return folder


def test_a_sweep_ends_with_a_ranking_a_report_and_a_winner(whole):
    sweep = whole / "runs" / "small"
    said = (whole / "stdout.txt").read_text()
    assert "small: 6 trials to start; everything goes to runs/small" in said
    assert "winner: trial" in said
    states = [read_json(trial / "status.json")["state"] for trial in sorted((sweep / "trials").iterdir())]
    assert len(states) == 6
    assert states[0] == "finished"
    assert "pruned" in states
    best = yaml.safe_load((sweep / "best.yaml").read_text())
    assert best["data"]["split_hash"] == read_json(sweep / "split.json")["hash"]
    assert (sweep / "report.html").stat().st_size < 5e6
    assert (sweep / "pictures" / "augmented.png").stat().st_size > 10_000
    assert "What the training sees" in (sweep / "report.html").read_text()
    assert (sweep / "results.csv").read_text().count("\n") == 7


def test_pruned_trials_say_why(whole):
    reasons = [
        status["reason"]
        for trial in (whole / "runs" / "small" / "trials").iterdir()
        if (status := read_json(trial / "status.json"))["state"] == "pruned"
    ]
    assert reasons
    assert all(reason.startswith("stopped at epoch") for reason in reasons)


def test_weights_of_the_best_are_kept_and_of_the_others_not(whole):
    trials = sorted((whole / "runs" / "small" / "trials").iterdir())
    assert sum((trial / "best" / "weights.safetensors").is_file() for trial in trials) == 3
    assert all((trial / "evidence.npz").is_file() for trial in trials)


def test_repeating_a_finished_sweep_trains_nothing(whole):
    before = record(whole / "runs" / "small")
    assert "small: 6 done, none to start" in run(whole, "small.yaml").stdout
    assert record(whole / "runs" / "small") == before


def test_a_changed_file_under_the_same_name_is_refused_with_the_difference(whole):
    (whole / "changed.yaml").write_text(SWEEP.replace("max: 1.0e-2", "max: 1.0e-1"))
    done = run(whole, "changed.yaml", expect=2)
    assert "holds a sweep of the same name with other settings" in done.stderr
    assert "parameters.lr0.max" in done.stderr
    assert "0.01" in done.stderr
    assert "0.1" in done.stderr


def test_best_yaml_trains_again_bit_for_bit(whole):
    sweep = whole / "runs" / "small"
    posesweep(whole, "train", str(sweep / "best.yaml"), "--out", "again")
    winner = read_json(whole / "again" / "best" / "state.json")
    trials = [read_json_lines(t / "metrics.jsonl") for t in (sweep / "trials").iterdir()]
    metrics = [
        [{k: v for k, v in row.items() if k not in TIMES} for row in rows]
        for rows in [*trials, read_json_lines(whole / "again" / "metrics.jsonl")]
    ]
    assert metrics[-1] in metrics[:-1]
    assert winner["epoch"] >= 1


def test_eval_scores_the_winner_as_recorded(whole):
    sweep = whole / "runs" / "small"
    said = posesweep(whole, "eval", str(sweep)).stdout
    best = min(read_json(t / "status.json")["best"] for t in (sweep / "trials").iterdir())
    assert f"NME {best:.4f}" in said


def test_eval_scores_another_file(whole):
    """The validation images as a file of their own give the same figures; nothing of the training data is read."""
    split = read_json(whole / "runs" / "small" / "split.json")
    images = Path(next(iter(split["images"].values()))).parent
    val = next(path for path in images.parent.parent.glob("val/annotations.json"))
    said = posesweep(whole, "eval", "runs/small", "--data", str(val)).stdout
    assert said == posesweep(whole, "eval", "runs/small").stdout
    missing = posesweep(whole, "eval", "runs/small", "--data", "nothing.json", expect=2).stderr
    assert "nothing.json" in missing


def test_another_training_in_the_same_folder_is_refused(whole):
    refused = posesweep(whole, "train", "runs/small/best.yaml", "--out", "again", "epochs=9", expect=2).stderr
    assert "again holds a training with other settings" in refused


def test_an_extended_sweep_goes_on(whole, tmp_path):
    shutil.copytree(whole / "runs", tmp_path / "runs")
    (tmp_path / "small.yaml").write_text(SWEEP)
    assert "small: 6 done, 1 to start" in run(tmp_path, "small.yaml", "--extend", "1").stdout
    assert "small: 7 done, none to start" in run(tmp_path, "small.yaml").stdout


def test_onnx_gives_what_torch_gives(whole):
    onnxruntime = pytest.importorskip("onnxruntime")
    posesweep(whole, "export", "runs/small", "winner-onnx", "--onnx", "--normalised")
    config = read_config(whole / "winner-onnx" / "best.yaml")
    network = build_task(config).model().eval()
    take_weights(network, whole / "winner-onnx" / "weights.safetensors")
    images = torch.randn(3, 3, 64, 64)
    session = onnxruntime.InferenceSession(whole / "winner-onnx" / "model.onnx", providers=["CPUExecutionProvider"])
    ours = network(images)
    theirs = session.run(None, {"images": images.numpy()})
    for mine, their in zip(ours if isinstance(ours, tuple) else (ours,), theirs, strict=True):
        np.testing.assert_allclose(their, mine.detach().numpy(), atol=1e-4)


def test_export_copies_the_winner(whole):
    posesweep(whole, "export", "runs/small", "winner")
    files = {"best.yaml", "skeleton.yaml", "weights.safetensors", "README.md"}
    assert {file.name for file in (whole / "winner").iterdir()} == files


def kill_at(folder: Path, moment_s: float, signal_number: int = signal.SIGKILL) -> None:
    """Start the sweep, kill its driver `moment_s` after its first epoch is on record."""
    first = folder / "runs" / "small" / "trials" / "0000" / "metrics.jsonl"
    process = subprocess.Popen(command("small.yaml"), cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    assert wait_for(lambda: first.is_file() or process.poll() is not None, 120)
    time.sleep(moment_s)
    process.send_signal(signal_number)
    process.wait(60)


def check_killed(folder: Path, whole: Path, moments: list[float], signal_number: int = signal.SIGKILL) -> None:
    (folder / "small.yaml").write_text(SWEEP)
    for moment_s in moments:
        kill_at(folder, moment_s, signal_number)
    said = run(folder, "small.yaml").stdout
    assert record(folder / "runs" / "small") == record(whole / "runs" / "small"), said
    for trial in (folder / "runs" / "small" / "trials").iterdir():
        epochs = [row["epoch"] for row in read_json_lines(trial / "metrics.jsonl")]
        assert epochs == sorted(set(epochs)), "an epoch was written twice"


def test_a_killed_driver_goes_on_bit_for_bit(whole, tmp_path):
    check_killed(tmp_path, whole, [1.0])


@pytest.mark.slow
def test_three_kills_at_random_moments(whole, tmp_path):
    moments = np.random.default_rng().uniform(0, 6, 3).tolist()
    print("kill moments", moments)
    check_killed(tmp_path, whole, moments)


@pytest.mark.slow
def test_ctrl_c_and_sigterm_go_on_bit_for_bit(whole, tmp_path):
    for name, number in {"int": signal.SIGINT, "term": signal.SIGTERM}.items():
        (tmp_path / name).mkdir()
        check_killed(tmp_path / name, whole, [1.5], number)


def test_a_second_driver_is_refused(tmp_path):
    (tmp_path / "small.yaml").write_text(SWEEP)
    sweep = tmp_path / "runs" / "small"
    holder = (
        "import sys, time; from pathlib import Path; from posesweep.trainables.folder import lease\n"
        f"with lease(Path({str(sweep)!r})): print('held', flush=True); time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", holder], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        done = run(tmp_path, "small.yaml", expect=2)
        assert f"runs/small is in use by process {process.pid}" in done.stderr
    finally:
        process.kill()
        process.wait()


def test_debug_trains_without_ray(tmp_path):
    (tmp_path / "small.yaml").write_text(SWEEP)
    said = run(tmp_path, "small.yaml", "--debug").stdout
    assert "epoch 2: loss" in said
    assert (tmp_path / "runs" / ".small-debug" / "metrics.jsonl").is_file()
    assert not (tmp_path / "runs" / "small").exists()


@pytest.mark.slow
def test_trials_of_two_workers_run_under_ray_train(tmp_path):
    """DDP groups, one of them stopped early, then the next: the placement of workers and drivers cannot deadlock."""
    (tmp_path / "small.yaml").write_text(SWEEP.replace("trials: 6", "trials: 4"))
    run(tmp_path, "small.yaml", "resources.workers_per_trial=2", "fixed.epochs=2")
    for trial in (tmp_path / "runs" / "small" / "trials").iterdir():
        status = read_json(trial / "status.json")
        assert status["workers"] == 2
        assert status["state"] in ("finished", "pruned")
        with np.load(trial / "evidence.npz") as evidence:
            assert len(set(evidence["id"].tolist())) == len(evidence["id"]) >= 19
        log = (trial / "log.txt").read_text()
        assert "\nepoch 1: loss" in log
        assert len(log.splitlines()) < 20, log
