"""The largest batch that fits: how it is looked for, what is said, and that real steps are taken."""

import pytest
import torch
import yaml

from posesweep.errors import ConfigError
from posesweep.trainables import fit as fitting
from posesweep.trainables.context import Context
from posesweep.trainables.fit import (
    MOST,
    Fit,
    Step,
    Trier,
    available_bytes,
    by_extrapolating,
    by_trying,
    fit,
    largest_that_fits,
    peak_of_process,
    read_either,
    run,
    suggestion,
    table_of,
)
from posesweep.trainables.tasks import make_config
from posesweep.trainables.trial import to_device

SMALL = {"model": "tiny", "imgsz": [64, 64], "threads": 1}


@pytest.mark.parametrize("most", [1, 2, 3, 7, 31, 97, 100, 1000, 4095])
def test_doubling_and_bisecting_find_the_largest_to_a_sixteenth(most):
    tried = []

    def fits(batch):
        tried.append(batch)
        return batch <= most

    found = largest_that_fits(fits)
    assert most * 15 / 16 - 1 < found <= most
    assert len(tried) == len(set(tried)) < 22
    assert max(tried) <= 2 * most


def test_where_nothing_or_everything_fits():
    assert largest_that_fits(lambda batch: False) == 0
    assert largest_that_fits(lambda batch: True) == MOST


def config_of(**settings):
    return make_config({"data": {"train": "train.json"}, **SMALL, **settings})


@pytest.mark.parametrize(
    ("settings", "largest", "words"),
    [
        (
            {"batch": 32},
            100,
            "batches of up to 100 fit into 8 GiB; the config's batch: 32 fits and could be 100",
        ),
        (
            {"batch": 256},
            100,
            "batches of up to 100 fit into 8 GiB; the config's batch: 256 does not fit: set batch: 100, or keep it and "
            "set accumulate: 4",
        ),
        (
            {"batch": 256, "accumulate": 4},
            100,
            "batches of up to 100 fit into 8 GiB; the config's batch: 256 fits and could be 400",
        ),
        (
            {"batch": 256, "workers": 2},
            100,
            "batches of up to 100 fit into 8 GiB on each of 2 workers; the config's batch: 256 does not fit: set "
            "batch: 200, or keep it and set accumulate: 2",
        ),
        (
            {"batch": 64},
            4096,
            "batches of up to 4096 or more fit into 8 GiB; the config's batch: 64 fits",
        ),
    ],
)
def test_the_suggestion_in_words(settings, largest, words):
    assert suggestion(config_of(**settings), Fit([], largest, 8.0)) == words


def test_the_table():
    steps = [Step(8, 0.5, 1.25), Step(16, 1.0, 2.0), Step(32, None, None), Step(64, 4.0, 9.0, estimated=True)]
    table = table_of(Fit(steps, 16, 8.0))
    cells = [list(column.cells) for column in table.columns]
    assert cells[0] == ["8", "16", "32", "64"]
    assert cells[1] == ["0.5000", "1.0000", "", "4.0000"]
    assert cells[2] == ["1.25", "2.00", "", "9.00"]
    assert cells[3] == ["16", "16", "", "16"]
    assert cells[4] == ["", "the largest that fits", "out of memory", "estimated"]


def pretended(size_gib, asked):
    """A machine on which a step takes 1 GiB for the network and 1/32 GiB for every sample."""

    def step(batch):
        asked.append(batch)
        needed = 1 + batch / 32
        return Step(batch, 0.01 * batch, needed) if needed <= size_gib else Step(batch, None, None)

    return step


def test_on_a_gpu_until_it_runs_out():
    asked = []
    found = by_trying(pretended(5, asked), 5 * 2**30)  # 128 samples fit
    assert 121 <= found.largest <= 128
    assert found.limit_gib == 5.0
    assert [step.batch for step in found.steps] == sorted(asked)
    assert {step.fits for step in found.steps if step.batch > 128} == {False}


def test_too_small_for_one_sample():
    with pytest.raises(
        ConfigError, match=r"batch: not even one sample fits into 0.9 GiB; use a smaller model or imgsz"
    ):
        by_trying(pretended(0.9, []), 0.9 * 2**30)
    with pytest.raises(ConfigError, match=r"batch: not even one sample fits into 1 GiB"):
        by_extrapolating(pretended(99, []), 2**30)


def test_on_a_cpu_a_straight_line():
    """5 GiB hold 128 samples; steps of up to 16 are enough to see 1/32 GiB for each."""
    asked = []
    found = by_extrapolating(pretended(99, asked), 5 * 2**30)
    assert asked == [1, 2, 4, 8, 16]
    assert found.largest == 128
    last = found.steps[-1]
    assert (last.batch, last.estimated) == (128, True)
    assert (last.step_time_s, last.peak_memory_gib) == pytest.approx((1.28, 5.0))


def test_on_a_cpu_the_first_step_that_shows_may_be_past_the_limit():
    """Met among other tests: memory that the process held already hid what steps take, until one of 1,024 samples."""
    held = {2**i: 1.0 for i in range(9)} | {512: 1.0 + 2**-20, 1024: 1.5 + 2**-20}  # GiB
    found = by_extrapolating(lambda batch: Step(batch, 0.01 * batch, held[batch]), 1.2499 * 2**30)
    assert found.largest == 767, "256.1 samples less than the last step, and no part of one more"
    assert [step.batch for step in found.steps][-3:] == [512, 767, 1024]
    step = found.steps[-2]
    assert (step.step_time_s, step.peak_memory_gib, step.estimated) == (
        pytest.approx(7.67),
        pytest.approx(1.2499, abs=1e-3),
        True,
    )


def test_on_a_cpu_a_batch_of_noise_takes_nothing():
    found = by_extrapolating(lambda batch: Step(batch, 0.01, 1.0), 2 * 2**30)
    assert found.largest == MOST


def test_running_out_of_memory_leaves_the_network_as_it_was(horses, monkeypatch, tmp_path):
    config = make_config({"data": horses, **SMALL})
    trier = Trier(config, Context(tmp_path, lambda row: None, torch.device("cpu")))

    def too_large(training, arrays):
        training.task.loss(training.model, to_device(arrays, torch.device("cpu"))).total.backward()
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(fitting, "train_step", too_large)
    assert not trier.step(2).fits
    assert all(p.grad is None for p in trier.training.network.parameters())
    monkeypatch.undo()
    assert trier.step(2).fits


def test_real_steps_on_a_cpu(horses, monkeypatch):
    """What a step holds is extrapolated; here to a limit of 300 MiB above what the process has."""
    monkeypatch.setattr(fitting, "CLEAR_BYTES", 8 * 2**20)
    monkeypatch.setattr(fitting, "available_bytes", lambda: 300 * 2**20)
    found = fit(make_config({"data": horses, **SMALL, "batch": 999, "weights": "not there"}), 1.0, torch.device("cpu"))
    measured = [step for step in found.steps if not step.estimated]
    assert [step.batch for step in measured] == [2**i for i in range(len(measured))]
    assert all(step.step_time_s > 0 for step in measured)
    assert found.largest >= measured[0].batch  # no more: what other tests left to the allocator hides what steps take
    [step] = [step for step in found.steps if step.batch == found.largest]
    assert step.peak_memory_gib <= found.limit_gib + 1e-6


def write(path, content):
    path.write_text(yaml.safe_dump(content))
    return path


def test_a_config_or_a_sweep(tmp_path, horses):
    training = write(tmp_path / "best.yaml", {"data": horses, **SMALL, "batch": 48})
    config, notes = read_either(training, ["batch=24"])
    assert (config.batch, notes) == (24, [])
    content = {"data": horses, "fixed": {"imgsz": [64, 64]}, "parameters": {"model": {"values": ["tiny", "small"]}}}
    config, notes = read_either(write(tmp_path / "sweep.yaml", content), [])
    assert config.model == "small"  # the default, where the baseline says nothing
    assert notes == [
        "this is the baseline (model=small); the sweep searches model, which change what fits: name the others, such "
        "as model=VALUE"
    ]
    config, notes = read_either(tmp_path / "sweep.yaml", ["model=tiny", "search.trials=1"])
    assert (config.model, notes) == ("tiny", [])


def test_bad_input_is_one_sentence(tmp_path, horses):
    with pytest.raises(ConfigError, match=r"is not there; give the best.yaml of a sweep folder"):
        run(tmp_path / "none.yaml", [])
    with pytest.raises(ConfigError, match=r"--fraction: 1.5 must be above 0 and at most 1; the default is 0.9"):
        run(tmp_path / "none.yaml", [], 1.5)
    wrong = write(tmp_path / "wrong.yaml", {"data": horses, "model": "tinny"})
    with pytest.raises(ConfigError, match="did you mean 'tiny'"):
        run(wrong, [])


def test_what_is_printed(tmp_path, horses, monkeypatch, capsys):
    monkeypatch.setattr(fitting, "fit", lambda config, fraction: Fit([Step(8, 0.5, 1.25)], 8, 2.0))
    run(write(tmp_path / "best.yaml", {"data": horses, **SMALL, "batch": 8}), [])
    printed = capsys.readouterr().out
    assert "peak_memory_gib" in printed
    assert printed.endswith("batches of up to 8 fit into 2 GiB; the config's batch: 8 fits\n")


def test_free_memory_is_the_containers_where_that_is_less(tmp_path):
    (tmp_path / "proc").mkdir()
    (tmp_path / "sys/fs/cgroup").mkdir(parents=True)
    (tmp_path / "proc/meminfo").write_text("MemTotal: 99 kB\nMemAvailable:   2048 kB\nHugePages_Total: 0\n")
    assert available_bytes(tmp_path) == 2048 * 1024
    (tmp_path / "sys/fs/cgroup/memory.max").write_text("max\n")
    assert available_bytes(tmp_path) == 2048 * 1024
    (tmp_path / "sys/fs/cgroup/memory.max").write_text("1000000\n")
    (tmp_path / "sys/fs/cgroup/memory.current").write_text("400000\n")
    assert available_bytes(tmp_path) == 600000
    with pytest.raises(ConfigError, match="does not say how much memory is free"):
        available_bytes(tmp_path / "elsewhere")


def test_the_memory_of_this_process():
    before = peak_of_process()
    held = torch.ones(64 * 2**20)  # 256 MiB
    assert 2**20 < before <= peak_of_process()
    assert held.numel()


@pytest.mark.gpu
def test_a_real_gpu():
    """pytest tests/trainables/test_fit.py -m gpu, on a machine with one."""
    if not torch.cuda.is_available():
        pytest.skip("there is no GPU")
    data = {"synthetic": {"train": 16, "val": 8, "seed": 1, "width": 160, "height": 120}}
    found = fit(make_config({"data": data, "model": "hrnet_w32", "imgsz": [192, 256], "amp": "bf16"}), 0.05)
    assert found.largest >= 1
    assert not found.steps[-1].fits
    assert found.steps[0].peak_memory_gib < found.limit_gib
