"""A sweep in this process, without Ray: the same files in its folder, in a tenth of the time."""

from pathlib import Path

from posesweep.files import trial_folder
from posesweep.search_spaces.space import Sweep
from posesweep.trainables.cluster import Slots
from posesweep.trainables.context import in_this_process
from posesweep.trainables.folder import record_sweep, thin_checkpoints
from posesweep.trainables.search import Search
from posesweep.trainables.status import write_status
from posesweep.trainables.sweep import prepare, settle
from posesweep.trainables.tasks import make_config
from posesweep.trainables.trial import run_trial
from posesweep.trainables.winner import conclude


class Stopped(Exception):  # noqa: N818
    """The search has enough of a trial."""


def run_sweep(sweep: Sweep, folder: Path, extend: int = 0) -> None:
    """What `posesweep.trainables.sweep.run_sweep` leaves, one trial after the other."""
    base = prepare(sweep, folder, Slots(1, 1, 0.0, 1))
    record_sweep(sweep, folder)
    search = Search.open(sweep, folder)
    while (proposal := search.next_trial()) is not None:
        place = trial_folder(folder, proposal.number)
        write_status(place, trial=proposal.number, role=proposal.role, params=proposal.params, state="running")

        def report(row: dict, number: int = proposal.number) -> None:
            if search.report(number, row["epoch"], row[sweep.metric.name]) is not None:
                raise Stopped

        try:
            run_trial(make_config({**base, **proposal.params}), in_this_process(place, report))
            search.finish(proposal.number)
        except Stopped:
            state, reason = search.outcome(proposal.number)
            write_status(place, state=state, reason=reason)
        thin_checkpoints(folder, search.ended(), search.best(sweep.keep.checkpoints_of_top))
    settle(sweep, search, folder)
    conclude(folder)
