"""Gradient checkpointing: the same training, in less memory."""

from copy import deepcopy

import pytest
import torch

from posesweep.trainables.models import build_model, set_grad_checkpointing

IMGSZ = (64, 64)
NETWORKS = {
    "tiny": {},
    "hrnet_w18_small": {},
    "lite_hrnet_18": {"channels": 8, "branches": 3},
    "rtmpose_t": {},
    "vitpose_t": {"drop_path": 0.3},
    "simple_baseline": {"backbone": "resnet18", "neck": "pyramid"},
}


def build(name):
    torch.manual_seed(0)
    return build_model(name, 3, IMGSZ, **NETWORKS[name]).train()


def step(model):
    """Loss, gradients, everything in the state, and the bytes that were kept for the backward pass."""
    kept = []

    def keep(tensor):
        kept.append(tensor.nbytes)
        return tensor

    torch.manual_seed(1)
    images = torch.randn(2, 3, 64, 64)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = model(images).square().mean()
    loss.backward()
    gradients = {name: p.grad for name, p in model.named_parameters()}
    return loss, gradients, model.state_dict(), sum(kept)


@pytest.mark.parametrize("name", NETWORKS)
def test_loss_gradients_and_batch_norm_statistics_stay_bit_for_bit(name):
    plain, recomputed = build(name), build(name)
    set_grad_checkpointing(recomputed)
    loss, gradients, state, kept = step(plain)
    loss2, gradients2, state2, kept2 = step(recomputed)
    assert torch.equal(loss, loss2)
    assert gradients.keys() == gradients2.keys()
    assert all(torch.equal(gradients[key], gradients2[key]) for key in gradients)
    assert state.keys() == state2.keys()
    assert all(torch.equal(state[key], state2[key]) for key in state)
    assert kept2 < 0.7 * kept


def test_blocks_run_twice_in_training_and_once_otherwise():
    model = build("tiny")
    set_grad_checkpointing(model)
    calls = []
    model.backbone.stage2[1].second[0].register_forward_hook(lambda *_: calls.append(1))
    model(torch.randn(2, 3, 64, 64)).sum().backward()
    assert len(calls) == 2
    with torch.no_grad():
        model(torch.randn(2, 3, 64, 64))
    assert len(calls) == 3


def test_a_copy_computes_with_its_own_weights():
    """The averaged weights are a copy of the network that is trained."""
    model = build("tiny")
    set_grad_checkpointing(model)
    copy = deepcopy(model).eval()
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        before = copy(images)
        for parameter in model.parameters():
            parameter.zero_()
        assert torch.equal(copy(images), before)
        copy.backbone.stage2[1].second[0].weight.zero_()
        assert not torch.equal(copy(images), before)


def test_frozen_layers_stay_frozen():
    model = build("tiny")
    set_grad_checkpointing(model)
    model.backbone.stem.requires_grad_(False)
    model.backbone.stem.eval()
    before = {key: value.clone() for key, value in model.backbone.stem.state_dict().items()}
    model(torch.randn(2, 3, 64, 64)).sum().backward()
    assert all(p.grad is None for p in model.backbone.stem.parameters())
    assert all(torch.equal(value, before[key]) for key, value in model.backbone.stem.state_dict().items())
    assert all(p.grad is not None for p in model.backbone.stage1.parameters())
