import math
import warnings

import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch import nn, optim

from posesweep.trainables.schedules import Schedule, lr_factor


def factors(schedule, *steps):
    return [lr_factor(schedule, step) for step in steps]


def test_cosine_by_hand():
    schedule = Schedule(epochs=11, steps_per_epoch=10, warmup=1.0, final_lr=0.1)
    # warm-up: steps 0..9; the cosine's 100 steps are 10..109, its middle between 59 and 60
    assert factors(schedule, 0, 4, 9, 10) == pytest.approx([0.1, 0.5, 1.0, 1.0])
    middle = (lr_factor(schedule, 59) + lr_factor(schedule, 60)) / 2
    assert middle == pytest.approx(0.55)
    third = 10 + 33  # a third of 99 intervals
    assert lr_factor(schedule, third) == pytest.approx(0.1 + 0.9 * (1 + math.cos(math.pi / 3)) / 2)
    assert factors(schedule, 109, 110, 5000) == pytest.approx([0.1, 0.1, 0.1])


def test_multistep_by_hand():
    schedule = Schedule(epochs=10, steps_per_epoch=10, warmup=0.5, kind="multistep", milestones=(0.6, 0.9), lr_drop=0.1)
    assert factors(schedule, 0, 4, 5, 59, 60, 89, 90, 99) == pytest.approx([0.2, 1, 1, 1, 0.1, 0.1, 0.01, 0.01])


def test_the_recipe_of_hrnet():
    """210 epochs, drops at 170 and 200 (mmpose): the default shares, to within an epoch."""
    schedule = Schedule(epochs=210, steps_per_epoch=4, kind="multistep")
    assert factors(schedule, 4 * 170, 4 * 171, 4 * 199, 4 * 200) == pytest.approx([1, 0.1, 0.1, 0.01])


def test_no_warm_up():
    assert lr_factor(Schedule(epochs=2, steps_per_epoch=5, warmup=0.0), 0) == 1.0


def test_a_warm_up_in_steps_from_a_given_start():
    """mmengine's LinearLR(start_factor=0.001, begin=0, end=500): 0.001 at iteration 0, 1 at iteration 499."""
    schedule = Schedule(epochs=10, steps_per_epoch=100, kind="constant", warmup_steps=500, warmup_start=0.001)
    by_hand = [0.001, 0.001 + 0.999 * 100 / 499, 0.001 + 0.999 * 250 / 499, 1.0, 1.0, 1.0]
    assert factors(schedule, 0, 100, 250, 499, 500, 999) == pytest.approx(by_hand)


def test_a_warm_up_start_of_one_nth_is_the_default():
    given = Schedule(epochs=2, steps_per_epoch=8, warmup=1.0, kind="constant", warmup_start=1 / 8)
    left_out = Schedule(epochs=2, steps_per_epoch=8, warmup=1.0, kind="constant")
    assert factors(given, *range(16)) == pytest.approx(factors(left_out, *range(16)))


@pytest.mark.parametrize("steps", [0, 1])
def test_a_warm_up_of_no_or_one_step(steps):
    schedule = Schedule(epochs=1, steps_per_epoch=4, kind="constant", warmup_steps=steps, warmup_start=0.5)
    assert factors(schedule, 0, 1, 3) == [1.0, 1.0, 1.0]


def test_constant():
    schedule = Schedule(epochs=3, steps_per_epoch=10, warmup=0.4, kind="constant")
    assert factors(schedule, 0, 1, 2, 3, 4, 29, 100) == pytest.approx([0.25, 0.5, 0.75, 1, 1, 1, 1])


def test_the_recipe_of_rtmpose():
    """420 epochs: 1,000 steps of warm-up from 1e-5, flat to epoch 210, then a cosine to 5 % (mmpose)."""
    schedule = Schedule(
        420, 10, kind="flat_cosine", warmup_steps=1000, warmup_start=1e-5, flat=0.5, final_lr=0.05
    )  # half of 4,200 steps: the cosine's 2,099 intervals are from step 2,100 to 4,199
    assert factors(schedule, 0, 999, 2099, 2100, 4199, 9999) == pytest.approx([1e-5, 1, 1, 1, 0.05, 0.05])
    third = 0.05 + 0.95 * (1 + math.cos(math.pi * 700 / 2099)) / 2
    assert lr_factor(schedule, 2800) == pytest.approx(third)
    assert (lr_factor(schedule, 3149) + lr_factor(schedule, 3150)) / 2 == pytest.approx(0.525)


def test_warm_restarts_by_hand():
    """Cycles of 4, 8 and 16 steps after a warm-up of 2: a cycle's middle is halfway, its end is the next one's top."""
    schedule = Schedule(10, 2, warmup=1.0, kind="cosine_restarts", cycle_epochs=2.0, cycle_mult=2.0, final_lr=0.1)
    first_quarter = 0.1 + 0.9 * (1 + math.cos(math.pi / 4)) / 2
    assert factors(schedule, 0, 1) == [0.5, 1.0]
    assert factors(schedule, 2, 3, 4, 6, 8, 10, 14) == pytest.approx(
        [1, first_quarter, 0.55, 1, first_quarter, 0.55, 1]
    )


def test_one_cycle_by_hand():
    """100 steps, 30 of them rising from 1/10 to 1; then down to 1/10/100. The top, step 29, is between no steps."""
    schedule = Schedule(10, 10, warmup=0.0, kind="one_cycle", pct_start=0.3, div_factor=10.0, final_div=100.0)
    rising = 0.1 + 0.9 * (1 - math.cos(math.pi * 10 / 29)) / 2
    falling = 0.001 + 0.999 * (1 + math.cos(math.pi * 35 / 70)) / 2
    assert factors(schedule, 0, 10, 29, 64, 99, 500) == pytest.approx([0.1, rising, 1.0, falling, 0.001, 0.001])


def torch_lrs(make, steps):
    """The lr that a scheduler of torch gives each step, with a base of 1."""
    optimizer = optim.SGD([nn.Parameter()], lr=1.0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a scheduler that steps without its optimizer
        scheduler = make(optimizer)
        lrs = []
        for _ in range(steps):
            lrs.append(optimizer.param_groups[0]["lr"])
            scheduler.step()
    return lrs


@pytest.mark.parametrize("pct", [0.3, 0.05, 0.5])
def test_one_cycle_is_that_of_torch(pct):
    theirs = torch_lrs(
        lambda o: optim.lr_scheduler.OneCycleLR(
            o, 1.0, total_steps=70, pct_start=pct, div_factor=20, final_div_factor=50, cycle_momentum=False
        ),
        70,
    )
    ours = Schedule(7, 10, warmup=0.0, kind="one_cycle", pct_start=pct, div_factor=20.0, final_div=50.0)
    assert factors(ours, *range(70)) == pytest.approx(theirs, rel=1e-9)


@pytest.mark.parametrize(("epochs", "mult"), [(2, 1), (2, 2), (1, 3)])
def test_warm_restarts_are_those_of_torch(epochs, mult):
    theirs = torch_lrs(
        lambda o: optim.lr_scheduler.CosineAnnealingWarmRestarts(o, T_0=epochs * 5, T_mult=mult, eta_min=0.02), 100
    )
    ours = Schedule(
        20, 5, warmup=0.0, kind="cosine_restarts", cycle_epochs=float(epochs), cycle_mult=float(mult), final_lr=0.02
    )
    assert factors(ours, *range(100)) == pytest.approx(theirs, rel=1e-9)


def test_drops_are_those_of_torch():
    theirs = torch_lrs(lambda o: optim.lr_scheduler.MultiStepLR(o, [60, 90], gamma=0.2), 100)
    ours = Schedule(10, 10, warmup=0.0, kind="multistep", milestones=(0.6, 0.9), lr_drop=0.2)
    assert factors(ours, *range(100)) == pytest.approx(theirs)


def test_the_cosine_is_that_of_torch():
    theirs = torch_lrs(lambda o: optim.lr_scheduler.CosineAnnealingLR(o, T_max=99, eta_min=0.01), 100)
    assert factors(Schedule(10, 10, warmup=0.0, final_lr=0.01), *range(100)) == pytest.approx(theirs, rel=1e-6)


@pytest.mark.parametrize("kind", ["cosine", "flat_cosine", "cosine_restarts", "multistep", "constant"])
def test_a_warm_up_longer_than_the_training_only_rises(kind):
    schedule = Schedule(epochs=2, steps_per_epoch=5, warmup=4.0, kind=kind, milestones=(), flat=0.9)
    assert factors(schedule, 0, 9) == pytest.approx([0.05, 0.5])


@given(
    epochs=st.integers(1, 20),
    steps=st.integers(1, 20),
    warmup=st.floats(0, 3),
    kind=st.sampled_from(["cosine", "flat_cosine", "multistep", "constant"]),
)
def test_rises_through_the_warm_up_and_never_after_it(epochs, steps, warmup, kind):
    schedule = Schedule(epochs, steps, warmup, kind, milestones=(1.0,), flat=0.99)
    values = [lr_factor(schedule, step) for step in range(epochs * steps)]
    top = min(round(warmup * steps), len(values))
    assert values[:top] == sorted(values[:top])
    assert values[top:] == sorted(values[top:], reverse=True)
    assert all(0 < value <= 1 for value in values)


@given(
    epochs=st.integers(1, 20),
    steps=st.integers(1, 20),
    warmup=st.floats(0, 3),
    kind=st.sampled_from(["cosine", "flat_cosine", "cosine_restarts", "one_cycle", "multistep", "constant"]),
    step=st.integers(0, 1000),
)
def test_every_schedule_is_a_share_of_lr0_at_every_step(epochs, steps, warmup, kind, step):
    assert 0 < lr_factor(Schedule(epochs, steps, warmup, kind, cycle_epochs=0.01, cycle_mult=1.1), step) <= 1


@pytest.mark.parametrize("kind", ["flat_cosine", "cosine_restarts", "multistep", "constant"])
def test_one_step_in_all_of_other_kinds(kind):
    assert lr_factor(Schedule(1, 1, 0.0, kind), 0) == 1.0


def test_one_step_in_all():
    assert lr_factor(Schedule(1, 1, 0.0, "one_cycle"), 0) == 1.0
    assert lr_factor(Schedule(epochs=1, steps_per_epoch=1, warmup=0.0), 0) == 1.0
    assert lr_factor(Schedule(epochs=1, steps_per_epoch=1, warmup=1.0), 0) == 1.0
