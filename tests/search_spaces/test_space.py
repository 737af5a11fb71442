"""What a sweep file means once it is read."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from posesweep.errors import ConfigError
from posesweep.search_spaces.document import apply_overrides
from posesweep.search_spaces.mistakes import Mistake
from posesweep.search_spaces.space import READY_MADE, Sweep, differences, read_sweep, space_json, space_table

Read = Callable[..., Sweep]

# DESIGN's example
EXAMPLE = """\
name: horse26                       # folder runs/horse26; the same name resumes
task: topdown
data: {train: data/train.json, val: data/val.json, images: data/images, skeleton: horse26, group_by: null}
metric: {name: val/AP, goal: maximize}
fixed: {model: hrnet_w32, epochs: 120, imgsz: [256, 256], batch: 32, amp: true, ema: 0.999}
parameters:
  lr0:          {min: 1e-5, max: 1e-2, log: true}
  head_lr_mult: {min: 1.0, max: 30.0, log: true}
  layer_decay:  {min: 0.5, max: 1.0}
  freeze:       {min: 0, max: 4}                   # both ints: integer, inclusive
  aug_strength: {min: 0.0, max: 1.0}               # 0.5 = the preset as published
  codec:        {values: [heatmap, simcc]}
  sigma:        {min: 1.0, max: 4.0, when: {codec: heatmap}}
baseline: {lr0: 5e-4, codec: heatmap, sigma: 2.0}  # always trial 0
try_first: []
warm_start: null                                   # runs/an_earlier_sweep
search:          {method: tpe, trials: 60, startup_trials: 12, seed: 0}     # tpe | random | grid | cmaes | nsga2
early_terminate: {type: asha, min_epochs: 10, eta: 3}
confirm:         {top_k: 3, seeds: 3, epochs: 240}
budget:          {hours: 24}
resources:       {workers_per_trial: 1, gpus_per_worker: 1, cpus_per_worker: 4, concurrent: auto}
failure:         {max_retries: 2}
keep:            {checkpoints_of_top: 3}
"""

SMALL = """\
name: small
data: {train: a.json}
fixed: {epochs: 30}
parameters:
  lr0: {min: 1e-5, max: 1e-2, log: true}
  codec: {values: [heatmap, simcc]}
  sigma: {min: 1.0, max: 4.0, when: {codec: heatmap}}
  dark: {values: [true, false], when: {codec: heatmap}}
baseline: {codec: heatmap, sigma: 3.0}
try_first: [{codec: simcc}, {lr0: 1e-3, sigma: 2}]
"""


def read_plain(text: str, folder: Path, *overrides: str) -> Sweep:
    """Without a training to ask: every name is a setting."""
    path = folder / "horses.yaml"
    path.write_text(text, encoding="utf-8")
    return read_sweep(path, overrides)


def test_the_example_of_the_design(tmp_path: Path) -> None:
    sweep = read_plain(EXAMPLE, tmp_path)
    kinds = {name: (p.kind, p.low, p.high, p.log) for name, p in sweep.parameters.items() if p.kind != "categorical"}
    assert kinds == {
        "lr0": ("float", 1e-5, 1e-2, True),
        "head_lr_mult": ("float", 1.0, 30.0, True),
        "layer_decay": ("float", 0.5, 1.0, False),
        "freeze": ("int", 0, 4, False),
        "aug_strength": ("float", 0.0, 1.0, False),
        "sigma": ("float", 1.0, 4.0, False),
    }
    assert sweep.parameters["codec"].values == ("heatmap", "simcc")
    assert sweep.parameters["sigma"].when == {"codec": ["heatmap"]}
    assert sweep.fixed["imgsz"] == [256, 256]
    assert (sweep.search.trials, sweep.search.startup_trials, sweep.early_terminate.min_epochs) == (60, 12, 10)
    assert sweep.resources.gpus_per_worker == 1
    assert sweep.resources.concurrent == "auto"
    assert sweep.text == EXAMPLE
    assert sweep.notes == ("confirm.epochs: 240, where the search trains 120; schedules are stretched to it",)


@pytest.mark.parametrize("file", sorted(READY_MADE.glob("*.yaml")), ids=lambda file: file.stem)
def test_the_ready_made_files_are_accepted(file: Path) -> None:
    sweep = read_sweep(file)
    assert sweep.parameters
    assert sweep.notes == ()


def test_without_a_file_the_demo_is_read() -> None:
    assert read_sweep(None).name == "demo"


def test_a_sweep_does_not_change(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="frozen"):
        read_plain(EXAMPLE, tmp_path).name = "other"


@pytest.mark.parametrize("written", ["1e-5", "1E-5", "0.00001", "1.0e-05", "'1e-5'", "10e-6"])
def test_a_small_number_however_it_is_written(written: str, tmp_path: Path) -> None:
    sweep = read_plain(f"data: {{train: a}}\nparameters: {{lr0: {{min: {written}, max: 1e3}}}}\n", tmp_path)
    assert (sweep.parameters["lr0"].low, sweep.parameters["lr0"].high) == (1e-5, 1000.0)


def test_numbers_without_a_point_are_numbers_everywhere(tmp_path: Path) -> None:
    text = (
        "data: {train: a}\nfixed: {lr0: 1e-3, clip: [1E2, x1e2, '1e2', 1:30]}\n"
        "parameters: {a: {values: [1e-4, 5e-4, '1e-4x']}}\n"
    )
    sweep = read_plain(text, tmp_path)
    assert sweep.fixed == {"lr0": 0.001, "clip": [100.0, "x1e2", "1e2", "1:30"]}
    assert sweep.parameters["a"].values == (0.0001, 0.0005, "1e-4x")


def test_text_stays_text_where_text_is_meant(tmp_path: Path) -> None:
    text = (
        "name: 2026-11-20\ndata: {train: 010, split_hash: 12e4, categories: [no, 1e3, horse]}\n"
        "parameters: {a: {values: [1, 2]}}\n"
    )
    sweep = read_plain(text, tmp_path)
    assert (sweep.name, sweep.data.split_hash) == ("2026-11-20", "12e4")
    assert sweep.data.categories == ["no", "1e3", "horse"]
    assert Path(sweep.data.train or "").name == "010"


def test_dotted_keys_are_nested_keys(tmp_path: Path) -> None:
    nested = "data: {train: a, group_by: (x)}\nfixed: {epochs: 3}\nparameters: {lr0: {min: 0.1, max: 1.0}}\n"
    dotted = (
        "data.train: a\ndata: {group_by: (x)}\nfixed.epochs: 3\nparameters.lr0: {min: 0.1}\nparameters.lr0.max: 1.0\n"
    )
    first, second = (read_plain(text, tmp_path) for text in (nested, dotted))
    assert first.model_dump(exclude={"text"}) == second.model_dump(exclude={"text"})
    assert differences(nested, dotted) == []


def test_a_pasted_wandb_block(tmp_path: Path) -> None:
    text = """\
data: {train: a}
parameters:
  a: {distribution: uniform, min: 0, max: 1}
  b: {distribution: int_uniform, min: 1, max: 8}
  c: {distribution: log_uniform_values, min: 1e-5, max: 1e-1}
  d: {distribution: q_uniform, min: 0.0, max: 1.0, q: 0.25}
  e: {distribution: q_uniform, min: 2, max: 8}
  f: {distribution: categorical, values: [x, y]}
  g: {distribution: constant, value: 3}
"""
    found = {name: (p.kind, p.log, p.step) for name, p in read_plain(text, tmp_path).parameters.items()}
    assert found == {
        "a": ("float", False, None),
        "b": ("int", False, None),
        "c": ("float", True, None),
        "d": ("float", False, 0.25),
        "e": ("int", False, 1),
        "f": ("categorical", False, None),
        "g": ("constant", False, None),
    }


def test_the_file_names_the_sweep_where_it_has_no_name(tmp_path: Path) -> None:
    assert read_plain("data: {train: a}\nparameters: {a: {values: [1, 2]}}\n", tmp_path).name == "horses"
    path = tmp_path / "my horses.yaml"
    path.write_text("data: {train: a}\nparameters: {a: {values: [1, 2]}}\n")
    with pytest.raises(ConfigError, match=r"'my horses', from the file's name, cannot be .* write name: my-horses"):
        read_sweep(path)


@pytest.mark.parametrize("name", ["..", ".hidden", "a/b", "a b", "a.", "x" * 101, "'nul\\0'", "''", "-a"])
def test_names_that_are_no_folder(name: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be the name of the sweep's folder"):
        read_plain(f"name: {name}\ndata: {{train: a}}\nparameters: {{a: {{values: [1, 2]}}}}\n", tmp_path)


def test_paths_are_of_the_current_directory_else_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = tmp_path / "here"
    here.mkdir()
    (here / "a.json").touch()
    monkeypatch.chdir(here)
    text = "data: {train: a.json, val: b.json, images: /images, skeleton: horse26}\nparameters: {a: {values: [1, 2]}}\n"
    data = read_plain(text, tmp_path).data
    assert data.train == str(here / "a.json")
    assert data.val == str(tmp_path / "b.json")
    assert (data.images, data.skeleton) == ("/images", "horse26")
    assert read_plain(text, tmp_path, "data.skeleton=own.yaml").data.skeleton == str(tmp_path / "own.yaml")


class TestFiles:
    def test_a_missing_file_names_the_nearest(self, tmp_path: Path) -> None:
        (tmp_path / "horses.yaml").touch()
        with pytest.raises(ConfigError, match=r"no sweep file .*horse.yaml; did you mean .*horses.yaml\?"):
            read_sweep(tmp_path / "horse.yaml")
        with pytest.raises(ConfigError, match=r"did you mean .*demo.yaml\?"):
            read_sweep(Path("dmo.yaml"))

    def test_a_folder_and_a_picture_are_no_sweep_files(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="is a folder"):
            read_sweep(tmp_path)
        (tmp_path / "a.yaml").write_bytes(b"\xff\xd8\xff\xe0")
        with pytest.raises(ConfigError, match="is not text in UTF-8"):
            read_sweep(tmp_path / "a.yaml")

    def test_the_error_is_headed_by_the_file_and_the_count(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError) as caught:
            read_plain("parameters: {a: {values: []}}\n", tmp_path)
        head, *lines = str(caught.value).splitlines()
        assert head == f"{tmp_path / 'horses.yaml'}: 2 mistakes"
        assert lines[0] == "  a (line 1): values is empty; give at least one"


class TestFirstTrials:
    def test_what_the_baseline_leaves_out(self, read: Read) -> None:
        text = """\
data: {train: a.json}
parameters:
  lr0: {min: 1e-5, max: 1e-2, log: true}         # its default lies inside
  weight_decay: {min: 1e-4, max: 1e-2, log: true}  # its default, 0, does not: the geometric middle
  layer_decay: {min: 0.5, max: 0.9, step: 0.2}
  freeze: {min: 1, max: 4}
  augment: {values: [light, aggressive]}
  codec: {values: [simcc, heatmap]}
  sigma: {min: 1.0, max: 4.0, when: {codec: heatmap}}
  batch: {value: 16}
"""
        assert read(text).baseline == {
            "lr0": 5e-4,
            "weight_decay": pytest.approx(1e-3),
            "layer_decay": 0.7,
            "freeze": 2,
            "augment": "light",
            "codec": "heatmap",
            "sigma": 2.5,
            "batch": 16,
        }

    def test_try_first_is_the_baseline_with_values_changed(self, read: Read) -> None:
        sweep = read(SMALL)
        assert sweep.baseline == {"lr0": 5e-4, "codec": "heatmap", "sigma": 3.0, "dark": True}
        assert sweep.try_first == (
            {"lr0": 5e-4, "codec": "simcc"},
            {"lr0": 1e-3, "codec": "heatmap", "sigma": 2.0, "dark": True},
        )

    def test_values_are_as_the_parameter_proposes_them(self, read: Read) -> None:
        text = "data: {train: a}\nparameters: {freeze: {min: 0, max: 4}, warmup: {min: 0.5, max: 3.0}}\n"
        baseline = read(text + "baseline: {freeze: 2.0, warmup: 1}\n").baseline
        assert [type(value) for value in baseline.values()] == [int, float]

    def test_the_same_choice_is_tried_once(self, read: Read) -> None:
        sweep = read(SMALL, "try_first=[{sigma: 3}, {lr0: 1e-3}, {lr0: 0.001}]")
        assert len(sweep.try_first) == 1
        assert sweep.notes == (
            "try_first.0: the same as the baseline, left out",
            "try_first.2: the same as try_first.1, left out",
        )


class TestOverrides:
    def test_values_blocks_and_ranges(self, read: Read) -> None:
        sweep = read(SMALL, "search.trials=20", "data.train=x.json", "parameters.lr0.max=1e-3", "batch=8", "name=other")
        assert (sweep.search.trials, sweep.name, sweep.fixed["batch"]) == (20, "other", 8)
        assert sweep.data.train is not None
        assert sweep.data.train.endswith("x.json")
        assert sweep.parameters["lr0"].high == 1e-3
        assert sweep.notes == ()

    def test_the_last_of_two_wins(self, read: Read) -> None:
        assert read(SMALL, "search.trials=20", "search.trials=30").search.trials == 30

    def test_null_gives_the_default_back(self, read: Read) -> None:
        text = SMALL + "search: {trials: 9}\n"
        assert read(text, "search=").search.trials == 60
        assert read(text, "search=null").search.trials == 60

    def test_a_fixed_parameter_is_searched_no_longer(self, read: Read) -> None:
        sweep = read(SMALL, "lr0=1e-3")
        assert "lr0" not in sweep.parameters
        assert sweep.fixed["lr0"] == 1e-3
        assert all("lr0" not in choice for choice in (sweep.baseline, *sweep.try_first))
        assert sweep.notes[0] == "lr0: 0.001 from the command line, not searched"

    def test_a_conditional_one_keeps_its_condition_and_its_place(self, read: Read) -> None:
        sweep = read(SMALL, "sigma=1.5")
        assert list(sweep.parameters) == ["lr0", "codec", "sigma", "dark"]
        sigma = sweep.parameters["sigma"]
        assert (sigma.kind, sigma.values, sigma.when) == ("constant", (1.5,), {"codec": ["heatmap"]})
        assert sweep.baseline["sigma"] == 1.5
        assert "sigma" not in sweep.try_first[0]

    def test_what_is_then_never_used_goes_too(self, read: Read) -> None:
        sweep = read(SMALL, "codec=simcc")
        assert list(sweep.parameters) == ["lr0"]
        assert sweep.baseline == {"lr0": 5e-4}
        assert sweep.notes == (
            "codec: 'simcc' from the command line, not searched",
            "sigma: not searched, because codec is 'simcc'",
            "dark: not searched, because codec is 'simcc'",
            "try_first.0: the same as the baseline, left out",
        )

    def test_what_hangs_on_that_goes_with_it(self, read: Read) -> None:
        chain = "parameters.warmup={min: 0.5, max: 3.0, when: {dark: true}}"
        sweep = read(SMALL, chain, "codec=simcc")
        assert list(sweep.parameters) == ["lr0"]
        assert "warmup: not searched, like dark" in sweep.notes

    @pytest.mark.parametrize("empty", ["fixed:", "fixed: {}", "baseline:", "try_first:", "search:"])
    def test_into_empty_blocks(self, empty: str, read: Read) -> None:
        text = f"data: {{train: a}}\nparameters: {{codec: {{values: [heatmap, simcc]}}}}\n{empty}\n"
        sweep = read(text, "lr0=1e-3", "search.trials=3", "baseline.codec=simcc")
        assert (sweep.fixed, sweep.search.trials, sweep.baseline) == ({"lr0": 1e-3}, 3, {"codec": "simcc"})

    def test_what_stays_in_use_stays(self, read: Read) -> None:
        assert list(read(SMALL, "codec=heatmap").parameters) == ["lr0", "sigma", "dark"]

    def test_a_fixed_setting_can_be_searched(self, read: Read) -> None:
        sweep = read(SMALL, "parameters.epochs={values: [10, 20]}")
        assert "epochs" not in sweep.fixed
        assert sweep.notes == ("epochs: searched, from the command line, and no longer fixed",)

    @pytest.mark.parametrize("override", ["lr0=1e-3", "sigma=1.5", "codec=simcc", "name=2026", "data.split_hash=12e4"])
    def test_the_text_reads_back_as_the_same_sweep(self, override: str, read: Read) -> None:
        sweep = read(SMALL, override)
        again = read(sweep.text)
        assert again.model_dump(exclude={"text", "notes"}) == sweep.model_dump(exclude={"text", "notes"})
        assert differences(sweep.text, again.text) == []

    def test_the_text_keeps_the_writing(self, read: Read) -> None:
        text = read(SMALL, "search.trials=20").text
        assert "  lr0: {min: 1e-5, max: 1e-2, log: true}\n" in text
        assert text.endswith("search:\n  trials: 20\n")

    def test_of_plain_values(self) -> None:
        values = {"lr0": 0.1, "data": {"train": "a", "val": "b"}}
        changed = apply_overrides(values, ["lr0=1e-3", "data.train=x", "imgsz=[256, 192]"])
        assert changed == {"lr0": 1e-3, "data": {"train": "x", "val": "b"}, "imgsz": [256, 192]}
        assert values == {"lr0": 0.1, "data": {"train": "a", "val": "b"}}
        with pytest.raises(ConfigError) as caught:
            apply_overrides(values, ["lr0", "imgsz=[1"])
        assert caught.value.mistakes == [
            "lr0 (from the command line): must be key=value, such as search.trials=20",
            "imgsz (from the command line): not YAML: a list whose ']' or ',' is missing",
        ]


@pytest.mark.parametrize(
    ("overrides", "note"),
    [
        (["search={method: random, startup_trials: 3}"], "search.startup_trials: not used by random"),
        (
            ["search={trials: 4}"],
            "search: all 4 trials are drawn at random, because tpe begins to choose after startup_trials: 10",
        ),
        (["search={trials: 2, startup_trials: 1}"], "search.trials: 2, so the last 1 of try_first are not tried"),
        (["early_terminate={type: none, eta: 3}"], "early_terminate.eta: not used by type none"),
        (["early_terminate={type: median, min_epochs: 3, eta: 2}"], "early_terminate.eta: not used by type median"),
        (
            ["parameters.warmup={min: 0, max: 3}"],
            "warmup: only whole numbers from 0 to 3; write min: 0.0 to search between them",
        ),
        (["parameters.warmup={min: 0.5, max: 3, points: 4}"], "warmup: points is used by method grid only"),
        (
            ["fixed.augment=none", "parameters.aug_strength={min: 0.1, max: 1.0, when: {augment: [light, medium]}}"],
            "aug_strength: never used, because augment is 'none'",
        ),
    ],
)
def test_what_is_said_but_no_mistake(overrides: list[str], note: str, read: Read) -> None:
    assert note in read(SMALL, *overrides).notes


def test_the_check_is_asked_about_complete_sets(tmp_path: Path) -> None:
    asked = []

    def check(task: str, values: dict) -> list[Mistake]:
        asked.append((task, values))
        return []

    path = tmp_path / "a.yaml"
    path.write_text(SMALL)
    read_sweep(path, [], check)
    assert {task for task, _ in asked} == {"topdown"}
    assert all(values["epochs"] == 30 and "lr0" in values for _, values in asked)
    assert all(("sigma" in values) == (values["codec"] == "heatmap") for _, values in asked)
    corners = {(v["codec"], v["lr0"], v.get("sigma"), v.get("dark")) for _, v in asked}
    every = {("heatmap", lr0, sigma, dark) for lr0 in (1e-5, 1e-2) for sigma in (1.0, 4.0) for dark in (True, False)}
    assert every | {("simcc", 1e-5, None, None), ("simcc", 1e-2, None, None)} <= corners
    assert asked[-1][1]["sigma"] == 2.0  # of try_first


def test_a_mistake_of_a_first_trial_stands_with_it(tmp_path: Path) -> None:
    def check(task: str, values: dict) -> list[Mistake]:
        return [Mistake("lr0", "0.003 is unlucky")] if values["lr0"] == 0.003 else []

    path = tmp_path / "a.yaml"
    path.write_text(SMALL)
    with pytest.raises(ConfigError) as caught:
        read_sweep(path, ["baseline.lr0=3e-3"], check)
    assert caught.value.mistakes == ["baseline.lr0 (from the command line): 0.003 is unlucky"]


def test_differences_are_of_values_only() -> None:
    old = "name: a\nsearch: {trials: 60, seed: 0}\nfixed: {lr0: 1e-3, amp: 1}  # a comment\n"
    new = "fixed: {amp: true, lr0: 0.001, imgsz: [128, 128]}\nsearch.trials: 80\nname: a\n"
    assert differences(old, new) == [
        "fixed.amp: 1 -> true",
        "fixed.imgsz: (not given) -> [128, 128]",
        "search.trials: 60 -> 80",
        "search.seed: 0 -> (not given)",
    ]
    assert differences(old, old + "# more\n") == []


def test_the_table_and_the_json(read: Read) -> None:
    sweep = read(SMALL)
    console = Console(width=100, record=True, file=None, quiet=False)
    with console.capture() as shown:
        console.print(space_table(sweep))
    rows = [line.split("│")[1:-1] for line in shown.get().splitlines() if line.startswith("│")]
    assert [[cell.strip() for cell in row] for row in rows] == [
        ["lr0", "float", "1e-05 to 0.01, log", "", "0.0005"],
        ["codec", "categorical", "heatmap, simcc", "", "heatmap"],
        ["sigma", "float", "1.0 to 4.0", "codec: heatmap", "3.0"],
        ["dark", "categorical", "true, false", "codec: heatmap", "true"],
    ]
    space = json.loads(json.dumps(space_json(sweep), allow_nan=False))
    assert space["parameters"]["sigma"] == {
        "kind": "float",
        "low": 1.0,
        "high": 4.0,
        "log": False,
        "step": None,
        "points": None,
        "values": [],
        "when": {"codec": ["heatmap"]},
    }
    assert space["baseline"]["sigma"] == 3.0
    assert space["search"]["trials"] == 60
    assert "text" not in space
