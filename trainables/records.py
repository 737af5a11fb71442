"""What Tune reports, put on record: status.json, the live view, and which checkpoints stay."""

from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from posesweep.files import trial_folder
from posesweep.search_spaces.space import Sweep
from posesweep.trainables.context import begin_attempt
from posesweep.trainables.folder import remove_last, spared, thin_checkpoints
from posesweep.trainables.housekeeping import Orders
from posesweep.trainables.progress import Progress
from posesweep.trainables.search import Search
from posesweep.trainables.status import read_status, write_outcome, write_status
from posesweep.trainables.tune_glue import is_over, keep_reason


class Records(tune.Callback):
    """Keeps the sweep folder and the live view in step with the search."""

    def __init__(self, search: Search, sweep: Sweep, folder: Path, progress: Progress, orders: Orders) -> None:
        self.search = search
        self.sweep = sweep
        self.folder = folder
        self.progress = progress
        self.orders = orders
        self._kept = self._to_keep()
        self.make_room()

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune pickles its callbacks for its own restore, which is never used: the sweep folder is the state

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial begins, or goes on."""
        number, params, role = (trial.config[name] for name in ("number", "params", "role"))
        fields = {"trial": number, "role": role, "params": params, "state": "running", "reason": ""}
        write_status(trial_folder(self.folder, number), idle=True, **fields)
        self.progress.started(number, params)

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """A trial finished an epoch, or says how it ended. Others may have waited for it in vain."""
        show_epoch(self.progress, trial, result)
        for number in self.search.given_up():
            self._put_down(number)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """The search has been told how the trial ended, or that it waits."""
        self.close(trial)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """It failed once more than it may, or before it began."""
        if trial.config["number"] in self.orders.again:
            show_later(self.progress, trial, self.orders)
        self.close(trial)

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """It failed, and is tried again from its last checkpoint."""
        folder = trial_folder(self.folder, trial.config["number"])
        show_retry(self.progress, trial, folder, self.orders, self.sweep)

    def close(self, trial: Any) -> None:
        """Put the end of a trial on record. Its own words stay where the search has none."""
        number = trial.config["number"]
        state, reason = self.search.outcome(number)
        if state == "running":
            return  # interrupted: the next run takes it up
        if self.sweep.resources.workers_per_trial > 1:
            begin_attempt(trial_folder(self.folder, number))  # fences workers that Ray has not stopped yet
        if number not in self.progress.board.trials:  # its process died before it began
            self.progress.board.started(number, trial.config["params"])
        self._put_down(number)
        self.progress.ended(number, state, reason)

    def _put_down(self, number: int) -> None:
        """What the search says of a trial that does not run; the weights of one that waits stay."""
        state, reason = self.search.outcome(number)
        write_outcome(trial_folder(self.folder, number), state, reason)
        self.progress.board.ended(number, state, reason)
        if state == "waiting":
            thin_checkpoints(self.folder, {number}, {number})
            return
        keep = self._to_keep()
        thin_checkpoints(self.folder, (self._kept - keep) | {number}, keep)
        self._kept = keep

    def make_room(self) -> None:
        """Remove the weights of every ended trial that is not to be kept."""
        thin_checkpoints(self.folder, self.search.ended(), self._kept)

    def _to_keep(self) -> set[int]:
        """The best, and those that a test split needs in the end."""
        return {*self.search.best(self.sweep.keep.checkpoints_of_top), *spared(self.sweep)}


def show_epoch(progress: Progress, trial: Any, result: dict[str, Any]) -> None:
    """Take in a report of a Tune trial, where it is one of an epoch."""
    if "train_s" not in result:
        return
    number = trial.config["number"]
    if result["epoch"] > progress.board.trials[number].epoch:
        trial.run_metadata.num_failures = 0  # max_retries is for a trial that does not get on
    progress.epoch(number, result)


def show_retry(progress: Progress, trial: Any, folder: Path, orders: Orders, sweep: Sweep) -> None:
    """Put on record that a Tune trial failed and is tried again."""
    number, retry = trial.config["number"], trial.run_metadata.num_failures
    reason = orders.errors.get(number, "")
    write_status(folder, state="running", retry=retry, last_failure=reason)
    progress.retried(number, f"{reason}; tried again ({retry} of {sweep.failure.max_retries})")


def show_later(progress: Progress, trial: Any, orders: Orders) -> None:
    """Say that a Tune trial's process died before it began, and what becomes of it."""
    number = trial.config["number"]
    count = f"{orders.unstarted[number]} of {orders.max_retries}"
    progress.retried(number, f"{orders.errors[number]}, before the trial began; begun again after the others ({count})")


class Queue(Searcher):
    """Gives Tune the `jobs`, in order; there is nothing to learn from how they end."""

    def __init__(self, jobs: list[dict[str, Any]], orders: Orders) -> None:
        super().__init__()
        self._jobs = list(jobs)
        self._orders = orders
        self._unended = len(jobs)

    @property
    def left(self) -> int:
        """How many jobs have not ended."""
        return self._unended

    def suggest(self, trial_id: str) -> Any:
        """The next job, or FINISHED: there are no more, or no more are to be begun."""
        return self._jobs.pop(0) if self._jobs and not self._orders.halt else Searcher.FINISHED

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """One job less; the trial's folder is the record."""
        self._unended -= 1

    def save(self, checkpoint_path: str) -> None:
        """Nothing to save."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing to restore."""


class QueueScheduler(FIFOScheduler):
    """Lets every job train to its end, unless all are to stop."""

    def __init__(self, orders: Orders) -> None:
        super().__init__()
        self._orders = orders

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """STOP when nothing can be saved, or a stop was asked for."""
        return TrialScheduler.STOP if is_over(self._orders, result) else TrialScheduler.CONTINUE

    def on_trial_error(self, tune_controller: Any, trial: Any) -> None:
        """Keep the reason; Tune may still try the job again."""
        keep_reason(self._orders, trial)


class RetrainingRecords(tune.Callback):
    """Keeps the folders of trials that are trained again, and the live view, in step with Tune."""

    def __init__(self, sweep: Sweep, folder: Path, progress: Progress, orders: Orders) -> None:
        self.sweep = sweep
        self.folder = folder
        self.progress = progress
        self.orders = orders

    def __getstate__(self) -> dict[str, Any]:
        return {}  # as in Records

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A training begins, or goes on."""
        write_status(self._folder_of(trial), idle=True, **trial.config["status"], state="running", reason="")
        settings = trial.config["params"]
        shown = {name: settings[name] for name in trial.config["status"]["params"]}
        self.progress.started(trial.config["number"], shown)

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """It finished an epoch, or says how it ended."""
        show_epoch(self.progress, trial, result)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """It ended, in its own words, or was interrupted."""
        status = read_status(self._folder_of(trial))
        if status["state"] != "running":
            self._close(trial, status["state"], status["reason"])

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """It failed once more than it may, or before it began."""
        if trial.config["number"] in self.orders.again:
            show_later(self.progress, trial, self.orders)
        else:
            self._close(trial, "failed", self.orders.errors[trial.config["number"]])

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """It failed, and is tried again from its last checkpoint."""
        show_retry(self.progress, trial, self._folder_of(trial), self.orders, self.sweep)

    def _close(self, trial: Any, state: str, reason: str) -> None:
        if self.sweep.resources.workers_per_trial > 1:
            begin_attempt(self._folder_of(trial))  # fences workers that Ray has not stopped yet
        write_status(self._folder_of(trial), state=state, reason=reason)
        remove_last(self._folder_of(trial))
        self.progress.ended(trial.config["number"], state, "" if state == "finished" else reason)

    def _folder_of(self, trial: Any) -> Path:
        return self.folder / str(trial.config["folder"])
