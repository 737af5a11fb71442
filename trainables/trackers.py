"""Weights & Biases and MLflow, where a sweep file asks for them: `track: wandb`, `track: mlflow`, or both.

A trial is a run of the sweep's group (W&B) or experiment (MLflow). The sweep folder stays the record of truth: a thread
of the process that runs the sweep watches it and tells what is new there, so no tracker can hold a trial up or end it.
`track.json` keeps which run is whose and how far it was told, so a resumed sweep goes on in the same runs, and what a
tracker missed is told by the next command.
"""

import json
import logging
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol, runtime_checkable
from uuid import uuid4

import yaml

from posesweep.errors import ConfigError
from posesweep.files import read_json, read_json_lines, write_json
from posesweep.search_spaces.schema import Mlflow, Track, Wandb
from posesweep.search_spaces.space import Sweep
from posesweep.trainables.status import read_status

BOOK = "track.json"
ENDED = ("waiting", "finished", "pruned", "diverged", "failed")  # one that waits is taken up again if it goes on
BROKEN = ("diverged", "failed")
EVERY_S = 3.0  # the folder is looked at
PATIENCE_S = 60.0  # how long a sweep that has ended waits for its trackers
NOT_METRICS = ("epoch", "step", "attempt", "worked_until")

Say = Callable[[str], None]


@dataclass(frozen=True)
class Training:
    """What a tracker is told of one training at its beginning. `key` is its folder below the sweep's."""

    sweep: str
    key: str
    role: str
    settings: Mapping[str, Any]  # of its config, the searched ones first

    @property
    def name(self) -> str:
        """'mice 0007'; one that is trained again, 'mice confirm 0007-s101'."""
        return f"{self.sweep} {self.key.removeprefix('trials/').replace('/', ' ')}"


@runtime_checkable
class Tracker(Protocol):
    """One place where runs are logged; used from one thread. A run that is begun again goes on."""

    def begin(self, run: str, training: Training) -> str:
        """Open the run `run` ('' for a new one); returns its name for the next time."""
        ...

    def log(self, run: str, epoch: int, metrics: Mapping[str, float]) -> None: ...

    def end(self, run: str, state: str, reason: str) -> None:
        """The training has ended, and how."""
        ...

    def close(self) -> None:
        """No more for now; runs that have not ended are left to go on another time."""
        ...


def check_trackers(track: Track) -> None:
    """ConfigError for a tracker whose package is missing, or that wants a login nobody gave."""
    for name in track.names:
        if find_spec(name) is None:
            raise ConfigError(f"track: {name} is not installed; pip install 'posesweep[{name}]', or take track out")
    if track.wandb is not None:
        check_login(track.wandb)


def check_login(settings: Wandb) -> None:
    """W&B would ask for a key in the middle of the sweep."""
    import wandb

    mode = settings.mode or wandb.setup().settings.mode
    if mode == "online" and not wandb.login(prompt=False):
        raise ConfigError(
            "track: wandb has no login; run `wandb login` once, or write track: {wandb: {mode: offline}}, which keeps "
            "everything in the sweep's folder for `wandb sync`"
        )


@contextmanager
def tracking(sweep: Sweep, folder: Path, say: Say = print) -> Iterator[None]:
    """While in this block, the sweep's trackers are told what is new in its folder, and at its end the rest.

    Nothing happens where the sweep has none. Raises what `check_trackers` does.
    """
    check_trackers(sweep.track)
    followers = [
        Follower(name, partial(make_tracker, name, sweep, folder), sweep.name, folder, say)
        for name in sweep.track.names
    ]
    try:
        yield
    finally:
        for follower in followers:
            follower.close()


def make_tracker(name: str, sweep: Sweep, folder: Path) -> Tracker:
    """The tracker of that name. Importing it takes seconds, which the sweep need not wait for."""
    track = sweep.track
    if name == "wandb":
        assert track.wandb is not None
        return WandbRuns(track.wandb, sweep.name, folder)
    assert track.mlflow is not None
    return MlflowRuns(track.mlflow, sweep.name, folder)


class Follower:
    """A thread that watches a sweep folder and tells one tracker what is new."""

    def __init__(self, name: str, make: Callable[[], Tracker], sweep: str, folder: Path, say: Say) -> None:
        self.name = name
        self._make, self._sweep, self._folder, self._say = make, sweep, folder, say
        self._over = threading.Event()
        self._seen: dict[str, tuple[int, ...]] = {}
        self._thread = threading.Thread(target=self._follow, daemon=True, name=f"track-{name}")
        self._thread.start()

    def close(self) -> None:
        """Tell the rest, and wait for that, but not for ever."""
        self._over.set()
        self._thread.join(PATIENCE_S)
        if self._thread.is_alive():
            self._say(
                f"note: {self.name} has not taken everything after {PATIENCE_S:.0f} s; nothing is lost here, the same "
                "command tells it the rest"
            )

    def _follow(self) -> None:
        try:
            telling = Telling(self._make(), Book(self._folder, self.name), self._sweep, self._folder)
            over = False
            while not over:
                over = self._over.wait(EVERY_S)  # then once more
                for key in self._changed():
                    telling.tell(key)
            telling.tracker.close()
        except Exception as error:  # noqa: BLE001  whatever goes wrong in a tracker, the sweep is worth more
            why = str(error).strip().splitlines()
            self._say(
                f"note: {self.name} is told nothing more, the sweep goes on: {type(error).__name__}"
                f"{': ' + why[0] if why else ''}; the same command tells it later what it missed"
            )

    def _changed(self) -> Iterable[str]:
        """The folders of trainings, below the sweep's, whose files are others than they were."""
        for key in trainings_in(self._folder):
            files = [self._folder / key / name for name in ("status.json", "metrics.jsonl")]
            now = tuple(file.stat().st_mtime_ns for file in files if file.is_file())
            if self._seen.get(key) != now:
                self._seen[key] = now
                yield key


def trainings_in(folder: Path) -> list[str]:
    """The folders of all trainings in a sweep's, in order: 'trials/0007', 'confirm/0007-s101'."""
    return [file.parent.relative_to(folder).as_posix() for file in sorted(folder.glob("*/*/status.json"))]


class Book:
    """Which run of a tracker belongs to which training, and how far it was told; in track.json of the sweep folder."""

    lock = threading.Lock()  # two trackers, one file

    def __init__(self, folder: Path, tracker: str) -> None:
        self.file, self.tracker = folder / BOOK, tracker

    def entry(self, key: str) -> dict[str, Any]:
        """{"run", "epoch", "state"}; a new one where the training was not told of yet."""
        with self.lock:
            known = self._read().get(self.tracker, {}).get(key)
        return known or {"run": "", "epoch": 0, "state": "running"}

    def write(self, key: str, entry: Mapping[str, Any]) -> None:
        """Keep an entry."""
        with self.lock:
            book = self._read()
            book.setdefault(self.tracker, {})[key] = dict(entry)
            write_json(self.file, book)

    def _read(self) -> dict[str, Any]:
        return read_json(self.file) if self.file.is_file() else {}


@dataclass
class Telling:
    """Tells a tracker what the files of trainings say and its book does not."""

    tracker: Tracker
    book: Book
    sweep: str
    folder: Path

    def __post_init__(self) -> None:
        self.opened: set[str] = set()

    def tell(self, key: str) -> None:
        """Bring one training's run up to date."""
        place = self.folder / key
        status, entry = read_status(place), self.book.entry(key)
        rows = [row for row in read_json_lines(place / "metrics.jsonl") if row["epoch"] > entry["epoch"]]
        ended = status.get("state") in ENDED
        if not rows and not (ended and entry["state"] != status["state"]):
            return
        if key not in self.opened:
            entry["run"] = self.tracker.begin(entry["run"], self._training(key, status))
            self.opened.add(key)
            self.book.write(key, entry)
        for row in rows:
            self.tracker.log(entry["run"], row["epoch"], metrics_of(row))
            entry |= {"epoch": row["epoch"], "state": "running"}
            self.book.write(key, entry)
        if ended:
            self.tracker.end(entry["run"], status["state"], str(status.get("reason") or ""))
            self.opened.discard(key)
            self.book.write(key, entry | {"state": status["state"]})

    def _training(self, key: str, status: Mapping[str, Any]) -> Training:
        file = self.folder / key / "config.yaml"
        config = yaml.safe_load(file.read_text(encoding="utf-8")) if file.is_file() else {}
        fixed = {name: value for name, value in config.items() if value is not None and name not in ("data", "metric")}
        return Training(self.sweep, key, str(status.get("role", "")), {**(status.get("params") or {}), **fixed})


def metrics_of(row: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of an epoch that are worth a curve."""
    return {name: float(v) for name, v in row.items() if name not in NOT_METRICS and isinstance(v, int | float)}


class WandbRuns:
    """W&B's runs: several at a time in this process."""

    def __init__(self, settings: Wandb, sweep: str, folder: Path) -> None:
        self.settings, self.sweep, self.folder = settings, sweep, folder
        self.runs: dict[str, Any] = {}

    def begin(self, run: str, training: Training) -> str:
        import wandb

        run = run or uuid4().hex[:12]
        self.runs[run] = wandb.init(
            project=self.settings.project,
            entity=self.settings.entity,
            mode=self.settings.mode,
            tags=self.settings.tags or None,
            dir=str(self.folder),
            group=self.sweep,
            job_type=training.role or None,
            name=training.name,
            id=run,
            resume="allow",
            config=dict(training.settings),
            reinit="create_new",
            # the machine's load is not the trial's, and nobody asked for the state of a repository
            settings=wandb.Settings(
                silent=True, console="off", x_disable_stats=True, disable_git=True, disable_code=True
            ),
        )
        self.runs[run].define_metric("epoch")
        self.runs[run].define_metric("*", step_metric="epoch")
        return run

    def log(self, run: str, epoch: int, metrics: Mapping[str, float]) -> None:
        self.runs[run].log({"epoch": epoch, **metrics})

    def end(self, run: str, state: str, reason: str) -> None:
        done = self.runs.pop(run)
        done.summary.update({"state": state, "reason": reason})
        done.finish(exit_code=int(state in BROKEN))

    def close(self) -> None:
        for run in self.runs.values():
            run.summary.update({"state": "interrupted"})
            run.finish()


class MlflowRuns:
    """MLflow's runs, by its client, which keeps no state of its own."""

    def __init__(self, settings: Mlflow, sweep: str, folder: Path) -> None:
        from mlflow import MlflowClient

        for name in ("mlflow", "alembic"):  # they tell of each table of a new store
            logging.getLogger(name).setLevel(logging.WARNING)
        here = folder.resolve()
        self.client = MlflowClient(tracking_uri=settings.uri or f"sqlite:///{here / 'mlflow.db'}")
        self.sweep = sweep
        name = settings.experiment or sweep
        found = self.client.get_experiment_by_name(name)
        files = None if settings.uri else (here / "mlartifacts").as_uri()
        self.experiment = found.experiment_id if found else self.client.create_experiment(name, files)

    def begin(self, run: str, training: Training) -> str:
        if run:
            self.client.update_run(run, status="RUNNING")
            return run
        tags = {"posesweep.sweep": self.sweep, "posesweep.training": training.key, "posesweep.role": training.role}
        run = self.client.create_run(self.experiment, run_name=training.name, tags=tags).info.run_id
        from mlflow.entities import Param

        settings = [Param(mlflow_name(name), _text(value)) for name, value in training.settings.items()]
        for first in range(0, len(settings), 100):  # as many as one call may have
            self.client.log_batch(run, params=settings[first : first + 100])
        return run

    def log(self, run: str, epoch: int, metrics: Mapping[str, float]) -> None:
        from mlflow.entities import Metric

        now = int(1000 * time.time())
        self.client.log_batch(run, [Metric(mlflow_name(name), value, now, epoch) for name, value in metrics.items()])

    def end(self, run: str, state: str, reason: str) -> None:
        self.client.set_tag(run, "posesweep.state", state)
        self.client.set_tag(run, "posesweep.reason", reason)
        self.client.set_terminated(run, "FAILED" if state in BROKEN else "FINISHED")

    def close(self) -> None:
        """A run that has not ended stays RUNNING: it goes on with the sweep."""


def mlflow_name(name: str) -> str:
    """MLflow's names have no @: val/PCK@0.05 is val/PCK_at_0.05 there."""
    return re.sub(r"[^\w./ :-]", "_", name.replace("@", "_at_"))


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
