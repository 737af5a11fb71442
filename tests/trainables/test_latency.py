"""The time of a forward pass: measured once for each network, within its limit, and left out with a sentence."""

from pathlib import Path

import pytest
import torch
import yaml

from posesweep.analysis.pareto import pareto
from posesweep.analysis.ranked import ranked
from posesweep.analysis.results import SweepResults, read_sweep_folder
from posesweep.files import read_json, trial_folder, write_json
from posesweep.trainables import latency as module
from posesweep.trainables.latency import measure_latency, median_ms
from posesweep.trainables.tasks import make_config
from posesweep.trainables.trial import dump_config
from tests.analysis.fake_sweep import FakeTrial, write_fake_sweep

DATA = {"synthetic": {"train": 4, "val": 2, "width": 64, "height": 64}}


LONG_S = 300.0  # a busy machine must not cut it off


def sweep_of(folder: Path, *settings: dict) -> SweepResults:
    """A sweep whose trials have these settings; nobody reads their data."""
    write_fake_sweep(folder, [FakeTrial(0.05) for _ in settings], objects=6)
    for i, each in enumerate(settings):
        config = make_config({"data": DATA, "model": "tiny", "imgsz": [64, 64], **each})
        (trial_folder(folder, i) / "config.yaml").write_text(dump_config(config))
    return read_sweep_folder(folder)


def test_different_networks_are_each_measured_once(tmp_path, monkeypatch):
    built = []
    original = module._network
    monkeypatch.setattr(module, "_network", lambda config, *rest: built.append(config.model) or original(config, *rest))
    results = sweep_of(tmp_path / "s", {}, {"model": "small"}, {"lr0": 1e-2}, {"flip_test": False})
    assert measure_latency(results, [0, 1, 2, 3], LONG_S) == ""
    assert sorted(built) == ["small", "tiny"]
    files = [read_json(trial_folder(results.folder, i) / "latency.json") for i in range(4)]
    assert files[0] == files[2]
    assert (files[0]["flip_test"], files[3]["flip_test"]) == (True, False)
    assert files[0]["ms"] == files[3]["ms"]
    assert files[0]["ms"].keys() == {"1", "16"}
    assert 0 < files[0]["ms"]["1"] < files[0]["ms_flip_test"]["16"]
    assert files[1]["model"] == "small"
    assert files[0]["device"].startswith("cpu, ")
    numbers = pareto(results, ranked(results))
    assert numbers.table["ms_batch1"].notna().all()
    assert measure_latency(results, [0, 1, 2, 3], LONG_S) == ""
    assert len(built) == 2, "what is known is not measured again"


def test_equal_networks_are_not_measured(tmp_path):
    results = sweep_of(tmp_path / "s", {}, {"lr0": 1e-2})
    assert measure_latency(results, [0, 1]) == "latency not measured: all ranked trials have the same network"
    assert not (trial_folder(results.folder, 0) / "latency.json").exists()


def test_only_the_flip_test_differs(tmp_path):
    results = sweep_of(tmp_path / "s", {}, {"flip_test": False})
    assert measure_latency(results, [0, 1], LONG_S) == ""
    table = pareto(results, ranked(results)).table.set_index("trial")
    found = read_json(trial_folder(results.folder, 0) / "latency.json")
    assert table["ms_batch1"].to_dict() == {0: found["ms_flip_test"]["1"], 1: found["ms"]["1"]}


def test_the_limit_holds_and_is_told(tmp_path):
    results = sweep_of(tmp_path / "s", {}, {"model": "small"})
    assert measure_latency(results, [0, 1], limit_s=0) == ("latency: 2 networks of 2 were not measured within 0 s")
    assert not (trial_folder(results.folder, 0) / "latency.json").exists()


def test_what_cannot_be_measured_is_a_sentence(tmp_path):
    results = sweep_of(tmp_path / "s", {}, {"model": "small"})
    file = trial_folder(results.folder, 0) / "config.yaml"
    file.write_text(yaml.safe_dump(yaml.safe_load(file.read_text()) | {"model": "of another version"}))
    said = measure_latency(results, [0, 1])
    assert said == "latency not measured: all ranked trials have the same network"  # of those that can be read
    (results.folder / "split.json").unlink()
    results = sweep_of(tmp_path / "t", {}, {"model": "small"})
    (results.folder / "split.json").unlink()
    said = measure_latency(read_sweep_folder(results.folder), [0, 1])
    assert said == "latency not measured: split.json does not say how many keypoints there are"


def test_times_of_another_device_are_measured_anew(tmp_path):
    results = sweep_of(tmp_path / "s", {}, {"model": "small"})
    file = trial_folder(results.folder, 0) / "latency.json"
    write_json(file, {"ms": {"1": 1e9}, "device": "another GPU", "flip_test": True})
    measure_latency(results, [0, 1], LONG_S)
    assert read_json(file)["ms"]["1"] < 1e6


@pytest.mark.parametrize(("seconds", "least"), [(0.0, 0.0), (0.005, 5.0)])
def test_the_median_is_in_milliseconds(seconds, least):
    import time

    calls = []
    found = median_ms(lambda: calls.append(time.sleep(seconds)), torch.device("cpu"))
    assert found >= least
    assert len(calls) >= module.WARM_UP + 3
