"""Settings for a set and a machine: cases worked out by hand, and that whatever is planned has no mistakes."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from posesweep.datasets.looking import Portrait
from posesweep.trainables.planning import (
    Case,
    Hardware,
    Plan,
    can_be_pretrained,
    choose_batch,
    choose_epochs,
    choose_imgsz,
    choose_model,
    fixed_settings,
    in_time,
    plan_sweep,
    searched_settings,
    step_seconds,
    this_machine,
)
from posesweep.trainables.tasks import check_values

CPU, SMALL_GPU, GPU, LARGE_GPU = Hardware(2), Hardware(8, 1, 8), Hardware(8, 1, 16), Hardware(16, 1, 80)


def portrait(width, height, turned=None):
    return Portrait(
        images=100, objects=100, labelled_share=1.0, width_px=width, height_px=height, axis_range_deg=turned, groups=0
    )


def case(train=800, val=200, hardware=CPU, minutes=None, turned=None):
    return Case(portrait(200, 100, turned), train, val, 17, hardware, minutes)


@pytest.mark.parametrize(
    ("hardware", "train", "model"),
    [
        (CPU, 100, "small"),
        (CPU, 3000, "tiny"),
        (SMALL_GPU, 100, "hrnet_w18"),
        (SMALL_GPU, 50_000, "hrnet_w18"),
        (GPU, 50_000, "hrnet_w32"),
        (LARGE_GPU, 800, "hrnet_w32"),
        (LARGE_GPU, 50_000, "rtmpose_m"),
    ],
)
def test_the_network_for_a_machine_and_a_set(hardware, train, model):
    assert choose_model(train, hardware) == model


@pytest.mark.parametrize(
    ("seen", "hardware", "imgsz"),
    [
        (portrait(400, 400), CPU, (128, 128)),
        (portrait(400, 200), CPU, (192, 96)),  # 181 x 90.5
        (portrait(400, 200, turned=150.0), CPU, (128, 128)),
        (portrait(300, 400), LARGE_GPU, (224, 288)),  # 221.7 x 295.6
        (portrait(2000, 100), CPU, (192, 96)),  # no longer than two to one
        (portrait(30, 30), LARGE_GPU, (64, 64)),  # 37.5 padded, twice that is 75
        (portrait(5, 5), CPU, (64, 64)),
    ],
)
def test_the_input_has_the_shape_of_the_boxes(seen, hardware, imgsz):
    assert choose_imgsz(seen, hardware) == imgsz


@given(st.floats(8, 2000), st.floats(8, 2000), st.sampled_from([CPU, SMALL_GPU, LARGE_GPU]))
def test_inputs_are_multiples_of_32_and_enlarge_no_more_than_twice(width, height, hardware):
    imgsz = choose_imgsz(portrait(width, height), hardware)
    assert all(side % 32 == 0 and side >= 64 for side in imgsz)
    assert imgsz[0] * imgsz[1] <= max(4 * 1.25**2 * width * height, 64 * max(imgsz))


@pytest.mark.parametrize(
    ("train", "hardware", "batch"),
    [(3, CPU, 8), (70, CPU, 8), (800, CPU, 16), (800, SMALL_GPU, 16), (800, GPU, 32), (800, LARGE_GPU, 64)],
)
def test_the_batch(train, hardware, batch):
    assert choose_batch(train, hardware) == batch


@pytest.mark.parametrize(
    ("train", "batch", "hardware", "epochs"),
    [
        (112, 16, CPU, 100),  # 700 steps
        (10, 8, CPU, 120),
        (10_000, 16, CPU, 6),
        (800, 32, GPU, 128),  # 3,200 steps
        (100_000, 64, LARGE_GPU, 20),
        (100, 16, GPU, 210),
    ],
)
def test_epochs_follow_from_steps(train, batch, hardware, epochs):
    assert choose_epochs(train, batch, hardware) == epochs


def test_trials_fill_the_time():
    plan = Plan("hrnet_w32", True, (256, 256), batch=10, epochs=100)
    # an epoch: (800 + 0.6 x 200) objects x 0.1 s / 10 = 9.2 s; a trial of 100 epochs 15.33 minutes, half of it is used
    planned = in_time(plan, case(hardware=GPU), step_s=0.1)
    assert planned.trial_minutes == pytest.approx(15.333, abs=0.001)
    assert planned.trials == 31  # 240 / 7.67
    assert planned.minutes == pytest.approx(31 * 23 / 3)
    assert planned.epochs == 100


def test_where_time_is_short_epochs_give_way_and_eight_trials_stay():
    plan = Plan("hrnet_w32", True, (256, 256), batch=10, epochs=100)
    planned = in_time(plan, case(hardware=GPU, minutes=30.0), step_s=0.1)
    assert (planned.trials, planned.epochs) == (8, 48)  # 30 / (8 x 0.0767)
    assert planned.minutes <= 30


def test_trials_run_side_by_side():
    plan = Plan("small", False, (128, 128), batch=10, epochs=100)
    one, two = (in_time(plan, case(hardware=Hardware(cpus), minutes=60.0), 0.05) for cpus in (1, 2))
    assert one.trial_minutes == two.trial_minutes
    assert two.trials == 16 > one.trials


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 200_000),
    st.floats(10, 1000),
    st.floats(10, 1000),
    st.sampled_from([CPU, SMALL_GPU, GPU, LARGE_GPU]),
    st.booleans(),
    st.floats(1e-4, 5.0),
)
def test_whatever_is_planned_is_without_mistakes(train, width, height, hardware, pretrained, step_s):
    seen = Case(portrait(width, height), train, max(1, train // 4), 17, hardware)
    plan = plan_sweep(seen, lambda plan, keypoints: step_s, lambda model: pretrained)
    fixed = {setting.name: setting.value for setting in plan.fixed}
    baseline = {searched.name: searched.baseline for searched in plan.searched}
    assert check_values("topdown", {**fixed, **baseline}) == []
    for searched in plan.searched:
        values = searched.spec.get("values", [searched.spec.get("min"), searched.spec.get("max")])
        assert searched.baseline in values or values[0] <= searched.baseline <= values[-1]
        for value in values:
            assert check_values("topdown", {**fixed, **baseline, searched.name: value}) == []
    assert plan.min_epochs <= plan.epochs
    assert plan.trials >= 8


def values_of(planned):
    fixed = {setting.name: setting.value for setting in fixed_settings(*planned)}
    return fixed, {searched.name: searched.baseline for searched in searched_settings(*planned)}


def test_fine_tuning_few_images_is_gentle():
    plan = Plan("hrnet_w32", True, (256, 256), 32, 120)
    fixed, baseline = values_of((plan, case(hardware=GPU)))
    assert (baseline["lr0"], baseline["head_lr_mult"], baseline["freeze"]) == (1e-4, 10.0, 2)
    assert (fixed["augment"], fixed["amp"]) == ("aggressive", True)
    _, many = values_of((plan, case(train=20_000, hardware=GPU)))
    assert (many["lr0"], many["freeze"]) == (5e-4, 0)


def test_a_network_that_knows_nothing_is_not_frozen():
    _, baseline = values_of((Plan("hrnet_w32", False, (256, 256), 32, 120), case(hardware=GPU)))
    assert not baseline.keys() & {"freeze", "head_lr_mult", "layer_decay"}


def test_sigma_follows_the_heatmap():
    _, wide = values_of((Plan("hrnet_w32", False, (192, 256), 32, 120), case(hardware=GPU)))
    _, narrow = values_of((Plan("small", False, (128, 128), 16, 60), case()))
    assert (wide["sigma"], narrow["sigma"]) == (2.0, 1.2)  # HRNet's own; 2 x 32 / 55


def test_animals_from_above_turn_freely():
    fixed, _ = values_of((Plan("small", False, (128, 128), 16, 60), case(turned=150.0)))
    assert fixed["augment"] == "top_view"


def test_a_step_is_measured_here():
    for model in ("tiny", "rtmpose_t"):
        assert 1e-4 < step_seconds(Plan(model, False, (64, 64), 2, 10), 4) < 20


def test_this_machine():
    found = this_machine()
    assert found.cpus >= 1
    assert (found.gpus > 0) == (found.gpu_memory_gb > 0)


@pytest.mark.parametrize(
    ("hardware", "words"),
    [
        (Hardware(1), "1 CPU, no GPU"),
        (LARGE_GPU, "16 CPUs, 1 GPU of 80 GB"),
        (Hardware(8, 2, 24), "8 CPUs, 2 GPUs of 24 GB"),
    ],
)
def test_a_machine_in_words(hardware, words):
    assert str(hardware) == words


def test_a_network_without_imagenet_weights():
    assert not can_be_pretrained("small")
