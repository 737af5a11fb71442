"""Ways through a conditional space: random, every one, and the corners where mistakes show.

A choice is {name: value} of the parameters that are used; fixed settings are not in it.
"""

import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from posesweep.search_spaces.parameters import Parameter, is_active, tidy

Parameters = Mapping[str, Parameter]
Values = Mapping[str, Any]
MOST_CORNERS = 1_000


def sample(parameters: Parameters, fixed: Values, rng: random.Random) -> dict[str, Any]:
    """One random choice: uniform in each range (log-uniform where it is log), only the parameters that are used."""
    return walk(parameters, fixed, lambda name, parameter: draw(parameter, rng))


def walk(parameters: Parameters, fixed: Values, pick: Callable[[str, Parameter], Any]) -> dict[str, Any]:
    """Ask `pick` for each parameter in order, leaving out those whose `when` is not met."""
    chosen: dict[str, Any] = {}
    for name, parameter in parameters.items():
        if is_active(parameter, {**fixed, **chosen}):
            chosen[name] = pick(name, parameter)
    return chosen


def draw(parameter: Parameter, rng: random.Random) -> Any:
    """One random value of a parameter. A log integer is drawn as Optuna does: from low - 0.5 to high + 0.5, rounded."""
    if parameter.kind in ("categorical", "constant"):
        return rng.choice(parameter.values)
    low, high = parameter.bounds
    if parameter.step is not None:
        return tidy(low + rng.randint(0, _steps(parameter)) * parameter.step, parameter.kind)
    if parameter.kind == "int" and not parameter.log:
        return rng.randint(low, high)
    rounding = 0.5 if parameter.kind == "int" else 0.0
    if not parameter.log:
        return rng.uniform(low, high)
    drawn = math.exp(rng.uniform(math.log(low - rounding), math.log(high + rounding)))
    return min(max(round(drawn) if rounding else drawn, low), high)


def grid_values(parameter: Parameter) -> Sequence[Any]:
    """Every value that `method: grid` tries; empty for a continuous range with neither `step` nor `points`."""
    if parameter.kind in ("categorical", "constant"):
        return parameter.values
    low, high = parameter.bounds
    if parameter.points is not None:
        return _spread(parameter, parameter.points)
    if parameter.step is not None:
        return [tidy(low + i * parameter.step, parameter.kind) for i in range(_steps(parameter) + 1)]
    return range(low, high + 1) if parameter.kind == "int" else []


def _steps(parameter: Parameter) -> int:
    low, high = parameter.bounds
    assert parameter.step is not None
    return math.floor((high - low) / parameter.step + 1e-9)


def _spread(parameter: Parameter, points: int) -> list[Any]:
    """`points` values from low to high, at equal distances (of the logarithms where it is log); integers only once."""
    low, high = parameter.bounds
    shares = [i / (points - 1) for i in range(points)]
    if parameter.log:
        between = [low * (high / low) ** share for share in shares]
    else:
        between = [low + (high - low) * share for share in shares]
    return list(dict.fromkeys([low, *(tidy(value, parameter.kind) for value in between[1:-1]), high]))


def combinations(
    parameters: Parameters, fixed: Values, values_of: Callable[[Parameter], Sequence[Any]]
) -> Iterator[dict[str, Any]]:
    """Every way to choose one of `values_of(parameter)` for each parameter that is used; the first varies slowest."""
    names = list(parameters)

    def choose(position: int, chosen: dict[str, Any]) -> Iterator[dict[str, Any]]:
        if position == len(names):
            yield chosen
            return
        name = names[position]
        if not is_active(parameters[name], {**fixed, **chosen}):
            yield from choose(position + 1, chosen)
            return
        for value in values_of(parameters[name]):
            yield from choose(position + 1, {**chosen, name: value})

    return choose(0, {})


def corners(parameters: Parameters, fixed: Values, most: int = MOST_CORNERS) -> Iterator[dict[str, Any]]:
    """Choices made of ends of ranges and categorical values: all of them where these are at most `most`.

    In a larger space: every end and every value is chosen three times, with the others at their first, at their last
    and at random, its parents set so that it is used; then random corners up to `most`. Repeats are possible.
    """
    every = list(islice(combinations(parameters, fixed, ends), most + 1))
    if len(every) <= most:
        yield from every
        return
    rng = random.Random(0)
    made = 0
    for name, parameter in parameters.items():
        for value in ends(parameter):
            wanted = {**_parents(name, parameters), name: value}
            for pick in (lambda options: options[0], lambda options: options[-1], rng.choice):
                yield _corner(parameters, fixed, wanted, pick)
                made += 1
    for _ in range(most - made):
        yield _corner(parameters, fixed, {}, rng.choice)


def _corner(
    parameters: Parameters, fixed: Values, wanted: Values, pick: Callable[[Sequence[Any]], Any]
) -> dict[str, Any]:
    return walk(parameters, fixed, lambda name, parameter: wanted[name] if name in wanted else pick(ends(parameter)))


def ends(parameter: Parameter) -> Sequence[Any]:
    """Both ends of a range, or every value."""
    return parameter.values if parameter.kind in ("categorical", "constant") else parameter.bounds


def _parents(name: str, parameters: Parameters) -> dict[str, Any]:
    """What the parameters above `name` must be for it to be used."""
    wanted: dict[str, Any] = {}
    for parent, allowed in parameters[name].when.items():
        if parent in parameters:
            wanted.update({**_parents(parent, parameters), parent: allowed[0]})
    return wanted
