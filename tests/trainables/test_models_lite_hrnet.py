"""Lite-HRNet: every depth, and its parts against slow code written from the paper's equations."""

import pytest
import torch
from torch.nn import functional

from posesweep.errors import ConfigError
from posesweep.trainables.models import build_model, layer_names
from posesweep.trainables.models.lite_hrnet import (
    Block,
    CrossResolutionWeights,
    LiteHRNet,
    Module,
    SpatialWeights,
)

IMGSZ = (64, 96)


@pytest.mark.parametrize("channels", [8, 18])
@pytest.mark.parametrize("branches", [2, 3, 4])
def test_every_width_and_depth_learns_with_all_its_parameters(channels, branches):
    """One module a stage: the others of a stage are like it."""
    network = LiteHRNet([channels * 2**i for i in range(branches)], [1] * (branches - 1)).train()
    features = network(torch.randn(2, 3, 96, 64))
    features.square().mean().backward()
    assert features.shape == (2, channels, 24, 16)
    assert [key for key, p in network.named_parameters() if p.grad is None] == []
    held = [id(p) for _, modules in network.layers() for module in modules for p in module.parameters()]
    assert sorted(held) == sorted(map(id, network.parameters()))
    assert tuple(layer for layer, _ in network.layers()) == layer_names("lite_hrnet_18", {"branches": branches})


def test_layers_follow_the_branches():
    assert layer_names("lite_hrnet_18", {"branches": 2}) == ("stem", "stage2", "merge")
    assert layer_names("lite_hrnet_18") == ("stem", "stage2", "stage3", "stage4", "merge")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"branches": 5}, "branches: 5 must be 2 to 4 (resolutions of lite_hrnet_18); try 4"),
        ({"branches": 1}, "branches: 1 must be 2 to 4 (resolutions of lite_hrnet_18); try 4"),
        (
            {"channels": 33},
            "channels: 33 must be an even number of at least 8, because lite_hrnet_18's blocks halve them; try 34",
        ),
        (
            {"channels": 6},
            "channels: 6 must be an even number of at least 8, because lite_hrnet_18's blocks halve them; try 8",
        ),
    ],
)
def test_what_cannot_be_built_is_one_sentence(settings, words):
    with pytest.raises(ConfigError) as caught:
        build_model("lite_hrnet_18", 3, IMGSZ, **settings)
    assert str(caught.value) == words


def test_fewer_branches_take_smaller_inputs():
    words = r"imgsz: 72x96 must be multiples of 32 pixels for lite_hrnet_18; try \[64, 96\]"
    with pytest.raises(ConfigError, match=words):
        build_model("lite_hrnet_18", 3, (72, 96))
    build_model("lite_hrnet_18", 3, (72, 96), channels=8, branches=2)


def maps_of(widths, size=8):
    torch.manual_seed(0)
    return [torch.randn(2, width, size // 2**i, size // 2**i) for i, width in enumerate(widths)]


def test_cross_resolution_weights_by_loops():
    """Equation 4: every map averaged over the cells of the coarsest one, weighed together, spread out again."""
    widths = [8, 16]
    module = CrossResolutionWeights(widths).eval()
    maps = maps_of(widths)
    pooled = torch.zeros(2, 24, 4, 4)
    for y in range(4):
        for x in range(4):
            pooled[:, :8, y, x] = maps[0][:, :, 2 * y : 2 * y + 2, 2 * x : 2 * x + 2].mean((2, 3))
            pooled[:, 8:, y, x] = maps[1][:, :, y, x]
    weights = module.weights(pooled)
    with torch.no_grad():
        fine, coarse = module(maps)
    for y in range(8):
        for x in range(8):
            torch.testing.assert_close(fine[:, :, y, x], maps[0][:, :, y, x] * weights[:, :8, y // 2, x // 2])
    torch.testing.assert_close(coarse, maps[1] * weights[:, 8:])


def test_spatial_weights_are_one_number_a_channel():
    module = SpatialWeights(8)
    (features,) = maps_of([8])
    ratio = module(features) / features
    torch.testing.assert_close(ratio, ratio[:, :, :1, :1].expand_as(ratio))
    assert ((ratio > 0) & (ratio < 1)).all()


def test_a_block_keeps_every_second_channel():
    """The half that passes by comes out interleaved with the half that is weighed."""
    widths = [8, 16]
    maps = maps_of(widths)
    for before, after in zip(maps, Block(widths).eval()(maps), strict=True):
        half = before.shape[1] // 2
        assert torch.equal(after[:, 0::2], before[:, :half])
        assert not torch.equal(after[:, 1::2], before[:, half:])


def test_a_module_adds_every_map_to_every_other():
    """The finest counts twice, and reaches the coarser ones after its own sum."""
    module = Module([8, 16]).eval()
    with torch.no_grad():
        fine, coarse = module.blocks(maps_of([8, 16]))
        up, down = module.fuse[0][1], module.fuse[1][0]
        first = 2 * fine + functional.interpolate(up[1](up[0](coarse)), scale_factor=2)
        second = 2 * down(first) + coarse
        got = module(maps_of([8, 16]))
    torch.testing.assert_close(got[0], first.relu())
    torch.testing.assert_close(got[1], second.relu())


def test_it_learns():
    torch.manual_seed(0)
    model = build_model("lite_hrnet_18", 2, (32, 32), channels=8, branches=2).train()
    optimizer = torch.optim.Adam(model.parameters(), 2e-3)
    images, target = torch.randn(4, 3, 32, 32), torch.rand(4, 2, 8, 8)
    losses = []
    for _ in range(40):
        loss = (model(images) - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]
