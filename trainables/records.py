"""What Tune reports, put on record: status.json, the live view, and which checkpoints stay."""

from pathlib import Path
from typing import Any

from ray import tune

from posesweep.files import trial_folder
from posesweep.search_spaces.space import Sweep
from posesweep.trainables.context import begin_attempt
from posesweep.trainables.folder import thin_checkpoints
from posesweep.trainables.housekeeping import Orders
from posesweep.trainables.progress import Progress
from posesweep.trainables.search import Search
from posesweep.trainables.status import write_status


class Records(tune.Callback):
    """Keeps the sweep folder and the live view in step with the search."""

    def __init__(self, search: Search, sweep: Sweep, folder: Path, progress: Progress, orders: Orders) -> None:
        self.search = search
        self.sweep = sweep
        self.folder = folder
        self.progress = progress
        self.orders = orders
        self._kept = set(search.best(sweep.keep.checkpoints_of_top))
        self.make_room()

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
        if "train_s" not in result:
            return
        number = trial.config["number"]
        if result["epoch"] > self.progress.board.trials[number].epoch:
            trial.run_metadata.num_failures = 0  # max_retries is for a trial that does not get on
        self.progress.epoch(number, result)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """The search has been told how the trial ended."""
        self.close(trial)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """It failed once more than it may."""
        self.close(trial)

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """It failed, and is tried again from its last checkpoint."""
        number, retry = trial.config["number"], trial.run_metadata.num_failures
        reason = self.orders.errors.get(number, "")
        write_status(trial_folder(self.folder, number), state="running", retry=retry, last_failure=reason)
        self.progress.retried(number, f"{reason}; tried again ({retry} of {self.sweep.failure.max_retries})")

    def close(self, trial: Any) -> None:
        """Put the end of a trial on record. Its own words stay where the search has none."""
        number = trial.config["number"]
        state, reason = self.search.outcome(number)
        if state == "running":
            return  # interrupted: the next run takes it up
        if self.sweep.resources.workers_per_trial > 1:
            begin_attempt(trial_folder(self.folder, number))  # fences workers that Ray has not stopped yet
        words = {"reason": reason} if reason else {}
        write_status(trial_folder(self.folder, number), state=state, **words)
        self.progress.ended(number, state, reason)
        best = set(self.search.best(self.sweep.keep.checkpoints_of_top))
        thin_checkpoints(self.folder, self._kept | {number}, best)
        self._kept = best

    def make_room(self) -> None:
        """Remove the weights of every ended trial that is not to be kept."""
        thin_checkpoints(self.folder, self.search.ended(), self._kept)
