import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

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


@pytest.mark.parametrize("kind", ["cosine", "multistep"])
def test_a_warm_up_longer_than_the_training_only_rises(kind):
    schedule = Schedule(epochs=2, steps_per_epoch=5, warmup=4.0, kind=kind, milestones=())
    assert factors(schedule, 0, 9) == pytest.approx([0.05, 0.5])


@given(
    epochs=st.integers(1, 20),
    steps=st.integers(1, 20),
    warmup=st.floats(0, 3),
    kind=st.sampled_from(["cosine", "multistep"]),
)
def test_rises_through_the_warm_up_and_never_after_it(epochs, steps, warmup, kind):
    schedule = Schedule(epochs, steps, warmup, kind)
    if kind == "multistep":
        schedule = Schedule(epochs, steps, warmup, kind, milestones=(1.0,))
    values = [lr_factor(schedule, step) for step in range(epochs * steps)]
    top = min(round(warmup * steps), len(values))
    assert values[:top] == sorted(values[:top])
    assert values[top:] == sorted(values[top:], reverse=True)
    assert all(0 < value <= 1 for value in values)


def test_one_step_in_all():
    assert lr_factor(Schedule(epochs=1, steps_per_epoch=1, warmup=0.0), 0) == 1.0
    assert lr_factor(Schedule(epochs=1, steps_per_epoch=1, warmup=1.0), 0) == 1.0
