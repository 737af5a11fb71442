"""`budget:` of a sweep: what its trainings took so far, over all runs of it, and when no new trial is begun any more.

Nothing but the sweep folder is asked: each epoch of metrics.jsonl says when it ended and what it took.

  hours      in which at least one trial was training; trainings side by side count once, the time between two runs of
             the sweep not at all, pauses of up to a minute (saving, starting) do
  gpu_hours  the hours of each training times the GPUs that it holds

What `confirm` will need, at the pace of the epochs so far, is kept back from the start, and confirm is always carried
out. Trials that run when the budget is used up go on to their own end. The decision is put on record (budget.json): the
same command later begins no trial either, one with another budget decides anew.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from posesweep.files import read_json, read_json_lines, write_json
from posesweep.search_spaces.space import Sweep
from posesweep.trainables.cluster import Slots
from posesweep.trainables.search import Search, longest_training
from posesweep.trainables.status import read_status

PAUSE_S = 60.0
HOUR_S = 3600.0


@dataclass(frozen=True)
class Epochs:
    """Every epoch that was trained below a sweep folder: (begun, ended), Unix time in seconds."""

    spans: tuple[tuple[float, float], ...]

    @property
    def hours(self) -> float:
        """In which at least one training was going on."""
        return covered_s(self.spans) / HOUR_S

    @property
    def training_hours(self) -> float:
        """Summed over trainings."""
        return sum(end - begin for begin, end in self.spans) / HOUR_S

    @property
    def hours_each(self) -> float:
        """What an epoch takes, on average."""
        return self.training_hours / len(self.spans) if self.spans else 0.0


def epochs_on_record(folder: Path) -> Epochs:
    """The epochs of all trials of a sweep folder, and of those that were trained again."""
    trainings = ("trials/*", "confirm/*-s*", "promote-*/*-s*")  # not datacurve's, which are no part of the sweep
    files = [file for place in trainings for file in folder.glob(f"{place}/metrics.jsonl")]
    rows = [row for file in files for row in read_json_lines(file)]
    return Epochs(tuple(_span(row) for row in rows if "worked_until" in row))


def _span(row: dict[str, Any]) -> tuple[float, float]:
    return row["worked_until"] - row.get("train_s", 0.0) - row.get("val_s", 0.0), row["worked_until"]


def covered_s(spans: Iterable[tuple[float, float]]) -> float:
    """Seconds that lie in at least one of the spans, or in a pause of at most a minute between two."""
    total, until = 0.0, float("-inf")
    for begin, end in sorted(spans):
        if begin - until > PAUSE_S:
            total, until = total + end - begin, end
        elif end > until:
            total, until = total + end - until, end
    return total


class Budget:
    """What may still be begun. Called by the search before each new trial."""

    def __init__(self, sweep: Sweep, folder: Path, slots: Slots) -> None:
        self.sweep, self.folder, self.slots = sweep, folder, slots

    def ended(self, search: Search) -> str:
        """Why no new trial is begun, in words; '' while one may be."""
        if self.sweep.budget is None:
            return ""
        limits = self.sweep.budget.model_dump()
        record = read_json(self._file) if self._file.is_file() else {}
        if record.get("budget") == limits:
            return str(record["reason"])
        used_up = self._used_up()
        if not used_up:
            return ""
        begun = len(search.proposals())
        reason = f"no new trial after {begun} of {search.wanted}: {used_up}; a larger budget goes on"
        write_json(self._file, {"budget": limits, "reason": reason, "trials": begun})
        return reason

    @property
    def _file(self) -> Path:
        return self.folder / "budget.json"

    def _used_up(self) -> str:
        assert self.sweep.budget is not None
        epochs = epochs_on_record(self.folder)
        gpus = self.slots.gpus * self.slots.workers
        confirm = self.sweep.confirm
        at_once = self.slots.at_most(confirm.trainings).concurrent if confirm is not None else 1
        to_come = self._epochs_to_confirm() * epochs.hours_each
        amounts = {
            "hours": (self.sweep.budget.hours, epochs.hours, to_come / at_once),
            "gpu_hours": (self.sweep.budget.gpu_hours, gpus * epochs.training_hours, gpus * to_come),
        }
        for name, (limit, used, kept) in amounts.items():
            if limit is not None and used + kept >= limit:
                spare = f", {kept:.3g} kept for confirm" if kept else ""
                return f"budget.{name}: {limit:g} is used up ({used:.3g} trained{spare})"
        return ""

    def _epochs_to_confirm(self) -> int:
        """Those that `confirm` has still to train, as if no candidate had ended early."""
        confirm = self.sweep.confirm
        if confirm is None:
            return 0
        each = confirm.epochs or longest_training(self.sweep)
        done = [read_status(path.parent).get("epochs", 0) for path in self.folder.glob("confirm/*/status.json")]
        return max(confirm.trainings * each - sum(done), 0)


def notes_on_budget(sweep: Sweep, slots: Slots) -> Sequence[str]:
    """What a user of this budget may not have meant."""
    if sweep.budget is not None and sweep.budget.gpu_hours is not None and not slots.gpus:
        return ["budget.gpu_hours: trials hold no GPU here, so it is never used up; give budget.hours"]
    return []
