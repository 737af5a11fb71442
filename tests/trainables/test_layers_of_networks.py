"""Layer decay and freezing where a network's layers follow from its settings, and freezing on every family."""

import pytest
import torch

from posesweep.trainables.models import build_model
from posesweep.trainables.optim import (
    OptimizerSettings,
    build_optimizer,
    freeze_layers,
    frozen_layers,
    layer_names_of,
    train_mode,
)

# layer_decay 0.5 and head_lr_mult 3 by hand: settings -> start of a parameter's name -> its share of lr0
DECAY = {
    ("lite_hrnet_18", ("branches", 2)): {"stem.": 1 / 8, "stages.0.": 1 / 4, "merge.": 1 / 2},
    ("lite_hrnet_30", ("branches", 3)): {"stem.": 1 / 16, "stages.0.": 1 / 8, "stages.1.": 1 / 4, "merge.": 1 / 2},
    ("simple_baseline", ("backbone", "convnext_atto")): {
        "trunk.stem_": 1 / 16,
        "trunk.stages_0.": 1 / 16,
        "trunk.stages_1.": 1 / 8,
        "trunk.stages_2.": 1 / 4,
        "trunk.stages_3.": 1 / 2,
    },
    ("simple_baseline", ("backbone", "mobilenetv3_small_050")): {
        "trunk.conv_stem.": 1 / 32,
        "trunk.bn1.": 1 / 32,
        "trunk.blocks.0.": 1 / 16,
        "trunk.blocks.1.": 1 / 8,
        "trunk.blocks.2.": 1 / 4,
        "trunk.blocks.3.": 1 / 4,
        "trunk.blocks.4.": 1 / 2,
        "trunk.blocks.5.": 1 / 2,
    },
}


@pytest.mark.parametrize(("name", "setting"), DECAY)
def test_the_learning_rate_of_every_named_parameter(name, setting):
    with torch.device("meta"):
        model = build_model(name, 3, (64, 64), **dict([setting]))
    optimizer = build_optimizer(model, OptimizerSettings("adamw", 1e-3, head_lr_mult=3.0, layer_decay=0.5))
    lr = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    table = {f"backbone.{start}": share for start, share in DECAY[name, setting].items()}
    table |= {"neck.": 3.0, "head.": 3.0}
    for key, parameter in model.named_parameters():
        (share,) = [share for start, share in table.items() if key.startswith(start)]
        assert lr[id(parameter)] == pytest.approx(1e-3 * share), key


FREEZE = {  # network and settings -> starts of the names in its first two layers
    ("tiny", ()): ("stem.", "stage1."),
    ("hrnet_w18_small", ()): ("trunk.conv1.", "trunk.bn1.", "trunk.conv2.", "trunk.bn2.", "trunk.layer1."),
    ("lite_hrnet_18", (("channels", 8), ("branches", 3))): ("stem.", "stages.0."),
    ("rtmpose_t", ()): ("trunk.stem.", "trunk.stages.0."),
    ("vitpose_t", ()): ("trunk.patch_embed.", "trunk.pos_embed", "trunk.blocks.0."),
    ("simple_baseline", (("backbone", "resnet18"),)): ("trunk.conv1.", "trunk.bn1.", "trunk.layer1."),
}


@pytest.mark.parametrize(("name", "settings"), FREEZE)
def test_two_frozen_layers_and_their_statistics_stay_bit_for_bit(name, settings):
    torch.manual_seed(0)
    model = build_model(name, 3, (64, 64), **dict(settings))
    frozen = frozen_layers(layer_names_of(model), 2, {})
    freeze_layers(model, frozen)
    optimizer = build_optimizer(model, OptimizerSettings("adamw", 1e-2, weight_decay=0.1))
    before = {key: value.clone() for key, value in model.state_dict().items()}
    for seed in range(2):
        train_mode(model, frozen)
        images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(seed)) + 1
        model(images).square().mean().backward()
        optimizer.step()
    starts = tuple(f"backbone.{start}" for start in FREEZE[name, settings])
    still = {key for key, value in model.state_dict().items() if torch.equal(value, before[key])}
    assert {key for key in before if key.startswith(starts)} <= still
    learning = {key for key, p in model.named_parameters() if p.grad is not None and p.grad.any()}
    assert learning.isdisjoint(still)
    assert all(p.grad is not None for key, p in model.named_parameters() if not key.startswith(starts))
    counting = {key for key in before if key.endswith("running_mean") and not key.startswith(starts)}
    assert counting.isdisjoint(still)
