"""run_trial: what it leaves behind, and that a trial cut anywhere ends exactly as one that was not."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from posesweep.errors import ConfigError
from posesweep.files import read_json, read_json_lines
from posesweep.trainables.checkpoint import load_weights
from posesweep.trainables.context import SupersededError, begin_attempt, in_this_process
from posesweep.trainables.task import DivergedError
from posesweep.trainables.tasks import make_config
from posesweep.trainables.trial import run_trial

TIMES = {"train_s", "val_s", "attempt"}
GOLDEN = Path(__file__).parents[1] / "golden" / "losses.json"


class KilledError(Exception):
    """Stands for the death of the process at a moment of the test's choosing."""


def config_of(data: dict, **settings):
    common = {"model": "tiny", "imgsz": [64, 64], "epochs": 4, "batch": 8, "lr0": 2e-3, "ema": 0.9, "threads": 1}
    return make_config({"data": data, **common, **settings})


def train(config, folder: Path, report=lambda row: None):
    return run_trial(config, in_this_process(folder, report))


def metrics(folder: Path) -> list[dict]:
    rows = read_json_lines(folder / "metrics.jsonl")
    return [{name: value for name, value in row.items() if name not in TIMES} for row in rows]


def kill_after(epoch: int):
    def report(row):
        if row["epoch"] == epoch:
            raise KilledError

    return report


@pytest.fixture(scope="module")
def whole(horses, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    train(config_of(horses), folder)
    return folder


def test_a_trial_leaves_its_record(whole, horses):
    rows = read_json_lines(whole / "metrics.jsonl")
    assert [row["epoch"] for row in rows] == [1, 2, 3, 4]
    assert [row["step"] for row in rows] == [4, 8, 12, 16]
    assert all(np.isfinite(row["loss"]) and 0 <= row["val/AP"] <= 1 for row in rows)
    assert rows[-1]["lr"] == pytest.approx(2e-3 * 0.01)
    status = read_json(whole / "status.json")
    assert (status["state"], status["reason"], status["epochs"]) == ("finished", "trained all 4 epochs", 4)
    assert status["best"] == max(row["val/AP"] for row in rows)
    assert status["versions"]["torch"] == torch.__version__.partition("+")[0]
    evidence = np.load(whole / "evidence.npz")
    horses_seen = len(evidence["id"])  # 19 images, some with two horses
    assert horses_seen >= 19
    assert evidence["keypoints"].shape == (horses_seen, 26, 2)
    assert evidence["oks"].shape == (horses_seen,)
    assert any((whole / "tensorboard").iterdir())


def test_the_written_config_is_complete_and_trains_the_same(whole, horses, tmp_path):
    import yaml

    again = make_config(yaml.safe_load((whole / "config.yaml").read_text()))
    assert again == config_of(horses)
    assert again.sigma == 2.0
    train(again, tmp_path)
    assert metrics(tmp_path) == metrics(whole)


@pytest.mark.parametrize("epoch", [1, 3])
def test_a_killed_trial_goes_on_bit_for_bit(whole, horses, tmp_path, epoch):
    with pytest.raises(KilledError):
        train(config_of(horses), tmp_path, kill_after(epoch))
    told = []
    train(config_of(horses), tmp_path, lambda row: told.append(row["epoch"]))
    assert told == list(range(epoch, 5))  # the last one again: the search may not have heard of it
    assert metrics(tmp_path) == metrics(whole)
    for name, tensor in load_weights(whole / "last" / "weights.safetensors").items():
        assert torch.equal(tensor, load_weights(tmp_path / "last" / "weights.safetensors")[name]), name


def test_a_kill_between_checkpoint_and_metrics_loses_no_line(whole, horses, tmp_path):
    with pytest.raises(KilledError):
        train(config_of(horses), tmp_path, kill_after(2))
    file = tmp_path / "metrics.jsonl"
    file.write_bytes(file.read_bytes()[:-30])  # the second line is torn
    train(config_of(horses), tmp_path)
    assert metrics(tmp_path) == metrics(whole)


def test_a_kill_while_checkpoints_are_swapped_falls_back(whole, horses, tmp_path):
    with pytest.raises(KilledError):
        train(config_of(horses), tmp_path, kill_after(2))
    (tmp_path / "last").rename(tmp_path / "last.old")
    (tmp_path / "last.new").mkdir()
    (tmp_path / "last.new" / "weights.safetensors").write_bytes(b"torn")
    train(config_of(horses), tmp_path)
    assert metrics(tmp_path) == metrics(whole)


def test_an_orphan_stops_without_a_trace(horses, tmp_path):
    def newer_attempt(row):
        begin_attempt(tmp_path)

    with pytest.raises(SupersededError, match="attempt 1 was superseded"):
        train(config_of(horses), tmp_path, newer_attempt)
    assert len(metrics(tmp_path)) == 1
    assert read_json(tmp_path / "last" / "state.json")["epoch"] == 1


def test_a_loss_that_is_no_number_ends_the_trial_with_the_step_named(horses, tmp_path):
    with pytest.raises(DivergedError, match=r"diverged: the loss was (nan|inf) at step \d+"):
        train(config_of(horses, optimizer="sgd", lr0=1e12, warmup=0), tmp_path)
    status = read_json(tmp_path / "status.json")
    assert status["state"] == "diverged"
    assert "at step" in status["reason"]


def test_fp16_on_a_cpu_is_refused(horses, tmp_path):
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(ConfigError, match="amp: fp16 needs a GPU; use amp: bf16"):
        train(config_of(horses, amp="fp16"), tmp_path)


def test_bf16_trains(horses, tmp_path):
    train(config_of(horses, amp="bf16", epochs=1), tmp_path)
    assert read_json(tmp_path / "status.json")["precision"] == "bfloat16"
    assert np.isfinite(metrics(tmp_path)[0]["loss"])


def test_frozen_layers_stay_bit_for_bit_as_they_are(horses, tmp_path):
    before = {}

    def remember(row):
        if not before:
            before.update(load_weights(tmp_path / "last" / "weights.safetensors"))

    train(config_of(horses, freeze=2, epochs=2, ema=None), tmp_path, remember)
    after = load_weights(tmp_path / "last" / "weights.safetensors")
    frozen = [n for n in after if n.startswith(("backbone.stem", "backbone.stage1"))]
    assert any("running_mean" in name for name in frozen)
    assert all(torch.equal(before[name], after[name]) for name in frozen)
    assert not torch.equal(before["head.maps.weight"], after["head.maps.weight"])


def test_accumulation_sees_the_same_samples(horses, tmp_path):
    train(config_of(horses, accumulate=2, epochs=1), tmp_path)
    assert metrics(tmp_path)[0]["step"] == 4


def test_validation_only_every_other_epoch(horses, tmp_path):
    train(config_of(horses, val_every=2, epochs=3), tmp_path)
    assert ["val/AP" in row for row in metrics(tmp_path)] == [False, True, True]


def test_weights_of_another_training_are_taken(whole, horses, tmp_path):
    weights = str(whole / "best" / "weights.safetensors")
    train(config_of(horses, weights=weights, epochs=1, lr0=1e-9, ema=None, warmup=0), tmp_path)
    assert metrics(tmp_path)[0]["val/AP"] == pytest.approx(max(row["val/AP"] for row in metrics(whole)), abs=0.05)


@pytest.mark.parametrize("codec", ["heatmap", "simcc"])
def test_golden_losses(horses, tmp_path, codec):
    """The loss of three epochs, stored: a refactor that changes it changed the training. Other CPUs round otherwise."""
    train(config_of(horses, codec=codec, epochs=3), tmp_path)
    losses = [row["loss"] for row in metrics(tmp_path)]
    assert losses == pytest.approx(json.loads(GOLDEN.read_text())[codec], rel=5e-3)


def test_training_starts_over_in_an_empty_folder(whole, horses, tmp_path):
    shutil.copytree(whole, tmp_path / "copy")
    shutil.rmtree(tmp_path / "copy" / "last")
    train(config_of(horses), tmp_path / "copy")
    assert metrics(tmp_path / "copy") == metrics(whole)
