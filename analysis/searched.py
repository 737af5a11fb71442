"""The searched parameters as numbers: places on ranges, positions among choices."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from posesweep.analysis.results import PARAMS, SweepResults


@dataclass(frozen=True)
class Axis:
    """One searched parameter: a range from low to high, or choices. `whole`: only whole numbers are tried."""

    name: str
    low: float = 0.0
    high: float = 1.0
    log: bool = False
    whole: bool = False
    choices: tuple[str, ...] = ()  # () for a range

    def places(self, values: pd.Series) -> Float[np.ndarray, "n"]:
        """In 0..1 on a range, on its log scale where it has one; 0, 1, ... among choices; nan where not active."""
        if self.choices:
            known = {choice: float(place) for place, choice in enumerate(self.choices)}
            return np.array([known.get(choice_text(v), np.nan) if _is_set(v) else np.nan for v in values], float)
        numbers = pd.to_numeric(values, errors="coerce").to_numpy(float)
        ends = np.array([self.low, self.high])
        if self.log:
            with np.errstate(invalid="ignore", divide="ignore"):
                numbers, ends = np.log(numbers), np.log(ends)
        return (numbers - ends[0]) / (ends[1] - ends[0])

    def value(self, place: float) -> float:
        """The value at a place of a range."""
        if self.log:
            value = float(np.exp(np.log(self.low) + place * (np.log(self.high) - np.log(self.low))))
        else:
            value = self.low + place * (self.high - self.low)
        return float(round(value)) if self.whole else value


def axes(results: SweepResults) -> tuple[Axis, ...]:
    """Every searched parameter that can take more than one value, in the sweep file's order.

    Ranges are those of the sweep file, widened to what was tried (the file may have been edited since); without one,
    what was tried.
    """
    stated = results.sweep.get("parameters") or {}
    found = [_axis(name, stated.get(name) or {}, results.trials[PARAMS + name]) for name in results.params]
    return tuple(axis for axis in found if axis is not None)


def _axis(name: str, stated: Mapping[str, Any], tried: pd.Series) -> Axis | None:
    seen = tried[[_is_set(value) for value in tried]]
    numeric = pd.api.types.is_numeric_dtype(seen) and not pd.api.types.is_bool_dtype(seen) and len(seen) > 0
    if stated.get("values") or not numeric:
        choices = tuple(dict.fromkeys([*map(choice_text, stated.get("values") or ()), *sorted(map(choice_text, seen))]))
        return Axis(name, choices=choices) if len(choices) > 1 else None
    ends = [stated.get(key, stated.get(other)) for key, other in (("low", "min"), ("high", "max"))]
    low, high = min(_number(ends[0]), float(seen.min())), max(_number(ends[1], -np.inf), float(seen.max()))
    whole = bool((seen == seen.round()).all()) and all(end is None or float(end) == round(float(end)) for end in ends)
    whole &= stated.get("kind", "int") == "int"
    return Axis(name, low, high, bool(stated.get("log")) and low > 0, whole) if high > low else None


def _number(value: Any, otherwise: float = np.inf) -> float:
    """A bound as a number; none where the file has none."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return otherwise


def choice_text(value: Any) -> str:
    """A choice as people write it; a table makes 256 into 256.0 where other trials have none."""
    whole = isinstance(value, float) and value.is_integer()
    return str(int(value)) if whole else str(value)


def _is_set(value: Any) -> bool:
    """Whether a parameter had a value in a trial: None and nan stand for not active."""
    return value is not None and not (isinstance(value, float) and np.isnan(value))
