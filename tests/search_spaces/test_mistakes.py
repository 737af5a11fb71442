"""Every mistake a sweep file can hold, and the very words its writer reads: all of a file at once, in its order."""

from collections.abc import Callable

import pytest

A_DATA = "data: {train: a.json}\n"
A_FILE = A_DATA + "parameters: {lr0: {min: 1e-5, max: 1e-2, log: true}}\n"

# name -> file, settings of the command line, what is read
CASES: dict[str, tuple[str, tuple[str, ...], list[str]]] = {
    "data_missing": (
        """\
parameters: {lr0: {min: 1e-5, max: 1e-2}}
""",
        (),
        [
            "data: is missing; give data: {train: .., images: .., skeleton: ..}",
        ],
    ),
    "data_block": (
        """\
data: {trian: a.json, val_fraction: 2, box_margin: -0.1, split_seed: 1.5}
parameters: {lr0: {min: 1e-5, max: 1e-2}}
""",
        (),
        [
            "data.val_fraction (line 1): 2 must be below 1; the default is 0.2",
            "data.split_seed (line 1): 1.5 must be a whole number; the default is 0",
            (
                "data.box_margin (line 1): -0.1 must be at least 0 (a share added around the keypoints where a "
                "format has no boxes); the default is 0.25"
            ),
            "data.trian (line 1): unknown key; did you mean 'train'?",
        ],
    ),
    "data_sources": (
        """\
data:
  train: a.json
  synthetic: {train: 10, val: 5, width: 320, height: 240}
parameters: {lr0: {min: 1e-5, max: 1e-2}}
""",
        (),
        [
            "data (line 1): has train and synthetic; keep one of them",
        ],
    ),
    "val_images_without_val": (
        """\
data: {train: a.json, val_images: b}
parameters: {lr0: {min: 1e-5, max: 1e-2}}
""",
        (),
        [
            "data (line 1): has val_images without val, whose images they are; give val, or take it out",
        ],
    ),
    "data_no_source": (
        """\
data: {images: images, skeleton: horse26}
parameters: {lr0: {min: 1e-5, max: 1e-2}}
""",
        (),
        [
            "data (line 1): needs train: the annotations (COCO, YOLO-pose, DeepLabCut, CSV, LabelMe, CVAT or SLEAP)",
        ],
    ),
    "synthetic": (
        """\
data: {synthetic: {train: 0, width: 320, heigth: 240}}
parameters: {lr0: {min: 1e-5, max: 1e-2}}
""",
        (),
        [
            "data.synthetic.train (line 1): 0 must be at least 1 (how many images to train on)",
            "data.synthetic.val (line 1): is missing (how many images to validate on)",
            "data.synthetic.height (line 1): is missing (of the image, in pixels)",
            "data.synthetic.heigth (line 1): unknown key; did you mean 'height'?",
        ],
    ),
    "group_by": (
        """\
data: {train: a.json, group_by: 'img[0-9]+'}
parameters: {lr0: {min: 1e-5, max: 1e-2}}
""",
        (),
        [
            "data.group_by (line 1): 'img[0-9]+' has 0 groups in (..); mark the one part that names the group",
        ],
    ),
    "split_of_two_files": (
        """\
data: {train: a.json, val: b.json, split: auto}
parameters: {lr0: {min: 1e-5, max: 1e-2}}
""",
        (),
        ["data (line 1): has split, and val that is not split; keep one of them"],
    ),
    "folds_of_synthetic_images": (
        """\
data: {synthetic: {train: 9, val: 9, width: 320, height: 240}, folds: 3}
parameters: {lr0: {min: 1e-5, max: 1e-2}}
""",
        (),
        ["data (line 1): has folds, and synthetic that is not split; keep one of them"],
    ),
    "fold_past_the_last": (
        """\
data: {train: a.json, folds: 3, fold: 3}
parameters: {lr0: {min: 1e-5, max: 1e-2}}
""",
        (),
        ["data (line 1): fold must be below folds (3)"],
    ),
    "fold_of_nothing": (
        """\
data: {train: a.json, fold: 1}
parameters: {lr0: {min: 1e-5, max: 1e-2}}
""",
        (),
        ["data (line 1): has fold without folds; give both"],
    ),
    "group_by_broken": (
        """\
data: {train: a.json, group_by: '(img'}
parameters: {lr0: {min: 1e-5, max: 1e-2}}
""",
        (),
        [
            (
                "data.group_by (line 1): '(img' is no regular expression: missing ), unterminated subpattern at "
                "position 0"
            ),
        ],
    ),
    "data_no_block": (
        """\
data: a.json
parameters: {lr0: {min: 1e-5, max: 1e-2}}
""",
        (),
        [
            (
                "data (line 1): 'a.json' must be a block of keys: train, val, images, val_images, skeleton, "
                "group_by, "
                "split, folds, fold, val_fraction, split_seed, categories, box_margin, synthetic, test, test_images, "
                "split_hash"
            ),
        ],
    ),
    "top_keys": (
        A_FILE
        + """\
metrics: {name: val/AP}
lr0: 0.001
trials: 20
method: bayes
run_cap: 30
task: topdwn
name: a/b
""",
        (),
        [
            "metrics (line 3): unknown key; did you mean 'metric'?",
            (
                "lr0 (line 4): unknown key; known: baseline, budget, confirm, data, early_terminate, failure, "
                "fixed, keep, metric, name, parameters, resources, search, task, track, try_first, warm_start"
            ),
            "trials (line 5): unknown key; did you mean 'search.trials'?",
            "method (line 6): unknown key; write search: {method: tpe}",
            "run_cap (line 7): unknown key; write search: {trials: 60}",
            "task (line 8): there is no task 'topdwn'; did you mean 'topdown'?",
            "name (line 9): 'a/b' cannot be the name of the sweep's folder; write name: a-b",
        ],
    ),
    "after_the_search": (
        A_FILE
        + """\
warm_start: [runs/a, 3]
confirm: {top_k: 0, seed: 3, epochs: 1.5}
budget: {hour: 24, gpu_hours: 0}
search: {method: cmaes}
""",
        (),
        [
            "warm_start.1 (line 3): must be the folder of an earlier sweep, such as runs/mice, not 3",
            "confirm.top_k (line 4): 0 must be at least 1 (how many of the best finished trials); the default is 3",
            "confirm.epochs (line 4): 1.5 must be a whole number (of each training; null: as in the search)",
            "confirm.seed (line 4): unknown key; did you mean 'seeds'?",
            "budget.gpu_hours (line 5): 0 must be above 0 (GPUs held, summed over trials)",
            "budget.hour (line 5): unknown key; did you mean 'hours'?",
            ("search.method (line 6): cmaes searches numbers only, without when: and without stopped trials; use tpe"),
        ],
    ),
    "no_blocks_after_the_search": (
        A_FILE + "warm_start: {a: 1}\nconfirm: true\nbudget: {}\n",
        (),
        [
            "warm_start (line 3): must be the folder of an earlier sweep, such as runs/mice, not {a: 1}",
            "confirm (line 4): true must be a block of keys: top_k, seeds, epochs",
            "budget (line 5): needs hours or gpu_hours, such as {hours: 24}; or take it out",
        ],
    ),
    "confirm_and_searched_epochs": (
        A_FILE.replace("parameters: {", "parameters: {epochs: {min: 3, max: 9}, ") + "confirm: {epochs: 20}\n",
        (),
        ["confirm.epochs (line 3): epochs is searched, so each trial is confirmed at its own; take it out"],
    ),
    "test_images_alone": (
        A_FILE.replace("train: a.json", "train: a.json, test_images: t"),
        (),
        ["data (line 1): has test_images without test, whose images they are; give test, or take it out"],
    ),
    "search": (
        A_FILE
        + """\
search: {method: nsga2, trails: 5, trials: 0, startup_trials: -1, seed: a}
""",
        (),
        [
            "search.method (line 3): nsga2 is for several metrics at once, and a sweep has one; use tpe",
            "search.trials (line 3): 0 must be at least 1; the default is 60",
            (
                "search.startup_trials (line 3): -1 must be at least 0 (drawn at random before tpe begins to "
                "choose); the default is 10"
            ),
            "search.seed (line 3): 'a' must be a whole number; the default is 0",
            "search.trails (line 3): unknown key; did you mean 'trials'?",
        ],
    ),
    "search_methods": (
        A_FILE
        + """\
search: {method: bayes, trials: true}
""",
        (),
        [
            "search.method (line 3): 'bayes' is called tpe here; write method: tpe",
            "search.trials (line 3): true must be a number",
        ],
    ),
    "search_typo": (
        A_FILE
        + """\
search: {method: radnom, trials: 2.5}
""",
        (),
        [
            "search.method (line 3): 'radnom' must be 'tpe', 'random' or 'grid'; did you mean 'random'?",
            "search.trials (line 3): 2.5 must be a whole number; the default is 60",
        ],
    ),
    "early": (
        A_FILE
        + """\
early_terminate: {type: ash, min_iter: 3, eta: 1, min_epochs: 0}
""",
        (),
        [
            (
                "early_terminate.type (line 3): 'ash' must be 'asha', 'hyperband', 'median' or 'none'; did you "
                "mean 'asha'?"
            ),
            (
                "early_terminate.min_epochs (line 3): 0 must be at least 1 (no trial is stopped before); the "
                "default is 1"
            ),
            (
                "early_terminate.eta (line 3): 1 must be at least 2 (one trial in eta goes on from each rung); "
                "the default is 3"
            ),
            "early_terminate.min_iter (line 3): unknown key; did you mean 'min_epochs'?",
        ],
    ),
    "resources": (
        A_FILE
        + """\
resources: {workers_per_trial: 0, gpus_per_worker: 1.5, cpus_per_worker: many, concurrent: -1}
failure: {max_retry: 1}
keep: {checkpoints_of_top: 0}
""",
        (),
        [
            (
                "resources.workers_per_trial (line 3): 0 must be at least 1 (processes of one trial, each with "
                "its own model (DDP)); the default is 1"
            ),
            "resources.gpus_per_worker (line 3): 1.5 must be a whole number when it is above 1",
            "resources.cpus_per_worker (line 3): 'many' must be a whole number or 'auto'",
            "resources.concurrent (line 3): -1 must be at least 1 or 'auto'",
            "failure.max_retry (line 4): unknown key; did you mean 'max_retries'?",
            "keep.checkpoints_of_top (line 5): 0 must be at least 1; the default is 3",
        ],
    ),
    "metric": (
        A_FILE
        + """\
metric: {name: val/ap}
""",
        (),
        [
            "metric.name (line 3): no trial reports 'val/ap'; did you mean 'val/AP'?",
        ],
    ),
    "metric_goal": (
        A_FILE
        + """\
metric: {name: val/NME, goal: maximize}
""",
        (),
        [
            "metric.goal (line 3): val/NME is better when it is smaller; write minimize, or take goal out",
        ],
    ),
    "blocks_no_blocks": (
        A_FILE
        + """\
search: tpe
fixed: [1, 2]
baseline: 3
try_first: {lr0: 1e-3}
""",
        (),
        [
            "search (line 3): 'tpe' must be a block of keys: method, trials, startup_trials, seed",
            "fixed (line 4): must be a block of keys, not [1, 2]",
            "baseline (line 5): must be values such as {lr0: 0.001}, not 3",
            "try_first (line 6): must be a list, such as [{lr0: 0.001}], not {lr0: 0.001}",
        ],
    ),
    "ranges": (
        A_DATA
        + """\
parameters:
  lr0: {min: 1e-2, max: 1e-3, log: true}
  weight_decay: {min: 0, max: 0.1, log: true}
  layer_decay: {min: 0.5}
  freeze: {min: 3, max: 3}
  warmup: {min: a, max: 3, log: 1}
  aug_strength: {max: 1.0}
  batch: {}
""",
        (),
        [
            "lr0 (line 3): min 0.01 is above max 0.001; swap them",
            "weight_decay (line 4): log needs min above 0, not 0.0; try min: 0.0001, or take log out",
            "layer_decay (line 5): has min but no max; give both",
            "freeze (line 6): min and max are both 3, an empty range; write value: 3",
            "warmup (line 7): min must be a number, not 'a'",
            "warmup (line 7): log must be true or false, not 1",
            "aug_strength (line 8): has max but no min; give both",
            "batch (line 9): needs min and max, values, or value",
        ],
    ),
    "steps": (
        A_DATA
        + """\
parameters:
  lr0: {min: 1e-5, max: 1e-2, log: true, step: 1e-5}
  aug_strength: {min: 0, max: 1, step: 0.25}
  warmup: {min: 0.0, max: 1.0, step: 0.3}
  freeze: {min: 0, max: 4, step: 5}
  batch: {min: 8, max: 64, step: 0}
  epochs: {min: 10, max: 30, step: 5, points: 3}
  layer_decay: {min: 0.5, max: 1.0, points: 1}
""",
        (),
        [
            "lr0 (line 3): step and log do not go together; keep one",
            "aug_strength (line 4): step 0.25 with whole min and max; write min: 0.0 to search fractions",
            "warmup (line 5): max 1.0 is not on the steps of 0.3; use max: 0.9",
            "freeze (line 6): step 5 is wider than the range 0 to 4",
            "batch (line 7): step 0 must be above 0",
            "epochs (line 8): step and points do not go together; keep one",
            "layer_decay (line 9): points must be a whole number of at least 2, not 1",
        ],
    ),
    "names_of_bounds": (
        A_DATA
        + """\
parameters:
  lr0: {low: 1e-5, high: 1e-2}
  sigma: {lower: 1.0, upper: 4.0, lgo: true}
  codec: {choices: [heatmap, simcc]}
  freeze: {type: int, min: 0, max: 4}
""",
        (),
        [
            "lr0 (line 3): unknown key 'low'; use min",
            "lr0 (line 3): unknown key 'high'; use max",
            "sigma (line 4): unknown key 'lower'; use min",
            "sigma (line 4): unknown key 'upper'; use max",
            "sigma (line 4): unknown key 'lgo'; did you mean 'log'?",
            "codec (line 5): unknown key 'choices'; use values",
            (
                "freeze (line 6): unknown key 'type'; take it out: whole min and max search whole numbers, min: "
                "1.0 searches those between too"
            ),
        ],
    ),
    "distributions": (
        A_DATA
        + """\
parameters:
  lr0: {distribution: log_uniform, min: -11.5, max: -4.6}
  sigma: {distribution: normal, mu: 2, sigma: 1}
  batch: {distribution: int_uniform, min: 8.5, max: 64}
  warmup: {distribution: uniform, values: [1, 2]}
  layer_decay: {distribution: uniform, min: 0.5, max: 1.0, log: true}
  codec: {distribution: categorical, values: [heatmap, simcc], probabilities: [0.5, 0.5]}
  freeze: {min: 0, max: 4, q: 2}
""",
        (),
        [
            (
                "lr0 (line 3): distribution log_uniform takes exponents in W&B; use log_uniform_values, or log: "
                "true, and give min and max themselves"
            ),
            (
                "sigma (line 4): unknown key 'mu'; known: distribution, log, max, min, points, q, step, value, "
                "values, when"
            ),
            (
                "sigma (line 4): unknown key 'sigma'; known: distribution, log, max, min, points, q, step, "
                "value, values, when"
            ),
            "sigma (line 4): distribution 'normal' is not supported; did you mean 'uniform'?",
            "batch (line 5): int_uniform needs whole min and max, not 8.5 and 64",
            "warmup (line 6): distribution uniform needs min and max",
            "layer_decay (line 7): distribution uniform and log: true contradict each other; keep one",
            "codec (line 8): unknown key 'probabilities'; every value is as likely as another; take it out",
            "freeze (line 9): 'q' goes with distribution: q_uniform; use step",
        ],
    ),
    "values": (
        A_DATA
        + """\
parameters:
  codec: {values: heatmap}
  model: {values: []}
  epochs: {values: [10, 20, 10]}
  amp: {values: [1, true]}
  augment: {values: [light, {a: 1}]}
  batch: {values: [8, 16], min: 8}
  freeze: {value: 3, when: {codec: heatmap}, max: 3}
""",
        (),
        [
            "codec (line 3): values must be a list, such as values: ['heatmap']",
            "model (line 4): values is empty; give at least one",
            "epochs (line 5): values has 10 twice; keep one",
            "amp (line 6): values has 1 and true, which are equal; keep one",
            (
                "augment (line 7): values cannot hold the block {a: 1}; a value is a number, text, true or "
                "false, or a list"
            ),
            "batch (line 8): 'values' and 'min' do not go together; keep one",
            "freeze (line 9): 'value' and 'max' do not go together; keep one",
        ],
    ),
    "no_blocks": (
        A_DATA
        + """\
parameters:
  lr0: 0.001
  augment: [light, medium]
  codec:
""",
        (),
        [
            "lr0 (line 3): 0.001 alone is no range; write {value: 0.001}, or move it to fixed",
            (
                "augment (line 4): ['light', 'medium'] is neither a range nor a choice; write {values: ['light', "
                "'medium']} or {min: .., max: ..}"
            ),
            "codec (line 5): is empty; give min and max, values, or value",
        ],
    ),
    "when": (
        A_DATA
        + """\
parameters:
  sigma: {min: 1.0, max: 4.0, when: {codec: heatmap}}
  codec: {values: [heatmap, simcc]}
  dark: {values: [true, false], when: {codc: heatmap}}
  freeze: {min: 0, max: 4, when: {codec: heatmaps}}
  warmup: {min: 0.5, max: 3.0, when: {freeze: 9}}
  lr0: {min: 1e-5, max: 1e-2}
  ema: {min: 0.9, max: 0.99, when: {lr0: 0.001}}
  batch: {values: [8, 16], when: {batch: 8}}
  epochs: {values: [10, 20], when: codec}
  augment: {values: [light, medium], when: {codec: []}}
""",
        (),
        [
            "sigma (line 3): when: 'codec' comes later; move it above 'sigma'",
            "dark (line 5): when: 'codc' is neither an earlier parameter nor fixed; did you mean 'codec'?",
            "freeze (line 6): when: codec is never 'heatmaps'; it is heatmap, simcc",
            ("ema (line 9): when: lr0 is any number from 1e-05 to 0.01; name a setting with values or whole numbers"),
            "batch (line 10): when: 'batch' is this parameter itself",
            ("epochs (line 11): when must name a setting and its value, such as when: {codec: heatmap}, not 'codec'"),
            "augment (line 12): when allows no value of 'codec'",
        ],
    ),
    "fixed": (
        A_DATA
        + """\
fixed: {epoch: 3, lr0: 1e-3, batch: x, name: tiny, split_seed: 1}
parameters:
  lr0: {min: 1e-5, max: 1e-2}
  lerning_rate: {min: 1.0, max: 3.0}
""",
        (),
        [
            "epoch (line 2): unknown setting; did you mean 'epochs'?",
            "name (line 2): is a key of the file itself; move it out of fixed",
            "split_seed (line 2): unknown setting; did you mean 'data.split_seed'?",
            "batch (line 2): 'x' must be a whole number; the default is 32",
            "lr0 (line 4): is fixed too, on line 2; take one of the two out",
            (
                "lerning_rate (line 5): unknown setting; known: accumulate, amp, aug_strength, augment, batch, "
                "codec, dark, ema, epochs, freeze, imgsz, layer_decay, lr0, model, sigma, warmup, weight_decay"
            ),
        ],
    ),
    "nothing_searched": (
        A_DATA
        + """\
fixed: {lr0: 1e-3}
""",
        (),
        [
            (
                "parameters: nothing is searched; search something, such as lr0: {min: 1e-5, max: 1e-2, log: "
                "true}, or write search: {trials: 1}"
            ),
        ],
    ),
    "baseline": (
        A_DATA
        + """\
fixed: {epochs: 30}
parameters:
  lr0: {min: 1e-5, max: 1e-2, log: true}
  freeze: {min: 0, max: 4}
  codec: {values: [heatmap, simcc]}
  sigma: {min: 1.0, max: 4.0, when: {codec: heatmap}}
  batch: {min: 8, max: 64, step: 8}
baseline: {lr0: 0.5, freeze: 2.5, codec: simcc, sigma: 2.0, lr: 1, epochs: 20, batch: 12, ema: 0.9}
try_first:
  - {codec: heatmp}
  - {codec: simcc, sigma: 2}
  - 3
  - {lr0: fast}
""",
        (),
        [
            "baseline.lr0 (line 9): 0.5 is outside 1e-05 to 0.01; widen the range, or change the value",
            "baseline.freeze (line 9): 2.5 must be a whole number from 0 to 4",
            "baseline.lr (line 9): unknown name; did you mean 'lr0'?",
            "baseline.epochs (line 9): is fixed at 30 in every trial; take it out here, or search it",
            "baseline.batch (line 9): 12 is not on the steps of 8 to 64, in steps of 8; the nearest is 8",
            "baseline.ema (line 9): is not searched; give it in fixed, or search it in parameters",
            "baseline.sigma (line 9): is not used here, because codec is 'simcc'; take it out",
            "try_first.0.codec (line 11): 'heatmp' is not one of heatmap, simcc; did you mean heatmap?",
            "try_first.1.sigma (line 12): is not used here, because codec is 'simcc'; take it out",
            "try_first.2 (line 13): must be values such as {lr0: 0.001}, not 3",
            "try_first.3.lr0 (line 14): 'fast' must be a number from 1e-05 to 0.01",
        ],
    ),
    "check": (
        A_DATA
        + """\
fixed: {epochs: 0, ema: 1.5, imgsz: [128], augment: medum}
parameters:
  sigma: {min: 0.0, max: 4.0}
  codec: {values: [heatmap, simc]}
  amp: {values: [true, fp8]}
""",
        (),
        [
            "imgsz (line 2): [128] has too few values",
            "epochs (line 2): 0 must be at least 1; the default is 60",
            "ema (line 2): 1.5 must be below 1",
            "augment (line 2): 'medum' must be 'none', 'light', 'medium' or 'aggressive'; did you mean 'medium'?",
            "sigma (line 4): 0.0 must be above 0 (heatmap cells)",
            "codec (line 5): 'simc' must be 'heatmap' or 'simcc'; did you mean 'simcc'?",
            "amp (line 6): 'fp8' must be true or false or 'bf16' or 'fp16'; did you mean 'fp16'?",
        ],
    ),
    "check_choices": (
        A_DATA
        + """\
parameters:
  codec: {values: [heatmap, simcc]}
  sigma: {min: 1.0, max: 4.0}
  batch: {min: 8, max: 32, step: 8}
  accumulate: {values: [1, 2, 4]}
""",
        (),
        [
            "sigma (line 4): codec: simcc does not use it; take it out, or add when: {codec: heatmap}",
        ],
    ),
    "check_within": (
        A_DATA
        + """\
fixed: {accumulate: 4}
parameters: {batch: {min: 8, max: 32}}
baseline: {batch: 30}
""",
        (),
        [
            "accumulate (line 2): 4 does not divide batch: 21",
            "accumulate (line 2): 4 does not divide batch: 30",
        ],
    ),
    "check_baseline": (
        A_DATA
        + """\
parameters:
  batch: {values: [8, 12]}
  accumulate: {values: [1, 8]}
baseline: {batch: 8, accumulate: 8}
try_first: [{batch: 12}]
""",
        (),
        [
            "accumulate (line 4): 8 does not divide batch: 12",
        ],
    ),
    "grid": (
        A_DATA
        + """\
parameters:
  lr0: {min: 1e-5, max: 1e-2, log: true}
  freeze: {min: 0, max: 4}
search: {method: grid}
""",
        (),
        [
            "lr0 (line 3): a grid needs step or points for this range, such as points: 5",
        ],
    ),
    "grid_small": (
        A_DATA
        + """\
parameters:
  freeze: {min: 0, max: 4}
search: {method: grid, trials: 3}
""",
        (),
        [
            (
                "search.trials (line 4): 3 is less than the 6 of the grid and the trials before it; take trials "
                "out, or use method: random"
            ),
        ],
    ),
    "grid_large": (
        A_DATA
        + """\
parameters:
  freeze: {min: 0, max: 1000}
  epochs: {min: 1, max: 1000}
search: {method: grid}
""",
        (),
        [
            "search.method (line 5): the grid has more than 100,000 trials; use random, or fewer values",
        ],
    ),
    "duplicates": (
        A_DATA
        + """\
fixed: {lr0: 1e-3, batch: 8, lr0: 1e-4}
parameters:
  sigma: {min: 1.0, max: 4.0}
  freeze: {min: 0, max: 4, min: 1}
  sigma: {min: 2.0, max: 3.0}
data.train: b.json
search.trials: 20
search: {trials: 30}
name: a
name.first: b
""",
        (),
        [
            "data.train (line 1): is given twice, on lines 1 and 7; keep one",
            "lr0 (line 2): is given twice, on line 2; keep one",
            "sigma (line 4): is given twice, on lines 4 and 6; keep one",
            "freeze.min (line 5): is given twice, on line 5; keep one",
            "search.trials (line 8): is given twice, on lines 8 and 9; keep one",
            "name (line 10): is 'a', so it cannot hold 'first' too; give it once, as a block of keys",
        ],
    ),
    "plain_values": (
        """\
data: {train: !!python/name:os.system a, images: !env HOME}
fixed: {lr0: .inf, ema: .nan, on: 3, 5: 6, <<: {a: 1}}
parameters: {sigma: {min: 1.0, max: 1e999}, .a: {value: 1}}
""",
        (),
        [
            (
                "data.train (line 1): the tag !!python/name:os.system is not allowed; a sweep file holds plain "
                "values only"
            ),
            "data.images (line 1): the tag !env is not allowed; a sweep file holds plain values only",
            "lr0 (line 2): .inf must be a finite number",
            "ema (line 2): .nan must be a finite number",
            "fixed (line 2): the key 'on' on line 2 must be a word; put it in quotes",
            "fixed (line 2): the key '5' on line 2 must be a word; put it in quotes",
            "fixed (line 2): '<<' on line 2 is not read; write the keys out",
            "sigma.max (line 3): 1e999 must be a finite number",
            "parameters (line 3): the key '.a' on line 3 has an empty part",
        ],
    ),
    "overrides": (
        A_FILE
        + """\
search: {trials: 0}
fixed: {epochs: 20}
""",
        (
            "search.trails=3",
            "trials=20",
            "epoch=3",
            "lr0.max=1",
            "parameters.lr.max=3",
            "batch=x",
            "epochs",
            "imgsz=[1,",
            "=3",
            "try_first.0.lr0=3",
            "codec={values: [heatmap, simcc]}",
            "serch.trials=3",
            "data.group_by=img.",
        ),
        [
            "search.trials (line 3): 0 must be at least 1; the default is 60",
            (
                "data.group_by (from the command line): 'img.' has 0 groups in (..); mark the one part that names "
                "the group"
            ),
            "search.trails (from the command line): unknown key; did you mean 'trials'?",
            "batch (from the command line): 'x' must be a whole number; the default is 32",
            "trials (from the command line): unknown key; did you mean 'search.trials'?",
            "epoch (from the command line): unknown key; did you mean 'epochs'?",
            "lr0.max (from the command line): unknown key; did you mean 'parameters.lr0.max'?",
            "parameters.lr.max (from the command line): no parameter 'lr' is searched; did you mean 'lr0'?",
            "epochs (from the command line): must be key=value, such as search.trials=20",
            "imgsz (from the command line): not YAML: a value is missing, or a bracket is never closed",
            "=3 (from the command line): must be key=value, such as search.trials=20",
            "try_first.0.lr0 (from the command line): give the whole list: try_first=[{lr0: 0.001}]",
            (
                "codec (from the command line): {values: ['heatmap', 'simcc']} is no single value; to search it, "
                "write parameters.codec=.."
            ),
            "serch.trials (from the command line): unknown key; did you mean 'search.trials'?",
        ],
    ),
    "override_range": (
        A_FILE,
        ("parameters.lr0.max=1e-6",),
        [
            "lr0 (line 2, changed from the command line): min 1e-05 is above max 1e-06; swap them",
        ],
    ),
    "override_blocked": (
        A_DATA
        + """\
parameters: {lr0: 3}
search: tpe
fixed: [1]
""",
        (
            "search.trials=3",
            "batch=8",
            "parameters.lr0.max=3",
            "epohs=3",
        ),
        [
            "lr0 (line 2): 3 alone is no range; write {value: 3}, or move it to fixed",
            "search (line 3): 'tpe' must be a block of keys: method, trials, startup_trials, seed",
            "fixed (line 4): must be a block of keys, not [1]",
            "search.trials (from the command line): search is 'tpe' in the file, no block of keys",
            "fixed.batch (from the command line): fixed is [1] in the file, no block of keys",
            "parameters.lr0.max (from the command line): parameters.lr0 is 3 in the file, no block of keys",
            "epohs (from the command line): unknown key; did you mean 'epochs'?",
        ],
    ),
    "override_new_range": (
        A_FILE,
        (
            "parameters.sigma={min: 4.0, max: 1.0}",
            "task=topdwn",
        ),
        [
            "task (from the command line): there is no task 'topdwn'; did you mean 'topdown'?",
            "sigma (from the command line): min 4.0 is above max 1.0; swap them",
        ],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_the_words_of_every_mistake(name: str, wrong: Callable[..., list[str]]) -> None:
    text, overrides, expected = CASES[name]
    assert wrong(text, *overrides) == expected


# name -> text that cannot be read any further, the one sentence
UNREADABLE: dict[str, tuple[str, str]] = {
    "tab": ("data:\n\ttrain: a\n", "line 2, column 1: not YAML: a tab cannot indent; use spaces"),
    "colon": (
        "data: {train: a.json}\nfixed: lr0: 3\n",
        "line 2, column 11: not YAML: a second ':' here; put the value in quotes, or check the indentation",
    ),
    "bracket": ("data: {train: a.json\nfixed: {}\n", "line 2, column 6: not YAML: a block whose '}' or ',' is missing"),
    "list": ("fixed: {imgsz: [1, 2}\n", "line 1, column 21: not YAML: a list whose ']' or ',' is missing"),
    "indent": (
        "data:\n  train: a\n images: b\n",
        "line 3, column 2: not YAML: the indentation differs from the lines above",
    ),
    "quote": ("name: 'a\ndata: {}\n", "line 3, column 1: not YAML: a quote that is never closed"),
    "nokey": ("data: {train: a}\nfixed\n", "line 3, column 1: not YAML: a key without ':'; write key: value"),
    "alias": ("data: *d\n", "line 1, column 7: not YAML: an alias (*name) whose anchor (&name) is not above it"),
    "documents": (
        "a: 1\n---\nb: 2\n",
        "line 2, column 1: not YAML: a second document (---) starts here; a sweep file holds one",
    ),
    "empty": ("# nothing\n", "sweep.yaml is empty; begin with data: and parameters:"),
    "top_list": (
        "- a\n- b\n",
        "sweep.yaml must hold keys such as 'data:' and 'parameters:', not a list or a single value",
    ),
    "value": (
        "data: a\nfixed: {a: ]}\n",
        "line 2, column 12: not YAML: a value is missing, or a bracket is never closed",
    ),
    "recursive": ("a: &a [*a]\n", "line 1: values are nested more than 30 deep"),
    "control": ("a: \a\n", "character 4 is not text; save the file as UTF-8"),
}


@pytest.mark.parametrize("name", UNREADABLE)
def test_the_words_of_a_text_that_is_no_yaml(name: str, wrong: Callable[..., list[str]]) -> None:
    text, expected = UNREADABLE[name]
    assert wrong(text) == [expected]


def test_aliases_that_stand_for_millions_of_values_are_refused_at_once(wrong: Callable[..., list[str]]) -> None:
    text = "a: &a [x, x, x, x, x, x, x, x, x, x]\n"
    for before, name in zip("abcdefgh", "bcdefghi", strict=True):
        text += f"{name}: &{name} [{', '.join(['*' + before] * 10)}]\n"
    expected = "the aliases (*name) stand for more than 10,000 values; write out what is needed"
    assert wrong(text) == [expected]


@pytest.mark.parametrize("depth", [40, 400])
def test_deep_nesting_is_refused(depth: int, wrong: Callable[..., list[str]]) -> None:
    (line,) = wrong("a: " + "[" * depth + "]" * depth)
    assert line.endswith("values are nested more than 30 deep")


def test_a_file_of_a_million_characters_is_not_parsed(wrong: Callable[..., list[str]]) -> None:
    assert wrong("a: " + "x" * 1_000_000) == ["sweep.yaml has 1,000,003 characters; a sweep file has at most 1,000,000"]
