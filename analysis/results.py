"""A sweep folder -> tidy tables. Reads files only, so it works while a sweep runs, after a crash and on a copy."""

import json
import zipfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from jaxtyping import Float, Int, UInt8

from posesweep.datasets.skeleton import Skeleton
from posesweep.errors import SweepError, did_you_mean
from posesweep.files import read_json_lines, replacing, trial_folder

PARAMS = "params/"  # columns of searched values carry this prefix: a search may well be over `epochs` or `seed`
STATES = ("finished", "pruned", "diverged", "failed", "running", "unknown")
ERRORS = ("val/NME", "val/RMSE_px", "loss")  # the smaller the better
UNDEFINED = -1  # how COCO writes an AP of no object at all
CURVE_COLUMNS = ("trial", "epoch", "value", "loss", "lr")


@dataclass(frozen=True)
class Evidence:
    """What the best epoch of one trial predicted on D validation objects. Points are image pixels, xy."""

    ids: Int[np.ndarray, "D"]  # annotation ids
    image_ids: Int[np.ndarray, "D"]
    boxes: Float[np.ndarray, "D 4"]  # x, y, width, height
    areas: Float[np.ndarray, "D"]  # pixels^2, the s^2 of OKS
    keypoints: Float[np.ndarray, "D K 2"]
    true_keypoints: Float[np.ndarray, "D K 2"]
    visibility: UInt8[np.ndarray, "D K"]  # 0 not labelled, 1 hidden, 2 visible
    oks: Float[np.ndarray, "D"]  # nan where nothing is labelled
    error_px: Float[np.ndarray, "D K"]  # nan where not labelled
    arrays: Mapping[str, np.ndarray]  # everything in the file, for ranking

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> "Evidence":
        """Raises KeyError for a missing array."""
        return cls(**{name: arrays[stored] for name, stored in STORED_AS.items()}, arrays=arrays)


STORED_AS = {  # fields of Evidence -> arrays in evidence.npz
    "ids": "id",
    "image_ids": "image_id",
    "boxes": "box",
    "areas": "area",
    "keypoints": "keypoints",
    "true_keypoints": "true_keypoints",
    "visibility": "visibility",
    "oks": "oks",
    "error_px": "error_px",
}


@dataclass(frozen=True)
class SweepResults:
    """One sweep as found on disk. `notes` says in sentences what is missing or looks wrong.

    `trials`: one row per trial, index 0..n-1: trial, role, state, reason, params/<name>..., the metrics of the best
    epoch (AP, AP50, ...), value (the sweep's own metric there), best_epoch, epochs, wall_s (in which it was running:
    not between two runs of the sweep, nor waiting at a rung), train_s, val_s, parameters (the network's size),
    has_evidence. `curves`: one row per trial and epoch: trial, epoch, value, loss, lr.
    """

    folder: Path
    trials: pd.DataFrame
    curves: pd.DataFrame
    sweep: dict[str, Any]  # space.json, or sweep.yaml where that is missing; {} when neither can be read
    split: dict[str, Any]  # split.json; {} when it cannot be read
    statuses: dict[int, dict[str, Any]]  # status.json by trial
    notes: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return str(self.sweep.get("name") or self.folder.name)

    @property
    def metric(self) -> str:
        return _metric(self.sweep)[0]

    @property
    def maximize(self) -> bool:
        return _metric(self.sweep)[1]

    @property
    def params(self) -> tuple[str, ...]:
        """Names of the searched parameters, in the sweep file's order."""
        return tuple(column.removeprefix(PARAMS) for column in self.trials.columns if column.startswith(PARAMS))

    def params_of(self, trial: int) -> dict[str, Any]:
        """The searched values of a trial; those not active in it are left out."""
        return dict(self.statuses.get(trial, {}).get("params") or {})

    @property
    def baseline(self) -> int | None:
        """The trial with the role "baseline"."""
        rows = self.trials.loc[self.trials["role"] == "baseline", "trial"]
        return int(rows.iloc[0]) if len(rows) else None

    @cached_property
    def full_epochs(self) -> int | None:
        """The epochs of a whole training: fixed by the sweep, or as the first trial's config has it."""
        fixed = (self.sweep.get("fixed") or {}).get("epochs")
        configs = (self.settings(trial).get("epochs") for trial in self.statuses)
        return fixed if fixed is not None else next((epochs for epochs in configs if epochs is not None), None)

    @cached_property
    def skeleton(self) -> Skeleton | None:
        """The skeleton frozen with the split."""
        record = self.split.get("skeleton")
        return _skeleton(record) if isinstance(record, dict) else None

    def evidence(self, trial: int) -> Evidence | None:
        """Predictions of the trial's best epoch, read now; None where there are none (yet). Raises SweepError."""
        if not self.trials.loc[self.trials["trial"] == trial, "has_evidence"].any():
            return None
        path = trial_folder(self.folder, trial) / "evidence.npz"
        try:
            with np.load(path, allow_pickle=False) as stored:
                return Evidence.from_arrays({name: stored[name] for name in stored.files})
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            raise SweepError(f"{path}: cannot be read ({error}); copy it again or delete it to leave it out") from error

    def settings(self, trial: int) -> dict[str, Any]:
        """The trial's full config.yaml; {} where there is none."""
        return settings_in(trial_folder(self.folder, trial))


def settings_in(training: Path) -> dict[str, Any]:
    """The full config.yaml of a training, whether of the search, of a confirmation or promoted; {}: there is none."""
    value, _ = _read(training / "config.yaml", yaml.safe_load)
    return value


def read_sweep_folder(folder: Path) -> SweepResults:
    """Read what is there; whatever is missing, torn or odd becomes a note. Raises SweepError for a foreign folder."""
    folder = Path(folder)
    _check_is_sweep(folder)
    sweep, problem = _read_sweep(folder)
    notes = [problem]
    split, problem = _read(folder / "split.json", json.loads)
    notes.append(problem)
    metric, maximize = _metric(sweep)
    found = [_read_trial(path, metric, maximize) for path in _trial_folders(folder)]
    notes += [note for trial in found for note in trial.notes]
    trials = _trial_table(found, sweep)
    return SweepResults(
        folder=folder,
        trials=trials,
        curves=_curve_table(found),
        sweep=sweep,
        split=split,
        statuses={trial.number: trial.status for trial in found},
        notes=tuple(note for note in [*notes, *_state_notes(trials), _waiting_note(found)] if note),
    )


def write_results_csv(results: SweepResults, path: Path) -> None:
    """The trials table as CSV, whole or not at all."""
    with replacing(path) as temporary:
        results.trials.to_csv(temporary, index=False)


def write_results_parquet(results: SweepResults, path: Path) -> None:
    """The trials table as Parquet, whole or not at all. A column of mixed or nested values becomes JSON texts: a
    Parquet column has one type."""
    table = results.trials.copy()
    for name in [name for name in table if pd.api.types.is_object_dtype(table[name])]:
        kinds = {type(value) for value in table[name].dropna()}
        if not (len(kinds) == 1 and kinds <= {str, bool, int, float}):
            table[name] = [None if _is_missing(value) else json.dumps(value, default=str) for value in table[name]]
    with replacing(path) as temporary:
        table.to_parquet(temporary, index=False)


def _is_missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and value != value)


# --- the folder ------------------------------------------------------------------------------------------------------


def _check_is_sweep(folder: Path) -> None:
    if _looks_like_sweep(folder):
        return
    if not folder.is_dir():
        siblings = [path.name for path in _sweeps_in(folder.parent)]
        hint = did_you_mean(folder.name, siblings) if siblings else "; give the folder of a sweep, like runs/demo"
        raise SweepError(f"{folder}: there is no such folder{hint}")
    inside = [str(path) for path in _sweeps_in(folder)]
    hint = f"give one of the sweeps in it: {', '.join(inside)}" if inside else "give the folder of a sweep: runs/demo"
    raise SweepError(f"{folder}: not a sweep folder, it has neither sweep.yaml nor trials/; {hint}")


def _looks_like_sweep(folder: Path) -> bool:
    return (folder / "sweep.yaml").is_file() or (folder / "trials").is_dir()


def _sweeps_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if _looks_like_sweep(path)) if folder.is_dir() else []


def _trial_folders(folder: Path) -> list[Path]:
    trials = folder / "trials"
    found = [path for path in trials.iterdir() if path.is_dir() and path.name.isdecimal()] if trials.is_dir() else []
    return sorted(found, key=lambda path: int(path.name))


def _read(path: Path, parse: Any) -> tuple[dict[str, Any], str]:
    """(content, "") or ({}, what is wrong in a sentence)."""
    where = "/".join(path.parts[-3:]) if path.parent.parent.name == "trials" else path.name
    if not path.is_file():
        return {}, f"{where} is missing."
    try:
        value = parse(path.read_text(encoding="utf-8"))
    except (ValueError, yaml.YAMLError):  # JSONDecodeError and UnicodeDecodeError are ValueErrors
        return {}, f"{where} cannot be read; it may be only partly copied."
    return (value, "") if isinstance(value, dict) else ({}, f"{where} is not what a sweep writes.")


def _read_sweep(folder: Path) -> tuple[dict[str, Any], str]:
    """The resolved sweep, or what the user wrote, which names the same things but leaves defaults out."""
    sweep, _ = _read(folder / "space.json", json.loads)
    return (sweep, "") if sweep else _read(folder / "sweep.yaml", yaml.safe_load)


def _metric(sweep: Mapping[str, Any]) -> tuple[str, bool]:
    """(name, larger is better)."""
    metric = sweep.get("metric")
    if not isinstance(metric, dict):
        metric = {"name": metric or "val/AP"}
    name = str(metric.get("name", "val/AP"))
    return name, metric.get("goal", "minimize" if name in ERRORS else "maximize") != "minimize"


def _skeleton(record: Mapping[str, Any]) -> Skeleton:
    def pairs(key: str) -> tuple[tuple[str, str], ...]:
        return tuple((str(a), str(b)) for a, b in record.get(key, ()))

    return Skeleton(
        name=str(record.get("name", "")),
        keypoints=tuple(map(str, record["keypoints"])),
        flip_pairs=pairs("flip_pairs"),
        edges=pairs("edges"),
        sigmas=np.asarray(record["sigmas"], dtype=np.float64),
        sigmas_note=str(record.get("sigmas_note", "")),
    )


# --- one trial -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Trial:
    number: int
    status: dict[str, Any]
    epochs: pd.DataFrame  # metrics.jsonl, one row per epoch
    metric: str
    maximize: bool
    has_evidence: bool
    notes: tuple[str, ...]


def _read_trial(path: Path, metric: str, maximize: bool) -> _Trial:
    status, problem = _read(path / "status.json", json.loads)
    notes = [problem]
    try:
        rows = read_json_lines(path / "metrics.jsonl", lambda row: isinstance(row, dict) and "epoch" in row)
    except ValueError:
        rows = []
        notes.append(f"trials/{path.name}/metrics.jsonl is damaged; its learning curve is left out.")
    evidence = path / "evidence.npz"
    problem = _evidence_problem(evidence)
    if problem:
        notes.append(f"trials/{path.name}/evidence.npz {problem}; its predictions are left out.")
    whole = evidence.is_file() and not problem
    return _Trial(int(path.name), status, _last_attempts(rows), metric, maximize, whole, tuple(filter(None, notes)))


def _evidence_problem(path: Path) -> str:
    """What is wrong with an evidence.npz, to the last byte; "" for one that is whole, or not there."""
    if not path.is_file():
        return ""
    try:
        with zipfile.ZipFile(path) as stored:
            broken = stored.testzip()
            names = {name.removesuffix(".npy") for name in stored.namelist()}
    except (OSError, zipfile.BadZipFile):
        return "is only partly there"
    if broken is not None:
        return "is damaged"
    missing = [name for name in STORED_AS.values() if name not in names]
    return f"is of another version of PoseSweep, without {', '.join(missing)}" if missing else ""


def _last_attempts(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """One row per epoch: an epoch repeated after a restart counts once, as its last attempt wrote it."""
    table = pd.DataFrame(rows)
    if table.empty:
        return pd.DataFrame(columns=["epoch"])
    for name in [column for column in table if str(column).startswith(("val/AP", "val/AR"))]:
        table[name] = table[name].where(table[name] != UNDEFINED)
    order = [column for column in ("epoch", "attempt") if column in table]
    return table.sort_values(order, kind="stable").drop_duplicates("epoch", keep="last").reset_index(drop=True)


def _best_row(trial: _Trial) -> dict[str, Any]:
    """The metrics of the best epoch: status.json's, or the best so far when it does not say."""
    if trial.metric not in trial.epochs:
        return {}
    scored = trial.epochs.assign(value=pd.to_numeric(trial.epochs[trial.metric], errors="coerce")).dropna(
        subset="value"
    )
    said = scored[scored["epoch"] == trial.status.get("best_epoch")]
    best = said if len(said) else scored.sort_values("value", ascending=not trial.maximize, kind="stable")
    rows = best.drop(columns="value").head(1).to_dict("records")
    return {str(name): value for name, value in rows[0].items() if not pd.isna(value)} if rows else {}


def _state(status: Mapping[str, Any]) -> tuple[str, str]:
    if not status:
        return "unknown", "no readable status.json: not started, or only partly copied"
    state = str(status.get("state", "unknown"))
    if state == "waiting":  # at a rung: stopped early as far as it is known, and its reason says that it waits
        state = "pruned"
    return (state if state in STATES else "unknown"), str(status.get("reason") or "")


def _trial_row(trial: _Trial) -> dict[str, Any]:
    status, best = trial.status, _best_row(trial)
    state, reason = _state(status)
    cost = status.get("cost") or {}
    written = int(trial.epochs["epoch"].max()) if len(trial.epochs) else 0
    row = {"trial": trial.number, "role": str(status.get("role") or "search"), "state": state, "reason": reason}
    row |= {PARAMS + name: value for name, value in (status.get("params") or {}).items()}
    row |= {"value": best.get(trial.metric, _stored_best(status, trial.metric))}
    row |= {name.removeprefix("val/"): value for name, value in best.items() if name.startswith("val/")}
    row |= {"best_epoch": best.get("epoch", status.get("best_epoch")), "epochs": int(status.get("epochs") or written)}
    for name in ("train_s", "val_s"):
        row[name] = cost.get(name, trial.epochs[name].sum() if name in trial.epochs else None)
    row["wall_s"] = status.get("held_s", _wall_s(status))
    return row | {"parameters": status.get("parameters"), "has_evidence": trial.has_evidence}


def _stored_best(status: Mapping[str, Any], metric: str) -> float | None:
    """The best value as status.json has it; None where COCO would write -1."""
    best = status.get("best")
    return None if metric.startswith(("val/AP", "val/AR")) and best == UNDEFINED else best


def _wall_s(status: Mapping[str, Any]) -> float | None:
    """Seconds from a trial's start to its end, of one that an older version wrote; None while it runs."""
    times = moments(status)
    return (times[1] - times[0]).total_seconds() if len(times) == 2 else None


def moments(status: Mapping[str, Any]) -> list[datetime]:
    """When a trial started and ended, as far as its status.json says; without a time zone, UTC."""
    found = []
    for key in ("started", "ended"):
        with suppress(ValueError):  # still running, or not a time: not known
            time = datetime.fromisoformat(status.get(key) or "")
            found.append(time if time.tzinfo else time.replace(tzinfo=UTC))
    return found


# --- the tables ------------------------------------------------------------------------------------------------------


def _trial_table(found: list[_Trial], sweep: Mapping[str, Any]) -> pd.DataFrame:
    rows = [_trial_row(trial) for trial in found]
    names = list(dict.fromkeys(name for row in rows for name in row))
    stated = [PARAMS + str(name) for name in sweep.get("parameters") or {}]
    params = [name for name in stated if name in names]
    params += [name for name in names if name.startswith(PARAMS) and name not in stated]
    tail = ["best_epoch", "epochs", "wall_s", "train_s", "val_s", "parameters", "has_evidence"]
    head = ["trial", "role", "state", "reason", *params, "value"]
    metrics = [name for name in names if name not in {*head, *tail}]
    table = pd.DataFrame(rows, columns=[*head, *metrics, *tail])
    numbers = ["value", *metrics, "wall_s", "train_s", "val_s"]
    table[numbers] = table[numbers].apply(pd.to_numeric, errors="coerce").astype(float)
    return table.astype({"best_epoch": "Int64", "parameters": "Int64", "has_evidence": bool})


def _curve_table(found: list[_Trial]) -> pd.DataFrame:
    parts = []
    for trial in found:
        columns = {"epoch": "epoch", "value": trial.metric, "loss": "loss", "lr": "lr"}
        part = pd.DataFrame({name: trial.epochs.get(source) for name, source in columns.items()})
        parts.append(part.assign(trial=trial.number))
    table = pd.concat(parts) if parts else pd.DataFrame(columns=list(CURVE_COLUMNS))
    table = table[list(CURVE_COLUMNS)].apply(pd.to_numeric, errors="coerce")
    return table.astype({"trial": int, "epoch": int, "value": float, "loss": float, "lr": float}).reset_index(drop=True)


def _waiting_note(found: Sequence[_Trial]) -> str:
    count = sum(trial.status.get("state") == "waiting" for trial in found)
    who = "1 trial waits" if count == 1 else f"{count} trials wait"
    return f"{who} at a rung and may yet go on: the search is not over, or its budget ended it." if count else ""


def _state_notes(trials: pd.DataFrame) -> list[str]:
    if trials.empty:
        return ["No trial has been started yet."]
    notes = []
    count = trials["state"].value_counts()
    if running := int(count.get("running", 0)):
        whose = (
            "1 trial had not ended when this was read; its"
            if running == 1
            else (f"{running} trials had not ended when this was read; their")
        )
        notes.append(f"{whose} figures may still change.")
    if not count.get("finished", 0):
        what = (
            "Every trial failed or diverged" if set(count.index) <= {"failed", "diverged"} else "No trial has finished"
        )
        notes.append(f"{what}; what follows is only what was written on the way.")
    elif count["finished"] == 1:
        notes.append("Only one trial has finished: there is nothing to compare it with yet.")
    undefined = trials[(trials["state"] == "finished") & trials["value"].isna() & (trials["epochs"] > 0)]
    if len(undefined):
        listed = ", ".join(map(str, undefined["trial"]))
        notes.append(f"Trained to the end, but without a score: trial {listed}; no validation object has a label.")
    silent = trials[(trials["state"] == "finished") & ~trials["has_evidence"]]
    if len(silent):
        listed = ", ".join(map(str, silent["trial"]))
        notes.append(f"Without evidence.npz, so without an interval: trial {listed}.")
    return notes
