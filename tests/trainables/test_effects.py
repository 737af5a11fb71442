"""Proof that a searched parameter does something: settings that do, and one that does not."""

import numpy as np
import pytest

from posesweep.search_spaces.space import Sweep, read_sweep
from posesweep.trainables.effects import Effect, differing, effects, fingerprint, noise_of, two_choices
from posesweep.trainables.tasks import check_values, defaults_of, make_config

TEXT = """
name: s
data: {synthetic: {train: 16, val: 8, seed: 1, width: 96, height: 80}}
fixed: {model: tiny, imgsz: [64, 64], batch: 8, epochs: 3}
parameters:
  augment: {values: [none, medium]}
  codec: {values: [heatmap, simcc]}
  sigma: {min: 1.0, max: 3.0, when: {codec: heatmap}}
  dark: {values: [false, true], when: {codec: heatmap}}
  blur_kernel: {values: [9, 11], when: {dark: true}}
baseline: {codec: simcc, augment: none}
"""


def sweep_of(folder, text: str = TEXT) -> Sweep:
    (folder / "s.yaml").write_text(text)
    return read_sweep(folder / "s.yaml", (), check_values, defaults_of)


def base_of(sweep: Sweep) -> dict:
    return {"task": sweep.task, "data": sweep.data.model_dump(), **sweep.fixed}


def test_two_choices_differ_in_one_parameter_and_what_hangs_on_it(tmp_path):
    sweep = sweep_of(tmp_path)
    pairs = {name: two_choices(sweep, name, parameter) for name, parameter in sweep.parameters.items()}
    assert pairs["augment"] == ({"augment": "none", "codec": "simcc"}, {"augment": "medium", "codec": "simcc"})
    low, high = pairs["blur_kernel"]  # two conditions deep, and not used by the baseline
    assert (low["codec"], low["dark"], low["blur_kernel"], high["blur_kernel"]) == ("heatmap", True, 9, 11)
    assert {name for name in low if low[name] != high[name]} == {"blur_kernel"}
    low, high = pairs["codec"]
    assert ("sigma" in low, "sigma" in high) == (True, False)


def test_a_parameter_with_one_value_is_not_asked(tmp_path):
    sweep = sweep_of(tmp_path, TEXT.replace("{values: [none, medium]}", "{value: none}"))
    assert two_choices(sweep, "augment", sweep.parameters["augment"]) is None


def test_noise_is_no_effect():
    low, noise = {"a": np.array([1.0, 2.0])}, {"a": np.array([0.01, 0.0])}
    assert differing(low, {"a": np.array([1.0, 2.09])}, noise) == ()
    assert differing(low, {"a": np.array([1.0, 2.11])}, noise) == ("a",)
    assert differing(low, {"a": np.array([1.0, np.nan])}, noise) == ("a",)
    assert differing(low, {"a": np.array([1.0])}, noise) == ("a",)
    assert differing(low, {"a": np.array([1.0, 2.0])}, {"a": np.array([])}) == ()


def test_words():
    done = Effect("lr0", 0.0001, 0.01, ("the training steps",))
    assert done.sentence == "lr0: 0.0001 -> 0.01 changes the training steps"
    assert Effect("keep_best", 1, 3, ()).sentence.startswith("keep_best: 1 -> 3 changes nothing: the batches, the")


# a setting, two values, and a part of a training that must show it
SETTINGS = {
    "lr0": (1e-4, 1e-2, "the training steps"),
    "weight_decay": (0.0, 0.1, "the training steps"),
    "betas": ((0.9, 0.999), (0.8, 0.999), "the training steps"),
    "clip": (0.01, None, "the training steps"),
    "ema": (0.5, 0.9, "the training steps"),
    "freeze": (0, 2, "the learning rates"),
    "layer_decay": (0.5, 1.0, "the learning rates"),
    "schedule": ("cosine", "constant", "the learning rates"),
    "warmup": (0.0, 2.0, "the learning rates"),
    "batch": (8, 16, "its length"),
    "epochs": (20, 30, "its length"),
    "val_every": (1, 2, "its length"),
    "patience": (2, 5, "its length"),
    "min_delta": (0.0, 0.05, "its length"),
    "seed": (0, 1, "the network"),
    "model": ("tiny", "small", "the network"),
    "aug_strength": (0.1, 0.6, "the batches"),
    "aug_noise": (0.0, 0.3, "the batches"),
    "final_epochs": (2, 5, "the batches"),
    "hidden_weight": (0.2, 1.0, "the loss"),
    "flip_test": (False, True, "the predictions"),
    "dark": (False, True, "the predictions"),
}
NO_EFFECT = {"keep_best": (1, 3), "sync_bn": (False, True), "cache_gb": (5.0, 50.0)}
TOGETHER = {"min_delta": {"patience": 3}, "final_epochs": {"final_augment": "none"}, "ema": {}}


@pytest.fixture(scope="module")
def usual(tmp_path_factory) -> dict:
    sweep = sweep_of(tmp_path_factory.mktemp("usual"), TEXT.replace("baseline: {codec: simcc, augment: none}", ""))
    return {**base_of(sweep), "epochs": 20, "augment": "medium"}


QUICK = ("lr0", "ema", "freeze", "schedule", "batch", "patience", "aug_noise", "final_epochs", "flip_test")
ALL = [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in SETTINGS]


@pytest.mark.parametrize("name", ALL)
def test_a_setting_shows(usual, name):
    low, high, part = SETTINGS[name]
    both = [fingerprint(make_config({**usual, **TOGETHER.get(name, {}), name: value})) for value in (low, high)]
    assert part in differing(*both, {key: np.zeros(1) for key in both[0]})


@pytest.mark.parametrize("name", NO_EFFECT)
def test_a_setting_that_changes_nothing_shows_nothing(usual, name):
    low, high = (fingerprint(make_config({**usual, name: value})) for value in NO_EFFECT[name])
    assert differing(low, high, {key: np.zeros(1) for key in low}) == ()


def test_a_cpu_has_no_noise(usual):
    assert all((noise == 0).all() for noise in noise_of(make_config(usual)).values())


def test_every_parameter_of_a_conditional_space_is_proved(tmp_path):
    sweep = sweep_of(tmp_path)
    found = effects(sweep, base_of(sweep))
    assert [effect.parameter for effect in found] == list(sweep.parameters)
    assert all(effect.parts for effect in found)
