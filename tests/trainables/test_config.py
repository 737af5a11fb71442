"""A config refuses what it does not know and fills in what is left out."""

import pytest

from posesweep.errors import ConfigError
from posesweep.trainables.tasks import check_values, defaults_of, make_config
from posesweep.trainables.tasks.topdown import Config

DATA = {"train": "train.json"}


def mistakes(**settings) -> dict[str, str]:
    return {mistake.key: mistake.text for mistake in check_values("topdown", settings)}


def test_settings_of_the_choices_are_filled_in():
    heatmap, simcc = make_config({"data": DATA}), make_config({"data": DATA, "codec": "simcc"})
    assert (heatmap.sigma, heatmap.udp, heatmap.simcc_split) == (2.0, False, None)
    assert (simcc.sigma, simcc.udp, simcc.simcc_split) == (5.66, None, 2.0)
    assert make_config({"data": DATA, "optimizer": "sgd"}).momentum == 0.9
    assert make_config({"data": DATA, "imgsz": 128}).imgsz == (128, 128)


def test_a_dumped_config_is_the_same_config():
    config = make_config({"data": DATA, "codec": "simcc", "schedule": "multistep", "augment": "none"})
    assert make_config(config.model_dump(mode="json")) == config


@pytest.mark.parametrize(
    ("settings", "key", "sentence"),
    [
        (
            {"codec": "simcc", "udp": True},
            "udp",
            "codec: simcc does not use it; take it out, or add when: {codec: heatmap}",
        ),
        (
            {"momentum": 0.9},
            "momentum",
            "optimizer: adamw does not use it; take it out, or add when: {optimizer: sgd}",
        ),
        (
            {"augment": "none", "aug_strength": 0.3},
            "aug_strength",
            "augment: none does not use it; take it out, or add when: {augment: light}",
        ),
        (
            {"schedule": "multistep", "final_lr": 0.1},
            "final_lr",
            "schedule: multistep does not use it; take it out, or add when: {schedule: cosine}",
        ),
        (
            {"model": "tiny", "imgsz": [112, 80], "freeze": 6},
            "freeze",
            "tiny has 5 layers to freeze (stem, stage1, stage2, stage3, merge), so at most 5",
        ),
        (
            {"model": "tiny", "imgsz": [100, 80]},
            "imgsz",
            "100x80 must be multiples of 16 pixels for tiny; try [96, 80]",
        ),
        ({"model": "hrnet_w23"}, "model", "no network is called 'hrnet_w23'; did you mean 'hrnet_w32'?"),
        ({"layer_dekay": 0.5}, "layer_dekay", "unknown key; did you mean 'layer_decay'?"),
    ],
)
def test_what_does_not_go_together_is_one_sentence(settings, key, sentence):
    assert mistakes(**settings) == {key: sentence}


def test_several_mistakes_at_once():
    found = mistakes(lr0=-1, batch="many", codec="simmc")
    assert found.keys() == {"lr0", "batch", "codec"}
    assert "did you mean 'simcc'?" in found["codec"]
    with pytest.raises(ConfigError, match=r"epochs: 0 must be at least 1.*\nlr0: -1 must be above 0"):
        make_config({"data": DATA, "lr0": -1, "epochs": 0})


def test_names_are_checked_beside_other_mistakes():
    assert mistakes(lr0=-1, model="hrnet_w33").keys() == {"lr0", "model"}


def test_a_batch_is_shared_evenly():
    found = mistakes(batch=10, accumulate=4)
    assert found == {"": "batch: 10 cannot be shared by 1 workers x 4 accumulation steps; try 8"}
    assert make_config({"data": DATA, "batch": 16, "workers": 2, "accumulate": 2}).batch_per_forward == 4


def test_milestones_rise():
    assert "must be rising shares" in mistakes(schedule="multistep", milestones=[0.9, 0.5])["milestones"]


def test_what_a_sweep_may_search():
    known = defaults_of("topdown")
    assert {"lr0", "sigma", "codec", "freeze", "layer_decay", "aug_strength"} <= known.keys()
    assert not {"task", "data", "metric", "workers", "threads"} & known.keys()
    assert known["batch"] == Config.model_fields["batch"].default


def test_an_unknown_task():
    with pytest.raises(ConfigError, match="task: there is no task 'topdwn'; did you mean 'topdown'"):
        make_config({"task": "topdwn", "data": DATA})
