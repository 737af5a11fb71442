import copy

import pytest
import torch
from torch import nn

from posesweep.trainables.ema import WeightAverage


class Tiny(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(1, 1, bias=False)
        self.norm = nn.BatchNorm1d(1)


def weight(model):
    return model.linear.weight.item()


def set_weight(model, value):
    with torch.no_grad():
        model.linear.weight.fill_(value)


def test_by_hand():
    model = Tiny()
    set_weight(model, 0.0)
    average = WeightAverage(model, decay=0.15)
    set_weight(model, 1.0)
    average.update(model)  # decay (1 + 0) / (10 + 0) = 0.1
    assert weight(average.model) == pytest.approx(0.9)
    average.update(model)  # min(0.15, 2 / 11) = 0.15
    assert weight(average.model) == pytest.approx(0.15 * 0.9 + 0.85)
    assert weight(model) == 1.0


def test_a_short_training_forgets_where_it_began():
    model = Tiny()
    set_weight(model, 100.0)
    average = WeightAverage(model, decay=0.9999)
    set_weight(model, 1.0)
    for _ in range(100):
        average.update(model)
    assert weight(average.model) == pytest.approx(1.0, abs=1e-3)  # without warm-up: still 99


def test_batch_norm_statistics_are_copied_and_the_copy_stays_in_eval_mode():
    model = Tiny().train()
    average = WeightAverage(model, decay=0.9)
    model.norm(torch.randn(8, 1) + 5)
    average.update(model)
    assert average.model.norm.running_mean.item() == model.norm.running_mean.item() != 0
    assert average.model.norm.num_batches_tracked == 1
    assert not average.model.training
    assert not any(p.requires_grad for p in average.model.parameters())


def test_equal_weights_stay_bit_equal():
    """Frozen layers: averaging must not drift."""
    model = Tiny()
    set_weight(model, 0.1)
    average = WeightAverage(model, decay=0.999)
    for _ in range(50):
        average.update(model)
    assert torch.equal(average.model.linear.weight, model.linear.weight)


def test_restored_it_goes_on_bit_for_bit(tmp_path):
    def walk(average, model, steps):
        for step in steps:
            set_weight(model, step / 7)
            average.update(model)

    model = Tiny()
    straight = WeightAverage(model, decay=0.99)
    start = copy.deepcopy(model)
    walk(straight, model, range(20))

    first = WeightAverage(start, decay=0.99)
    walk(first, model, range(11))
    torch.save(first.state_dict(), tmp_path / "ema.pt")
    resumed = WeightAverage(Tiny(), decay=0.99)
    resumed.load_state_dict(torch.load(tmp_path / "ema.pt", weights_only=True))
    walk(resumed, model, range(11, 20))
    assert resumed.updates == straight.updates
    for name, value in straight.model.state_dict().items():
        assert torch.equal(resumed.model.state_dict()[name], value), name
