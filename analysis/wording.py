"""Numbers as people write them, for reports and tables."""

from collections.abc import Mapping
from typing import Any

from posesweep.analysis.ranking import Interval


def number(value: float | None, digits: int = 3) -> str:
    """0.612; a dash for nan and None."""
    return "–" if value is None or value != value else f"{value:.{digits}f}"


def signed(value: float, digits: int = 3) -> str:
    """+0.012, with a true minus sign; a dash for nan."""
    return "–" if value != value else f"{value:+.{digits}f}".replace("-", "−")


def span(interval: Interval, sign: bool = False) -> str:
    """0.550…0.670, or +0.030…+0.112."""
    if sign:
        return f"{signed(interval.low)}…{signed(interval.high)}"
    return f"{interval.low:.3f}…{interval.high:.3f}"


def percent(share: float | None) -> str:
    """62 %; what is next to nothing or everything is said so, what is not known is a dash."""
    if share is None or share != share:
        return "–"
    return "< 1 %" if share < 0.01 else "> 99 %" if share > 0.99 else f"{100 * share:.0f} %"


def duration(seconds: float) -> str:
    """'42 s', '3 min 5 s', '2 h 10 min', '3 d 4 h'."""
    units = (("d", 86400), ("h", 3600), ("min", 60), ("s", 1))
    whole = round(seconds)
    for position, (name, length) in enumerate(units[:-1]):
        if whole >= length:
            smaller, small = units[position + 1]
            rest = whole % length // small
            return f"{whole // length} {name}" + (f" {rest} {smaller}" if rest else "")
    return f"{whole} s"


def setting_text(value: Any) -> str:
    """A setting as people write it: 0.0015, heatmap, 192 x 256, yes."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.3g}"
    if isinstance(value, list | tuple):
        return ", ".join(setting_text(item) for item in value)
    return str(value)


def flattened(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings with dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= flattened(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def seeds_text(seed_sd: float) -> str:
    """How much the seed matters, from its standard deviation of AP beyond what the images' own chance explains."""
    if seed_sd < 0.0005:
        return "Trainings with other seeds differ by no more than the chance of the images explains."
    return f"Another seed changes the AP of a config by about {seed_sd:.3f}."


def trials_text(count: int) -> str:
    """'1 trial', '12 trials'."""
    return "1 trial" if count == 1 else f"{count} trials"
