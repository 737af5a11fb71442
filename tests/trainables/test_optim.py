import pytest
import torch

from posesweep.errors import ConfigError
from posesweep.trainables.models import build_model, layer_names, model_names
from posesweep.trainables.optim import (
    OptimizerSettings,
    build_optimizer,
    freeze_layers,
    lr_scales,
    set_lr,
    train_mode,
)

IMGSZ = (32, 32)

# layer_decay 0.5, head_lr_mult 3, five backbone layers: by hand, from the input to the head
SMALL = {
    "backbone.stem.": 1 / 32,
    "backbone.stage1.": 1 / 16,
    "backbone.stage2.": 1 / 8,
    "backbone.stage3.": 1 / 4,
    "backbone.merge.": 1 / 2,
    "head.": 3.0,
}
HRNET = {
    "backbone.trunk.conv1.": 1 / 32,
    "backbone.trunk.bn1.": 1 / 32,
    "backbone.trunk.conv2.": 1 / 32,
    "backbone.trunk.bn2.": 1 / 32,
    "backbone.trunk.layer1.": 1 / 16,
    "backbone.trunk.transition1.": 1 / 8,
    "backbone.trunk.stage2.": 1 / 8,
    "backbone.trunk.transition2.": 1 / 4,
    "backbone.trunk.stage3.": 1 / 4,
    "backbone.trunk.transition3.": 1 / 2,
    "backbone.trunk.stage4.": 1 / 2,
    "head.": 3.0,
}
BY_HAND = {"tiny": SMALL, "small": SMALL, "hrnet_w18_small": HRNET, "hrnet_w18": HRNET, "hrnet_w32": HRNET}


def groups_by_parameter(model, optimizer):
    names = {id(p): name for name, p in model.named_parameters()}
    return {names[id(p)]: group for group in optimizer.param_groups for p in group["params"]}


def expected_scale(table, name):
    (scale,) = [scale for prefix, scale in table.items() if name.startswith(prefix)]
    return scale


def test_every_network_has_its_learning_rates_written_down():
    assert set(BY_HAND) == set(model_names())


@pytest.mark.parametrize("name", BY_HAND)
def test_the_learning_rate_of_every_named_parameter(name):
    model = build_model(name, 3, IMGSZ)
    settings = OptimizerSettings("adamw", 1e-3, weight_decay=0.05, head_lr_mult=3.0, layer_decay=0.5)
    groups = groups_by_parameter(model, build_optimizer(model, settings))
    assert set(groups) == {n for n, _ in model.named_parameters()}
    for parameter_name, parameter in model.named_parameters():
        group = groups[parameter_name]
        assert group["lr"] == pytest.approx(1e-3 * expected_scale(BY_HAND[name], parameter_name)), parameter_name
        is_norm_or_bias = parameter.ndim == 1
        assert group["weight_decay"] == (0.0 if is_norm_or_bias else 0.05), parameter_name


def test_names_of_groups_are_those_of_layers():
    model = build_model("tiny", 3, IMGSZ)
    names = [group["name"] for group in build_optimizer(model, OptimizerSettings()).param_groups]
    assert names[:2] == ["stem", "stem/no_decay"]
    assert names[-2:] == ["head", "head/no_decay"]
    assert len(set(names)) == len(names) == 12


def test_a_step_moves_each_layer_by_its_learning_rate():
    """The effect, not the setting: SGD without momentum, every gradient 1."""
    model = build_model("tiny", 3, IMGSZ)
    settings = OptimizerSettings("sgd", 0.1, head_lr_mult=3.0, layer_decay=0.5, momentum=0.0, nesterov=False)
    optimizer = build_optimizer(model, settings)
    set_lr(optimizer, 0.01)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    for name, parameter in model.named_parameters():
        moved = (before[name] - parameter).mean().item()
        assert moved == pytest.approx(0.01 * expected_scale(SMALL, name), rel=1e-3), name


def test_scales_by_hand():
    scales = lr_scales(["stem", "stage1", "head"], layer_decay=0.8, head_lr_mult=10.0)
    assert scales == pytest.approx({"stem": 0.64, "stage1": 0.8, "head": 10.0})


def test_without_decay_all_layers_learn_alike():
    model = build_model("tiny", 3, IMGSZ)
    assert {g["lr"] for g in build_optimizer(model, OptimizerSettings(lr0=2e-3)).param_groups} == {2e-3}


@pytest.mark.parametrize(
    ("name", "kind"), [("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW), ("sgd", torch.optim.SGD)]
)
def test_the_optimizer_asked_for(name, kind):
    optimizer = build_optimizer(build_model("tiny", 3, IMGSZ), OptimizerSettings(name, momentum=0.8))
    assert type(optimizer) is kind
    if name == "sgd":
        assert {(g["momentum"], g["nesterov"]) for g in optimizer.param_groups} == {(0.8, True)}


def test_nesterov_without_momentum_is_refused():
    with pytest.raises(ConfigError, match="nesterov: true needs momentum above 0"):
        build_optimizer(build_model("tiny", 3, IMGSZ), OptimizerSettings("sgd", momentum=0.0))


# ---------------------------------------------------------------------------------- freezing


def three_steps(model, frozen):
    optimizer = build_optimizer(model, OptimizerSettings("adamw", 1e-2, weight_decay=0.1))
    for step in range(3):
        train_mode(model, frozen)
        loss = model(torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(step)) + 1).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return optimizer


@pytest.mark.parametrize(("name", "frozen"), [("tiny", 0), ("tiny", 2), ("tiny", 5), ("hrnet_w18_small", 3)])
def test_frozen_layers_stay_bit_for_bit_and_all_others_move(name, frozen):
    torch.manual_seed(0)
    model = build_model(name, 3, (64, 64))
    freeze_layers(model, frozen)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    optimizer = three_steps(model, frozen)

    table, still = BY_HAND[name], layer_names(name)[:frozen]
    depth = {name: 1 / 2 ** (5 - i) for i, name in enumerate(layer_names(name))}
    for key, value in model.state_dict().items():
        is_frozen = expected_scale(table, key) in {depth[layer] for layer in still}
        assert torch.equal(value, before[key]) == is_frozen, key
    trained = sum(len(group["params"]) for group in optimizer.param_groups)
    assert trained == sum(p.requires_grad for p in model.parameters())
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)


def test_freezing_more_layers_than_there_are():
    model = build_model("tiny", 3, IMGSZ)
    words = r"freeze: 6 is more than the network's 5 layers \(stem, stage1, stage2, stage3, merge\)"
    with pytest.raises(ConfigError, match=words):
        freeze_layers(model, 6)
    with pytest.raises(ConfigError, match=words):
        train_mode(model, 6)
