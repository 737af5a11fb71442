"""What Tune reports, put on record: status.json, the live view, and which checkpoints stay."""

from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.search import Searcher

from posesweep.files import trial_folder
from posesweep.trainables.context import begin_attempt
from posesweep.trainables.folder import thin_checkpoints
from posesweep.trainables.progress import Progress
from posesweep.trainables.search import Search
from posesweep.trainables.status import read_status, write_status
from posesweep.trainables.tune_glue import why


class Records(tune.Callback):
    """Keeps the sweep folder and the live view in step with the search. `keep`: how many of the best keep their
    weights, and which trials do in any case."""

    def __init__(
        self, search: Search, folder: Path, progress: Progress, keep: tuple[int, list[int]], several_workers: bool
    ) -> None:
        self.search = search
        self.folder = folder
        self.progress = progress
        self.keep_best, self.spared = keep
        self.several_workers = several_workers

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune pickles its callbacks for its own restore, which is never used: the sweep folder is the state

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial begins, or goes on."""
        number, params, role = (trial.config[name] for name in ("number", "params", "role"))
        fields = {"trial": number, "role": role, "params": params, "state": "running", "reason": ""}
        write_status(trial_folder(self.folder, number), **fields)
        self.progress.started(number, params)

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """A trial finished an epoch, or says how it ended."""
        if "train_s" in result:
            self.progress.epoch(trial.config["number"], result)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """The search has been told how the trial ended."""
        self.close(trial.config["number"])

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """It failed once more than it may."""
        self.close(trial.config["number"])

    def close(self, number: int) -> None:
        """Put the end of a trial on record. Its own words stay where the search has none."""
        state, reason = self.search.outcome(number)
        if state == "running":
            return  # interrupted: the next run takes it up
        if self.several_workers:
            begin_attempt(trial_folder(self.folder, number))  # fences workers that Ray has not stopped yet
        words = {"reason": reason} if reason else {}
        write_status(trial_folder(self.folder, number), state=state, **words)
        self.progress.ended(number, state, reason)
        thin_checkpoints(self.folder, self.search.ended(), [*self.search.best(self.keep_best), *self.spared])


class Queue(Searcher):
    """Gives Tune the `jobs`, in order; there is nothing to learn from how they end."""

    def __init__(self, jobs: list[dict[str, Any]]) -> None:
        super().__init__()
        self._jobs = list(jobs)

    def suggest(self, trial_id: str) -> Any:
        """The next job, or FINISHED."""
        return self._jobs.pop(0) if self._jobs else Searcher.FINISHED

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Nothing to do: the trial's folder is the record."""

    def save(self, checkpoint_path: str) -> None:
        """Nothing to save."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing to restore."""


class RetrainingRecords(tune.Callback):
    """Keeps the folders of trials that are trained again, and the live view, in step with Tune."""

    def __init__(self, folder: Path, progress: Progress, several_workers: bool) -> None:
        self.folder = folder
        self.progress = progress
        self.several_workers = several_workers

    def __getstate__(self) -> dict[str, Any]:
        return {}  # as in Records

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A training begins, or goes on."""
        write_status(self._folder_of(trial), **trial.config["status"], state="running", reason="")
        settings = trial.config["params"]
        shown = {name: settings[name] for name in trial.config["status"]["params"]}
        self.progress.started(trial.config["number"], shown)

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """It finished an epoch, or says how it ended."""
        if "train_s" in result:
            self.progress.epoch(trial.config["number"], result)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """It ended, in its own words, or was interrupted."""
        status = read_status(self._folder_of(trial))
        if status["state"] != "running":
            self._close(trial, status["state"], status["reason"])

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """It failed once more than it may."""
        self._close(trial, "failed", why(Path(trial.error_file)))

    def _close(self, trial: Any, state: str, reason: str) -> None:
        if self.several_workers:
            begin_attempt(self._folder_of(trial))  # fences workers that Ray has not stopped yet
        write_status(self._folder_of(trial), state=state, reason=reason)
        self.progress.ended(trial.config["number"], state, "" if state == "finished" else reason)

    def _folder_of(self, trial: Any) -> Path:
        return self.folder / str(trial.config["folder"])
