"""What can lie where a checkpoint should be, harmful things included."""

import argparse
import collections
import datetime
import os
import pickle
import re
import zipfile

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn

from posesweep.errors import ConfigError
from posesweep.trainables.unpickling import StandIn
from posesweep.trainables.weights_file import read_weights

TENSORS = {"backbone.conv1.weight": torch.arange(6.0).reshape(2, 3), "head.bias": torch.ones(4, dtype=torch.float16)}


class History:
    """Stands for mmengine's HistoryBuffer: a class of a package that is not installed here."""

    def __init__(self) -> None:
        self.values = np.arange(3.0)


class RunsCommand:
    """What a harmful checkpoint is made of."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def sentence(path) -> str:
    with pytest.raises(ConfigError) as caught:
        read_weights(path)
    assert len(caught.value.mistakes) == 1
    assert "\n" not in str(caught.value)
    return str(caught.value)


def same(tensors) -> bool:
    return tensors.keys() == TENSORS.keys() and all(
        torch.equal(value, TENSORS[name]) for name, value in tensors.items()
    )


def openmmlab_extras():
    names = {0: "nose", 1: "tail", 2: "left ear", 3: "right ear"}
    return {
        "meta": {
            "epoch": np.int64(210),
            "time": datetime.datetime(2023, 1, 30, tzinfo=datetime.UTC),
            "dataset_meta": {"dataset_name": "x", "keypoint_id2name": names, "sigmas": np.full(4, 0.05)},
        },
        "message_hub": {"log_scalars": collections.OrderedDict(loss=History()), "seen": collections.defaultdict(list)},
        "optimizer": {"args": argparse.Namespace(lr=0.1), "state": {0: {"exp_avg": torch.zeros(3)}}},
    }


def test_safetensors(tmp_path):
    save_file(TENSORS, tmp_path / "a.safetensors")
    file = read_weights(tmp_path / "a.safetensors")
    assert same(file.tensors)
    assert (file.format, file.place, file.extras, file.keypoints) == ("safetensors", "", (), None)


@pytest.mark.parametrize("modern", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("protocol", [2, 4])
def test_openmmlabs_other_objects_are_set_aside(tmp_path, modern, protocol):
    path = tmp_path / "a.pth"
    contents = {"state_dict": TENSORS, **openmmlab_extras()}
    torch.save(contents, path, pickle_protocol=protocol, _use_new_zipfile_serialization=modern)
    file = read_weights(path)
    assert same(file.tensors)
    assert (file.format, file.place) == ("torch", "state_dict")
    assert file.keypoints == ("nose", "tail", "left ear", "right ear")
    assert {"meta", "message_hub", "optimizer", "argparse.Namespace", "datetime.datetime"} <= set(file.extras)
    assert f"{History.__module__}.History" in file.extras


@pytest.mark.parametrize("modern", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize(
    ("function", "arguments", "named"),
    [
        (os.system, ("touch {marker}",), f"{os.system.__module__}.system"),
        (eval, ("open({marker!r}, 'w')",), "builtins.eval"),
        (os.mkdir, ("{marker}",), f"{os.mkdir.__module__}.mkdir"),
        (getattr, (os, "system"), "builtins.getattr"),
        (pickle.loads, (b"",), "pickle.loads"),
    ],
    ids=["system", "eval", "mkdir", "getattr", "loads"],
)
def test_a_pickle_with_code_in_it_is_refused_and_not_run(tmp_path, modern, function, arguments, named):
    marker, path = tmp_path / "marker", tmp_path / "a.pth"
    given = [a.format(marker=str(marker)) if isinstance(a, str) and "{" in a else a for a in arguments]
    if function is getattr:
        given = [TENSORS, "keys"]
    contents = {"state_dict": TENSORS, "meta": RunsCommand(function, *given)}
    torch.save(contents, path, _use_new_zipfile_serialization=modern)
    assert sentence(path) == (
        f"weights: {path} asks Python to run {named}; a checkpoint needs no code, so it was not read and nothing of it "
        "was run: get the weights from their publisher, and open this file with nothing else"
    )
    assert not marker.exists()


def test_the_marker_of_that_test_is_made_by_plain_unpickling(tmp_path):
    """Otherwise the test above could not fail."""
    torch.save({"a": RunsCommand(os.system, f"touch {tmp_path / 'marker'}")}, tmp_path / "a.pth")
    torch.load(tmp_path / "a.pth", weights_only=False)
    assert (tmp_path / "marker").exists()


def test_a_callable_of_another_package_is_not_called(tmp_path):
    """Nothing is imported either: the package of the name may not exist."""
    called = []
    code = RunsCommand(_remember, 1)
    torch.save({"state_dict": TENSORS, "meta": code}, tmp_path / "a.pth")
    _remember.called = called
    file = read_weights(tmp_path / "a.pth")
    assert same(file.tensors)
    assert called == []
    assert any(name.endswith("._remember") for name in file.extras)


def _remember(value):
    _remember.called.append(value)


def test_a_stand_in_takes_whatever_a_pickle_does_to_an_object():
    stand_in = StandIn(1, key=2)
    stand_in.__setstate__({"a": 1})
    stand_in["a"] = 1
    stand_in.append(1)
    stand_in.extend([1])
    stand_in.add(1)
    assert vars(stand_in) == {}


@pytest.mark.parametrize(
    ("contents", "place"),
    [
        ({"state_dict": {f"module.{k}": v for k, v in TENSORS.items()}}, "state_dict"),
        ({"model": TENSORS, "epoch": 3}, "model"),
        ({"module": TENSORS}, "module"),
        ({"state_dict_ema": TENSORS, "state_dict": {"backbone.conv1.weight": torch.zeros(2, 3)}}, "state_dict_ema"),
        # mmengine swaps: after training with an average, its state_dict is the average
        ({"ema_state_dict": {"steps": torch.zeros(1)}, "state_dict": TENSORS}, "state_dict"),
        ({"ema_state_dict": {f"module._orig_mod.{k}": v for k, v in TENSORS.items()}}, "ema_state_dict"),
        (TENSORS, ""),
        (collections.OrderedDict(TENSORS), ""),
    ],
)
def test_where_the_weights_are(tmp_path, contents, place):
    torch.save(contents, tmp_path / "a.pth")
    file = read_weights(tmp_path / "a.pth")
    assert file.place == place
    assert same(file.tensors)


@pytest.mark.parametrize("modern", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("share", [0.3, 0.95])
def test_a_file_that_was_cut_off(tmp_path, modern, share):
    path = tmp_path / "a.pth"
    torch.save({"state_dict": {"a": torch.randn(100, 100)}}, path, _use_new_zipfile_serialization=modern)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    words = (
        "is cut off, its end is missing or damaged"
        if modern
        else r"is cut off, damaged or no checkpoint \(unexpected EOF.+\)"
    )
    assert re.match(rf"weights: {path} {words}; fetch or copy it again$", sentence(path))


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(0, 10**6), st.integers(1, 255)), min_size=1, max_size=4), st.booleans())
def test_damage_anywhere_is_told_in_a_sentence_or_does_no_harm(tmp_path, damage, modern):
    path = tmp_path / "a.pth"
    contents = {"state_dict": TENSORS, **openmmlab_extras()}
    torch.save(contents, path, _use_new_zipfile_serialization=modern)
    content = bytearray(path.read_bytes())
    for place, flips in damage:
        content[place % len(content)] ^= flips
    path.write_bytes(content)
    try:
        file = read_weights(path)
    except ConfigError as error:
        said = str(error)
    else:
        said = " ".join(str(tensor.shape) for tensor in file.tensors.values())
    assert "\n" not in said


def test_safetensors_that_were_cut_off(tmp_path):
    path = tmp_path / "a.safetensors"
    save_file(TENSORS, path)
    path.write_bytes(path.read_bytes()[:-8])
    assert re.match(rf"weights: {path} is not a whole safetensors file \(.+\); fetch or copy it again$", sentence(path))


def test_other_things_than_files(tmp_path):
    assert sentence(tmp_path / "b.pth") == f"weights: {tmp_path / 'b.pth'} is not there"
    assert sentence(tmp_path) == f"weights: {tmp_path} is a folder; give a file in it"
    (tmp_path / "best").mkdir()
    (tmp_path / "best" / "weights.safetensors").write_bytes(b"")
    inside = tmp_path / "best" / "weights.safetensors"
    assert sentence(tmp_path) == f"weights: {tmp_path} is a folder; give the file {inside}"
    assert sentence(inside) == f"weights: {inside} is empty; its download or copy was cut off, so fetch it again"


@pytest.mark.parametrize(
    ("start", "words"),
    [
        (b"\n<!DOCTYPE html><html>", "is a web page, not a checkpoint; open its address in a browser and download the"),
        (b"version https://git-lfs.github.com/spec/v1", "is a Git LFS pointer, not the checkpoint itself; run git lfs"),
        (b"\x89HDF\r\n\x1a\n", "is neither a safetensors nor a PyTorch file (.pth, .pt)"),
    ],
)
def test_other_files_than_checkpoints(tmp_path, start, words):
    (tmp_path / "a.pth").write_bytes(start + bytes(100))
    assert words in sentence(tmp_path / "a.pth")


def test_a_whole_model_object_is_not_built(tmp_path):
    torch.save(nn.Sequential(nn.Linear(2, 2)), tmp_path / "a.pth")
    assert "holds a Sequential, not weights by name; save model.state_dict()" in sentence(tmp_path / "a.pth")


def test_a_torchscript_program_is_not_run(tmp_path):
    torch.jit.script(nn.Linear(2, 2)).save(str(tmp_path / "a.pt"))
    words = "is a TorchScript program, not weights by name; save its state_dict() in PyTorch"
    assert sentence(tmp_path / "a.pt") == f"weights: {tmp_path / 'a.pt'} {words}"


def test_a_file_without_tensors(tmp_path):
    torch.save({"epoch": 3, "lr": 0.1}, tmp_path / "a.pth")
    assert sentence(tmp_path / "a.pth").endswith("or at its top; it has epoch, lr")


def test_what_rebuilds_tensors_cannot_be_changed_by_a_pickle(tmp_path):
    """BUILD with a slot state sets attributes, even of a function."""
    saved = tmp_path / "whole.pt"
    torch.save({"a.weight": torch.ones(2)}, saved)
    text = b"__defaults__"
    asks = b"\x80\x02cfoo\nBar\n0ctorch._utils\n_rebuild_tensor_v2\n(N}X" + len(text).to_bytes(4, "little") + text
    harmful = tmp_path / "harmful.pt"
    with zipfile.ZipFile(saved) as whole, zipfile.ZipFile(harmful, "w") as changed:
        for part in whole.infolist():
            data = asks + b")stb0}." if part.filename.endswith("data.pkl") else whole.read(part.filename)
            changed.writestr(part.filename, data)
    before = torch._utils._rebuild_tensor_v2.__defaults__
    with pytest.raises(ConfigError, match="__setstate__"):
        read_weights(harmful)
    assert torch._utils._rebuild_tensor_v2.__defaults__ == before
    assert list(read_weights(saved).tensors) == ["a.weight"]
