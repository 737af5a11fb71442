"""What a report tells of: a sweep, its ranking, and its winner, which a confirmation may have changed."""

from dataclasses import dataclass

from posesweep.analysis.confirmed import Candidate, Confirmed, confirmed
from posesweep.analysis.ranked import Standing, Standings, ranked
from posesweep.analysis.results import SweepResults


@dataclass(frozen=True)
class Story:
    """One sweep as every section of its report sees it."""

    results: SweepResults
    table: Standings  # of the search
    confirmed: Confirmed | None = None

    @classmethod
    def of(cls, results: SweepResults) -> "Story":
        """Rank a sweep. Raises SweepError for predictions that cannot be read."""
        return cls(results, ranked(results), confirmed(results))

    @property
    def candidate(self) -> Candidate | None:
        """The confirmed winner, if there is one yet."""
        return self.confirmed.winner if self.confirmed is not None else None

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
    def baseline_trial(self) -> int | None:
        """The number of the trial with the settings that the user began with."""
        return None if self.table.baseline is None else self.table.baseline.trial
