import math

import numpy as np
import pytest
import torch

from posesweep.trainables.losses import heatmap_mse, simcc_kl

WEIGHTS = torch.tensor([[1.0, 0.0, 1.0], [1.0, 1.0, 0.0]])


def random(*shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def test_heatmap_mse_equals_a_loop():
    heatmaps, target = random(2, 3, 4, 5), random(2, 3, 4, 5, seed=1)
    total = 0.0
    for b in range(2):
        for k in range(3):
            for y in range(4):
                for x in range(5):
                    total += float(WEIGHTS[b, k] * (heatmaps[b, k, y, x] - target[b, k, y, x]) ** 2)
    assert heatmap_mse(heatmaps, target, WEIGHTS).item() == pytest.approx(total / (2 * 3 * 4 * 5))


def test_heatmap_mse_by_hand():
    heatmaps, target = torch.zeros(1, 2, 2, 2), torch.zeros(1, 2, 2, 2)
    target[0, :, 0, 0] = 2.0
    assert heatmap_mse(heatmaps, target, torch.tensor([[1.0, 0.0]])) == 4 / 8


def softmax(values):
    exponents = [math.exp(v - max(values)) for v in values]
    return [e / sum(exponents) for e in exponents]


@pytest.mark.parametrize("beta", [1.0, 10.0])
def test_simcc_kl_equals_a_loop(beta):
    logits = (random(2, 3, 6), random(2, 3, 8, seed=1))
    target = (random(2, 3, 6, seed=2), random(2, 3, 8, seed=3))
    total = 0.0
    for b in range(2):
        for k in range(3):
            for axis in range(2):
                t = softmax([beta * v for v in target[axis][b, k].tolist()])
                p = softmax([beta * v for v in logits[axis][b, k].tolist()])
                mean = sum(ti * math.log(ti / pi) for ti, pi in zip(t, p, strict=True)) / len(t)
                total += WEIGHTS[b, k].item() * mean
    assert simcc_kl(logits, target, WEIGHTS, beta).item() == pytest.approx(total / (2 * 3), rel=1e-4)


def test_simcc_kl_is_zero_for_the_target_itself_and_blind_to_a_constant():
    target = (random(2, 3, 6), random(2, 3, 8, seed=1))
    assert simcc_kl((target[0] + 3.0, target[1]), target, WEIGHTS).item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("name", ["heatmap", "simcc"])
def test_gradients_of_half_batches_average_to_those_of_the_whole(name):
    """What DDP does: each rank's mean loss over its half, gradients averaged."""
    parameter = torch.tensor(0.7, requires_grad=True)
    inputs, target = random(4, 3, 4, 4), random(4, 3, 4, 4, seed=1)
    weights = (random(4, 3, seed=2) > 0.4).float()

    def loss(rows):
        outputs = inputs[rows] * parameter
        if name == "heatmap":
            return heatmap_mse(outputs, target[rows], weights[rows])
        pair, truth = (outputs[:, :, 0], outputs[:, :, 1]), (target[rows, :, 0], target[rows, :, 1])
        return simcc_kl(pair, truth, weights[rows])

    (whole,) = torch.autograd.grad(loss(slice(0, 4)), parameter)
    halves = [torch.autograd.grad(loss(rows), parameter)[0] for rows in (slice(0, 2), slice(2, 4))]
    np.testing.assert_allclose(sum(halves) / 2, whole, rtol=1e-5)


def test_half_precision_outputs_give_a_float32_loss():
    loss = heatmap_mse(random(1, 1, 2, 2).bfloat16(), random(1, 1, 2, 2), torch.ones(1, 1))
    assert loss.dtype == torch.float32
