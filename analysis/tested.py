"""What the untouched test split said of a sweep's winner and baseline (test.json), in lines."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from posesweep.files import read_record

FILE = "test.json"


def lines_of_test(folder: Path, winner: int | None) -> list[str]:
    """The outcome on the test split, and a note where the `winner` of now is another; nothing before it was used.

    'test: trial 7 AP 0.612 [0.580, 0.641], +0.031 [+0.010, +0.052] over the baseline'
    """
    if not (folder / FILE).is_file():
        return []
    record = read_record(folder / FILE)
    if record is None or not record.get("trials"):
        return [f"note: {FILE} cannot be read; it may be only partly copied"]
    tested = record["trials"][0]["trial"]
    lines = [*map(_line, record["trials"]), *(f"note: test: {note}" for note in record["notes"])]
    if winner is not None and winner != tested:
        lines.append(
            f"note: test: the test split was used already, on {record['used'][:10]} for trial {tested}; it is not read "
            f"again, so trial {winner}, the winner now, has no score on it"
        )
    return lines


def _line(one: dict[str, Any]) -> str:
    ap, gain = one["AP"], one["gain"]
    text = f"test: trial {one['trial']}{', the baseline,' if one['role'] == 'baseline' else ''}"
    alone = ap_alone(one)
    if ap:
        text += f" AP {ap['value']:.3f} [{ap['low']:.3f}, {ap['high']:.3f}]"
    else:
        text += " has no AP" if alone is None else f" AP {alone:.3f}, without an interval"
    if gain and one["role"] != "baseline":
        text += f", {gain['value']:+.3f} [{gain['low']:+.3f}, {gain['high']:+.3f}] over the baseline"
    return text


def ap_alone(one: Mapping[str, Any]) -> float | None:
    """The AP of a trial in the record that has no interval; None where it is not defined."""
    ap = (one.get("metrics") or {}).get("AP")
    return float(ap) if isinstance(ap, int | float) and ap >= 0 else None
