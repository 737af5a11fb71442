"""Tune's side of the trackers: whose training has something new."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ray import tune

from posesweep.files import trial_folder


class Tracked(tune.Callback):
    """Says the folder of a training, below the sweep's, after each of its epochs and when it has ended.

    It comes after the callback that writes the folder's status.
    """

    def __init__(self, seen: Callable[[str], None]) -> None:
        self.seen = seen

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune pickles its callbacks for its own restore, which is never used

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """An epoch is done."""
        self.seen(key_of(trial.config))

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """It has ended."""
        self.seen(key_of(trial.config))

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """It failed once more than it may."""
        self.seen(key_of(trial.config))


def key_of(config: dict[str, Any]) -> str:
    """'trials/0007', or where a trial that is trained again has its folder."""
    return config["folder"] if "folder" in config else trial_folder(Path(), config["number"]).as_posix()
