"""A config refuses what it does not know and fills in what is left out."""

import pytest

from posesweep.errors import ConfigError
from posesweep.trainables.config import notes_on
from posesweep.trainables.tasks import check_values, defaults_of, make_config
from posesweep.trainables.tasks.topdown import Config
from posesweep.trainables.winner import read_config

DATA = {"train": "train.json"}


def mistakes(**settings) -> dict[str, str]:
    return {mistake.key: mistake.text for mistake in check_values("topdown", settings)}


def test_a_config_without_data_is_told_in_words():
    with pytest.raises(ConfigError, match="data: "):
        make_config({"model": "tiny"})


def test_settings_of_the_choices_are_filled_in():
    heatmap, simcc = make_config({"data": DATA}), make_config({"data": DATA, "codec": "simcc"})
    assert (heatmap.sigma, heatmap.udp, heatmap.simcc_split) == (2.0, False, None)
    assert (simcc.sigma, simcc.udp, simcc.simcc_split) == (5.66, None, 2.0)
    assert make_config({"data": DATA, "optimizer": "sgd"}).momentum == 0.9
    assert make_config({"data": DATA, "imgsz": 128}).imgsz == (128, 128)


def test_the_lr_grows_with_the_batch_where_that_is_asked_for():
    def rate(**settings):
        return make_config({"data": DATA, "model": "tiny", "lr0": 1e-3, **settings}).lr

    assert rate(batch=128) == 1e-3
    assert rate(batch=128, lr_scaling="linear") == 4e-3  # lr_batch: 32
    assert rate(batch=128, lr_scaling="sqrt") == 2e-3
    assert rate(batch=128, lr_scaling="linear", lr_batch=512) == 0.25e-3
    assert rate(batch=128, workers=4, lr_scaling="sqrt") == 2e-3  # the batch is that of all workers


@pytest.mark.parametrize(
    "settings",
    [
        {"codec": "simcc", "schedule": "multistep", "augment": "none"},
        {"schedule": "one_cycle", "optimizer": "sgd"},
        {"warmup_steps": 500, "warmup_start": 0.001, "schedule": "flat_cosine"},
        {"optimizer": "adan", "patience": 10, "lr_mult": {"stage1": 0.0}, "keep_best": 3},
        {"final_augment": "light", "final_epochs": 10, "epochs": 40},
    ],
)
def test_a_dumped_config_is_the_same_config(settings):
    config = make_config({"data": DATA, "model": "tiny", **settings})
    assert make_config(config.model_dump(mode="json")) == config


def test_the_settings_of_schedules_and_optimizers_are_those_of_their_sources():
    def filled(**settings):
        return make_config({"data": DATA, "model": "tiny", **settings})

    rtmpose = filled(schedule="flat_cosine")
    assert (rtmpose.flat, rtmpose.final_lr, rtmpose.warmup, rtmpose.cycle_epochs) == (0.5, 0.05, 1.0, None)
    cycle = filled(schedule="one_cycle")
    assert (cycle.pct_start, cycle.div_factor, cycle.final_div) == (0.3, 25.0, 1e4)
    assert (cycle.warmup, cycle.warmup_steps, cycle.final_lr) == (None, None, None)
    restarts = filled(schedule="cosine_restarts")
    assert (restarts.cycle_epochs, restarts.cycle_mult, restarts.warmup) == (10.0, 2.0, 1.0)
    assert (filled(warmup_steps=500).warmup, filled(warmup_steps=500).warmup_steps) == (None, 500)
    betas = {name: filled(optimizer=name).betas for name in ("adamw", "lion", "adan", "sgd")}
    assert betas == {"adamw": (0.9, 0.999), "lion": (0.9, 0.99), "adan": (0.98, 0.92, 0.99), "sgd": None}
    assert (filled(optimizer="lamb").eps, filled(optimizer="lion").eps) == (1e-6, None)
    patient = filled(patience=5)
    assert (patient.patience_smooth, patient.min_delta, filled().patience_smooth) == (3, 0.0, None)
    final = filled(final_augment="light", epochs=60)
    assert (final.final_epochs, final.final_aug_strength, filled().final_epochs) == (30, 0.5, None)
    assert filled(final_augment="none", epochs=60).final_aug_strength is None


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
            {"optimizer": "sgd", "betas": [0.9, 0.99]},
            "betas",
            "optimizer: sgd does not use it; take it out, or add when: {optimizer: adamw}",
        ),
        (
            {"optimizer": "lion", "eps": 1e-6},
            "eps",
            "optimizer: lion does not use it; take it out, or add when: {optimizer: adamw}",
        ),
        (
            {"optimizer": "adan", "betas": [0.9, 0.99]},
            "",
            "betas: 2 numbers, but adan has 3; try [0.98, 0.92, 0.99]",
        ),
        (
            {"optimizer": "adamp"},
            "optimizer",
            "'adamp' must be 'adamw', 'adam', 'sgd', 'nadamw', 'lion', 'lamb' or 'adan'; did you mean 'adam'?",
        ),
        (
            {"schedule": "one_cycle", "warmup": 5},
            "warmup",
            "schedule: one_cycle does not use it; take it out, or add when: {schedule: cosine}",
        ),
        (
            {"schedule": "one_cycle", "warmup_steps": 500},
            "warmup_steps",
            "schedule: one_cycle does not use it; take it out, or add when: {schedule: cosine}",
        ),
        (
            {"flat": 0.5},
            "flat",
            "schedule: cosine does not use it; take it out, or add when: {schedule: flat_cosine}",
        ),
        (
            {"schedule": "constant", "cycle_epochs": 5},
            "cycle_epochs",
            "schedule: constant does not use it; take it out, or add when: {schedule: cosine_restarts}",
        ),
        (
            {"pct_start": 0.2},
            "pct_start",
            "schedule: cosine does not use it; take it out, or add when: {schedule: one_cycle}",
        ),
        (
            {"warmup": 2, "warmup_steps": 500},
            "",
            "warmup: 2 (epochs) and warmup_steps: 500 both say how long the warm-up is; take one out",
        ),
        (
            {"lr_batch": 64},
            "lr_batch",
            "lr_scaling: none does not use it; take it out, or add when: {lr_scaling: linear}",
        ),
        (
            {"min_delta": 0.01},
            "min_delta",
            "is used together with patience only; take it out, or set patience",
        ),
        (
            {"final_epochs": 10},
            "final_epochs",
            "final_augment: same does not use it; take it out, or add when: {final_augment: none}",
        ),
        (
            {"final_augment": "none", "final_aug_strength": 0.3, "final_epochs": 10},
            "final_aug_strength",
            "final_augment: none does not use it; take it out, or add when: {final_augment: light}",
        ),
        (
            {"final_augment": "light", "epochs": 21},
            "final_epochs",
            "30 must be fewer than the epochs: 21; try 3, or take final_augment out",
        ),
        (
            {"model": "tiny", "lr_mult": {"stage4": 0.1}},
            "lr_mult",
            "the network has no layer 'stage4'; did you mean 'stage3'?",
        ),
        (
            {"model": "tiny", "lr_mult": {"head": 0.0}, "freeze": 5},
            "lr_mult",
            "every layer is frozen, so nothing would be trained; give one a factor above 0",
        ),
        (
            {"lr_mult": {"stage1": -0.1}},
            "lr_mult",
            "-0.1 must be at least 0 (layer name -> factor on its lr; 0.0 leaves it as it is)",
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


def test_compiling_on_a_cpu_is_a_note():
    usual, compiled = (make_config({"data": DATA, "model": "tiny", "compile": c}) for c in (False, True))
    assert notes_on([usual, compiled], on_gpu=True) == notes_on([usual], on_gpu=False) == []
    (note,) = notes_on([usual, compiled], on_gpu=False)
    assert note.startswith("compile: true takes 30 to 230 s at the start of a trial on a CPU")


def test_what_a_sweep_may_search():
    known = defaults_of("topdown")
    assert {
        "lr0",
        "sigma",
        "codec",
        "freeze",
        "layer_decay",
        "aug_strength",
        "warmup_steps",
        "patience",
    } <= known.keys()
    assert not {"task", "data", "metric", "workers", "threads"} & known.keys()
    assert known["batch"] == Config.model_fields["batch"].default


def test_an_unknown_task():
    with pytest.raises(ConfigError, match="task: there is no task 'topdwn'; did you mean 'topdown'"):
        make_config({"task": "topdwn", "data": DATA})


@pytest.mark.parametrize("option", ["optimizer", "schedule", "model", "codec", "augment", "final_augment"])
def test_a_list_in_the_place_of_an_option_is_told(option):
    found = check_values("topdown", {option: ["one", "two"]})
    assert [mistake.key for mistake in found][:1] == [option]


def test_compiled_and_recomputed_do_not_go_together():
    found = check_values("topdown", {"compile": True, "grad_checkpoint": True})
    assert [mistake.text for mistake in found] == [
        "compile: true and grad_checkpoint: true do not work together in torch; take one out"
    ]


@pytest.mark.parametrize("content", [b"data: {train: a.json\nlr0: [", b"data: {train: \xff.json}"])
def test_a_config_that_is_no_yaml_is_a_sentence(tmp_path, content):
    file = tmp_path / "best.yaml"
    file.write_bytes(content)
    with pytest.raises(ConfigError, match=r"best\.yaml: is no YAML \(") as said:
        read_config(file)
    assert "\n" not in str(said.value)
