from copy import deepcopy

import pytest
import timm.optim
import torch
from torch import nn

from posesweep.errors import ConfigError
from posesweep.trainables.models import build_model, layer_names, model_names
from posesweep.trainables.optim import (
    OptimizerSettings,
    build_optimizer,
    freeze_layers,
    frozen_layers,
    layer_names_of,
    lr_scales,
    set_lr,
    train_mode,
)

IMGSZ = (32, 32)

# layer_decay 0.5, head_lr_mult 3: by hand, from the input to the head, the parameters of every layer
NAMES = {
    "small": (("stem",), ("stage1",), ("stage2",), ("stage3",), ("merge",)),
    "hrnet": (
        ("trunk.conv1", "trunk.bn1", "trunk.conv2", "trunk.bn2"),
        ("trunk.layer1",),
        ("trunk.transition1", "trunk.stage2"),
        ("trunk.transition2", "trunk.stage3"),
        ("trunk.transition3", "trunk.stage4"),
    ),
    "lite_hrnet": (("stem",), ("stages.0",), ("stages.1",), ("stages.2",), ("merge",)),
    "rtmpose": (("trunk.stem",), *((f"trunk.stages.{i}",) for i in range(4))),
    "resnet": (("trunk.conv1", "trunk.bn1"), *((f"trunk.layer{i + 1}",) for i in range(4))),
    "vit12": (("trunk.patch_embed", "trunk.pos_embed"), *((f"trunk.blocks.{i}",) for i in range(12)), ("trunk.norm",)),
    "vit24": (("trunk.patch_embed", "trunk.pos_embed"), *((f"trunk.blocks.{i}",) for i in range(24)), ("trunk.norm",)),
}
FAMILY = {
    **dict.fromkeys(("tiny", "small"), "small"),
    **dict.fromkeys([f"hrnet_{w}" for w in ("w18_small", "w18", "w32", "w40", "w44", "w48")], "hrnet"),
    **dict.fromkeys(("lite_hrnet_18", "lite_hrnet_30"), "lite_hrnet"),
    **dict.fromkeys([f"rtmpose_{size}" for size in "tsml"], "rtmpose"),
    "simple_baseline": "resnet",
    **dict.fromkeys([f"vitpose_{size}" for size in "tsb"], "vit12"),
    "vitpose_l": "vit24",
}


def by_hand(name):
    """Prefix of the parameters' names -> their share of lr0; the last backbone layer learns at a half."""
    layers = NAMES[FAMILY[name]]
    halves = {prefix: 0.5 ** (len(layers) - i) for i, layer in enumerate(layers) for prefix in layer}
    return {**{f"backbone.{prefix}": scale for prefix, scale in halves.items()}, "neck.": 3.0, "head.": 3.0}


def on_no_device(name):
    """The network's names and shapes; building it in earnest takes seconds."""
    with torch.device("meta"):
        return build_model(name, 3, (64, 64))


def groups_by_parameter(model, optimizer):
    names = {id(p): name for name, p in model.named_parameters()}
    return {names[id(p)]: group for group in optimizer.param_groups for p in group["params"]}


def expected_scale(table, name):
    (scale,) = [scale for prefix, scale in table.items() if f"{name}.".startswith(f"{prefix.rstrip('.')}.")]
    return scale


def test_every_network_has_its_learning_rates_written_down():
    assert set(FAMILY) == set(model_names())


@pytest.mark.parametrize("name", FAMILY)
def test_the_learning_rate_of_every_named_parameter(name):
    model = on_no_device(name)
    settings = OptimizerSettings("adamw", 1e-3, weight_decay=0.05, head_lr_mult=3.0, layer_decay=0.5)
    groups, table = groups_by_parameter(model, build_optimizer(model, settings)), by_hand(name)
    assert set(groups) == {n for n, _ in model.named_parameters()}
    for parameter_name, parameter in model.named_parameters():
        group = groups[parameter_name]
        assert group["lr"] == pytest.approx(1e-3 * expected_scale(table, parameter_name)), parameter_name
        undecayed = parameter.ndim == 1 or parameter_name == "backbone.trunk.pos_embed"
        assert group["weight_decay"] == (0.0 if undecayed else 0.05), parameter_name


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
        assert moved == pytest.approx(0.01 * expected_scale(by_hand("tiny"), name), rel=1e-3), name


def test_scales_by_hand():
    scales = lr_scales(["stem", "stage1", "head"], layer_decay=0.8, head_lr_mult=10.0)
    assert scales == pytest.approx({"stem": 0.64, "stage1": 0.8, "head": 10.0})


def test_factors_of_layers_come_on_top_of_decay_and_head():
    """0.5^2 and 0.5^1 for the backbone, 10 for the head; stage1 a quarter of its own, the head a tenth."""
    factors = {"stage1": 0.25, "head": 0.1}
    scales = lr_scales(["stem", "stage1", "head"], layer_decay=0.5, head_lr_mult=10.0, lr_mult=factors)
    assert scales == pytest.approx({"stem": 0.25, "stage1": 0.125, "head": 1.0})


def test_the_middle_blocks_of_a_new_animal():
    """lr 1e-3 for the new head, 2.5e-5 for a middle stage, nothing for the first: the user's own words."""
    model = build_model("tiny", 3, IMGSZ)
    factors = {"stem": 0.0, "stage1": 0.0, "stage2": 0.025}
    freeze_layers(model, frozen_layers(layer_names_of(model), 0, factors))
    groups = groups_by_parameter(model, build_optimizer(model, OptimizerSettings(lr0=1e-3, lr_mult=factors)))
    assert groups["backbone.stage2.0.0.weight"]["lr"] == pytest.approx(2.5e-5)
    assert groups["head.maps.weight"]["lr"] == pytest.approx(1e-3)
    assert not any(name.startswith(("backbone.stem", "backbone.stage1")) for name in groups)


def test_without_decay_all_layers_learn_alike():
    model = build_model("tiny", 3, IMGSZ)
    assert {g["lr"] for g in build_optimizer(model, OptimizerSettings(lr0=2e-3)).param_groups} == {2e-3}


CLASSES = {
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "sgd": torch.optim.SGD,
    "nadamw": timm.optim.NAdamW,
    "lion": timm.optim.Lion,
    "lamb": timm.optim.Lamb,
    "adan": timm.optim.Adan,
}


@pytest.mark.parametrize("name", CLASSES)
def test_the_optimizer_asked_for(name):
    optimizer = build_optimizer(build_model("tiny", 3, IMGSZ), OptimizerSettings(name, momentum=0.8))
    assert type(optimizer) is CLASSES[name]
    if name == "sgd":
        assert {(g["momentum"], g["nesterov"]) for g in optimizer.param_groups} == {(0.8, True)}


@pytest.mark.parametrize("name", CLASSES)
def test_every_optimizer_learns_and_goes_on_where_its_state_was_saved(name):
    model, again = (_linear() for _ in range(2))
    settings = OptimizerSettings(name, lr0=0.01, weight_decay=0.01)
    optimizer, resumed = build_optimizer(model, settings), build_optimizer(again, settings)
    before = _loss(model)
    for _ in range(5):
        _step(model, optimizer)
    assert _loss(model) < before
    again.load_state_dict(model.state_dict())
    resumed.load_state_dict(deepcopy(optimizer.state_dict()))  # torch shares its tensors otherwise
    for one, its in ((model, optimizer), (again, resumed)):
        _step(one, its)
    assert torch.equal(model.body.weight, again.body.weight)


class _Linear(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body, self.last = nn.Linear(4, 4), nn.Linear(4, 1)

    def layers(self) -> list[tuple[str, list[nn.Module]]]:
        return [("body", [self.body]), ("head", [self.last])]


def _linear():
    torch.manual_seed(0)
    return _Linear()


def _loss(model):
    inputs = torch.linspace(-1, 1, 32).reshape(8, 4)
    return (model.last(model.body(inputs)) - inputs.sum(1, keepdim=True)).square().mean()


def _step(model, optimizer):
    optimizer.zero_grad()
    _loss(model).backward()
    optimizer.step()


def test_betas_and_eps_reach_the_optimizer():
    settings = OptimizerSettings("adamw", betas=(0.8, 0.95), eps=1e-6)
    optimizer = build_optimizer(build_model("tiny", 3, IMGSZ), settings)
    assert {(g["betas"], g["eps"]) for g in optimizer.param_groups} == {((0.8, 0.95), 1e-6)}


def test_a_step_of_lion_by_hand():
    """Chen et al. (2023): p = p (1 - lr wd) - lr sign((1 - b1) g + b1 m), and m is 0 at first."""
    model = _linear()
    optimizer = build_optimizer(model, OptimizerSettings("lion", lr0=0.1, weight_decay=0.5, betas=(0.9, 0.99)))
    before = model.body.weight.detach().clone()
    model.body.weight.grad = torch.tensor([[1.0, -2.0, 0.0, 4.0]] * 4)
    optimizer.step()
    expected = before * (1 - 0.1 * 0.5) - 0.1 * torch.tensor([1.0, -1.0, 0.0, 1.0])
    assert torch.allclose(model.body.weight, expected)


# ---------------------------------------------------------------------------------- weight decay


def decayed(model, **settings):
    groups = groups_by_parameter(model, build_optimizer(model, OptimizerSettings(weight_decay=0.05, **settings)))
    return {name for name, group in groups.items() if group["weight_decay"] == 0.05}


def test_norms_and_biases_are_decayed_when_asked():
    model = build_model("tiny", 3, IMGSZ)
    everything = {name for name, _ in model.named_parameters()}
    assert decayed(model, decay_norm_bias=True) == everything
    assert decayed(model) == {name for name, p in model.named_parameters() if p.ndim > 1} < everything


def test_what_a_module_keeps_from_decay_is_never_decayed():
    class Positions(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.pos_embed, self.mix = nn.Parameter(torch.zeros(1, 5, 4)), nn.Linear(4, 4)

        def no_weight_decay(self) -> set[str]:
            return {"pos_embed", "dist_token"}  # timm's names, of which this network has one

    model = _linear()
    model.body = Positions()
    model.layers = lambda: [("body", [model.body.pos_embed, model.body.mix]), ("head", [model.last])]
    assert decayed(model) == {"body.mix.weight", "last.weight"}
    all_but_positions = {"body.mix.weight", "body.mix.bias", "last.weight", "last.bias"}
    assert decayed(model, decay_norm_bias=True) == all_but_positions
    freeze_layers(model, ["body"])  # a parameter of its own is frozen like a module
    assert {name for name, p in model.named_parameters() if p.requires_grad} == {"last.weight", "last.bias"}
    train_mode(model, ["body"])
    assert (model.body.mix.training, model.last.training) == (False, True)


def test_nesterov_without_momentum_is_refused():
    with pytest.raises(ConfigError, match="nesterov: true needs momentum above 0"):
        build_optimizer(build_model("tiny", 3, IMGSZ), OptimizerSettings("sgd", momentum=0.0))


# ---------------------------------------------------------------------------------- freezing


def freeze(model, count=0, factors=None):
    """Freezes, and returns the names of the frozen layers."""
    frozen = frozen_layers(layer_names_of(model), count, factors or {})
    freeze_layers(model, frozen)
    return frozen


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
    still = freeze(model, frozen)
    assert still == list(layer_names(name)[:frozen])
    before = {key: value.clone() for key, value in model.state_dict().items()}
    optimizer = three_steps(model, still)

    table = by_hand(name)
    depth = {name: 1 / 2 ** (5 - i) for i, name in enumerate(layer_names(name))}
    for key, value in model.state_dict().items():
        is_frozen = expected_scale(table, key) in {depth[layer] for layer in still}
        assert torch.equal(value, before[key]) == is_frozen, key
    trained = sum(len(group["params"]) for group in optimizer.param_groups)
    assert trained == sum(p.requires_grad for p in model.parameters())
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)


def test_a_layer_with_factor_zero_stays_while_those_around_it_learn():
    torch.manual_seed(0)
    model = build_model("tiny", 3, (64, 64))
    still = freeze(model, 1, {"stage2": 0.0, "stage3": 0.5})
    assert still == ["stem", "stage2"]
    before = {key: value.clone() for key, value in model.state_dict().items()}
    three_steps(model, still)
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key]) == key.startswith(("backbone.stem", "backbone.stage2")), key


@pytest.mark.parametrize(
    ("freeze", "factors", "words"),
    [
        (6, {}, r"freeze: 6 is more than the network's 5 layers \(stem, stage1, stage2, stage3, merge\)"),
        (0, {"stage9": 1.0}, "lr_mult: the network has no layer 'stage9'; did you mean 'stage3'?"),
        (5, {"head": 0.0}, "lr_mult: every layer is frozen, so nothing would be trained"),
    ],
)
def test_what_cannot_be_frozen(freeze, factors, words):
    with pytest.raises(ConfigError, match=words):
        frozen_layers([*layer_names("tiny"), "head"], freeze, factors)
