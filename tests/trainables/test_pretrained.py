"""Starting a training from a checkpoint: what fits, what is said of it, and what is refused."""

from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import timm
import torch
import yaml
from safetensors.torch import save_file

from posesweep.datasets.skeleton import load_skeleton
from posesweep.errors import ConfigError, DataError
from posesweep.files import read_json, write_json
from posesweep.trainables import candidates as module
from posesweep.trainables.candidates import candidates, describe, it_looks_like
from posesweep.trainables.context import in_this_process
from posesweep.trainables.loss_sum import add_balance
from posesweep.trainables.matching import match
from posesweep.trainables.models import build_model, model_settings
from posesweep.trainables.models.openmmlab import OWN
from posesweep.trainables.models.positions import grid_of, moved_positions
from posesweep.trainables.models.pretrained import timm_network
from posesweep.trainables.origins import Origin, origin_of
from posesweep.trainables.starting import check_start, start_from
from posesweep.trainables.tasks import find_task, make_config
from posesweep.trainables.trial import run_trial
from posesweep.trainables.weights_file import WeightsFile, read_weights
from tests.trainables.openmmlab_layouts import cspnext, filled, final_layer, hrnet, prefixed, rtmcc, vit_0x

COCO = load_skeleton("coco17").keypoints
# five of coco17's names, one of them written otherwise, among 21 new ones
HORSE = ("nose", *(f"new {i}" for i in range(10)), "Left Eye", *(f"new {i}" for i in range(10, 21)))
HORSE = (*HORSE, "right_eye", "left_hip", "right_hip")
KEPT = {0: 0, 11: 1, 23: 2, 24: 11, 25: 12}  # row here -> coco17's


def file_of(tmp_path, tensors, name="file.pth", **beside):
    torch.save({"state_dict": tensors, **beside}, tmp_path / name)
    return tmp_path / name


@pytest.fixture(scope="module")
def tiny():
    torch.manual_seed(1)
    return build_model("tiny", 17, (64, 64)).state_dict()


# ---------------------------------------------------------------------------------------------- keypoints of the head


def test_keypoints_of_the_same_name_keep_their_rows(tmp_path, tiny):
    network = build_model("tiny", 26, (64, 64))
    fresh = {name: value.clone() for name, value in network.state_dict().items()}
    report = start_from(network, file_of(tmp_path, tiny), HORSE, "coco17")
    for name in ("head.maps.weight", "head.maps.bias"):
        for row in range(26):
            expected = tiny[name][KEPT[row]] if row in KEPT else fresh[name][row]
            assert torch.equal(network.state_dict()[name][row], expected), (name, row)
    assert report.reshaped == dict.fromkeys(("head.maps.weight", "head.maps.bias"), "5 of 26 rows from the file's 17")
    kept = "nose, Left Eye, right_eye, left_hip, right_hip"
    assert report.head == f"head: 5 of 26 keypoints keep their rows ({kept}), the others start fresh"
    assert len(report.loaded) == len(tiny) - 2
    assert report.summary() == (
        f"file.pth (PoseSweep): {len(tiny) - 2} tensors loaded, 2 reshaped, 0 missing, 0 left; {report.head}"
    )


def test_another_order_of_the_same_keypoints_is_put_in_order(tmp_path, tiny):
    network = build_model("tiny", 17, (64, 64))
    report = start_from(network, file_of(tmp_path, tiny), COCO[::-1], "coco17")
    assert torch.equal(network.head.maps.weight, tiny["head.maps.weight"].flip(0))
    assert torch.equal(network.head.maps.bias, tiny["head.maps.bias"].flip(0))
    assert report.head == "head: all 17 keypoints keep their rows"


@pytest.mark.parametrize(
    ("keypoints", "skeleton", "words"),
    [
        (COCO, "coco17", "all 17 keypoints keep their rows"),
        (COCO, None, "all 17 keypoints keep their rows, in the order of the file, which has no names"),
        (HORSE, None, "all 26 keypoints start fresh: the file has 17, without names (weights_skeleton gives them)"),
        (("a", "b"), "coco17", "all 2 keypoints start fresh: the file has 17 others"),
    ],
)
def test_what_is_said_of_the_head(tmp_path, tiny, keypoints, skeleton, words):
    network = build_model("tiny", len(keypoints), (64, 64))
    fresh = network.head.maps.weight.clone()
    report = start_from(network, file_of(tmp_path, tiny), keypoints, skeleton)
    assert report.head == f"head: {words}"
    if "fresh" in words:
        assert torch.equal(network.head.maps.weight, fresh)
        assert report.reshaped["head.maps.bias"] == f"17 in the file, {len(keypoints)} here: starts fresh"
    else:
        assert torch.equal(network.head.maps.weight, tiny["head.maps.weight"])


def test_a_head_of_another_kind_starts_fresh_although_it_has_as_many_keypoints(tmp_path):
    """RTMPose's checkpoint in a heatmap network: a 7x7 convolution there, 1x1 after three deconvolutions here."""
    shapes = prefixed("backbone.", cspnext(0.375, 0.167)) | rtmcc(17, 384, (192, 256))
    network = build_model("rtmpose_t", 17, (192, 256))
    report = start_from(network, file_of(tmp_path, filled(shapes)), COCO, "coco17")
    assert report.head == "head: all 17 keypoints start fresh: the file's last layer is of another kind"
    assert report.reshaped["head.maps.weight"] == "17x384x7x7 in the file, 17x256x1x1 here: starts fresh"
    assert {name.partition(".")[0] for name in report.missing} == {"neck"}
    assert "head.cls_x.weight" in report.left


def test_rtmpose_with_other_keypoints_keeps_all_but_the_rows_of_its_convolution(tmp_path):
    """Its attention and its classifiers are the same for every keypoint."""
    shapes = prefixed("backbone.", cspnext(0.375, 0.167)) | rtmcc(17, 384, (192, 256))
    state = filled(shapes)
    network = build_model("rtmpose_t", 26, (192, 256), simcc_split=2.0)
    report = start_from(network, file_of(tmp_path, state), HORSE, "coco17")
    assert set(report.reshaped) == {"head.final_layer.weight", "head.final_layer.bias"}
    assert (report.left, report.missing) == ((), ())
    assert torch.equal(network.head.final_layer.weight[24], state["head.final_layer.weight"][11])
    assert torch.equal(network.head.cls_x.weight, state["head.cls_x.weight"])


def test_mmposes_own_names_are_used(tmp_path, tiny):
    meta = {"dataset_meta": {"keypoint_id2name": dict(enumerate(COCO))}}
    path = file_of(tmp_path, tiny, meta=meta)
    assert origin_of(read_weights(path)).keypoints == COCO
    report = start_from(build_model("tiny", 26, (64, 64)), path, HORSE)
    assert report.head.startswith("head: 5 of 26 keypoints keep their rows")


def test_a_skeleton_of_another_number_of_keypoints_is_refused(tmp_path, tiny):
    path = file_of(tmp_path, tiny)
    with pytest.raises(ConfigError, match=r"^weights_skeleton: horse26 has 26 keypoints, the head in .*file\.pth 17$"):
        origin_of(read_weights(path), "horse26")
    with pytest.raises(DataError, match="skeleton 'coco18' is unknown; did you mean 'coco17'"):
        origin_of(read_weights(path), "coco18")


# ------------------------------------------------------------------------------------------------- our own, and beside


def test_of_our_own_weights_the_skeleton_and_input_size_lie_beside(tmp_path, tiny):
    named = {"name": "x", "keypoints": list(COCO)}
    exported = tmp_path / "exported"
    exported.mkdir()
    save_file(tiny, exported / "weights.safetensors")
    assert origin_of(read_weights(exported / "weights.safetensors")) == Origin()
    (exported / "skeleton.yaml").write_text(yaml.safe_dump(named))
    (exported / "best.yaml").write_text("# best\nimgsz: [64, 96]\ndata: {skeleton: null}\n")
    assert origin_of(read_weights(exported / "weights.safetensors")) == Origin(COCO, (64, 96))

    best = tmp_path / "sweep" / "trials" / "0003" / "best"
    best.mkdir(parents=True)
    save_file(tiny, best / "weights.safetensors")
    (best.parent / "config.yaml").write_text("imgsz: [32, 64]\ndata: {skeleton: coco17}\n")
    assert origin_of(read_weights(best / "weights.safetensors")) == Origin(COCO, (32, 64))
    write_json(tmp_path / "sweep" / "split.json", {"skeleton": {**named, "keypoints": list(COCO[::-1])}})
    assert origin_of(read_weights(best / "weights.safetensors")) == Origin(COCO[::-1], (32, 64))


def test_positions_of_our_own_landscape_input_are_not_mistaken_for_portrait(tmp_path):
    """As many patches, laid out otherwise."""
    old, new = build_model("vitpose_t", 1, (64, 48)), build_model("vitpose_t", 1, (48, 64))
    (tmp_path / "best").mkdir()
    path = tmp_path / "best" / "weights.safetensors"
    save_file(old.state_dict(), path)
    (tmp_path / "config.yaml").write_text("imgsz: [64, 48]\ndata: {}\n")
    report = start_from(new, path, ("a",))
    words = "positions: interpolated from 3x4 to 4x3 patches"
    assert report.reshaped == {"backbone.trunk.pos_embed": words}
    assert report.summary().endswith(f"0 left; {words}; {report.head}")


def test_a_learned_balance_of_losses_is_no_part_of_a_start(tmp_path):
    old, new = build_model("tiny", 2, (64, 64)), build_model("tiny", 2, (64, 64))
    add_balance(old, 2)
    for source, target in ((old, new), (new, old)):
        save_file(source.state_dict(), tmp_path / "weights.safetensors")
        report = start_from(target, tmp_path / "weights.safetensors", ("a", "b"))
        assert (report.left, report.missing) == ((), ())


# ------------------------------------------------------------------------------------------------------ positions


@pytest.mark.parametrize(
    ("count", "grid", "told", "class_token", "source"),
    [
        (193, (16, 12), None, True, None),  # of that very grid
        (192, (16, 16), None, False, (16, 12)),
        (196, (16, 12), None, False, (14, 14)),
        (197, (16, 12), None, False, (14, 14)),  # ViTPose's: a position too many
        (433, (16, 12), None, False, (24, 18)),
        (192, (16, 12), (12, 16), False, (12, 16)),
    ],
)
def test_the_grid_of_positions_is_told_from_their_number(count, grid, told, class_token, source):
    moved, how = moved_positions(torch.randn(1, count, 5), grid, told, class_token)
    assert moved.shape == (1, grid[0] * grid[1], 5)
    expected = f"interpolated from {source[0]}x{source[1]} to {grid[0]}x{grid[1]} patches" if source else "left out"
    assert how.endswith(expected)


def test_positions_of_an_unknown_grid_stay_fresh():
    moved, how = moved_positions(torch.randn(1, 55, 5), (16, 12), None, False)
    assert moved is None
    assert how == "55 positions in the file, of a grid that cannot be told: starts fresh"


def test_only_transformers_have_a_grid():
    with torch.device("meta"):
        assert grid_of(build_model("vitpose_t", 1, (64, 128))) == (8, 4)
        assert grid_of(build_model("tiny", 1, (64, 128))) is None


# ---------------------------------------------------------------------------------------------- another network


@pytest.fixture
def few(monkeypatch):
    """Some of our networks: to build all takes seconds, see the slow test below."""
    some = ("hrnet_w18", "hrnet_w48", "simple_baseline", "tiny", "vitpose_t", "vitpose_s")
    monkeypatch.setattr(module, "model_settings", lambda: {name: model_settings()[name] for name in some})
    monkeypatch.setattr(module, "RESNETS", ("resnet50", "resnet101"))
    monkeypatch.setattr(module, "_networks", cached_networks)


build_all = module._networks.__wrapped__


@cache
def cached_networks():
    return build_all()


def meta_hrnet(width: int) -> WeightsFile:
    """A file of an HRNet, without memory."""
    shapes = prefixed("backbone.", hrnet(width)) | final_layer("head", 17, width)
    tensors = {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
    return WeightsFile(Path("hrnet.pth"), "torch", "state_dict", tensors, None, ())


def test_a_checkpoint_of_another_network_is_refused_with_the_one_it_fits(tmp_path, few):
    path = file_of(tmp_path, filled(prefixed("backbone.", hrnet(18)) | final_layer("head", 17, 18)))
    network = build_model("tiny", 17, (64, 64))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    for ask in (lambda: start_from(network, path, COCO), lambda: check_start(network, path)):
        with pytest.raises(ConfigError) as caught:
            ask()
        assert str(caught.value) == (
            f"weights: {path} is of another network: 0% of this one's backbone is in it; it looks like hrnet_w18; "
            "set model: hrnet_w18"
        )
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


@pytest.mark.parametrize(("there", "here"), [(32, "hrnet_w48"), (48, "hrnet_w18")])
def test_shapes_in_common_do_not_make_it_the_same_network(there, here):
    with torch.device("meta"):
        network = build_model(here, 17, (64, 64))
    report, _ = match(network, meta_hrnet(there), COCO, Origin())
    assert 0 < report.backbone_share < 0.1  # the stem and the first stage are the same in all of them


@pytest.mark.slow
def test_the_likest_of_all_our_networks_comes_first_and_is_alone_in_being_the_same():
    """pytest tests/trainables/test_pretrained.py -m slow"""
    found = candidates(meta_hrnet(48))
    assert found[0].words() == "model: hrnet_w48"
    assert [candidate.likeness for candidate in found[:2]] == [1.0, pytest.approx(0, abs=0.01)]
    assert it_looks_like(meta_hrnet(48)) == "it looks like hrnet_w48; set model: hrnet_w48"


def test_a_deeper_resnet_is_told_from_the_one_that_is_wholly_in_it(few):
    """All of resnet50's tensors but those of its third stage's last blocks are in resnet101's, and none is too many."""
    with torch.device("meta"):
        tensors = timm.create_model("resnet101", num_classes=0).state_dict()
    file = replace(meta_hrnet(18), tensors=tensors)
    found = {candidate.words(): candidate for candidate in candidates(file)}
    assert next(iter(found)) == "model: simple_baseline, backbone: resnet101"
    smaller = found["model: simple_baseline, backbone: resnet50"]
    assert smaller.backbone_share == 1.0
    assert smaller.file_share == pytest.approx(23.56 / 42.6, abs=0.01)  # million numbers
    assert it_looks_like(file) == "it looks like resnet101; set model: simple_baseline, backbone: resnet101"


def test_a_file_of_no_network_of_ours(few):
    file = replace(meta_hrnet(18), tensors={"encoder.0.weight": torch.zeros(3)})
    assert it_looks_like(file) == "it fits none of ours; `posesweep weights hrnet.pth` says what it holds"


# ------------------------------------------------------------------------------------------------ `posesweep weights`


def test_describe_says_what_a_checkpoint_holds_and_what_it_fits(tmp_path, capsys, monkeypatch, few):
    monkeypatch.setenv("COLUMNS", "140")
    state = filled(prefixed("backbone.", vit_0x(192, 12, 48)) | final_layer("keypoint_head", 17, 256))
    meta = {"epoch": 210, "dataset_meta": {"keypoint_id2name": dict(enumerate(COCO))}}
    describe(file_of(tmp_path, state, meta=meta, optimizer={}))
    said = " ".join(capsys.readouterr().out.split())
    numbers = sum(value.numel() for value in state.values())
    assert "format torch, weights under 'state_dict'" in said
    assert "layout OpenMMLab 0.x" in said
    assert f"tensors {len(state)} with {numbers:,} numbers (float32)" in said
    assert "keypoints 17: nose, left_eye," in said
    assert "not read meta, optimizer" in said
    assert f"keypoint_head.final_layer. 2 {17 * 256 + 17:,}" in said
    assert "model: vitpose_t 100.0% 100.0%" in said
    assert "model: vitpose_s" not in said


def test_describe_of_what_fits_nothing(tmp_path, capsys, few):
    describe(file_of(tmp_path, {"encoder.0.weight": torch.zeros(3)}))
    assert "It fits none of our networks: not half of any one's backbone is in it." in " ".join(
        capsys.readouterr().out.split()
    )


# ------------------------------------------------------------------------------------------------------ in a sweep


def config_of(horses, **settings):
    common = {"model": "tiny", "imgsz": [64, 64], "epochs": 1, "batch": 8, "threads": 1}
    return make_config({"data": horses, **common, **settings})


def test_a_trial_starts_from_the_weights_and_puts_it_on_record(tmp_path, horses, tiny):
    path = file_of(tmp_path, tiny)
    config = config_of(horses, weights=str(path), weights_skeleton="coco17", lr0=1e-12)
    run_trial(config, in_this_process(tmp_path / "trial", lambda row: None))
    after = read_weights(tmp_path / "trial" / "last" / "weights.safetensors")
    torch.testing.assert_close(after.tensors["backbone.stem.0.weight"], tiny["backbone.stem.0.weight"])
    status = read_json(tmp_path / "trial" / "status.json")
    assert status["weights"].startswith(f"file.pth ({OWN}): {len(tiny) - 2} tensors loaded, 2 reshaped, 0 missing")
    kept = "left_eye, right_eye, left_elbow, left_knee, right_elbow, right_knee"
    assert status["weights"].endswith(f"head: 6 of 26 keypoints keep their rows ({kept}), the others start fresh")


def test_every_network_of_a_sweep_is_held_against_the_file_before_anything_is_spent(tmp_path, horses, tiny, few):
    path = file_of(tmp_path, tiny)
    configs = [
        config_of(horses, weights=str(path), model=model, lr0=lr) for model in ("tiny", "small") for lr in (1, 2)
    ]
    check = find_task("topdown").check_beginnings
    check(configs[:2])
    with pytest.raises(ConfigError, match=r"is of another network: .* set model: tiny"):
        check(configs)
    with pytest.raises(ConfigError, match=r"^weights: nowhere\.pth is not there$"):
        find_task("topdown").prepare([configs[0], config_of(horses, weights="nowhere.pth")])


def test_imagenet_weights_that_cannot_be_had_are_told_before_anything_is_spent(horses):
    with pytest.raises(ConfigError, match="pretrained: there are no ImageNet weights of tiny"):
        find_task("topdown").prepare([config_of(horses), config_of(horses, pretrained=True)])


def test_weights_skeleton_without_weights_is_refused(horses):
    with pytest.raises(ConfigError, match=r"^weights_skeleton: only weights uses it; take it out, or give the file"):
        config_of(horses, weights_skeleton="coco17")


# ------------------------------------------------------------------------------------------------------ ImageNet


def test_timm_has_no_imagenet_weights_of_some_networks():
    with pytest.raises(ConfigError) as caught:
        timm_network("cs3darknet_s", True)
    assert str(caught.value) == (
        "pretrained: timm has no ImageNet weights of cs3darknet_s; set pretrained: false, or give a checkpoint of it "
        "with weights:"
    )


def test_imagenet_weights_in_the_cache_are_read_without_asking_a_server(tmp_path, monkeypatch):
    import huggingface_hub
    import huggingface_hub.constants as hub

    monkeypatch.setattr(hub, "HF_HUB_CACHE", str(tmp_path))
    repository = timm.get_pretrained_cfg("resnet18").hf_hub_id
    snapshot = tmp_path / f"models--{repository.replace('/', '--')}" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (snapshot.parent.parent / "refs").mkdir()
    (snapshot.parent.parent / "refs" / "main").write_text("abc")
    torch.manual_seed(5)
    published = timm.create_model("resnet18").state_dict()
    save_file(published, snapshot / "model.safetensors")

    def no_server(*_, **__):
        raise AssertionError

    monkeypatch.setattr("timm.models._hub.hf_hub_download", no_server)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", no_server)
    network = timm_network("resnet18", True, num_classes=0)
    assert all(torch.equal(value, published[name]) for name, value in network.state_dict().items())
