"""Ways through a conditional space: random, every one, and its corners."""

import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from posesweep.search_spaces.choices import combinations, corners, draw, ends, grid_values, sample
from posesweep.search_spaces.parameters import Parameter, is_active

FIXED = {"task_size": "small"}


@st.composite
def parameter(draw_: st.DrawFn) -> Parameter:
    kind = draw_(st.sampled_from(["float", "int", "categorical", "constant"]))
    if kind == "categorical":
        return Parameter(
            kind=kind, values=draw_(st.sampled_from([("a", "b"), (1, 2, 3), (True, False), ([1, 2], None)]))
        )
    if kind == "constant":
        return Parameter(kind=kind, values=(draw_(st.integers()),))
    log = draw_(st.booleans())
    low = draw_(st.integers(1 if log else -20, 20))
    high = low + draw_(st.integers(1, 50))
    if kind == "int":
        step = None if log else draw_(st.sampled_from([None, 1, high - low]))
        return Parameter(kind=kind, low=low, high=high, log=log, step=step)
    scale = draw_(st.sampled_from([1e-6, 0.1, 1.0, 1e3]))
    return Parameter(kind=kind, low=low * scale, high=high * scale, log=log)


@st.composite
def space(draw_: st.DrawFn) -> dict[str, Parameter]:
    """Up to six parameters; each may be used only with some values of an earlier choice, or of a fixed setting."""
    parameters: dict[str, Parameter] = {}
    for i in range(draw_(st.integers(1, 6))):
        made = draw_(parameter())
        parents = {name: list(p.values) for name, p in parameters.items() if p.values} | {"task_size": ["small", "big"]}
        if draw_(st.booleans()):
            parent = draw_(st.sampled_from(sorted(parents)))
            allowed = draw_(st.lists(st.sampled_from(parents[parent]), min_size=1, max_size=2))
            made = made.model_copy(update={"when": {parent: allowed}})
        parameters[f"p{i}"] = made
    return parameters


def assert_holds(choice: dict[str, Any], parameters: dict[str, Parameter]) -> None:
    """Only active parameters, all of them, each inside its range and of its type."""
    everything = {**FIXED, **choice}
    assert set(choice) == {name for name, p in parameters.items() if is_active(p, everything)}
    for name, value in choice.items():
        assert parameters[name].settle(value) == value
        if parameters[name].kind in ("float", "int"):
            assert type(value).__name__ == parameters[name].kind


@settings(deadline=None)
@given(space(), st.integers(0, 2**32))
def test_a_sample_holds_only_what_is_used_and_inside_its_range(parameters: dict[str, Parameter], seed: int) -> None:
    choice = sample(parameters, FIXED, random.Random(seed))
    assert_holds(choice, parameters)
    assert sample(parameters, FIXED, random.Random(seed)) == choice


@settings(deadline=None)
@given(space())
def test_corners_hold_too_and_no_end_is_left_out(parameters: dict[str, Parameter]) -> None:
    for most in (1_000, 5):
        found = list(corners(parameters, FIXED, most))
        for choice in found:
            assert_holds(choice, parameters)
        reachable = {name: p for name, p in parameters.items() if any(name in choice for choice in found)}
        for name, p in reachable.items():
            for end in ends(p):
                assert any(choice.get(name, found) == end for choice in found)


def test_corners_of_a_large_space_reach_what_is_rarely_used() -> None:
    parameters = {f"c{i}": Parameter(kind="categorical", values=tuple(range(20))) for i in range(6)}
    parameters["rare"] = Parameter(kind="int", low=0, high=9, when={"c0": [7], "c3": [11]})
    found = list(corners(parameters, {}, most=1_000))
    assert {choice["rare"] for choice in found if "rare" in choice} == {0, 9}
    assert len(found) == 1_000


def test_a_grid_has_every_choice_once() -> None:
    parameters = {
        "codec": Parameter(kind="categorical", values=("heatmap", "simcc")),
        "sigma": Parameter(kind="float", low=1.0, high=2.0, step=0.5, when={"codec": ["heatmap"]}),
        "freeze": Parameter(kind="int", low=0, high=1),
    }
    assert list(combinations(parameters, {}, grid_values)) == [
        {"codec": "heatmap", "sigma": 1.0, "freeze": 0},
        {"codec": "heatmap", "sigma": 1.0, "freeze": 1},
        {"codec": "heatmap", "sigma": 1.5, "freeze": 0},
        {"codec": "heatmap", "sigma": 1.5, "freeze": 1},
        {"codec": "heatmap", "sigma": 2.0, "freeze": 0},
        {"codec": "heatmap", "sigma": 2.0, "freeze": 1},
        {"codec": "simcc", "freeze": 0},
        {"codec": "simcc", "freeze": 1},
    ]


@pytest.mark.parametrize(
    ("given_", "expected"),
    [
        (
            {"kind": "float", "low": 0.0, "high": 1.0, "step": 0.1},
            [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0],
        ),
        ({"kind": "float", "low": 1e-4, "high": 1e-2, "log": True, "points": 3}, [1e-4, 1e-3, 1e-2]),
        ({"kind": "float", "low": 0.0, "high": 1.0, "points": 5}, [0.0, 0.25, 0.5, 0.75, 1.0]),
        ({"kind": "int", "low": 1, "high": 4}, [1, 2, 3, 4]),
        ({"kind": "int", "low": 8, "high": 32, "step": 8}, [8, 16, 24, 32]),
        ({"kind": "int", "low": 0, "high": 2, "points": 5}, [0, 1, 2]),
        ({"kind": "float", "low": 0.0, "high": 1.0}, []),
    ],
)
def test_the_values_of_a_grid(given_: dict[str, Any], expected: list[Any]) -> None:
    assert list(grid_values(Parameter(**given_))) == expected


def test_a_log_range_is_drawn_evenly_in_its_decades() -> None:
    rng = random.Random(0)
    drawn = [draw(Parameter(kind="float", low=1e-5, high=1e-1, log=True), rng) for _ in range(4_000)]
    decades = [sum(10.0**-e <= value < 10.0 ** (1 - e) for value in drawn) for e in (5, 4, 3, 2)]
    assert all(900 < count < 1_100 for count in decades)  # 1,000 +- 3.7 standard deviations of 27


@pytest.mark.parametrize("value", [True, "a", 1.5, 5])
def test_true_is_not_one(value: Any) -> None:
    whole = Parameter(kind="int", low=0, high=4)
    with pytest.raises(ValueError):
        whole.settle(value)
    assert not is_active(Parameter(kind="int", low=0, high=1, when={"freeze": [1]}), {"freeze": True})
