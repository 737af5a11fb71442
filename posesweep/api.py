"""PoseSweep from Python: `sweep` runs one, `load` reads one; what comes back is the sweep folder in a few tables.

from posesweep import load, sweep

results = sweep("mice.yaml", epochs=30, search={"trials": 20})
results.ranking.head()
results.winner.weights
"""

import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from posesweep.errors import ConfigError, SweepError

if TYPE_CHECKING:
    import pandas as pd

    from posesweep.analysis.ranked import Standings
    from posesweep.analysis.ranking import Interval
    from posesweep.analysis.results import SweepResults


PATHS = {"train", "val", "test", "images", "val_images", "test_images", "skeleton"}
END_OF_SCALAR = "...\n"  # what YAML writes behind a plain value


@dataclass(frozen=True)
class Winner:
    """The training that a sweep hands over."""

    trial: int
    settings: dict[str, Any]  # its whole config
    value: float | None  # the sweep's metric at its best epoch
    ap: "Interval | None"  # .value, .low, .high: keypoint AP with its 95 % interval; None where it has none
    weights: Path  # safetensors, of its best epoch
    folder: Path


@dataclass(frozen=True)
class Results:
    """A sweep folder, read when something is asked for the first time; `load` again to see what a running sweep did
    since."""

    folder: Path

    @property
    def trials(self) -> "pd.DataFrame":
        """One row per trial: trial, role, state, reason, params/<name>, AP and the other metrics of its best epoch,
        epochs, wall_s, ...

        >>> load("runs/mice").trials[["trial", "state", "AP"]]
        """
        return self._read.trials.copy()

    @property
    def curves(self) -> "pd.DataFrame":
        """One row per trial and epoch: trial, epoch, value, loss, lr.

        >>> load("runs/mice").curves.pivot(index="epoch", columns="trial", values="value").plot()
        """
        return self._read.curves.copy()

    @property
    def ranking(self) -> "pd.DataFrame":
        """One row per trial, the best first: rank, trial, role, state, value, ap, ap_low, ap_high, p_best, tied, gain,
        gain_low, gain_high, epochs, in words why it ended, and the searched values by their names.

        `rank` is missing for trials that were stopped early or failed; `tied`: cannot be told from the best.
        """
        import pandas as pd

        return pd.DataFrame([_row(row) for row in self._ranked.rows])

    @property
    def winner(self) -> Winner:
        """The training the sweep hands over; SweepError while there is none.

        >>> load("runs/mice").winner.settings["lr0"]
        """
        from posesweep.analysis.chosen import chosen

        found = chosen(self._read, self._ranked)
        settings = yaml.safe_load((found.folder / "config.yaml").read_text(encoding="utf-8"))
        weights = found.folder / "best" / "weights.safetensors"
        return Winner(found.trial, settings, found.value, found.ap, weights, found.folder)

    def report(self) -> Path:
        """Build report.html anew in the sweep folder; returns its path."""
        from posesweep.analysis.report import build_report

        return build_report(self.folder)

    @cached_property
    def _read(self) -> "SweepResults":
        from posesweep.analysis.results import read_sweep_folder

        return read_sweep_folder(self.folder)

    @cached_property
    def _ranked(self) -> "Standings":
        from posesweep.analysis.ranked import ranked

        return ranked(self._read)


def load(folder: str | os.PathLike[str]) -> Results:
    """The results in a sweep folder, such as "runs/mice", running or done. SweepError when it is none.

    >>> load("runs/mice").ranking
    """
    results = Results(Path(folder))
    _ = results._read
    return results


def sweep(
    file: str | os.PathLike[str] | Mapping[str, Any], runs: str | os.PathLike[str] = "runs", **overrides: Any
) -> Results:
    """Run a sweep here as `python run_sweep.py` does, to its end; called again, it goes on or only loads.

    `file` is a sweep file, or its content as a mapping, whose `name` is then needed. `overrides` are settings of the
    training, or blocks of the file with the keys to change in them. Raises ConfigError, DataError, SweepError.

    >>> sweep("mice.yaml", epochs=30, search={"trials": 20})
    >>> sweep({"name": "mice", "data": {"train": "mice.json"}, "parameters": {"lr0": {"min": 1e-4, "max": 1e-2}}})
    """
    from posesweep.search_spaces.space import read_sweep
    from posesweep.trainables.sweep import run_sweep
    from posesweep.trainables.tasks import check_values, defaults_of

    with tempfile.TemporaryDirectory() as scratch:
        path = _written(file, Path(scratch)) if isinstance(file, Mapping) else Path(file)
        asked = read_sweep(path, _settings(overrides), check_values, defaults_of)
    for note in asked.notes:
        print(f"note: {note}")
    folder = Path(runs) / asked.name
    run_sweep(asked, folder)
    return load(folder)


def _written(content: Mapping[str, Any], scratch: Path) -> Path:
    """The content as a file; its paths count from the current directory."""
    if "name" not in content:
        raise ConfigError("a sweep that is given as a mapping needs a name, that of its folder: {'name': 'mice', ..}")
    path, plain = scratch / "sweep.yaml", _plain(content)
    plain |= {"data": _absolute(plain["data"])} if "data" in plain else {}
    try:
        path.write_text(yaml.safe_dump(plain, sort_keys=False, allow_unicode=True), encoding="utf-8")
    except yaml.representer.RepresenterError as error:
        value = error.args[-1] if error.args else ""
        raise ConfigError(f"a sweep holds text, numbers, lists and mappings, not {value!r}") from error
    return path


def _plain(value: Any) -> Any:
    """Paths as text, tuples as lists, every mapping a dict."""
    if isinstance(value, Mapping):
        return {str(name): _plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return str(value) if isinstance(value, os.PathLike) else value


def _absolute(data: Any) -> Any:
    """The `data:` block with its paths from the current directory, as there is no file to count them from."""
    if not isinstance(data, dict):
        return data
    found = dict(data)
    for name in PATHS & {name for name, value in data.items() if isinstance(value, str)}:
        if name != "skeleton" or data[name].endswith((".yaml", ".yml")):
            found[name] = str(Path(data[name]).expanduser().absolute())
    return found


def _settings(overrides: Mapping[str, Any]) -> list[str]:
    """'epochs=30', 'search.trials=20': as on the command line; of a block, only the keys that are given."""
    found: dict[str, Any] = {}
    for name, value in overrides.items():
        if isinstance(value, Mapping):
            found |= {f"{name}.{key}": inner for key, inner in value.items()}
        else:
            found[name] = value
    return [f"{name}={_on_one_line(value)}" for name, value in found.items()]


def _on_one_line(value: Any) -> str:
    """A value as YAML."""
    text = yaml.safe_dump(_plain(value), default_flow_style=True, width=1_000_000, allow_unicode=True)
    return text.removesuffix(END_OF_SCALAR).strip()


def _row(row: Any) -> dict[str, Any]:
    """A standing as a row of a table."""
    said = {name: getattr(row, name) for name in ("rank", "trial", "role", "state", "value")}
    for name in ("ap", "gain"):
        interval = getattr(row, name)
        parts = (interval.value, interval.low, interval.high) if interval is not None else (None, None, None)
        said |= dict(zip((name, f"{name}_low", f"{name}_high"), parts, strict=True))
    said |= {"p_best": row.p_best, "tied": row.tied, "epochs": row.epochs, "in_words": row.in_words}
    return {**said, **{name: value for name, value in row.params.items() if name not in said}}


__all__ = ["Results", "SweepError", "Winner", "load", "sweep"]
