"""Two real gloo processes against one process that sees the joint batch."""

import copy
import socket

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn

from posesweep.trainables.distributed import (
    SyncBatchNorm2d,
    convert_sync_batchnorm,
    from_rank_zero,
    gather_predictions,
    mean_over_ranks,
    rank,
    world_size,
)
from posesweep.trainables.losses import heatmap_mse
from posesweep.trainables.models import build_model

CPU = torch.device("cpu")
SIZES = (3, 5)  # samples of rank 0 and 1: statistics must be weighted by them


def network():
    """Batch-norms with and without weights, and one with a running mean over all batches."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Conv2d(4, 4, 1),
        nn.BatchNorm2d(4, affine=False, momentum=0.3),
        nn.Sequential(nn.Conv2d(4, 2, 1), nn.BatchNorm2d(2, momentum=None)),
    )


def batches():
    """Far from zero, where sums of squares would lose digits."""
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(SIZES[r], 3, 6, 5, generator=generator) * (1 + r) + 30 * (1 + r) for r in range(2)]


def train_two_steps(model, images):
    """Two steps' outputs, the gradients of weights and images of the second, and the state after them."""
    for _ in range(2):
        model.zero_grad()
        images = images.detach().requires_grad_()
        output = model.train()(images)
        (output**3).sum().backward()
    gradients = {name: p.grad for name, p in model.named_parameters()}
    return {"output": output.detach(), "images": images.grad, "gradients": gradients, "state": model.state_dict()}


def ddp_gradients(model, whole):
    """One step of DDP over this rank's half of an even batch."""
    model = nn.parallel.DistributedDataParallel(model)
    half = whole[4 * rank() : 4 * rank() + 4]
    output = model(half)
    heatmap_mse(output, torch.ones_like(output), torch.ones(output.shape[:2])).backward()
    return {name: p.grad for name, p in model.module.named_parameters()}


def worker(number, port, folder):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=number, world_size=2)
    model = convert_sync_batchnorm(network())
    found = {
        "sync": train_two_steps(model, batches()[number]),
        "eval": model.eval()(batches()[number]).detach(),
        "ddp": ddp_gradients(convert_sync_batchnorm(network()), torch.cat(batches())),
        "mean": mean_over_ranks({"a": 1.0 + number, "b": 10.0 * number}, CPU),
        "gathered": gather_predictions({7: "both, from " + str(number), 10 + number: "own"}),
        "from_zero": from_rank_zero({"rank": number}),
        "world": (rank(), world_size()),
    }
    torch.save(found, f"{folder}/{number}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    mp.spawn(worker, (port, str(folder)), nprocs=2)
    return [torch.load(folder / f"{number}.pt", weights_only=True) for number in range(2)]


@pytest.fixture(scope="module")
def joint():
    model = network()
    found = train_two_steps(model, torch.cat(batches()))
    return found | {"eval": model.eval()(torch.cat(batches())).detach()}


def close(a, b):
    torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("what", ["output", "images"])
def test_outputs_and_image_gradients_equal_those_of_the_joint_batch(ranks, joint, what):
    close(torch.cat([found["sync"][what] for found in ranks]), joint[what])


def test_weight_gradients_add_up_to_those_of_the_joint_batch(ranks, joint):
    for name, gradient in joint["gradients"].items():
        total = sum(found["sync"]["gradients"][name] for found in ranks)
        torch.testing.assert_close(total, gradient, rtol=1e-4, atol=1e-3, msg=name)  # sums of hundreds of values


def test_running_statistics_and_names_equal_those_of_the_joint_batch(ranks, joint):
    for found in ranks:
        assert list(found["sync"]["state"]) == list(joint["state"])
        for name, value in joint["state"].items():
            close(found["sync"]["state"][name], value)


def test_in_eval_mode_ranks_do_not_talk(ranks, joint):
    close(torch.cat([found["eval"] for found in ranks]), joint["eval"])


def test_ddp_with_two_halves_has_the_gradients_of_one_process(ranks):
    model, whole = network(), torch.cat(batches())
    output = model(whole)
    heatmap_mse(output, torch.ones_like(output), torch.ones(output.shape[:2])).backward()
    for name, parameter in model.named_parameters():
        for found in ranks:
            close(found["ddp"][name], parameter.grad)


def test_means_are_the_same_everywhere(ranks):
    assert all(found["mean"] == {"a": 1.5, "b": 5.0} for found in ranks)


def test_predictions_meet_on_rank_zero_each_sample_once(ranks):
    assert ranks[0]["gathered"] == {7: "both, from 0", 10: "own", 11: "own"}
    assert ranks[1]["gathered"] is None


def test_rank_zero_speaks_for_all(ranks):
    assert [found["from_zero"] for found in ranks] == [{"rank": 0}] * 2
    assert [found["world"] for found in ranks] == [(0, 2), (1, 2)]


# ---------------------------------------------------------------------------------- one process


def test_without_a_group_nothing_needs_one():
    assert (rank(), world_size()) == (0, 1)
    assert mean_over_ranks({"a": 1.0}, CPU) == {"a": 1.0}
    assert gather_predictions({1: "x"}) == {1: "x"}
    assert from_rank_zero(3) == 3


def test_alone_it_is_batch_norm_bit_for_bit():
    plain, images = network(), torch.cat(batches())
    converted = convert_sync_batchnorm(copy.deepcopy(plain))
    assert torch.equal(converted(images), plain(images))
    for name, value in plain.state_dict().items():
        assert torch.equal(converted.state_dict()[name], value), name


def test_conversion_keeps_settings_weights_and_mode():
    model = network().eval()
    model[1].weight.requires_grad_(False)
    weight = model[1].weight
    converted = convert_sync_batchnorm(model)
    norms = [m for m in converted.modules() if isinstance(m, nn.BatchNorm2d)]
    assert [type(m) for m in norms] == [SyncBatchNorm2d] * 3
    assert [m.momentum for m in norms] == [0.1, 0.3, None]
    assert [m.training for m in norms] == [False] * 3
    assert converted[1].weight is weight  # an optimizer built before stays valid
    assert not converted[1].weight.requires_grad


@pytest.mark.parametrize("model", ["rtmpose_t", "lite_hrnet_18", "hrnet_w18_small", "small"])
def test_a_converted_network_computes_the_same(model):
    """timm's batch-norms with an activation inside must keep it."""
    torch.manual_seed(0)
    network = build_model(model, 5, (64, 64)).eval()
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        before = network(images)
        names = list(network.state_dict())
        after = convert_sync_batchnorm(network)(images)
    torch.testing.assert_close(after, before, rtol=0, atol=0)
    assert list(network.state_dict()) == names
    assert not any(type(module).__name__ == "BatchNormAct2d" for module in network.modules())
