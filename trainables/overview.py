"""How a sweep stands, read from its folder alone: from any machine that sees it, while it runs, and after its death.

Neither torch nor Ray is imported, and nothing is written.
"""

import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from posesweep.errors import SweepError
from posesweep.files import read_json, read_json_lines, read_record
from posesweep.search_spaces.space import Sweep
from posesweep.trainables.housekeeping import holder, is_driven
from posesweep.trainables.progress import Board, TrialView, duration, epoch_line, eta, params_text
from posesweep.trainables.search import rule_of
from posesweep.trainables.status import read_status


@dataclass(frozen=True)
class Overview:
    """A sweep folder at one moment. `silent_s`: seconds since each unfinished trial last saved an epoch, by the clock
    of the disk and of this machine: for people to read."""

    folder: Path
    board: Board
    driver: dict[str, Any]  # who holds the lease, and what it last said of itself; {} when nobody is at work
    statuses: dict[int, dict[str, Any]]
    silent_s: dict[int, float]
    trained_s: float
    again: str  # what is still to be trained again, by confirm or --promote; '' where nothing is
    out_of_budget: str  # why the search begins no more trials, though it has them; '' while it would


def overview(folder: Path) -> Overview:
    """Read a sweep folder. Raises SweepError where it is none, or its first trial has not been prepared yet, or a
    version wrote it that knows other settings."""
    if not (folder / "space.json").is_file():
        why = "its first trial is still being prepared" if is_driven(folder) else "it has no space.json"
        raise SweepError(f"{folder}: {why}; give the folder of a sweep that has begun, such as runs/demo")
    sweep = _recorded_sweep(folder / "space.json")
    said = _said(folder)
    statuses = {int(path.name): read_status(path) for path in sorted((folder / "trials").glob("[0-9]*"))}
    statuses = {number: status for number, status in statuses.items() if "params" in status}
    wanted = said["wanted"] if said.get("doing") == sweep.name else max(sweep.search.trials, len(statuses))
    board = Board(sweep.name, wanted, said.get("concurrent", 1), rule_of(sweep))
    silent_s: dict[int, float] = {}
    for number, status in statuses.items():
        _take_in(board, number, status, folder / "trials" / f"{number:04d}" / "metrics.jsonl", silent_s)
    return Overview(
        folder=folder,
        board=board,
        driver={"stopping": "", "doing": sweep.name, **said, **holder(folder)} if is_driven(folder) else {},
        statuses=statuses,
        silent_s=silent_s,
        trained_s=board.seconds_timed,
        again=_again(folder, sweep, board),
        out_of_budget=_out_of_budget(folder, sweep),
    )


def _recorded_sweep(file: Path) -> Sweep:
    try:
        return Sweep.model_validate(read_json(file))
    except ValidationError as error:
        named = ", ".join(sorted({".".join(map(str, mistake["loc"])) for mistake in error.errors()}))
        raise SweepError(
            f"{file} was written by another version of PoseSweep ({named} is not as this one knows it); use that one"
        ) from error
    except ValueError as error:
        raise SweepError(f"{file} is no JSON: it was only partly copied; copy the sweep folder again") from error


def _again(folder: Path, sweep: Sweep, board: Board) -> str:
    """'3 of 9 trainings of confirm are left': what follows the search, as far as it is known."""
    left = []
    for file in sorted([folder / "confirm.json", *folder.glob("promote-*.json")]):
        runs = (read_record(file) or {}).get("runs") or []
        states = [read_status(folder / run["folder"]).get("state") for run in runs]
        if count := sum(state in (None, "running") for state in states):
            left.append(f"{count} of {len(runs)} trainings of {file.stem} are left")
    asked = sweep.confirm is not None and any(trial.state == "finished" for trial in board.trials.values())
    if asked and not (folder / "confirm.json").is_file():
        left.insert(0, "confirm has not begun")
    return ", ".join(left)


def _out_of_budget(folder: Path, sweep: Sweep) -> str:
    """Where the budget of now ended the search."""
    record = read_record(folder / "budget.json") or {}
    of_now = sweep.budget is not None and record.get("budget") == sweep.budget.model_dump()
    return str(record["reason"]) if of_now else ""


def _said(folder: Path) -> dict[str, Any]:
    """What the driver last wrote of itself; {} where it never did."""
    return dict(read_json(folder / "driver.json")) if (folder / "driver.json").is_file() else {}


def _take_in(board: Board, number: int, status: dict[str, Any], metrics: Path, silent_s: dict[int, float]) -> None:
    """An ended trial by its status, a running one by its epochs."""
    trial = TrialView(status["params"], status["state"], reason=status.get("reason"))
    if trial.state == "running":
        board.add(number, trial)
        for row in read_json_lines(metrics):
            board.epoch(number, row)
        if metrics.is_file():
            silent_s[number] = max(0.0, time.time() - metrics.stat().st_mtime)
        return
    trial.epoch, trial.best = int(status.get("epochs") or 0), status.get("best")
    board.add(number, trial)
    board.epochs_timed += trial.epoch
    board.seconds_timed += sum((status.get("cost") or {}).get(name, 0.0) for name in ("train_s", "val_s"))


def overview_text(seen: Overview) -> str:
    """Some lines: counts, best and ETA; who is at work; each trial that has not ended."""
    lines = [_counts(seen), _driver(seen), *(_trial(seen, number) for number in _unfinished(seen.board))]
    return "\n".join(lines)


def _unfinished(board: Board) -> list[int]:
    return sorted(board.running)


def _counts(seen: Overview) -> str:
    """'mice: 12 of 60 done (7 finished, 5 pruned), 3 running, best val/AP 0.612 (trial 7), trained 2 h 5 min, ETA'."""
    board = seen.board
    states = board.states
    under_way = ("running", "waiting")
    ended = ", ".join(
        f"{states[state]} {state}" for state in sorted(states) if states[state] and state not in under_way
    )
    done = len(board.trials) - sum(states[state] for state in under_way)
    parts = [f"{done} of {board.trials_wanted} done{f' ({ended})' if ended else ''}"]
    if states["running"]:
        parts.append(f"{states['running']} {'running' if seen.driver else 'interrupted'}")
    if states["waiting"]:
        parts.append(f"{states['waiting']} waiting")
    best = board.best
    if best is not None:
        parts.append(f"best {board.rule.metric} {best[1]:.3f} (trial {best[0]}: {_params(board, best[0])})")
    parts.append(f"trained {duration(seen.trained_s)}")
    left_s = eta(board)
    if seen.driver and left_s is not None:
        parts.append(f"ETA {duration(left_s)}")
    return f"{board.name}: {', '.join(parts)}"


def _params(board: Board, number: int) -> str:
    return params_text(board.trials[number].params)


def _driver(seen: Overview) -> str:
    if seen.driver:
        pid, host, since = (seen.driver.get(name) for name in ("pid", "host", "since"))
        who = f"at work on {seen.driver['doing']}: process {pid} on {host}, since {since}"
        asked = seen.driver["stopping"] or ("a stop is asked for" if (seen.folder / "stop.json").is_file() else "")
        return f"{who}; stopping after the running epochs: {asked}" if asked else who
    goes_on = "the command that started the sweep goes on with it"
    whole = len(seen.board.trials) >= seen.board.trials_wanted
    if _unfinished(seen.board) or not ((whole and not seen.board.states["waiting"]) or seen.out_of_budget):
        return f"nobody is at work; {goes_on}"
    if seen.again:
        return f"nobody is at work: {seen.again}; {goes_on}"
    ended = f"the sweep is through{'' if whole else f' ({seen.out_of_budget})'}"
    return f"nobody is at work: {ended}; see {seen.folder / 'report.html'}"


def _trial(seen: Overview, number: int) -> str:
    status = seen.statuses[number]
    silent = f", last epoch {duration(seen.silent_s[number])} ago" if number in seen.silent_s else ", no epoch yet"
    retried = f"; retry {status['retry']}: {status['last_failure']}" if status.get("retry") else ""
    noted = f"; note: {status['note']}" if status.get("note") else ""
    return f"  {epoch_line(seen.board, number)}{silent}{retried}{noted}"


def moment() -> str:
    """The time of day, for a line of `--watch`."""
    return f"{datetime.now(UTC):%H:%M:%S} UTC"
