"""Settings that replace single ranges of an augmentation preset: searchable, refused where they do nothing."""

from dataclasses import fields, replace

import pytest

from posesweep.datasets.augment import Augmentation, preset
from posesweep.datasets.skeleton import load_skeleton
from posesweep.errors import ConfigError
from posesweep.trainables.augment_settings import OWN_RANGES, own_ranges
from posesweep.trainables.tasks import check_values, defaults_of, make_config
from posesweep.trainables.tasks.topdown import augmentations, check_halves

DATA = {"train": "train.json"}


def mistakes(**settings) -> dict[str, str]:
    return {mistake.key: mistake.text for mistake in check_values("topdown", settings)}


def test_every_field_of_an_augmentation_is_a_setting_that_a_sweep_may_search():
    assert set(OWN_RANGES) == {f"aug_{field.name}" for field in fields(Augmentation)}
    assert set(OWN_RANGES) <= defaults_of("topdown").keys()


def test_what_is_given_is_what_happens():
    config = make_config(
        {"data": DATA, "augment": "medium", "aug_strength": 0.3, "aug_rotation_deg": 15, "aug_flip": 0.0}
    )
    assert own_ranges(config) == {"rotation_deg": 15, "flip": 0}
    assert augmentations(config) == [replace(preset("medium", 0.3), rotation_deg=15, flip=0.0)]
    ending = make_config({"data": DATA, "final_augment": "light", "aug_rotation_deg": 15})
    assert augmentations(ending)[1] == preset("light")


def test_a_dumped_config_is_the_same_config():
    config = make_config({"data": DATA, "augment": "top_view", "aug_noise": 0.5})
    assert make_config(config.model_dump(mode="json")) == config


@pytest.mark.parametrize(
    ("settings", "key", "sentence"),
    [
        ({"aug_rotation": 30}, "aug_rotation", "unknown key; did you mean 'aug_rotation_deg'?"),
        (
            {"augment": "none", "aug_flip": 0.5},
            "aug_flip",
            "augment: none does not use it; take it out, or add when: {augment: light}",
        ),
        (
            {"aug_flip": 1.5},
            "aug_flip",
            "1.5 must be at most 1 (probability of mirroring)",
        ),
        (
            {"augment": "light", "aug_elastic_share": 0.01},
            "aug_elastic_share",
            "it never happens in the preset light; give its probability, aug_elastic, too",
        ),
        (
            {"augment": "medium", "aug_scale_min": 1.4},
            "aug_scale_min",
            "1.4 must not be above aug_scale_max, which is 1.3; give both",
        ),
        (
            {"augment": "topview"},
            "augment",
            "'topview' must be 'none', 'light', 'medium', 'aggressive' or 'top_view'; did you mean 'top_view'?",
        ),
    ],
)
def test_mistakes_are_one_sentence(settings, key, sentence):
    assert mistakes(**settings) == {key: sentence}


def test_halves_of_a_body_that_has_none_are_refused_where_asked_for():
    asked = make_config({"data": DATA, "aug_half_body": 0.3})
    check_halves(asked, load_skeleton("coco17"))
    with pytest.raises(ConfigError, match=r"aug_half_body: skeleton 'mouse4' names no upper_body; .* or take it out"):
        check_halves(asked, load_skeleton("mouse4"))
    check_halves(make_config({"data": DATA, "augment": "medium"}), load_skeleton("mouse4"))
    check_halves(make_config({"data": DATA, "aug_half_body": 0.0}), load_skeleton("mouse4"))
