"""What to try next: a pure function of the sweep, the trial's number and the trials before it.

The sampler is built anew for each proposal, with a seed made of the search's seed and the trial's number, and it looks
at a study in memory, copied from the journal. Nothing is carried from one proposal to the next, so an interrupted
search goes on as if it had not been interrupted.
"""

import heapq
import json
import warnings
from collections.abc import Container, Mapping, Sequence
from collections.abc import Set as AbstractSet
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState

from posesweep.search_spaces.space import Parameter, Sweep, grid, is_active

Values = dict[str, Any]
Point = frozenset[tuple[str, Any]]  # a trial's values as the journal holds them, to be looked up
# A small space of choices soon proposes what was tried already, and the same config again would teach nothing: the
# sampler is asked a few times more, then chance.
DRAWS, CHANCE_DRAWS = 8, 24
IN_SIGHT, BEST_IN_SIGHT = 300, 100  # trials that the sampler looks at
UNRANKED = (2.0, 0.0, 0.0)  # behind all that have a rank

# Every argument that does not warn of its removal in Optuna 6; the rest (prior_weight, gamma, weights, ...) has the
# same defaults in 4.4 and 5.0.
TPE_ARGUMENTS: Values = {
    "n_ei_candidates": 24,
    "multivariate": True,
    "group": True,  # parameters with `when:` are modelled together with those they appear with
    "constant_liar": True,  # a running trial's neighbourhood is avoided
}


def sampler_arguments(sweep: Sweep) -> Values:
    """What the sampler is built with, for the record; its seed is made of `seed` and the trial's number."""
    arguments: Values = {"method": sweep.search.method, "seed": sweep.search.seed}
    if sweep.search.method == "tpe":
        arguments |= {"n_startup_trials": sweep.search.startup_trials, **TPE_ARGUMENTS}
    return arguments


def planned(sweep: Sweep) -> list[tuple[str, Values]]:
    """The (role, values) of the trials that are not sampled: the baseline, then what the user wants tried first."""
    return [("baseline", dict(sweep.baseline)), *(("try_first", dict(values)) for values in sweep.try_first)]


def propose(
    sweep: Sweep,
    trials: Sequence[FrozenTrial],
    earlier: Sequence[FrozenTrial] = (),
    best: Sequence[int] | None = None,
    tried: AbstractSet[Point] | None = None,
) -> tuple[str, Values] | None:
    """The (role, values of the active parameters) of the trial after `trials`; None when a grid has no more points.

    `earlier` are trials of other sweeps, as the sampler is to take them; `best` is as for `in_sight`; `tried` are the
    points of `trials`, from who has them at hand.
    """
    number, first = len(trials), planned(sweep)
    if number < len(first):
        return first[number]
    if sweep.search.method == "grid":
        points = grid(sweep)
        at = number - len(first)
        return ("search", points[at]) if at < len(points) else None
    seen = as_sampled(sweep, in_sight(sweep, trials, best))
    tried = tried if tried is not None else {point(trial.params) for trial in trials}
    return "search", _sampled(sweep, number, [*earlier, *seen], tried | {point(trial.params) for trial in earlier})


def point(stored: Mapping[str, Any]) -> Point:
    """The values of a trial of the journal; equal points are the same config."""
    return frozenset(stored.items())


def in_sight(sweep: Sweep, trials: Sequence[FrozenTrial], best: Sequence[int] | None = None) -> Sequence[FrozenTrial]:
    """What the sampler looks at: all trials, of more than 300 the best 100 and the latest of the others, in order.

    TPE's time grows with every trial it sees, while it models the best 25 at most (Optuna's default gamma) against all
    others: beyond some hundred they add little to that contrast. `best`: the numbers of the best 100 by `merit`,
    from who has them at hand; to look for them takes the longer the more trials there are.
    """
    if len(trials) <= IN_SIGHT:
        return trials
    if best is None:
        ranked = heapq.nsmallest(BEST_IN_SIGHT, trials, key=partial(merit, sweep))
        best = [trial.number for trial in ranked]
    chosen = set(best)
    latest = [trial for trial in trials[-IN_SIGHT:] if trial.number not in chosen][BEST_IN_SIGHT - IN_SIGHT :]
    return sorted([*latest, *(trials[number] for number in chosen)], key=lambda trial: trial.number)


def merit(sweep: Sweep, trial: FrozenTrial) -> tuple[float, ...]:
    """What to sort by, the best first, known from one trial alone: the finished by value, then those that were pruned
    or wait, by how far they came and by value there, then the rest."""
    sign = -1.0 if sweep.metric.goal == "maximize" else 1.0
    if trial.state == TrialState.COMPLETE and trial.value is not None:
        return 0.0, sign * trial.value, 0.0
    is_cut_short = trial.state == TrialState.PRUNED or is_waiting(trial)
    if is_cut_short and trial.intermediate_values and not trial.user_attrs.get("diverged"):
        last = max(trial.intermediate_values)
        return 1.0, -last, sign * trial.intermediate_values[last]
    return UNRANKED


def _sampled(sweep: Sweep, number: int, seen: Sequence[FrozenTrial], tried: AbstractSet[Point]) -> Values:
    """Values that are not among the `tried`, as far as a few draws find any."""
    study = optuna.create_study(direction=sweep.metric.goal, storage=Remembered(seen))
    for draw in range(DRAWS + CHANCE_DRAWS):
        study.sampler = _sampler(sweep, number, draw)
        trial = study.ask()
        values = _suggested(sweep, trial)
        stored, _ = encoded(sweep, values)
        if point(stored) not in tried:
            break
        study.tell(trial, state=TrialState.FAIL)  # out of the sampler's sight
    return values


class Remembered(optuna.storages.InMemoryStorage):
    """A study in memory with a past. `Study.add_trials` copies and checks each trial, which took three times as long as
    TPE itself; here they are shown as they are, numbered up to -1 in their order: the study's own begin with 0."""

    def __init__(self, past: Sequence[FrozenTrial]) -> None:
        super().__init__()
        self._past = past
        for number, trial in enumerate(past, start=-len(past)):
            trial.number = number

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        """The past ones, then the study's own."""
        own = super().get_all_trials(study_id, deepcopy, states)
        return [*(trial for trial in self._past if states is None or trial.state in states), *own]


def as_sampled(sweep: Sweep, trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """The trials as the sampler is to take them: finished, each with its value `at_their_end`. TPE by itself ranks the
    pruned ones behind all that finished, however bad, and among them those that came further before the others.

    - a diverged trial is shown pruned without any report, which ranks behind everything: TPE learns to keep away from
      it, however far it came before it diverged;
    - a trial that has not reported yet is shown running;
    - a failed trial, or one whose values the space no longer holds (the sweep file was edited), is shown failed.
    """
    ranges = {name: distribution(parameter) for name, parameter in sweep.parameters.items()}
    values = at_their_end(trials)
    return [_as_sampled(ranges, trial, values.get(trial.number)) for trial in trials]


def at_their_end(trials: Sequence[FrozenTrial]) -> dict[int, float]:
    """What each trial reached; one that was stopped or still runs, what it would reach if it gained from here on what
    others gained: the median of those that were there too, from one epoch at which any trial ended to the next.

    Without those that diverged, failed or have not reported.
    """
    told = [trial for trial in trials if trial.intermediate_values and counts(trial)]
    marks = sorted({max(trial.intermediate_values) for trial in told})
    to_come = 0.0  # from a mark to the last one
    gains = {marks[-1]: 0.0} if marks else {}
    for here, then in reversed(list(pairwise(marks))):
        rows = [trial.intermediate_values for trial in told]
        seen = [row[then] - row[here] for row in rows if here in row and then in row]
        to_come += float(np.median(seen)) if seen else 0.0
        gains[here] = to_come
    return {trial.number: _at_its_end(trial, gains) for trial in told}


def _at_its_end(trial: FrozenTrial, gains: Mapping[int, float]) -> float:
    if trial.state == TrialState.COMPLETE and trial.value is not None:
        return trial.value
    last, end = max(trial.intermediate_values), int(trial.params.get("epochs", max(gains)))
    return trial.intermediate_values[last] + gains[last] - gains[max(mark for mark in gains if mark <= max(last, end))]


def is_waiting(trial: FrozenTrial) -> bool:
    """Whether it waits at a rung, and may go on."""
    return not trial.state.is_finished() and bool(trial.user_attrs.get("waits"))


def counts(trial: FrozenTrial) -> bool:
    """Whether its reports say how good its values are."""
    return trial.state != TrialState.FAIL and not trial.user_attrs.get("diverged")


def _as_sampled(ranges: Mapping[str, BaseDistribution], trial: FrozenTrial, value: float | None) -> FrozenTrial:
    state = trial.state if value is None else TrialState.COMPLETE
    distributions = {name: ranges[name] for name in trial.params if name in ranges}
    params = {name: trial.params[name] for name in distributions}
    if not all(_holds(distributions[name], params[name]) for name in params):
        state, value, params, distributions = TrialState.FAIL, None, {}, {}
    return FrozenTrial(
        number=trial.number,
        trial_id=trial.number,
        state=state,
        value=value,
        datetime_start=trial.datetime_start,
        datetime_complete=trial.datetime_complete,
        params=params,
        distributions=distributions,
        user_attrs={},
        system_attrs={},
        intermediate_values={},
    )


def _sampler(sweep: Sweep, number: int, draw: int) -> optuna.samplers.BaseSampler:
    seed = int(np.random.SeedSequence([sweep.search.seed, number, draw]).generate_state(1)[0])
    if sweep.search.method == "random" or draw >= DRAWS:
        return optuna.samplers.RandomSampler(seed=seed)
    with warnings.catch_warnings():  # `group`: it has been called experimental since Optuna 2.8
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return optuna.samplers.TPESampler(seed=seed, n_startup_trials=sweep.search.startup_trials, **TPE_ARGUMENTS)


def _suggested(sweep: Sweep, trial: optuna.Trial) -> Values:
    """One set of values, parameter by parameter in declared order, only those that are active given the earlier."""
    values: Values = {}
    for name, parameter in sweep.parameters.items():
        if is_active(parameter, {**sweep.fixed, **values}):
            values[name] = decode(parameter, _suggest(trial, name, distribution(parameter)))
    return values


def _suggest(trial: optuna.Trial, name: str, range_: BaseDistribution) -> Any:
    if isinstance(range_, FloatDistribution):
        return trial.suggest_float(name, range_.low, range_.high, log=range_.log, step=range_.step)
    if isinstance(range_, IntDistribution):
        return trial.suggest_int(name, range_.low, range_.high, log=range_.log, step=range_.step)
    assert isinstance(range_, CategoricalDistribution)
    return trial.suggest_categorical(name, range_.choices)


def distribution(parameter: Parameter) -> BaseDistribution:
    """The parameter in Optuna's words; a constant is a choice of one."""
    if parameter.kind in ("categorical", "constant"):
        return CategoricalDistribution([encode(parameter, value) for value in parameter.values])
    low, high = parameter.bounds
    if parameter.kind == "int":
        return IntDistribution(low, high, log=parameter.log, step=int(parameter.step or 1))
    return FloatDistribution(low, high, log=parameter.log, step=parameter.step)


def encode(parameter: Parameter, value: Any) -> Any:
    """A value as the journal holds it: a list or mapping as JSON text, because Optuna stores only plain choices."""
    is_plain = value is None or isinstance(value, bool | int | float | str)
    return value if is_plain or parameter.kind in ("float", "int") else json.dumps(value)


def decode(parameter: Parameter, stored: Any) -> Any:
    """The inverse of `encode`."""
    if parameter.kind in ("float", "int"):
        return parameter.on_grid(stored)  # without the last digits' noise of 0.1 + 2 * 0.1
    return next((value for value in parameter.values if encode(parameter, value) == stored), stored)


def encoded(sweep: Sweep, values: Mapping[str, Any]) -> tuple[Values, dict[str, BaseDistribution]]:
    """Values and their distributions as a trial of the journal."""
    distributions = {name: distribution(sweep.parameters[name]) for name in values}
    return {name: encode(sweep.parameters[name], value) for name, value in values.items()}, distributions


def decoded(sweep: Sweep, trial: FrozenTrial) -> Values:
    """The values of a trial of the journal, in the order of the sweep file."""
    return {name: decode(p, trial.params[name]) for name, p in sweep.parameters.items() if name in trial.params}


def _holds(range_: BaseDistribution, stored: Any) -> bool:
    try:
        return range_._contains(range_.to_internal_repr(stored))
    except ValueError:  # not one of the choices
        return False
