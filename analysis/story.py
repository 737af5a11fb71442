"""What a report tells of: a sweep, its ranking, and its winner, which a confirmation may have changed."""

from dataclasses import dataclass

from posesweep.analysis.chosen import Chosen, chosen, unconfirmed
from posesweep.analysis.confirmed import Candidate, Confirmed, confirmed
from posesweep.analysis.ranked import Standing, Standings, ranked
from posesweep.analysis.results import SweepResults


@dataclass(frozen=True)
class Story:
    """One sweep as every section of its report sees it."""

    results: SweepResults
    table: Standings  # of the search
    confirmed: Confirmed | None = None  # as far as it came; `decisive` is what may name a winner
    picked: Chosen | None = None  # the training that is handed over; None without a winner

    @classmethod
    def of(cls, results: SweepResults) -> "Story":
        """Rank a sweep. Raises SweepError for predictions that cannot be read."""
        table, found = ranked(results), confirmed(results)
        picked = chosen(results, table, found=found) if table.winner is not None else None
        return cls(results, table, found, picked)

    @property
    def decisive(self) -> Confirmed | None:
        """The confirmation, once all its trainings have ended and one has a place; half of one decides nothing."""
        found = self.confirmed
        return None if found is None or found.winner is None or unconfirmed(self.results) else found

    @property
    def candidate(self) -> Candidate | None:
        """The confirmed winner, if there is one yet."""
        return self.decisive.winner if self.decisive is not None else None

    @property
    def undecided(self) -> str:
        """Why there is a confirmation and the winner is that of the search all the same, or ""."""
        if left := unconfirmed(self.results):
            runs = "training has" if left == 1 else "trainings have"
            return f"{left} {runs} still to confirm the winner; until then it is the one of the search"
        if self.confirmed is not None and self.confirmed.winner is None:
            return "no training of the confirmation came to its end; the winner is the one of the search"
        return ""

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader must know of the sweep and of its ranking."""
        said = self.undecided
        return (*self.results.notes, *self.table.notes, *((f"{said[:1].upper()}{said[1:]}.",) if said else ()))

    @property
    def winner(self) -> Standing | None:
        """The winner as a trial of the search: the confirmed one, or the best of the ranking."""
        if self.candidate is not None:
            row = next((row for row in self.table.rows if row.trial == self.candidate.trial), None)
            return row or self.table.winner
        return self.table.winner

    @property
    def winner_trial(self) -> int | None:
        """Its number."""
        return None if self.winner is None else self.winner.trial

    @property
    def handed_over(self) -> int | None:
        """The number of the trial that is handed over: the winner, or one that became better when trained longer."""
        return self.winner_trial if self.picked is None else self.picked.trial

    @property
    def baseline_trial(self) -> int | None:
        """The number of the trial with the settings that the user began with."""
        return None if self.table.baseline is None else self.table.baseline.trial
