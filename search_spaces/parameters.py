"""One searched setting: what it may be, and when it is used at all."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from posesweep.errors import nearest
from posesweep.search_spaces.mistakes import Mistake, or_nearest, say

KEYS = ("value", "values", "min", "max", "log", "step", "points", "when", "distribution", "q")
OTHER_NAMES = {
    **dict.fromkeys(("low", "lower", "lower_bound", "start"), "use min"),
    **dict.fromkeys(("high", "upper", "upper_bound", "stop", "end"), "use max"),
    **dict.fromkeys(("choices", "options", "categories"), "use values"),
    **dict.fromkeys(("if", "condition", "conditions"), "use when"),
    "probabilities": "every value is as likely as another; take it out",
    "type": "take it out: whole min and max search whole numbers, min: 1.0 searches those between too",
    "scale": "use log: true",
}
_Fields = dict[str, Any]

# W&B's distributions -> what they say of ours; `q` is the step of the q_ ones
DISTRIBUTIONS: dict[str, _Fields] = {
    "constant": {"needs": ("value",)},
    "categorical": {"needs": ("values",)},
    "uniform": {"needs": ("min", "max"), "kind": "float"},
    "int_uniform": {"needs": ("min", "max"), "kind": "int"},
    "q_uniform": {"needs": ("min", "max"), "stepped": True},
    "log_uniform_values": {"needs": ("min", "max"), "kind": "float", "log": True},
}
_EXPONENTS = ("log_uniform", "q_log_uniform", "inv_log_uniform")


class Parameter(BaseModel):
    """`float` and `int` lie in low..high, both included; `categorical` is one of `values`; `constant` is values[0].

    `when` names earlier parameters or fixed settings and the list of values that each must have for this one to be
    used. `points` is how many values `method: grid` takes from the range.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["float", "int", "categorical", "constant"]
    low: float | int | None = None
    high: float | int | None = None
    log: bool = False
    step: float | int | None = None
    points: int | None = None
    values: tuple[Any, ...] = ()
    when: dict[str, list[Any]] = {}

    @property
    def bounds(self) -> tuple[Any, Any]:
        """Lowest and highest value of a number; asked of a categorical it is our own mistake."""
        assert self.kind in ("float", "int"), f"a {self.kind} has no bounds"
        return self.low, self.high

    def settle(self, value: Any) -> Any:
        """`value` as this parameter would propose it (2.0 -> 2 for an int); ValueError with the reason, if never."""
        if self.kind in ("categorical", "constant"):
            return self._one_of(value)
        low, high = self.bounds
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise ValueError(f"{say(value)} must be a number from {low} to {high}")
        if self.kind == "int" and value != int(value):
            raise ValueError(f"{say(value)} must be a whole number from {low} to {high}")
        if not low <= value <= high:
            raise ValueError(f"{say(value)} is outside {low} to {high}; widen the range, or change the value")
        if self.step is not None and value != self.on_grid(value):
            raise ValueError(f"{say(value)} is not on the steps of {self.range}; the nearest is {self.on_grid(value)}")
        return int(value) if self.kind == "int" else float(value)

    def _one_of(self, value: Any) -> Any:
        for known in self.values:
            if same(known, value):
                return known
        best = nearest(str(value), map(str, self.values))
        raise ValueError(f"{say(value)} is not one of {self.range}" + (f"; did you mean {best}?" if best else ""))

    def on_grid(self, value: float) -> float | int:
        """The nearest value on the steps; without a step, `value` itself."""
        if self.step is None:
            return value
        low, high = self.bounds
        steps = min(round((value - low) / self.step), math.floor((high - low) / self.step + 1e-9))
        return tidy(low + steps * self.step, self.kind)

    def middle(self) -> Any:
        """The middle of the range, of a log range the geometric one; the first of several values."""
        if self.kind in ("categorical", "constant"):
            return self.values[0]
        low, high = self.bounds
        middle = math.sqrt(low) * math.sqrt(high) if self.log else low + (high - low) / 2
        middle = min(max(float(f"{middle:.3g}"), low), high)
        return self.on_grid(round(middle) if self.kind == "int" else middle)

    @property
    def range(self) -> str:
        """In words: '1e-05 to 0.01, log', 'heatmap, simcc'."""
        if self.kind in ("categorical", "constant"):
            return ", ".join(value if isinstance(value, str) else say(value) for value in self.values)
        step = f", in steps of {self.step}" if self.step is not None else ""
        return f"{self.low} to {self.high}" + step + (", log" if self.log else "")


def same(one: Any, other: Any) -> bool:
    """Equal, and not merely to Python: true is not 1, and a tuple is the list that YAML made of it."""
    if isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(isinstance(one, bool) == isinstance(other, bool) and one == other)


def tidy(value: float, kind: str) -> float | int:
    """Without the last digits' noise of 0.1 + 2 * 0.1."""
    return round(value) if kind == "int" else float(f"{value:.12g}")


def is_active(parameter: Parameter, chosen: Mapping[str, Any]) -> bool:
    """Whether the parameter is used: `chosen` (fixed settings and what is chosen so far) meets its `when`."""
    return all(
        name in chosen and any(same(chosen[name], value) for value in allowed)
        for name, allowed in parameter.when.items()
    )


@dataclass(frozen=True)
class Space:
    """The parameters of a file; `broken` are those that could not be read, so that nothing more is said of them."""

    parameters: dict[str, Parameter]
    broken: frozenset[str]
    mistakes: tuple[Mistake, ...]


def read_space(specs: Mapping[str, Any], fixed: Mapping[str, Any]) -> Space:
    """The `parameters:` block, with every mistake in it. Keys of the mistakes start with 'parameters.'."""
    parameters: dict[str, Parameter] = {}
    mistakes: list[Mistake] = []
    for name, spec in specs.items():
        parameter, found = read_parameter(spec)
        if parameter is not None and parameter.when:
            parameter, unmet = _with_parents(name, parameter, _Around(parameters, fixed, list(specs)))
            found += unmet
        if parameter is not None and not found:
            parameters[name] = parameter
        mistakes += [Mistake(f"parameters.{name}", text) for text in found]
    return Space(parameters, frozenset(specs) - frozenset(parameters), tuple(mistakes))


def read_parameter(spec: Any) -> tuple[Parameter | None, list[str]]:
    """One parameter as the file gives it, or None, and what is wrong with it, each in one sentence."""
    if not isinstance(spec, dict):
        return None, [_not_a_block(spec)]
    wrong = [_unknown_key(key) for key in spec if key not in KEYS]
    meant, also_wrong = _without_distribution({key: value for key, value in spec.items() if key in KEYS})
    wrong += also_wrong
    if wrong and not {"value", "values", "min", "max"} & set(meant):
        return None, wrong
    when, also_wrong = _read_when(meant.pop("when", None))
    wrong += also_wrong
    fields, also_wrong = _read_kind(meant)
    wrong += also_wrong
    return (None if wrong else Parameter(when=when, **fields)), wrong


def _not_a_block(spec: Any) -> str:
    if spec is None:
        return "is empty; give min and max, values, or value"
    if isinstance(spec, list):
        return f"{say(spec)} is neither a range nor a choice; write {{values: {say(spec)}}} or {{min: .., max: ..}}"
    return f"{say(spec)} alone is no range; write {{value: {say(spec)}}}, or move it to fixed"


def _unknown_key(key: str) -> str:
    way_out = f"; {OTHER_NAMES[key]}" if key in OTHER_NAMES else or_nearest(key, KEYS)
    return f"unknown key '{key}'{way_out}"


def _without_distribution(spec: _Fields) -> tuple[_Fields, list[str]]:
    """W&B's `distribution` and `q` said in our keys; 'kind' and 'log' are set where it decides them."""
    meant = dict(spec)
    distribution = meant.pop("distribution", None)
    q = meant.pop("q", None)
    if distribution is None:
        return meant, ["'q' goes with distribution: q_uniform; use step"] if q is not None else []
    if distribution in _EXPONENTS:
        text = "takes exponents in W&B; use log_uniform_values, or log: true, and give min and max themselves"
        return meant, [f"distribution {distribution} {text}"]
    if distribution not in DISTRIBUTIONS:
        return meant, [f"distribution {say(distribution)} is not supported{or_nearest(distribution, DISTRIBUTIONS)}"]
    says = DISTRIBUTIONS[distribution]
    missing = [key for key in says["needs"] if key not in meant]
    wrong = [f"distribution {distribution} needs {' and '.join(missing)}"] if missing else []
    if "min" in says["needs"] and meant.get("log") is (not says.get("log", False)):
        wrong.append(f"distribution {distribution} and log: {say(meant['log'])} contradict each other; keep one")
    if says.get("stepped"):
        meant["step"] = 1 if q is None else q
    meant.update({key: says[key] for key in ("kind", "log") if key in says})
    return meant, wrong


def _read_when(when: Any) -> tuple[dict[str, list[Any]], list[str]]:
    if when is None:
        return {}, []
    if not isinstance(when, dict) or not when:
        return {}, [f"when must name a setting and its value, such as when: {{codec: heatmap}}, not {say(when)}"]
    listed = {name: allowed if isinstance(allowed, list) else [allowed] for name, allowed in when.items()}
    empty = [f"when allows no value of '{name}'" for name, allowed in listed.items() if not allowed]
    return listed, empty


def _read_kind(meant: _Fields) -> tuple[_Fields, list[str]]:
    given = [key for key in ("value", "values", "min", "max") if key in meant]
    if not given:
        return {}, ["needs min and max, values, or value"]
    for one in ("value", "values"):
        if one in given and (others := [key for key in meant if key not in (one, "kind")]):
            return {}, [f"'{one}' and '{others[0]}' do not go together; keep one"]
    if "value" in given:
        return {"kind": "constant", "values": (meant["value"],)}, []
    return _read_values(meant["values"]) if "values" in given else _read_range(meant)


def _read_values(values: Any) -> tuple[_Fields, list[str]]:
    if not isinstance(values, list):
        return {}, [f"values must be a list, such as values: [{say(values)}]"]
    if not values:
        return {}, ["values is empty; give at least one"]
    blocks = [value for value in values if isinstance(value, dict)]
    if blocks:
        return {}, [
            f"values cannot hold the block {say(blocks[0])}; a value is a number, text, true or false, or a list"
        ]
    for i, value in enumerate(values):
        twin = next((other for other in values[:i] if other == value), None)
        if twin is not None or (value is None and None in values[:i]):
            what = (
                f"has {say(value)} twice" if same(twin, value) else f"has {say(twin)} and {say(value)}, which are equal"
            )
            return {}, [f"values {what}; keep one"]
    return {"kind": "categorical", "values": tuple(values)}, []


def _read_range(meant: _Fields) -> tuple[_Fields, list[str]]:
    missing = [key for key in ("min", "max") if key not in meant]
    if missing:
        return {}, [f"has {'max' if missing == ['min'] else 'min'} but no {missing[0]}; give both"]
    given = {key: meant[key] for key in ("min", "max", "step") if key in meant}
    numbers = {key: found for key, value in given.items() if (found := number(value)) is not None}
    wrong = [f"{key} must be a number, not {say(value)}" for key, value in given.items() if key not in numbers]
    if not isinstance(meant.get("log", False), bool):
        wrong.append(f"log must be true or false, not {say(meant['log'])}")
    if wrong:
        return {}, wrong
    low, high = numbers["min"], numbers["max"]
    kind = _number_kind(meant.get("kind"), low, high)
    fields = {"kind": kind, "low": low, "high": high, "log": meant.get("log", False)}
    if kind == "float":
        fields.update(low=float(low), high=float(high))
    fields.update(step=numbers.get("step"), points=meant.get("points"))
    return fields, _wrong_bounds(fields) or _wrong_steps(fields)


def _number_kind(wanted: str | None, low: Any, high: Any) -> str:
    whole = isinstance(low, int) and isinstance(high, int)
    return "float" if wanted == "float" or not (whole or wanted == "int") else "int"


def number(value: Any) -> float | int | None:
    """A number, also one that stands in quotes; None for anything else."""
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return None
    usable = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    return value if usable else None


def _wrong_bounds(fields: _Fields) -> list[str]:
    low, high = fields["low"], fields["high"]
    if fields["kind"] == "int" and not (isinstance(low, int) and isinstance(high, int)):
        return [f"int_uniform needs whole min and max, not {say(low)} and {say(high)}"]
    if low > high:
        return [f"min {say(low)} is above max {say(high)}; swap them"]
    if low == high:
        return [f"min and max are both {say(low)}, an empty range; write value: {say(low)}"]
    if fields["log"] and low <= 0:
        return [f"log needs min above 0, not {say(low)}; try min: {say(tidy(high / 1000, 'float'))}, or take log out"]
    return []


def _wrong_steps(fields: _Fields) -> list[str]:
    low, high, step, points = (fields[key] for key in ("low", "high", "step", "points"))
    if points is not None and (isinstance(points, bool) or not isinstance(points, int) or points < 2):
        return [f"points must be a whole number of at least 2, not {say(points)}"]
    if step is None:
        return []
    if fields["log"] or points is not None:
        return [f"step and {'log' if fields['log'] else 'points'} do not go together; keep one"]
    if step <= 0:
        return [f"step {say(step)} must be above 0"]
    if fields["kind"] == "int" and not isinstance(step, int):
        return [f"step {say(step)} with whole min and max; write min: {float(low)} to search fractions"]
    if step > high - low:
        return [f"step {say(step)} is wider than the range {say(low)} to {say(high)}"]
    last = tidy(low + math.floor((high - low) / step + 1e-9) * step, fields["kind"])
    return (
        []
        if math.isclose(last, high)
        else [f"max {say(high)} is not on the steps of {say(step)}; use max: {say(last)}"]
    )


@dataclass(frozen=True)
class _Around:
    """What a `when` can speak of: the parameters read so far, the fixed settings; and all names, in their order."""

    earlier: dict[str, Parameter]
    fixed: Mapping[str, Any]
    names: list[str]


def _with_parents(name: str, parameter: Parameter, around: _Around) -> tuple[Parameter, list[str]]:
    """The parameter with every `when` value as its parent proposes it; and what is wrong with the whens."""
    when: dict[str, list[Any]] = {}
    wrong: list[str] = []
    for parent, allowed in parameter.when.items():
        if parent in around.earlier:
            when[parent], text = _possible(parent, around.earlier[parent], allowed)
        else:
            is_list = same(around.fixed.get(parent), allowed)  # one value, itself a list: imgsz: [192, 256]
            when[parent], text = [allowed] if is_list else allowed, _unknown_parent(name, parent, around)
        wrong += [f"when: {text}"] if text else []
    return parameter.model_copy(update={"when": when}), wrong


def _possible(parent: str, parameter: Parameter, allowed: list[Any]) -> tuple[list[Any], str]:
    if parameter.kind == "float" and parameter.step is None:
        return allowed, f"{parent} is any number from {parameter.range}; name a setting with values or whole numbers"
    if any(same(allowed, value) for value in parameter.values):
        return [allowed], ""
    settled = []
    for value in allowed:
        try:
            settled.append(parameter.settle(value))
        except ValueError:
            return allowed, f"{parent} is never {say(value)}; it is {parameter.range}"
    return settled, ""


def _unknown_parent(name: str, parent: str, around: _Around) -> str:
    if parent in around.fixed:
        return ""
    if parent == name:
        return f"'{parent}' is this parameter itself"
    before = around.names[: around.names.index(name)]
    if parent in before:
        return ""  # it is broken itself, and that is said already
    if parent in around.names:
        return f"'{parent}' comes later; move it above '{name}'"
    known = [*before, *around.fixed]
    return f"'{parent}' is neither an earlier parameter nor fixed" + (or_nearest(parent, known) if known else "")
