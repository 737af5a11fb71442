"""Importance: planted effects are found, with early stopping too, and what is flat is called flat."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from posesweep.analysis.importance import Importance, common_scores, draw, numbers
from posesweep.analysis.results import PARAMS, SweepResults

SPACE = {
    "lr0": {"kind": "float", "low": 1e-4, "high": 1e-1, "log": True},
    "freeze": {"kind": "int", "low": 0, "high": 4},
    "codec": {"kind": "categorical", "values": ["heatmap", "simcc"]},
    "sigma": {"kind": "float", "low": 1.0, "high": 4.0, "when": {"codec": ["heatmap"]}},
}


def sweep_of(
    score: Callable[[dict[str, Any]], float], count: int = 40, goal: str = "maximize", seed: int = 0
) -> SweepResults:
    """Random configs, all trained to the end."""
    rng = np.random.default_rng(seed)
    rows, curves = [], []
    for trial in range(count):
        params = {"lr0": 10 ** rng.uniform(-4, -1), "freeze": int(rng.integers(0, 5))}
        params |= {"codec": str(rng.choice(["heatmap", "simcc"]))}
        if params["codec"] == "heatmap":
            params["sigma"] = rng.uniform(1, 4)
        value = score(params) + rng.normal(0, 0.01)
        named = {PARAMS + name: params.get(name) for name in SPACE}
        rows.append({"trial": trial, "state": "finished", "value": value} | named)
        curves += [{"trial": trial, "epoch": epoch, "value": value * epoch / 9} for epoch in (1, 3, 9)]
    sweep = {"metric": {"name": "val/AP", "goal": goal}, "parameters": SPACE, "fixed": {"epochs": 9}}
    return SweepResults(Path("runs/x"), pd.DataFrame(rows), pd.DataFrame(curves), sweep, {}, {})


def of_lr(params: dict[str, Any]) -> float:
    return float(0.5 - 0.1 * (np.log10(params["lr0"]) + 2.5) ** 2)


def shares(found: Importance) -> dict[str, float]:
    return {effect.axis.name: effect.share.value for effect in found.effects}


def test_a_planted_range_is_found_and_its_share_is_that_of_the_variance() -> None:
    found = numbers(sweep_of(of_lr))
    # x = log10 lr + 2.5 is even on -1.5..1.5: the variance of x^2 is 1.5^4 (1/5 - 1/9) = 0.45, of the score 0.0045
    assert shares(found)["lr0"] == pytest.approx(0.0045 / (0.0045 + 0.0001), abs=0.03)
    assert found.effects[0].axis.name == "lr0"
    assert found.effects[0].share.low > 0.8
    assert found.effects[0].swing == pytest.approx(0.1 * 1.5**2, rel=0.2)
    assert all(effect.share.high < 0.1 for effect in found.effects[1:])
    assert (found.epoch, found.trials, found.reason) == (None, 40, "")


def test_choices_and_conditional_parameters() -> None:
    by_codec = numbers(sweep_of(lambda params: 0.1 * (params["codec"] == "simcc")))
    assert by_codec.effects[0].axis.name == "codec"
    assert by_codec.effects[0].swing == pytest.approx(0.1, rel=0.15)
    by_sigma = numbers(sweep_of(lambda params: 0.1 * (params.get("sigma", 2.5) - 2.5)))
    assert by_sigma.effects[0].axis.name == "sigma"
    assert 10 <= by_sigma.effects[0].trials <= 30


def test_nothing_matters() -> None:
    found = numbers(sweep_of(lambda params: 0.5, count=60))
    assert found.rest is not None
    assert found.rest.value > 0.7
    assert all(effect.share.value < 0.15 for effect in found.effects)


def test_a_metric_that_is_minimised_gives_the_same() -> None:
    up = numbers(sweep_of(of_lr), resamples=3)
    down = numbers(sweep_of(lambda params: -of_lr(params), goal="minimize"), resamples=3)
    assert down.effects[0].axis.name == "lr0"
    assert shares(down)["lr0"] == pytest.approx(shares(up)["lr0"], abs=0.05)


def test_shares_add_up_to_one_and_lie_in_their_intervals() -> None:
    found = numbers(sweep_of(of_lr, count=20))
    assert found.rest is not None
    assert sum(shares(found).values()) + found.rest.value == pytest.approx(1)
    for effect in found.effects:
        assert 0 <= effect.share.low <= effect.share.value <= effect.share.high <= 1


def test_the_same_numbers_for_the_same_seed() -> None:
    one, other = (numbers(sweep_of(of_lr), resamples=10) for _ in range(2))
    assert [effect.share for effect in one.effects] == [effect.share for effect in other.effects]


def test_early_stopping_does_not_hide_what_matters() -> None:
    """Only trials with a good lr are trained to the end, so among the final scores lr seems to matter little."""
    results = sweep_of(lambda params: of_lr(params) + 0.02 * (params["codec"] == "simcc"))
    at_first = results.curves[results.curves["epoch"] == 1].set_index("trial")["value"]
    stopped = set(at_first.index[at_first < at_first.quantile(0.6)])
    trials = results.trials.assign(
        state=["pruned" if trial in stopped else "finished" for trial in results.trials["trial"]]
    )
    curves = results.curves[~results.curves["trial"].isin(stopped) | (results.curves["epoch"] == 1)]
    cut = SweepResults(results.folder, trials, curves, results.sweep, {}, {})
    found = numbers(cut, resamples=5)
    assert (found.epoch, found.trials) == (1, 40)
    assert found.effects[0].axis.name == "lr0"
    assert found.effects[0].share.value > 0.85


def test_who_counts_with_which_score() -> None:
    states = ["finished", "pruned", "finished", "diverged", "failed", "running", "running"]
    values = [0.9, 0.2, 0.5, 0.1, 0.4, 0.3, 0.05]
    trials = pd.DataFrame({"trial": range(7), "state": states, "value": values})
    curves = pd.DataFrame(
        [(0, 3, 0.3), (0, 9, 0.9), (1, 3, 0.2), (2, 2, 0.5), (3, 1, 0.1), (4, 3, 0.4), (5, 4, 0.3), (6, 1, 0.05)],
        columns=["trial", "epoch", "value"],
    )
    scores, epoch = common_scores(SweepResults(Path("x"), trials, curves, {}, {}, {}))
    # 2 ended of itself before the rung; 3 is the worst of all; 4 failed and 6 has not come so far
    assert epoch == 3
    assert scores.to_dict() == {0: 0.3, 1: 0.2, 2: 0.5, 3: 0.2, 5: 0.3}


def test_too_little_is_said() -> None:
    assert numbers(sweep_of(of_lr, count=5)).reason == (
        "5 trials that can be compared are too few to tell which of 4 parameters matter; 12 are needed."
    )
    assert numbers(sweep_of(of_lr, count=5)).effects == ()
    same = sweep_of(of_lr)
    flat = SweepResults(same.folder, same.trials.assign(value=0.5), same.curves, same.sweep, {}, {})
    assert numbers(flat).reason == "All trials have the same score, so nothing explains a difference."
    bare = SweepResults(same.folder, same.trials[["trial", "state", "value"]], same.curves, same.sweep, {}, {})
    assert numbers(bare).reason == "No parameter took more than one value."


def test_choices_that_are_numbers_stay_choices() -> None:
    results = sweep_of(of_lr)
    sizes = results.trials["trial"].map(lambda trial: [128.0, 256.0, np.nan][trial % 3])
    sweep = results.sweep | {"parameters": SPACE | {"size": {"values": [128, 256]}}}
    trials = results.trials.assign(**{PARAMS + "size": sizes})
    found = numbers(SweepResults(results.folder, trials, results.curves, sweep, {}, {}), resamples=2)
    effect = next(each for each in found.effects if each.axis.name == "size")
    assert effect.axis.choices == ("128", "256")
    assert effect.trials == int(sizes.notna().sum())


def test_it_can_be_drawn() -> None:
    ax = Figure().subplots()
    draw(numbers(sweep_of(of_lr), resamples=3), ax)
    assert [label.get_text() for label in ax.get_yticklabels()][-1] == "lr0"
