"""What a sweep file says and nothing will use, and what its writer may not have meant: said, but no mistake."""

from collections.abc import Iterator, Mapping
from typing import Any

from posesweep.search_spaces.mistakes import say
from posesweep.search_spaces.parameters import Parameter, is_active
from posesweep.search_spaces.schema import Sweep

USED_TO_STOP = {
    "asha": {"min_epochs", "eta"},
    "hyperband": {"min_epochs", "eta"},
    "median": {"min_epochs", "startup_trials"},
    "none": set(),
}


def notes_of(sweep: Sweep, defaults: Mapping[str, Any]) -> Iterator[str]:
    """Each in one sentence; `defaults` are the known settings of a training."""
    yield from _on_search(sweep)
    for name, parameter in sweep.parameters.items():
        yield from _on_parameter(sweep, name, parameter, defaults)


def _on_search(sweep: Sweep) -> Iterator[str]:
    search, stopping = sweep.search, sweep.early_terminate
    if search.method != "tpe" and "startup_trials" in search.model_fields_set:
        yield f"search.startup_trials: not used by {search.method}"
    if sweep.warm_start and search.method != "tpe":
        yield f"warm_start: not used by {search.method}"
    if search.method == "tpe" and sweep.parameters and 1 < search.trials <= search.startup_trials:
        yield (
            f"search: all {search.trials} trials are drawn at random, because tpe begins to choose after "
            f"startup_trials: {search.startup_trials}"
        )
    planned = 1 + len(sweep.try_first)
    if search.trials < planned:
        yield f"search.trials: {search.trials}, so the last {planned - search.trials} of try_first are not tried"
    yield from _on_confirm(sweep)
    for name in sorted(stopping.model_fields_set - {"type"} - USED_TO_STOP[stopping.type]):
        yield f"early_terminate.{name}: not used by type {stopping.type}"


def _on_confirm(sweep: Sweep) -> Iterator[str]:
    confirm, full = sweep.confirm, sweep.fixed.get("epochs")
    if confirm is None or confirm.epochs is None or full is None or confirm.epochs == full:
        return
    counted = [name for name in ("warmup", "cycle_epochs", "final_epochs") if name in {*sweep.fixed, *sweep.parameters}]
    stay = f"; {', '.join(counted)} stay as many epochs as they are" if counted else ""
    yield f"confirm.epochs: {confirm.epochs}, where the search trains {full}; schedules are stretched to it{stay}"


def _on_parameter(sweep: Sweep, name: str, parameter: Parameter, defaults: Mapping[str, Any]) -> Iterator[str]:
    if parameter.points is not None and sweep.search.method != "grid":
        yield f"{name}: points is used by method grid only"
    if parameter.kind == "int" and isinstance(defaults.get(name), float):
        low, high = parameter.bounds
        yield f"{name}: only whole numbers from {low} to {high}; write min: {float(low)} to search between them"
    when_fixed = {parent: allowed for parent, allowed in parameter.when.items() if parent in sweep.fixed}
    if not is_active(parameter.model_copy(update={"when": when_fixed}), sweep.fixed):
        reasons = " and ".join(f"{parent} is {say(sweep.fixed[parent])}" for parent in when_fixed)
        yield f"{name}: never used, because {reasons}"
