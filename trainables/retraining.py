"""Trials of a finished search trained again: with other seeds to confirm the winner, or longer to promote the best.

`runs/<name>/<what>.json` names the trials, the seeds and the epochs, and is written before the first training; each
training has a folder `<what>/<trial>-s<seed>/` that holds what a trial's folder holds. A run that was killed goes on
from its last epoch, one that has ended stays as it is. Nothing is stopped early here.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from posesweep.errors import ConfigError, SweepError
from posesweep.files import read_json, read_json_lines, write_json
from posesweep.search_spaces.space import Sweep, edges
from posesweep.trainables.config import TrialConfig
from posesweep.trainables.folder import has_begun, remove_checkpoints, remove_last
from posesweep.trainables.progress import Board
from posesweep.trainables.search import Search, longest_training
from posesweep.trainables.status import read_status
from posesweep.trainables.stopping import Early
from posesweep.trainables.tasks import check_values

CONFIRM = "confirm"
FIRST_SEED = 101  # so far above the seed of the search that it is seen in a folder's name which is which
ENDED = ("finished", "diverged", "failed")


@dataclass(frozen=True)
class Run:
    """One training; `folder` is below the sweep's."""

    trial: int
    seed: int
    folder: str


@dataclass(frozen=True)
class Promote:
    """`--promote K --epochs E`."""

    top_k: int
    epochs: int


@dataclass(frozen=True)
class Plan:
    """Which trials are trained again, and how: the content of `<what>.json`.

    `epochs` is None where each trial has its own number. `trials` is how many the search had when they were chosen.
    """

    what: str
    candidates: tuple[tuple[int, str], ...]  # (trial, role), the best of the search first; without the baseline
    seeds: tuple[int, ...]
    epochs: int | None
    baseline: int
    trials: int

    @property
    def runs(self) -> list[Run]:
        """Every training: the first seed of all trials, then the second, so that an early look compares all."""
        trials = [*(trial for trial, _ in self.candidates), self.baseline]
        return [Run(trial, seed, f"{self.what}/{trial:04d}-s{seed}") for seed in self.seeds for trial in trials]


def read_plan(folder: Path, what: str) -> Plan | None:
    """The plan on record in a sweep folder, or None."""
    file = folder / f"{what}.json"
    if not file.is_file():
        return None
    stored = read_json(file)
    return Plan(
        what=what,
        candidates=tuple(
            (one["trial"], one["role"]) for one in stored["candidates"] if one["trial"] != stored["baseline"]
        ),
        seeds=tuple(stored["seeds"]),
        epochs=stored["epochs"],
        baseline=stored["baseline"],
        trials=stored["trials"],
    )


def write_plan(folder: Path, plan: Plan) -> None:
    """Put a plan on record; the baseline is the last of its candidates, and may win."""
    candidates = [*plan.candidates, (plan.baseline, "baseline")]
    record = {
        "candidates": [{"trial": trial, "role": role} for trial, role in candidates],
        "seeds": list(plan.seeds),
        "epochs": plan.epochs,
        "baseline": plan.baseline,
        "trials": plan.trials,
        "runs": [asdict(run) for run in plan.runs],
    }
    write_json(folder / f"{plan.what}.json", record)


def confirm_plan(sweep: Sweep, search: Search) -> Plan:
    """What the sweep file's `confirm` asks for, of the search as it is now."""
    assert sweep.confirm is not None
    seeds = new_seeds(sweep, sweep.confirm.seeds)
    return _plan(CONFIRM, search, sweep.confirm.top_k, seeds, sweep.confirm.epochs or common_length(sweep))


def promote_plan(sweep: Sweep, search: Search, promote: Promote, confirmed_order: Sequence[int]) -> Plan:
    """The best `promote.top_k` trials, trained longer with one new seed: those that were confirmed before others.

    Raises SweepError where the trainings would be no longer than before, ConfigError where settings forbid it.
    """
    length = common_length(sweep)
    if length is not None and promote.epochs <= length:
        raise SweepError(f"--epochs {promote.epochs} is not longer than the {length} of the search; give more")
    _refuse_settings(sweep, promote.epochs)
    plan = _plan(f"promote-{promote.epochs}", search, promote.top_k, new_seeds(sweep, 1), promote.epochs)
    roles = {proposal.number: proposal.role for proposal in search.proposals()}
    order = list(dict.fromkeys([*confirmed_order, *search.best_finished()]))
    best = [number for number in order if number != plan.baseline][: promote.top_k]
    return replace(plan, candidates=tuple((number, roles[number]) for number in best))


def _refuse_settings(sweep: Sweep, epochs: int) -> None:
    values = [{**sweep.fixed, **choice, "epochs": epochs} for choice in (sweep.baseline, *edges(sweep))]
    found = [mistake for each in values for mistake in check_values(sweep.task, each)]
    if found:
        raise ConfigError([f"--epochs {epochs}: {key}: {text}" for key, text in {m.key: m.text for m in found}.items()])


def _plan(what: str, search: Search, top_k: int, seeds: Sequence[int], epochs: int | None) -> Plan:
    """The best `top_k` finished trials besides the baseline, which is trained again in any case."""
    roles = {proposal.number: proposal.role for proposal in search.proposals()}
    baseline = next(number for number, role in roles.items() if role == "baseline")
    best = [number for number in search.best_finished() if number != baseline][:top_k]
    candidates = tuple((number, roles[number]) for number in best)
    return Plan(what, candidates, tuple(seeds), epochs, baseline, len(search.ended()))


def new_seeds(sweep: Sweep, count: int) -> list[int]:
    """Seeds that no trial of the search had: s + 101, s + 102, ... where s is the largest the search uses."""
    if "seed" in sweep.parameters:
        parameter = sweep.parameters["seed"]
        used = int(parameter.bounds[1] if parameter.kind in ("int", "float") else max(parameter.values))
    else:
        used = int(sweep.fixed.get("seed", TrialConfig.model_fields["seed"].default))
    return [used + FIRST_SEED + i for i in range(count)]


def common_length(sweep: Sweep) -> int | None:
    """The epochs of a whole training; None where they are searched and each trial has its own."""
    return None if "epochs" in sweep.parameters else longest_training(sweep)


def merged(old: Plan, new: Plan) -> Plan:
    """The old plan with the candidates of the new one that it lacks: what was trained stays and is ranked along."""
    known = {trial for trial, _ in old.candidates}
    added = tuple(one for one in new.candidates if one[0] not in known)
    return replace(old, candidates=(*old.candidates, *added), trials=new.trials)


def agreed_plan(folder: Path, wanted: Plan) -> Plan:
    """The plan to follow, on record from now on.

    A plan that was begun stays. Where the search has gone on since (--extend, a larger budget), or more are promoted,
    the trials that it lacks are added to it, which is said; none is taken out.
    """
    old = read_plan(folder, wanted.what)
    if old is not None and has_begun(folder, wanted.what):
        may_grow = old.trials != wanted.trials or wanted.what != CONFIRM
        plan = merged(old, wanted) if may_grow else old
        if plan != old:
            print(f"note: {_added(old, plan)}")
        wanted = plan
    write_plan(folder, wanted)
    return wanted


def _added(old: Plan, new: Plan) -> str:
    added = [str(trial) for trial, _ in new.candidates[len(old.candidates) :]]
    if not added:
        return f"{new.what}: the trials since then changed nothing, the best are among those it has"
    which = f"trial {added[0]} is" if len(added) == 1 else f"trials {', '.join(added)} are"
    return f"{new.what}: {which} among the best now, and trained again beside those of before"


def unfinished(folder: Path, plan: Plan) -> list[Run]:
    """The trainings that have not ended, in order."""
    return [run for run in plan.runs if read_status(folder / run.folder).get("state") not in ENDED]


def settings_of(plan: Plan, run: Run, params: Mapping[str, Any]) -> dict[str, Any]:
    """The settings by which a run differs from the sweep's fixed ones: those of its trial, its seed, its length."""
    return {**params, "seed": run.seed, **({"epochs": plan.epochs} if plan.epochs is not None else {})}


def opening_line(name: str, plan: Plan, folder: Path) -> str:
    """'horse26: confirm trains trials 7, 3, 12 and the baseline with seeds 101, 102, 103, 120 epochs each; 4 of 12
    done'."""
    trials = ", ".join(str(trial) for trial, _ in plan.candidates)
    who = f"trials {trials} and the baseline" if len(plan.candidates) > 1 else "the baseline"
    who = f"trial {trials} and the baseline" if len(plan.candidates) == 1 else who
    seeds = ", ".join(map(str, plan.seeds))
    length = f"{plan.epochs} epochs each" if plan.epochs is not None else "each with its own epochs"
    done = len(plan.runs) - len(unfinished(folder, plan))
    seeds = f"seeds {seeds}" if len(plan.seeds) > 1 else f"seed {seeds}"
    return f"{name}: {plan.what} trains {who} with {seeds}, {length}; {done} of {len(plan.runs)} done"


def board_of(sweep: Sweep, plan: Plan, folder: Path, params: Mapping[int, Mapping[str, Any]], concurrent: int) -> Board:
    """The live view of a plan, with what its trainings did before this run; they are numbered as in the plan."""
    rule = Early("none", plan.epochs or longest_training(sweep), metric=sweep.metric.name, goal=sweep.metric.goal)
    names = {number: f"trial {run.trial}, seed {run.seed}" for number, run in enumerate(plan.runs)}
    board = Board(f"{sweep.name}, {plan.what}", len(plan.runs), concurrent, rule, names=names)
    for number, run in enumerate(plan.runs):
        rows = read_json_lines(folder / run.folder / "metrics.jsonl")
        status = read_status(folder / run.folder)
        if not status:
            continue
        settings = settings_of(plan, run, params[run.trial])
        board.started(number, {name: settings[name] for name in params[run.trial]})
        for row in rows:
            board.epoch(number, row)
        if status["state"] in ENDED:
            board.ended(number, status["state"], "" if status["state"] == "finished" else status["reason"])
    return board


def jobs(plan: Plan, runs: Iterable[Run], params: Mapping[int, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What Tune gives each training: its place in the plan, its settings, and what its status is to say of it."""
    numbers = {run: number for number, run in enumerate(plan.runs)}
    return [
        {
            "number": numbers[run],
            "params": settings_of(plan, run, params[run.trial]),
            "folder": run.folder,
            "status": {"role": plan.what, "trial": run.trial, "seed": run.seed, "params": dict(params[run.trial])},
        }
        for run in runs
    ]


def make_room(folder: Path, plan: Plan) -> None:
    """Remove what the trainings that have ended would go on from."""
    for run in plan.runs:
        if read_status(folder / run.folder).get("state") in ENDED:
            remove_last(folder / run.folder)


def thin(folder: Path, plan: Plan, keep: Collection[int]) -> None:
    """Remove the weights of all trainings but those of the trials `keep`."""
    for run in plan.runs:
        if run.trial not in keep:
            remove_checkpoints(folder / run.folder)
