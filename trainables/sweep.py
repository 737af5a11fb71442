"""A sweep from start or restart to its report: prepare, propose and train on Ray Tune, rank, export."""

import os
import shutil
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from posesweep.errors import SweepError
from posesweep.files import read_json, read_json_lines, trial_folder, write_json
from posesweep.search_spaces.space import Sweep, edges, space_json
from posesweep.trainables import retraining
from posesweep.trainables.budget import Budget, notes_on_budget
from posesweep.trainables.cluster import Slots, ray_beside, room_of, trial_resources, without_environments_of_their_own
from posesweep.trainables.copying import copied
from posesweep.trainables.folder import lease, record_split, record_sweep, refuse_changes, spared, thin_checkpoints
from posesweep.trainables.housekeeping import Orders, StopAskedError, storage_error, sweep_up
from posesweep.trainables.preflight import checked_slots
from posesweep.trainables.progress import Board, Progress
from posesweep.trainables.retraining import Plan, Promote
from posesweep.trainables.search import Search, longest_training, summary_of
from posesweep.trainables.status import read_status, write_outcome
from posesweep.trainables.tasks import find_task, make_config
from posesweep.trainables.trackers import tracking
from posesweep.trainables.warm_start import earlier_trials
from posesweep.trainables.worker import Driver, train_in_tune

if TYPE_CHECKING:
    from posesweep.analysis.confirmed import Confirmed

Trainable = Callable[[dict[str, Any]], None]


def run_sweep(sweep: Sweep, folder: Path, extend: int = 0, promote: Promote | None = None) -> None:
    """Start the sweep in `folder`, or go on where it was left; returns when every trial has ended and is ranked.

    Raises SweepError when the folder belongs to another sweep or process or the machine is too small, DataError when
    the data cannot be used, KeyboardInterrupt after Ctrl-C (the same command then goes on).
    """
    with lease(folder), copied(sweep, folder), tracking(sweep, folder), ThreadPoolExecutor(1) as aside:
        refuse_changes(sweep, folder)
        sweep_up(folder)
        slots = checked_slots(sweep, folder)
        with ray_beside(slots, aside) as ray_is_up:
            base = prepare(sweep, folder, slots)
            search = open_search(sweep, folder, slots)
            record_sweep(sweep, folder)  # only now: a mistake in the data can be put right under the same name
            extend_by(search, extend)
            catch_up(search, folder, sweep.metric.name)
            print(opening_line(search, folder), flush=True)
            if promote is not None:
                promotion(sweep, search, folder, promote)  # whether it can be done at all
            # seconds of importing, which Ray needs to start, too
            from posesweep.trainables.final_test import use_test_split
            from posesweep.trainables.winner import conclude

            ray_is_up.result()
            driver = Driver(os.getpid(), socket.gethostname(), Path.cwd(), sweep.failure.stall_minutes * 60)
            trainable = partial(train_in_tune, base=base, folder=folder.resolve(), slots=slots, driver=driver)
            try:
                run_search(sweep, search, folder, trainable, slots)
                if sweep.confirm is not None:
                    confirm(sweep, search, folder, trainable, slots)
                if promote is not None:
                    plan = retraining.agreed_plan(folder, promotion(sweep, search, folder, promote))
                    train_again(sweep, search, plan, folder, trainable, slots)
                is_through = True
            except StopAskedError as asked:
                print(f"{opening_line(search, folder)}; {asked}; the same command goes on", flush=True)
                is_through = False
        if sweep.data.test is not None and is_through:
            use_test_split(sweep.data, folder)  # while Ray leaves
        conclude(folder)


def prepare(sweep: Sweep, folder: Path, slots: Slots) -> dict[str, Any]:
    """Check the data, build what the trials share, freeze the split; returns the settings common to all trials."""
    base = {
        "task": sweep.task,
        "data": sweep.data.model_dump(),
        "metric": sweep.metric.model_dump(),
        "workers": slots.workers,
        "threads": max(1, slots.cpus),
        "epochs": longest_training(sweep),
        **sweep.fixed,
    }
    prepared = find_task(sweep.task).prepare([make_config({**base, **values}) for values in edges(sweep)])
    for note in [*prepared.notes, *notes_on_budget(sweep, slots)]:
        print(f"note: {note}")
    record_split(folder, prepared.record)
    write_json(folder / "space.json", space_json(sweep))
    if prepared.draw is not None and not (folder / "pictures").is_dir():
        prepared.draw(folder / "pictures")
    trained_on = sweep.data.model_dump(exclude={"test", "test_images"})  # no trial knows of the test split
    return {**base, "data": trained_on, **prepared.settings}


def open_search(sweep: Sweep, folder: Path, slots: Slots) -> Search:
    """The search with what it knows besides its own trials: those of earlier sweeps, and its budget."""
    earlier, notes = earlier_trials(sweep, folder, read_json(folder / "split.json")["hash"])
    for note in notes:
        print(f"note: {note}")
    search = Search.open(sweep, folder)
    search.earlier = earlier
    search.budget_ended = Budget(sweep, folder, slots).ended
    return search


def promotion(sweep: Sweep, search: Search, folder: Path, promote: Promote) -> Plan:
    """Whom `--promote` trains longer. SweepError before the search is through, or where nothing can be promoted."""
    if not search.proposals():
        raise SweepError(f"{sweep.name} was never started, so there is nothing to promote; leave --promote out")
    if not search.is_over:
        raise SweepError(f"{sweep.name} has {search.left} trials to run yet; repeat without --promote until it ends")
    if not search.best_finished():
        raise SweepError(f"{sweep.name}: no trial has finished, so there is nothing to promote")
    found = confirmed_in(folder)
    order = [row.trial for row in found.rows if row.ap is not None] if found is not None else []
    return retraining.promote_plan(sweep, search, promote, order)


def run_search(sweep: Sweep, search: Search, folder: Path, trainable: Trainable, slots: Slots) -> None:
    """Train everything the search still wants, as far as the budget goes, and say where that ended it."""
    if not search.is_over:
        with Progress(board_of(search, folder, slots)) as progress:
            run_on_tune(sweep, search, folder, trainable, slots, progress)
    settle(sweep, search, folder)
    if search.left and (reason := search.budget_ended(search)):
        print(f"note: {reason}", flush=True)


def extend_by(search: Search, trials: int) -> None:
    """Ask for so many more trials; an extension that was interrupted only goes on. SweepError where none are to be
    had."""
    if not trials or (search.proposals() and search.left):
        return
    if not search.proposals():
        raise SweepError(f"{search.sweep.name} was never started, so there is nothing to extend; leave --extend out")
    if search.sweep.search.method == "grid":
        raise SweepError("a grid is complete and cannot be extended; widen it under another name:, or use method: tpe")
    search.extend(trials)


def catch_up(search: Search, folder: Path, metric: str) -> None:
    """Tell the search what interrupted trials did that it had not heard when it died, and their folders how the search
    has those that do not run."""
    for proposal in search.unfinished():
        rows = metrics_of(folder, proposal.number)
        stopped = search.catch_up(proposal.number, [(row["epoch"], row.get(metric)) for row in rows])
        if stopped is None and read_status(trial_folder(folder, proposal.number)).get("state") == "finished":
            search.finish(proposal.number)  # what it would go on from may be gone already
    write_outcomes(search, folder)


def settle(sweep: Sweep, search: Search, folder: Path) -> None:
    """Stop for good who still waits where nothing is left to be run, and keep only the weights that are to be kept."""
    search.conclude()
    write_outcomes(search, folder)
    thin_checkpoints(folder, search.ended(), {*search.best(sweep.keep.checkpoints_of_top), *spared(sweep)})


def write_outcomes(search: Search, folder: Path) -> None:
    """Bring the folders of the trials that do not run up to date with the search."""
    for number in [*search.ended(), *search.waiting]:
        state, reason = search.outcome(number)
        if read_status(trial_folder(folder, number)).get("state") != state:
            write_outcome(trial_folder(folder, number), state, reason, idle=True)


def opening_line(search: Search, folder: Path) -> str:
    """'horse26: 12 done, 3 go on from epoch 40, 38, 2, 9 to start'."""
    name, counts = search.sweep.name, search.counts()
    going_on, waiting = counts["running"], counts["waiting"]
    done = sum(counts.values()) - going_on - waiting
    to_start = search.wanted - sum(counts.values())
    if not sum(counts.values()):
        return f"{name}: {to_start} trials to start; everything goes to {folder}"
    parts = [f"{done} done"]
    if going_on:
        rows = [metrics_of(folder, proposal.number) for proposal in search.unfinished()]
        parts.append(f"{going_on} go on from epoch {', '.join(str(len(r)) for r in rows)}")
    if waiting:
        parts.append(f"{waiting} waiting")
    parts.append(f"{to_start} to start" if to_start else "none to start")
    return f"{name}: {', '.join(parts)}"


def board_of(search: Search, folder: Path, slots: Slots) -> Board:
    """The live view of a sweep, with what its trials did before this run."""
    board = Board(search.sweep.name, search.wanted, slots.at_most(search.wanted).concurrent, search.rule)
    for proposal in search.proposals():
        board.started(proposal.number, proposal.params)
        for row in metrics_of(folder, proposal.number):
            board.epoch(proposal.number, row)
        state, reason = search.outcome(proposal.number)
        if state != "running":
            board.ended(proposal.number, state, reason)
    return board


def metrics_of(folder: Path, number: int) -> list[dict[str, Any]]:
    """The epochs a trial has on record."""
    return read_json_lines(trial_folder(folder, number) / "metrics.jsonl")


def run_on_tune(
    sweep: Sweep, search: Search, folder: Path, trainable: Trainable, slots: Slots, progress: Progress
) -> None:
    """Train everything the search still wants. Raises KeyboardInterrupt when Ctrl-C ended it early, StopAskedError
    after `posesweep stop`, SweepError when going on makes no sense before something is put right."""
    from posesweep.trainables.records import Records
    from posesweep.trainables.watch import Watch

    orders = Orders(max_retries=sweep.failure.max_retries)
    records = Records(search, sweep, folder, progress, orders)
    watch = Watch(sweep, folder, progress.board, orders, make_room=records.make_room)
    callbacks = [records, watch]
    while True:
        orders.again.clear()
        fit(trainable, search, folder, slots, orders=orders, callbacks=callbacks, max_retries=orders.max_retries)
        if not goes_on_with_unbegun(orders, search) or search.hopeless:
            break
    if search.hopeless:
        failures = search.failures()
        copy = f" and its copy {sweep.keep.copy_to}/{sweep.name}" if sweep.keep.copy_to is not None else ""
        raise SweepError(
            f"every one of the first {len(failures)} trials failed; put it right, remove {folder}{copy} and start "
            f"again (each trial's log.txt says more):\n{summary_of(failures)}"
        )
    orders.carry_out(sweep.name)
    if not search.is_over:
        raise KeyboardInterrupt
    settle(sweep, search, folder)
    for number in search.given_up():
        progress.board.ended(number, *search.outcome(number))


def goes_on_with_unbegun(orders: Orders, search: Search) -> bool:
    """Whether Tune is to be called once more, for trials whose processes died before they began.

    Not where anything else is left: then it was interrupted, which Tune does not tell from an end.
    """
    only_those = len(search.unfinished()) == len(orders.again) and not search.has_next
    return bool(orders.again) and only_those and not orders.halt


def train_again(sweep: Sweep, search: Search, plan: Plan, folder: Path, trainable: Trainable, slots: Slots) -> None:
    """Train what a plan names, or go on with that. Raises as `run_on_tune` does."""
    from posesweep.trainables.records import Queue, QueueScheduler, RetrainingRecords
    from posesweep.trainables.watch import Watch

    print(retraining.opening_line(sweep.name, plan, folder), flush=True)
    left = retraining.unfinished(folder, plan)
    if not left:
        return
    params = {proposal.number: proposal.params for proposal in search.proposals()}
    orders = Orders(max_retries=sweep.failure.max_retries)
    at_once = slots.at_most(len(plan.runs)).concurrent
    retraining.make_room(folder, plan)
    with Progress(retraining.board_of(sweep, plan, folder, params, at_once)) as progress:
        watch = Watch(sweep, folder, progress.board, orders, make_room=lambda: retraining.make_room(folder, plan))
        records = RetrainingRecords(sweep, folder, progress, orders)
        while True:
            orders.again.clear()
            queue = Queue(retraining.jobs(plan, left, params), orders)
            execute(
                trainable,
                queue,
                folder,
                slots,
                left=lambda queue=queue: queue.left,
                scheduler=QueueScheduler(orders),
                callbacks=[records, watch],
                max_retries=orders.max_retries,
            )
            left = retraining.unfinished(folder, plan)
            if not orders.again or len(left) > len(orders.again) or orders.halt:
                break  # also after Ctrl-C, which Tune takes for an early end
    orders.carry_out(sweep.name)
    if left:
        raise KeyboardInterrupt


def confirm(sweep: Sweep, search: Search, folder: Path, trainable: Trainable, slots: Slots) -> None:
    """Train the best of the search and the baseline with other seeds, as the sweep file asks; rank and thin them."""
    if not search.best_finished():
        print("note: confirm: no trial has finished, so there is nothing to confirm")
        return
    plan = retraining.agreed_plan(folder, retraining.confirm_plan(sweep, search))
    train_again(sweep, search, plan, folder, trainable, slots)
    found = confirmed_in(folder)
    if found is not None:
        best = [row.trial for row in found.rows][: sweep.keep.checkpoints_of_top]
        retraining.thin(folder, plan, {*best, *spared(sweep)})


def confirmed_in(folder: Path) -> "Confirmed | None":
    """What the confirmation in the folder says, where there is one. Imported late: pandas and matplotlib take seconds
    that Ray's start needs."""
    from posesweep.analysis.confirmed import confirmed
    from posesweep.analysis.results import read_sweep_folder

    return confirmed(read_sweep_folder(folder))


def fit(trainable: Trainable, search: Search, folder: Path, slots: Slots, **run: Any) -> None:
    """Have Ray Tune run `trainable` for every proposal of the search. `run`: orders, callbacks, max_retries."""
    from posesweep.trainables.tune_glue import StudyScheduler, StudySearcher

    searcher = StudySearcher(search, run.pop("orders", None))
    execute(trainable, searcher, folder, slots, left=lambda: search.left, scheduler=StudyScheduler(searcher), **run)


def execute(trainable: Trainable, searcher: Any, folder: Path, slots: Slots, **run: Any) -> None:
    """Have Ray Tune run `trainable` for what the searcher gives. `run`: left (how many are still to be
    trained), scheduler, callbacks, max_retries.

    Raises StorageError when the disk of `folder` cannot be written.
    """
    from ray import tune

    from posesweep.trainables.tune_glue import Limited

    without_environments_of_their_own()
    tuner = tune.Tuner(
        tune.with_resources(trainable, trial_resources(slots)),
        tune_config=tune.TuneConfig(
            search_alg=Limited(searcher, room_of(slots, run["left"])),
            scheduler=run.get("scheduler"),
            num_samples=-1,  # the searcher says when there are no more
            reuse_actors=slots.workers == 1,
        ),
        run_config=tune.RunConfig(
            name="tune",
            storage_path=str((folder / "ray").resolve()),
            failure_config=tune.FailureConfig(max_failures=run.get("max_retries", 0)),
            callbacks=run.get("callbacks", []),
            verbose=0,
        ),
    )
    try:
        tuner.fit()
    except (tune.TuneError, OSError) as error:
        raise storage_error(folder, error) or error from error
    shutil.rmtree(folder / "ray", ignore_errors=True)  # Tune's own files, which nothing reads
