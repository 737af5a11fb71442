"""`loss:` from its text to the sum that is trained on."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from posesweep.errors import ConfigError
from posesweep.trainables.codecs import HeatmapCodec, SimCCCodec
from posesweep.trainables.ema import WeightAverage
from posesweep.trainables.loss_sum import (
    NAMED,
    SETTINGS,
    Answer,
    LossSum,
    add_balance,
    balance_of,
    importance,
    misfit,
    read_loss,
    settings_of,
    weights_by_name,
)
from posesweep.trainables.losses import (
    heatmap_focal,
    heatmap_l1,
    heatmap_mse,
    heatmap_ohkm,
    simcc_kl,
    simcc_ohkm,
    smooth_l1,
    wing,
)
from posesweep.trainables.optim import OptimizerSettings, build_optimizer
from posesweep.trainables.tasks import build_task, check_values, make_config
from posesweep.trainables.trial import to_device

IMGSZ = (64, 96)
HEATMAP, FOCAL, SIMCC = HeatmapCodec(IMGSZ), HeatmapCodec(IMGSZ, sigmoid=True), SimCCCodec(IMGSZ)


def answer(codec, seed=0, dtype=torch.float32) -> Answer:
    """A network's guess, two objects with three keypoints; the last one is not labelled."""
    generator = torch.Generator().manual_seed(seed)
    points = torch.rand(2, 3, 2, generator=generator) * (torch.tensor(IMGSZ) - 1)
    visible = torch.tensor([[True, True, False]] * 2)
    targets = codec.encode(points, visible)

    def guess(target):
        return (target + torch.rand(target.shape, generator=generator)).to(dtype).requires_grad_()

    values = targets.values
    outputs = tuple(map(guess, values)) if isinstance(values, tuple) else guess(values)
    return Answer(codec, outputs, values, points, targets.weights)


def sum_of(text: str, **settings) -> LossSum:
    losses = read_loss(text)
    return LossSum(losses, {**settings_of(losses), **settings})


# ---------------------------------------------------------------------------------- the text


@pytest.mark.parametrize(
    ("text", "weights"),
    [
        ("mse", {"mse": 1.0}),
        ("focal + 0.1 l1", {"focal": 1.0, "l1": 0.1}),
        ("2*mse+.5 * wing", {"mse": 2.0, "wing": 0.5}),
        ("1e-3 smooth_l1 + kl", {"smooth_l1": 0.001, "kl": 1.0}),
    ],
)
def test_a_sum_is_read(text, weights):
    assert read_loss(text) == weights


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("wings", "there is no loss 'wings'; did you mean 'wing'?"),
        ("huber", "there is no loss 'huber'; write 'smooth_l1'"),
        ("focal_l1", "there is no loss 'focal_l1'; write 'focal + 0.1 l1'"),
        ("xyz", "there is no loss 'xyz'; known: focal, kl, l1, mse, ohkm, smooth_l1, wing"),
        ("mse + 0.1 mse", "'mse + 0.1 mse' has mse twice; keep one"),
        ("mse + 0 wing", "'0 wing' must weigh more than 0; take it out, or write 0.1 wing"),
        (
            "mse - wing",
            "'mse - wing' is no sum of losses; write one loss, such as mse, or a sum, such as mse + 0.1 wing",
        ),
        ("", "'' is no sum of losses; write one loss, such as mse, or a sum, such as mse + 0.1 wing"),
        ("1.2.3 mse", "'1.2.3 mse' is no sum of losses; write one loss, such as mse, or a sum, such as mse + 0.1 wing"),
    ],
)
def test_what_is_no_sum_is_one_sentence(text, sentence):
    with pytest.raises(ConfigError) as caught:
        read_loss(text)
    assert str(caught.value) == sentence


def test_a_loss_that_needs_the_other_codec():
    assert misfit(["kl"], "heatmap") == (
        "kl needs codec: simcc; with codec: heatmap use mse, focal, l1, ohkm, smooth_l1 or wing"
    )
    assert misfit(["wing", "mse"], "simcc") == (
        "mse needs codec: heatmap; with codec: simcc use kl, ohkm, smooth_l1 or wing"
    )
    assert misfit(["ohkm", "wing"], "simcc") is None


# ---------------------------------------------------------------------------------- in a config


def mistakes(**settings) -> dict[str, str]:
    return {mistake.key: mistake.text for mistake in check_values("topdown", settings)}


def config(**settings):
    return make_config({"data": {"train": "train.json"}, **settings})


def test_the_default_loss_is_that_of_the_codec():
    assert config().loss == "mse"
    assert config(codec="simcc").loss == "kl"
    assert all(getattr(config(), name) is None for name in SETTINGS)


def test_settings_of_the_losses_are_filled_in_and_kept():
    small_data = config(loss="focal + 0.1 l1", focal_gamma=1.5)
    assert (small_data.focal_alpha, small_data.focal_gamma, small_data.wing_width) == (0.25, 1.5, None)
    simcc = config(codec="simcc", loss="kl + 0.1 wing")
    assert (simcc.wing_width, simcc.wing_epsilon, simcc.softargmax_beta) == (10.0, 2.0, 25.0)
    assert make_config(simcc.model_dump(mode="json")) == simcc
    assert config(dark=True).blur_kernel == 11
    assert config().blur_kernel is None


@pytest.mark.parametrize(
    ("settings", "key", "sentence"),
    [
        ({"loss": "kl"}, "loss", misfit(["kl"], "heatmap")),
        ({"loss": "mse", "codec": "simcc"}, "loss", misfit(["mse"], "simcc")),
        ({"loss": "wings"}, "loss", "there is no loss 'wings'; did you mean 'wing'?"),
        (
            {"loss": {"mse": 1.0, "wing": 0.1}},
            "loss",
            "{mse: 1.0, wing: 0.1} must be text; write the sum itself, such as loss: mse + 0.1 wing",
        ),
        (
            {"loss_balance": "learned"},
            "loss_balance",
            "learned balances several losses, and loss is mse alone; add another, or write fixed",
        ),
        (
            {"focal_gamma": 2.0},
            "focal_gamma",
            "loss: mse does not use it; take it out, or add when: {loss: focal}",
        ),
        (
            {"blur_kernel": 11},
            "blur_kernel",
            "only dark: true uses it; take it out, or add when: {dark: true}",
        ),
        ({"dark": True, "blur_kernel": 12}, "blur_kernel", "12 must be odd, to have a middle; try 13"),
        (
            {"hidden_weight": 1.5},
            "hidden_weight",
            "1.5 must be at most 1 (how much a labelled but hidden keypoint counts); the default is 1.0",
        ),
    ],
)
def test_what_does_not_go_together_is_one_sentence(settings, key, sentence):
    assert mistakes(**settings) == {key: sentence}


def test_a_sum_is_a_value_of_a_sweep(tmp_path):
    """Fixed, searched, with settings that depend on it, and from the command line."""
    from posesweep.search_spaces.space import read_sweep
    from posesweep.trainables.tasks import defaults_of

    file = tmp_path / "sweep.yaml"
    file.write_text(
        "data: {train: train.json}\n"
        "fixed: {loss_balance: fixed}\n"
        "parameters:\n"
        "  loss: {values: [mse, focal + 0.1 l1, mse + 0.1 wing]}\n"
        "  wing_width: {min: 5.0, max: 15.0, when: {loss: mse + 0.1 wing}}\n"
    )
    sweep = read_sweep(file, [], check_values, defaults_of)
    assert sweep.parameters["loss"].values == ("mse", "focal + 0.1 l1", "mse + 0.1 wing")
    sweep = read_sweep(file, ["loss=mse + 0.2 wing", "search.trials=1"], check_values, defaults_of)
    assert sweep.fixed["loss"] == "mse + 0.2 wing"
    file.write_text(file.read_text().replace("[mse,", "[kl, mse,"))
    with pytest.raises(ConfigError, match=r"kl needs codec: simcc"):
        read_sweep(file, [], check_values, defaults_of)


# ---------------------------------------------------------------------------------- each name means its formula


@pytest.mark.parametrize("name", NAMED)
@pytest.mark.parametrize("codec", [HEATMAP, FOCAL, SIMCC], ids=["heatmap", "sigmoid", "simcc"])
def test_a_name_is_its_formula(name, codec):
    if misfit([name], "simcc" if codec is SIMCC else "heatmap") or (name == "focal" and codec is not FOCAL):
        return
    a = answer(codec)
    maps = None if codec is SIMCC else codec.heatmaps(a.outputs)
    points = codec.expectation(a.outputs, 25.0)
    expected = {
        "mse": lambda: heatmap_mse(maps, a.targets, a.weights),
        "l1": lambda: heatmap_l1(maps, a.targets, a.weights),
        "focal": lambda: heatmap_focal(codec.logits(a.outputs), a.targets, a.weights, 0.25, 2.0),
        "kl": lambda: simcc_kl(a.outputs, a.targets, a.weights, 10.0),
        "ohkm": lambda: (
            simcc_ohkm(a.outputs, a.targets, a.weights) if maps is None else heatmap_ohkm(maps, a.targets, a.weights)
        ),
        "smooth_l1": lambda: smooth_l1(points, a.points, a.weights, 1.0),
        "wing": lambda: wing(points, a.points, a.weights, 10.0, 2.0),
    }[name]()
    found = sum_of(name)(a)
    assert found.total == expected
    assert found.total > 0
    assert found.parts == {}  # one loss is the total itself


@pytest.mark.parametrize(
    ("setting", "value", "text"),
    [
        ("focal_alpha", 0.5, "focal"),
        ("focal_gamma", 1.0, "focal"),
        ("ohkm_top", 1.0, "ohkm"),
        ("smooth_l1_beta", 4.0, "smooth_l1"),
        ("wing_width", 3.0, "wing"),
        ("wing_epsilon", 1.0, "wing"),
        ("softargmax_beta", 10.0, "wing"),
        ("softargmax_beta", 10.0, "smooth_l1"),
    ],
)
def test_every_setting_changes_its_loss(setting, value, text):
    codec = FOCAL if text == "focal" else HEATMAP
    assert sum_of(text)(answer(codec)).total != sum_of(text, **{setting: value})(answer(codec)).total


def test_a_sum_by_hand_and_its_parts():
    a = answer(HEATMAP)
    found = sum_of("mse + 0.1 wing")(a)
    mse, far = sum_of("mse")(a).total, sum_of("wing")(a).total
    assert found.parts == {"mse": mse, "wing": far}
    assert found.total.item() == pytest.approx(mse.item() + 0.1 * far.item())


def test_no_labelled_keypoint_gives_no_loss():
    for text, codec in [("mse + ohkm + smooth_l1 + wing", HEATMAP), ("focal + l1", FOCAL), ("kl + ohkm + wing", SIMCC)]:
        a = answer(codec)
        a = Answer(codec, a.outputs, a.targets, torch.full_like(a.points, float("nan")), torch.zeros_like(a.weights))
        found = sum_of(text)(a)
        found.total.backward()
        assert found.total == 0
        for part in a.outputs if codec is SIMCC else [a.outputs]:
            assert (part.grad == 0).all()


@pytest.mark.parametrize(
    ("text", "codec"), [("mse + ohkm + wing", HEATMAP), ("focal + l1", FOCAL), ("kl + wing", SIMCC)]
)
def test_under_autocast_losses_are_computed_in_float32(text, codec):
    a = answer(codec, dtype=torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        inside = sum_of(text)(a)
    assert inside.total.dtype == torch.float32
    assert inside.total == sum_of(text)(a).total


# ---------------------------------------------------------------------------------- learned balance


def test_learned_balance_by_hand():
    """A distance counts exp(-s) / 2, a classification exp(-s), and each s / 2 (Kendall et al., 2018, eq. 7 and 10)."""
    a = answer(SIMCC)
    kl, far = sum_of("kl")(a).total.item(), sum_of("wing")(a).total.item()
    s = torch.tensor([0.5, -1.0], requires_grad=True)
    found = sum_of("kl + 0.1 wing")(a, s)
    factors = math.exp(-0.5), 0.1 * math.exp(1.0) / 2
    assert found.total.item() == pytest.approx(factors[0] * kl + factors[1] * far + (0.5 - 1.0) / 2, rel=1e-5)
    assert {name: value.item() for name, value in found.parts.items()} == pytest.approx(
        {"kl": kl, "wing": far, "factor_kl": factors[0], "factor_wing": factors[1]}
    )
    (gradient,) = torch.autograd.grad(found.total, s)
    np.testing.assert_allclose(gradient, [0.5 - factors[0] * kl, 0.5 - factors[1] * far], rtol=1e-5)


def test_a_learned_balance_rests_where_each_part_counts_one_half():
    """d/ds (share exp(-s) w L + s / 2) = 0: for s = ln(2 share w L)."""
    a = answer(HEATMAP)
    parts = sum_of("mse + 0.1 wing")(a).parts
    s = torch.stack([parts["mse"], 0.1 * parts["wing"]]).log().detach().requires_grad_()
    found = sum_of("mse + 0.1 wing")(a, s)
    (gradient,) = torch.autograd.grad(found.total, s)
    np.testing.assert_allclose(gradient, 0.0, atol=1e-6)
    for name in ("mse", "wing"):
        assert (found.parts[f"factor_{name}"] * found.parts[name]).item() == pytest.approx(0.5)


def test_the_balance_is_part_of_the_head(horses):
    task = build_task(make_config({"data": horses, "model": "tiny", "imgsz": [64, 64], **LEARNED}))
    network = task.model()
    assert balance_of(network).tolist() == [0, 0]
    head = next(modules for name, modules in network.layers() if name == "head")
    assert any(p is balance_of(network) for module in head for p in module.parameters())
    optimizer = build_optimizer(network, OptimizerSettings(lr0=0.01, head_lr_mult=3.0, weight_decay=0.1))
    group = next(g for g in optimizer.param_groups if any(p is balance_of(network) for p in g["params"]))
    assert (group["lr"], group["weight_decay"]) == (0.03, 0.0)
    average = WeightAverage(network, 0.5)
    with torch.no_grad():
        balance_of(network).fill_(1.0)
    average.update(network)
    assert (balance_of(average.model) > 0).all()
    assert any(name.endswith("loss_log_variances") for name in network.state_dict())


LEARNED = {"loss": "mse + 0.1 wing", "loss_balance": "learned"}


def test_every_parameter_of_a_balanced_network_gets_a_gradient(horses):
    task = build_task(make_config({"data": horses, "model": "tiny", "imgsz": [64, 64], **LEARNED}))
    network = task.model().train()
    batch = to_device(task.datasets()[0].batch(np.arange(4), 0), torch.device("cpu"))
    loss = task.loss(network, batch)
    loss.total.backward()
    assert all(p.grad is not None for p in network.parameters())
    assert loss.parts.keys() == {"mse", "wing", "factor_mse", "factor_wing"}


def test_parts_are_logged(horses, tmp_path):
    from posesweep.files import read_json_lines
    from posesweep.trainables.context import in_this_process
    from posesweep.trainables.trial import run_trial

    small = {"data": horses, "model": "tiny", "imgsz": [64, 64], "epochs": 2, "batch": 16}
    run_trial(make_config({**small, **LEARNED}), in_this_process(tmp_path, lambda row: None))
    first, last = read_json_lines(tmp_path / "metrics.jsonl")
    assert {"loss", "loss/mse", "loss/wing", "loss/factor_mse", "loss/factor_wing"} <= last.keys()
    assert last["loss/factor_wing"] != first["loss/factor_wing"]


def test_balance_of_a_bare_module():
    network = nn.Module()
    network.head = nn.Linear(2, 2)
    add_balance(network, 3)
    assert balance_of(network).shape == (3,)


# ---------------------------------------------------------------------------------- weights of keypoints


def test_hidden_keypoints_and_single_keypoints_weigh_less():
    visibility = torch.tensor([[0, 1, 2], [1, 2, 1]], dtype=torch.uint8)
    found = importance(visibility, 0.5, torch.tensor([1.0, 2.0, 0.0]))
    assert found.tolist() == [[1.0, 1.0, 0.0], [0.5, 2.0, 0.0]]


def test_weights_are_given_by_name():
    assert weights_by_name({"ear": 0.5}, ["nose", "ear"]) == [1.0, 0.5]
    with pytest.raises(ConfigError) as caught:
        weights_by_name({"eer": 0.5}, ["nose", "ear"])
    assert str(caught.value) == "keypoint_weights: there is no keypoint 'eer'; did you mean 'ear'?"


def test_weights_of_keypoints_reach_the_loss(horses):
    small = {"data": horses, "model": "tiny", "imgsz": [64, 64]}

    def losses(**settings):
        task = build_task(make_config({**small, **settings}))
        torch.manual_seed(0)
        network = task.model()
        batch = to_device(task.datasets()[0].batch(np.arange(4), 0), torch.device("cpu"))
        hidden = torch.arange(batch["visibility"].shape[1]) % 2 == 0  # every other one
        labelled = batch["visibility"] > 0
        batch["visibility"] = torch.where(labelled, torch.where(hidden, 1, 2), 0).to(torch.uint8)
        return task.loss(network, batch).total.item(), task.truth.skeleton.keypoints

    whole, names = losses()
    seen, _ = losses(hidden_weight=0.0)
    others, _ = losses(keypoint_weights=dict.fromkeys(names[1::2], 0.0))
    assert 0 < seen < whole
    assert seen + others == pytest.approx(whole, rel=1e-5)


def test_an_unknown_keypoint_is_named_before_the_first_trial(horses):
    from posesweep.trainables.tasks import find_task

    wrong = make_config({"data": horses, "model": "tiny", "imgsz": [64, 64], "keypoint_weights": {"left_eer_tip": 2.0}})
    with pytest.raises(ConfigError, match="there is no keypoint 'left_eer_tip'; did you mean 'left_ear_tip'"):
        find_task("topdown").prepare([wrong])
