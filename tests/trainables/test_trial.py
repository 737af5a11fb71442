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
from posesweep.trainables.tasks import build_task, make_config
from posesweep.trainables.trial import run_trial

TIMES = {"train_s", "val_s", "worked_until", "attempt"}
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
    shutil.rmtree(tmp_path / "last.old")
    (tmp_path / "last").rename(tmp_path / "last.old")
    (tmp_path / "last.new").mkdir()
    (tmp_path / "last.new" / "weights.safetensors").write_bytes(b"torn")
    train(config_of(horses), tmp_path)
    assert metrics(tmp_path) == metrics(whole)


@pytest.mark.parametrize("file", ["weights.safetensors", "ema.safetensors", "state.pt", "state.json"])
def test_a_damaged_checkpoint_falls_back_to_the_one_before_and_says_so(whole, horses, tmp_path, file):
    with pytest.raises(KilledError):
        train(config_of(horses), tmp_path, kill_after(3))
    torn = tmp_path / "last" / file
    torn.write_bytes(torn.read_bytes()[: torn.stat().st_size // 2])
    train(config_of(horses), tmp_path)
    assert metrics(tmp_path) == metrics(whole)
    note = read_json(tmp_path / "status.json")["note"]
    assert note.startswith("last/ is damaged (")
    assert note.endswith("the training goes on from the checkpoint before it, epoch 2")


def test_without_any_whole_checkpoint_the_training_begins_again(whole, horses, tmp_path):
    with pytest.raises(KilledError):
        train(config_of(horses), tmp_path, kill_after(2))
    for name in ("last", "last.old"):
        (tmp_path / name / "weights.safetensors").write_bytes(b"torn")
    train(config_of(horses), tmp_path)
    assert metrics(tmp_path) == metrics(whole)
    assert read_json(tmp_path / "status.json")["note"].endswith("; the training begins again")


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


# ---------------------------------------------------------------------------------- schedules, freezing, endings


def go_on_after(epoch, config, folder):
    """Train, die after `epoch`, go on."""
    with pytest.raises(KilledError):
        train(config, folder, kill_after(epoch))
    return train(config, folder)


@pytest.mark.parametrize(
    "settings",
    [
        {"schedule": "flat_cosine", "warmup_steps": 3, "warmup_start": 0.001},
        {"schedule": "cosine_restarts", "cycle_epochs": 1.5, "optimizer": "lion", "lr0": 2e-4},
        {"schedule": "one_cycle", "optimizer": "sgd"},
        {"schedule": "multistep", "milestones": [0.5], "optimizer": "adan"},
        {"schedule": "constant", "final_augment": "none", "final_epochs": 1, "lr_mult": {"stem": 0.0}},
        {"grad_checkpoint": True, "optimizer": "lamb", "keep_best": 2},
    ],
    ids=lambda settings: next(iter(settings.values())),
)
def test_goes_on_bit_for_bit_with_each_schedule(horses, tmp_path, settings):
    config = config_of(horses, **{"epochs": 3, "val_every": 3, "ema": None, **settings})
    train(config, tmp_path / "whole")
    go_on_after(2, config, tmp_path / "cut")
    assert metrics(tmp_path / "cut") == metrics(tmp_path / "whole")
    for name, tensor in load_weights(tmp_path / "whole" / "last" / "weights.safetensors").items():
        assert torch.equal(tensor, load_weights(tmp_path / "cut" / "last" / "weights.safetensors")[name]), name


@pytest.mark.parametrize("lr", [{"lr0": 1e-3}, {"lr0": 5e-4, "lr_scaling": "linear", "lr_batch": 4}])
def test_the_learning_rates_of_a_training_by_hand(lr, horses, tmp_path):
    """3 epochs of 4 steps: a warm-up of 2, then flat until half (step 6), then down; the row has the last step's."""
    config = config_of(horses, epochs=3, schedule="flat_cosine", warmup_steps=2, val_every=3, **lr)
    train(config, tmp_path)
    halfway = 1e-3 * (0.05 + 0.95 * (1 + np.cos(np.pi * 1 / 5)) / 2)  # step 7: one fifth from step 6 to step 11
    assert [row["lr"] for row in metrics(tmp_path)] == pytest.approx([1e-3, halfway, 5e-5])


def test_layers_with_factor_zero_stay_bit_for_bit_in_a_training(whole, horses, tmp_path):
    start = whole / "best" / "weights.safetensors"
    config = config_of(horses, weights=str(start), lr_mult={"stem": 0.0, "stage2": 0.0, "stage3": 0.1}, epochs=1)
    train(config, tmp_path)
    before, after = load_weights(start), load_weights(tmp_path / "last" / "weights.safetensors")
    still = ("backbone.stem", "backbone.stage2")
    assert any(name.startswith(still) and "running_var" in name for name in before)
    for name, tensor in before.items():
        assert torch.equal(tensor, after[name]) == name.startswith(still), name


def test_weaker_augmentation_in_the_last_epochs(horses, tmp_path):
    """The last epoch sees the plain pictures: its samples are those of a training without any augmentation."""
    one, two, plain = (
        build_task(config_of(horses, epochs=3, crop_margin=[1.5, 1.5], **settings)).datasets()[0]
        for settings in ({}, {"final_augment": "none", "final_epochs": 1}, {"augment": "none"})
    )
    positions = np.arange(4)
    images = {epoch: two.batch(positions, epoch)["image"] for epoch in range(3)}
    assert np.array_equal(images[1], one.batch(positions, 1)["image"])
    assert np.array_equal(images[2], plain.batch(positions, 2)["image"])
    assert not np.array_equal(images[2], one.batch(positions, 2)["image"])
    assert np.array_equal(two.ids, one.ids)
    assert len(two) == len(one)


def test_a_crop_is_wide_enough_for_both_stages(horses):
    from posesweep.trainables.tasks.topdown import prepare

    strong_at_last = config_of(horses, augment="none", final_augment="aggressive", final_epochs=1)
    strong_at_first = config_of(horses, augment="aggressive", final_augment="none", final_epochs=1)
    weak = config_of(horses, augment="none")
    margins = [prepare([config]).settings["crop_margin"] for config in (strong_at_last, strong_at_first, weak)]
    assert margins[0] == margins[1] > margins[2] == (1.0, 1.0)


def test_stops_early_at_the_same_epoch_when_cut(horses, tmp_path):
    """A learning rate of next to nothing improves nothing: the first validation counts, the next two do not."""
    config = config_of(horses, epochs=9, patience=2, lr0=1e-12, ema=None)
    train(config, tmp_path / "whole")
    status = read_json(tmp_path / "whole" / "status.json")
    words = "stopped early after epoch 3: val/AP (smoothed) has not risen for 2 validations"
    assert (status["state"], status["reason"], status["epochs"]) == ("finished", words, 3)
    go_on_after(2, config, tmp_path / "cut")
    assert metrics(tmp_path / "cut") == metrics(tmp_path / "whole")
    assert read_json(tmp_path / "cut" / "status.json")["reason"] == words
    train(config, tmp_path / "cut")  # and once it has ended, it does not begin again
    assert len(metrics(tmp_path / "cut")) == 3


def test_the_best_epochs_are_kept_however_often_it_is_cut(horses, tmp_path):
    config = config_of(horses, keep_best=2)
    go_on_after(1, config, tmp_path)
    ranked = sorted((-row["val/AP"], row["epoch"]) for row in metrics(tmp_path))
    best_two = sorted(f"{epoch:04d}" for _, epoch in ranked[:2])
    assert sorted(path.name for path in (tmp_path / "top").iterdir()) == best_two
    best = load_weights(tmp_path / "best" / "weights.safetensors")
    top = load_weights(tmp_path / "top" / f"{ranked[0][1]:04d}" / "weights.safetensors")
    assert all(torch.equal(best[name], top[name]) for name in best)


def test_a_batch_that_does_not_fit_names_the_way_out(horses, tmp_path, monkeypatch):
    def too_large(training, arrays):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")

    monkeypatch.setattr("posesweep.trainables.trial.train_step", too_large)
    with pytest.raises(ConfigError, match="batch: 8 does not fit into the GPU's memory; `posesweep fit` finds the"):
        train(config_of(horses), tmp_path)


def test_recomputing_activations_changes_no_bit(horses, tmp_path):
    for checkpointed in (False, True):
        folder = tmp_path / str(checkpointed)
        train(config_of(horses, grad_checkpoint=checkpointed, epochs=1, ema=None), folder)
    usual, saving = (load_weights(tmp_path / name / "last" / "weights.safetensors") for name in ("False", "True"))
    assert usual.keys() == saving.keys()
    assert all(torch.equal(usual[name], saving[name]) for name in usual)


@pytest.mark.slow
def test_a_compiled_training_leaves_the_same_files(horses, tmp_path):
    """pytest tests/trainables/test_trial.py -m slow -k compiled; a minute or two, and needs a C++ compiler."""
    for compiled in (False, True):
        train(config_of(horses, compile=compiled, epochs=1), tmp_path / str(compiled))
    usual, compiled = (metrics(tmp_path / name)[0]["loss"] for name in ("False", "True"))
    assert compiled == pytest.approx(usual, rel=1e-4)
    for file in ("last/weights.safetensors", "last/ema.safetensors", "best/weights.safetensors"):
        usual, compiled = (load_weights(tmp_path / name / file) for name in ("False", "True"))
        assert usual.keys() == compiled.keys()
    train(config_of(horses, compile=False, epochs=2), tmp_path / "True")  # a checkpoint of one is one of the other
    assert len(metrics(tmp_path / "True")) == 2
