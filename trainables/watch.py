"""What the driver looks after between two reports: requests to stop, room on the disk, trials that hang; and it leaves
signs of its own life in driver.json."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ray
from ray import tune

from posesweep.errors import SweepError
from posesweep.search_spaces.space import Sweep
from posesweep.trainables.housekeeping import Orders, below_floor, stop_request, write_driver
from posesweep.trainables.progress import Board

LOOK_EVERY_S = 1.0  # for a request to stop, and for trials that hang
WRITE_EVERY_S = 10.0  # driver.json; and the disk is looked at
TRACEBACK_S = 3.0  # the worker itself writes where it hangs before it is ended


class Watch(tune.Callback):
    """Turns what it sees into `orders`, which the scheduler obeys when the next trial reports.

    `make_room` removes what is not needed. All times are of this process's monotonic clock: setting the machine's clock
    ends no trial.
    """

    def __init__(self, sweep: Sweep, folder: Path, board: Board, orders: Orders, make_room: Callable[[], None]) -> None:
        self.sweep = sweep
        self.folder = folder
        self.board = board
        self.orders = orders
        self.make_room = make_room
        self._heard_s: dict[str, float] = {}  # Tune's trial id -> when it last gave a sign of life
        self._looked_s = self._wrote_s = float("-inf")

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune pickles its callbacks for its own restore, which is never used: the sweep folder is the state

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Several times a second, whether or not a trial reports."""
        now = time.monotonic()
        if now - self._looked_s < LOOK_EVERY_S:
            return
        self._looked_s = now
        was = self.orders.halt
        self.orders.stop(stop_request(self.folder))
        self._end_hanging(trials, now)
        if now - self._wrote_s >= WRITE_EVERY_S or self.orders.halt != was:
            self._wrote_s = now
            self._look_at_disk()
            _check_ray()
            facts = {"doing": self.board.name, "wanted": self.board.trials_wanted, "concurrent": self.board.concurrent}
            write_driver(self.folder, **facts, stopping=self.orders.halt)

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """From now on it must report."""
        self._heard_s[trial.trial_id] = time.monotonic()

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """It did, and it has saved something: is there room for the next?"""
        self._heard_s[trial.trial_id] = time.monotonic()
        self._look_at_disk()

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Nothing more is expected of it."""
        self._heard_s.pop(trial.trial_id, None)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Nor of one that failed for good."""
        self._heard_s.pop(trial.trial_id, None)

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Until it is started again."""
        self._heard_s.pop(trial.trial_id, None)

    def _look_at_disk(self) -> None:
        """Stop before the disk is full: a sweep that cannot save loses what it trains from then on."""
        floor_gb = self.sweep.keep.disk_floor_gb
        if below_floor(self.folder, floor_gb):
            self.make_room()
            self.orders.stop(below_floor(self.folder, floor_gb), is_fault=True)

    def _end_hanging(self, trials: list[Any], now: float) -> None:
        """End the process of a trial that has reported nothing for too long; Tune then tries it again.

        Of a trial with several workers the process here only waits for them: it looks after them itself.
        """
        minutes = self.sweep.failure.stall_minutes
        silent = {id_ for id_, heard in self._heard_s.items() if now - heard > minutes * 60 + TRACEBACK_S}
        if not silent or self.sweep.resources.workers_per_trial > 1:
            return
        for trial in trials:
            if trial.trial_id in silent and trial.temporary_state.ray_actor is not None:
                del self._heard_s[trial.trial_id]
                self.orders.ended[trial.config["number"]] = (
                    f"it hung: no epoch was reported for {minutes:g} minutes (failure.stall_minutes); "
                    "the end of its log.txt shows where it was"
                )
                ray.kill(trial.temporary_state.ray_actor)


def _check_ray() -> None:
    """SweepError when no node is left: Tune would wait for one for ever."""
    if not any(node["Alive"] for node in ray.nodes()):
        raise SweepError(
            "Ray has lost every node, this machine's included: its processes were killed, or the machine was too busy "
            "or out of memory; repeat the command, the sweep goes on from the last epochs that were saved"
        )
