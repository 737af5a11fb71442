"""Each loss against a loop over its formula, by hand, and its gradient against finite differences."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from posesweep.trainables.losses import (
    hardest,
    heatmap_focal,
    heatmap_l1,
    heatmap_mse,
    heatmap_ohkm,
    simcc_kl,
    simcc_ohkm,
    smooth_l1,
    wing,
)

WEIGHTS = torch.tensor([[1.0, 0.0, 0.5], [1.0, 2.0, 0.0]])
BATCH, KEYPOINTS = WEIGHTS.shape
MAP = (BATCH, KEYPOINTS, 4, 5)
OF_MAPS = [heatmap_mse, heatmap_l1, heatmap_focal, heatmap_ohkm]
OF_BINS = [simcc_kl, simcc_ohkm]
OF_POINTS = [smooth_l1, wing]
EVERY = [*OF_MAPS, *OF_BINS, *OF_POINTS]


def random(*shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def example(loss, batch=BATCH, dtype=torch.float32):
    """Outputs and a target of the kind that a loss takes."""
    if loss in OF_MAPS:
        pair = random(batch, KEYPOINTS, 4, 5), random(batch, KEYPOINTS, 4, 5, seed=1)
    elif loss in OF_BINS:
        pair = (
            (random(batch, KEYPOINTS, 6), random(batch, KEYPOINTS, 8, seed=1)),
            (random(batch, KEYPOINTS, 6, seed=2), random(batch, KEYPOINTS, 8, seed=3)),
        )
    else:  # errors from -20 to 20 px, on both sides of every kink
        pair = 40 * random(batch, KEYPOINTS, 2), 20 * torch.ones(batch, KEYPOINTS, 2)
    return tuple(cast(part, dtype) for part in pair)


def cast(value, dtype):
    return tuple(part.to(dtype) for part in value) if isinstance(value, tuple) else value.to(dtype)


def leaves(outputs):
    """The outputs' tensors, each ready to take a gradient."""
    return [part.requires_grad_() for part in (outputs if isinstance(outputs, tuple) else (outputs,))]


def call(loss, tensors, target, weights, **settings):
    """`loss` of the outputs that `tensors` make up."""
    return loss(tuple(tensors) if len(tensors) > 1 else tensors[0], target, weights, **settings)


def rows_of(value, rows):
    return tuple(part[rows] for part in value) if isinstance(value, tuple) else value[rows]


# ---------------------------------------------------------------------------------- heatmaps


def squared(h, t):
    return (h - t) ** 2


def absolute(h, t):
    return abs(h - t)


def focal(logit, t, alpha=0.25, gamma=2.0):
    p = 1 / (1 + math.exp(-logit))
    return -(abs(t - p) ** gamma) * (alpha * t * math.log(p) + (1 - alpha) * (1 - t) * math.log(1 - p))


def per_keypoint(per_cell, heatmaps, target):
    """The mean over the cells of each map, one cell at a time."""
    return [
        [
            sum(per_cell(float(h), float(t)) for h, t in zip(m.flatten(), n.flatten(), strict=True)) / m.numel()
            for m, n in zip(maps, truth, strict=True)
        ]
        for maps, truth in zip(heatmaps, target, strict=True)
    ]


@pytest.mark.parametrize(("loss", "per_cell"), [(heatmap_mse, squared), (heatmap_l1, absolute), (heatmap_focal, focal)])
def test_heatmap_losses_equal_a_loop_over_cells(loss, per_cell):
    heatmaps, target = example(loss)
    slow = np.sum(np.array(per_keypoint(per_cell, heatmaps, target)) * WEIGHTS.numpy()) / WEIGHTS.numel()
    assert loss(heatmaps, target, WEIGHTS).item() == pytest.approx(slow, rel=1e-5)


def test_heatmap_mse_by_hand():
    heatmaps, target = torch.zeros(1, 2, 2, 2), torch.zeros(1, 2, 2, 2)
    target[0, :, 0, 0] = 2.0
    assert heatmap_mse(heatmaps, target, torch.tensor([[1.0, 0.0]])) == 4 / 8
    assert heatmap_l1(heatmaps, target, torch.tensor([[1.0, 0.0]])) == 2 / 8


def test_focal_by_hand():
    """Of one cell with p = 1/2: for a target of 1 it is alpha / 4 * ln 2, for 0 (1 - alpha) / 4 * ln 2 (RetinaNet)."""
    even, one = torch.zeros(1, 1, 1, 1), torch.ones(1, 1)
    assert heatmap_focal(even, torch.ones(1, 1, 1, 1), one).item() == pytest.approx(0.25 / 4 * math.log(2))
    assert heatmap_focal(even, torch.zeros(1, 1, 1, 1), one).item() == pytest.approx(0.75 / 4 * math.log(2))
    halved = heatmap_focal(even, torch.full((1, 1, 1, 1), 0.25), one, alpha=0.5, gamma=1.0)
    assert halved.item() == pytest.approx(0.25 * math.log(2) / 2)  # half the quality focal loss


@settings(max_examples=60, deadline=None)
@given(t=st.floats(0.01, 0.99), logit=st.floats(-6, 6), alpha=st.floats(0.05, 0.95), gamma=st.floats(1, 4))
def test_focal_is_least_where_the_probability_is_the_target(t, logit, alpha, gamma):
    target, one = torch.full((1, 1, 1, 1), t, dtype=torch.float64), torch.ones(1, 1)
    best = heatmap_focal(target.logit(), target, one, alpha, gamma)
    other = heatmap_focal(torch.full_like(target, logit), target, one, alpha, gamma)
    assert best.item() == pytest.approx(0, abs=1e-9)
    assert other >= best - 1e-12


def test_focal_stays_finite_at_the_ends():
    logits = torch.tensor([[[[-1e4, 1e4, 0.0]]]], requires_grad=True)
    loss = heatmap_focal(logits, torch.tensor([[[[1.0, 0.0, 0.5]]]]), torch.ones(1, 1))
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(logits.grad).all()


# ---------------------------------------------------------------------------------- SimCC


def softmax(values):
    exponents = [math.exp(v - max(values)) for v in values]
    return [e / sum(exponents) for e in exponents]


def divergences(logits, target, beta):
    """KL(t || p), the mean over the bins of an axis, the sum of both axes, for each keypoint."""
    found = np.zeros(WEIGHTS.shape)
    for b, k in np.ndindex(*WEIGHTS.shape):
        for p_axis, t_axis in zip(logits, target, strict=True):
            t = softmax([beta * v for v in t_axis[b, k].tolist()])
            p = softmax([beta * v for v in p_axis[b, k].tolist()])
            found[b, k] += sum(ti * math.log(ti / pi) for ti, pi in zip(t, p, strict=True)) / len(t)
    return found


@pytest.mark.parametrize("beta", [1.0, 10.0])
def test_simcc_kl_equals_a_loop(beta):
    logits, target = example(simcc_kl)
    slow = np.sum(divergences(logits, target, beta) * WEIGHTS.numpy()) / WEIGHTS.numel()
    assert simcc_kl(logits, target, WEIGHTS, beta).item() == pytest.approx(slow, rel=1e-4)


def test_simcc_kl_by_hand():
    """Two bins, a target of 3/4 and 1/4 along x, none along y: KL = ln 2 + 3/4 ln 3/4 + 1/4 ln 1/4."""
    even = torch.zeros(1, 1, 2)
    target = torch.tensor([[[math.log(3.0), 0.0]]])
    divergence = math.log(2) + 0.75 * math.log(0.75) + 0.25 * math.log(0.25)
    loss = simcc_kl((even, even), (target, even), torch.ones(1, 1), beta=1.0)
    assert loss.item() == pytest.approx(divergence / 2)  # the mean of the axis's two bins


def test_simcc_kl_is_zero_for_the_target_itself_and_blind_to_a_constant():
    _, target = example(simcc_kl)
    assert simcc_kl((target[0] + 3.0, target[1]), target, WEIGHTS).item() == pytest.approx(0, abs=1e-6)


# ---------------------------------------------------------------------------------- hard keypoints


@settings(max_examples=60, deadline=None)
@given(
    losses=st.lists(st.lists(st.floats(0, 9, width=32), min_size=7, max_size=7, unique=True), min_size=1, max_size=3),
    share=st.floats(0.01, 1.0),
)
def test_exactly_the_hardest_keypoints_of_each_sample_count(losses, share):
    tensor = torch.tensor(losses, requires_grad=True)
    loss = hardest(tensor, share)
    loss.backward()
    count = max(1, math.ceil(share * 7 - 1e-9))
    slow = [sum(sorted(row, reverse=True)[:count]) / count for row in losses]
    assert loss.item() == pytest.approx(sum(slow) / len(slow), rel=1e-5, abs=1e-6)
    for row, gradient in zip(losses, tensor.grad, strict=True):
        chosen = {row[i] for i in torch.nonzero(gradient).flatten().tolist()}
        assert chosen == set(sorted(row, reverse=True)[:count])


@pytest.mark.parametrize(("share", "count"), [(0.5, 9), (8 / 17, 8), (0.01, 1), (1.0, 17)])
def test_how_many_keypoints_are_hard(share, count):
    losses = torch.arange(17.0)[None].requires_grad_()
    hardest(losses, share).backward()
    assert (losses.grad > 0).sum() == count
    np.testing.assert_allclose(losses.grad[0, -count:], 1 / count)


def test_a_share_that_is_a_whole_number_is_not_rounded_up():
    losses = torch.arange(25.0)[None].requires_grad_()
    hardest(losses, 0.28).backward()  # 0.28 * 25 = 7.000000000000001
    assert (losses.grad > 0).sum() == 7


def test_ohkm_equals_a_loop():
    heatmaps, target = example(heatmap_ohkm)
    weighted = np.array(per_keypoint(squared, heatmaps, target)) * WEIGHTS.numpy()
    slow = np.sort(weighted, axis=1)[:, -2:].mean()  # 2 of 3: half, rounded up
    assert heatmap_ohkm(heatmaps, target, WEIGHTS).item() == pytest.approx(slow, rel=1e-5)
    logits, labels = example(simcc_ohkm)
    slow = np.sort(divergences(logits, labels, 10.0) * WEIGHTS.numpy(), axis=1)[:, -2:].mean()
    assert simcc_ohkm(logits, labels, WEIGHTS).item() == pytest.approx(slow, rel=1e-4)


# ---------------------------------------------------------------------------------- coordinates


def slow_smooth_l1(d, beta=1.0):
    return d**2 / (2 * beta) if d < beta else d - beta / 2


def slow_wing(d, width=10.0, epsilon=2.0):
    return width * math.log(1 + d / epsilon) if d < width else d - (width - width * math.log(1 + width / epsilon))


@pytest.mark.parametrize(
    ("loss", "slow", "settings_"),
    [
        (smooth_l1, slow_smooth_l1, {}),
        (smooth_l1, slow_smooth_l1, {"beta": 6.0}),
        (wing, slow_wing, {}),
        (wing, slow_wing, {"width": 5.0, "epsilon": 0.5}),
    ],
)
def test_coordinate_losses_equal_a_loop(loss, slow, settings_):
    points, truth = example(loss)
    total = 0.0
    for b, k in np.ndindex(*WEIGHTS.shape):
        for axis in range(2):
            total += WEIGHTS[b, k].item() * slow(abs((points - truth)[b, k, axis].item()), **settings_)
    assert loss(points, truth, WEIGHTS, **settings_).item() == pytest.approx(total / WEIGHTS.numel(), rel=1e-5)


def test_coordinate_losses_by_hand():
    points, truth, one = torch.tensor([[[3.0, -0.5]]]), torch.zeros(1, 1, 2), torch.ones(1, 1)
    assert smooth_l1(points, truth, one).item() == pytest.approx(2.5 + 0.125)
    assert smooth_l1(points, truth, one, beta=4.0).item() == pytest.approx((9 + 0.25) / 8)
    assert wing(points, truth, one).item() == pytest.approx(10 * math.log(2.5) + 10 * math.log(1.25))
    far = torch.tensor([[[14.0, 0.0]]])
    assert wing(far, truth, one).item() == pytest.approx(14 - 10 + 10 * math.log(6))


@pytest.mark.parametrize(("loss", "kink"), [(smooth_l1, 1.0), (wing, 10.0)])
def test_coordinate_losses_have_no_step_at_the_kink(loss, kink):
    below, above = (
        loss(torch.tensor([[[kink + step, 0.0]]]), torch.zeros(1, 1, 2), torch.ones(1, 1)) for step in (-1e-4, 1e-4)
    )
    assert 0 < above - below < 1e-3


@pytest.mark.parametrize("loss", OF_POINTS)
def test_a_truth_that_is_not_labelled_may_be_nan(loss):
    points, truth = example(loss)
    truth[WEIGHTS == 0] = float("nan")
    points.requires_grad_()
    value = loss(points, truth, WEIGHTS)
    value.backward()
    assert torch.isfinite(value)
    assert torch.isfinite(points.grad).all()


# ---------------------------------------------------------------------------------- what holds for every loss


@pytest.mark.parametrize("loss", EVERY)
def test_gradients_equal_finite_differences(loss):
    outputs, target = example(loss, dtype=torch.float64)
    tensors = leaves(outputs)
    assert torch.autograd.gradcheck(lambda *parts: call(loss, parts, target, WEIGHTS.double()), tensors)


@pytest.mark.parametrize("loss", EVERY)
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_a_keypoint_that_weighs_nothing_gives_no_gradient(loss, data):
    row = st.lists(st.sampled_from([0.0, 0.3, 1.0]), min_size=KEYPOINTS, max_size=KEYPOINTS)
    weights = torch.tensor(data.draw(st.lists(row, min_size=BATCH, max_size=BATCH)))
    outputs, target = example(loss)
    tensors = leaves(outputs)
    value = call(loss, tensors, target, weights)
    value.backward()
    assert torch.isfinite(value)
    for tensor in tensors:
        assert torch.isfinite(tensor.grad).all()
        assert (tensor.grad[weights == 0] == 0).all()
    if not weights.any():
        assert value == 0


@pytest.mark.parametrize("loss", EVERY)
def test_a_weight_of_two_counts_twice(loss):
    outputs, target = example(loss)
    once, twice = (loss(outputs, target, weight * torch.ones(BATCH, KEYPOINTS)) for weight in (1.0, 2.0))
    assert twice.item() == pytest.approx(2 * once.item(), rel=1e-6)


@pytest.mark.parametrize("loss", EVERY)
def test_gradients_of_half_batches_average_to_those_of_the_whole(loss):
    """What DDP and accumulation do: each share's mean loss, gradients averaged, however many keypoints it labels."""
    outputs, target = example(loss, batch=4)
    weights = torch.tensor([[1.0, 1.0, 1.0], [0.0, 1.0, 0.0], [0.0, 0.0, 0.0], [1.0, 0.0, 0.5]])
    parameter = torch.tensor(0.7, requires_grad=True)

    def gradient(rows):
        scaled = [part[rows] * parameter for part in (outputs if isinstance(outputs, tuple) else (outputs,))]
        return torch.autograd.grad(call(loss, scaled, rows_of(target, rows), weights[rows]), parameter)[0]

    halves = [gradient(rows) for rows in (slice(0, 2), slice(2, 4))]
    np.testing.assert_allclose(sum(halves) / 2, gradient(slice(0, 4)), rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("loss", EVERY)
def test_half_precision_outputs_are_compared_in_float32(loss, dtype):
    outputs, target = example(loss)
    half = cast(outputs, dtype)
    value = loss(half, target, WEIGHTS)
    assert value.dtype == torch.float32
    assert value == loss(cast(half, torch.float32), target, WEIGHTS)
