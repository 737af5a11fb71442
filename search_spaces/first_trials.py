"""The trials a user asks for by name: the baseline and those of try_first."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from posesweep.search_spaces.choices import walk
from posesweep.search_spaces.mistakes import Mistake, or_nearest, say
from posesweep.search_spaces.parameters import Parameter, Space, same


@dataclass(frozen=True)
class FirstTrials:
    """Complete choices: a value for every parameter that is used."""

    baseline: dict[str, Any]
    try_first: tuple[dict[str, Any], ...]
    mistakes: tuple[Mistake, ...]
    notes: tuple[str, ...]


def read_first_trials(
    content: Mapping[str, Any], space: Space, fixed: Mapping[str, Any], defaults: Mapping[str, Any]
) -> FirstTrials:
    """The baseline and the try_first entries of a file's `content`, completed.

    What the baseline leaves out takes the setting's own default where that lies in the range, else the middle of the
    range (the geometric one where it is log; the first of several values). What an entry of try_first leaves out is as
    in the baseline: it is the baseline with a few values changed.
    """
    first = _Reader(space, fixed, defaults)
    baseline = first.read(content.get("baseline") or {}, "baseline", {})
    entries = content.get("try_first") or []
    if not isinstance(entries, list):
        first.mistakes.append(Mistake("try_first", f"must be a list, such as [{{lr0: 0.001}}], not {say(entries)}"))
        entries = []
    choices = [baseline]
    notes = []
    for i, entry in enumerate(entries):
        choice = first.read(entry, f"try_first.{i}", baseline)
        if choice in choices:
            notes.append(f"try_first.{i}: the same as {_place(choices.index(choice))}, left out")
        choices.append(choice)
    different = tuple(choice for i, choice in enumerate(choices) if i and choice not in choices[:i])
    return FirstTrials(baseline, different, tuple(first.mistakes), tuple(notes))


def _place(position: int) -> str:
    return f"try_first.{position - 1}" if position else "the baseline"


class _Reader:
    def __init__(self, space: Space, fixed: Mapping[str, Any], defaults: Mapping[str, Any]) -> None:
        self.mistakes: list[Mistake] = []
        self._space, self._fixed, self._defaults = space, fixed, defaults

    def read(self, given: Any, key: str, others: Mapping[str, Any]) -> dict[str, Any]:
        """One choice from what is `given`; what it leaves out is taken from `others`, then the defaults."""
        if not isinstance(given, dict):
            self.mistakes.append(Mistake(key, f"must be values such as {{lr0: 0.001}}, not {say(given)}"))
            return {}
        settled = self._settled(given, key)
        chosen = walk(self._space.parameters, self._fixed, self._value_from({**others, **settled}))
        for name in settled.keys() - chosen.keys():
            reason = _why_unused(self._space.parameters[name], {**self._fixed, **chosen})
            if reason:
                self.mistakes.append(Mistake(f"{key}.{name}", f"is not used here, because {reason}; take it out"))
        return chosen

    def _settled(self, given: Mapping[str, Any], key: str) -> dict[str, Any]:
        settled = {}
        for name, value in given.items():
            if name not in self._space.parameters:
                text = self._not_searched(name, value)
                self.mistakes += [Mistake(f"{key}.{name}", text)] if text else []
                continue
            try:
                settled[name] = self._space.parameters[name].settle(value)
            except ValueError as error:
                self.mistakes.append(Mistake(f"{key}.{name}", str(error)))
        return settled

    def _not_searched(self, name: str, value: Any) -> str:
        if name in self._space.broken or (name in self._fixed and same(self._fixed[name], value)):
            return ""
        if name in self._fixed:
            return f"is fixed at {say(self._fixed[name])} in every trial; take it out here, or search it"
        if name in self._defaults:
            return "is not searched; give it in fixed, or search it in parameters"
        return f"unknown name{or_nearest(name, self._space.parameters)}"

    def _value_from(self, wanted: Mapping[str, Any]) -> Any:
        def pick(name: str, parameter: Parameter) -> Any:
            for source in (wanted, self._defaults):
                try:
                    return parameter.settle(source[name])
                except (KeyError, ValueError):
                    continue  # not given, or a default outside the range
            return parameter.middle()

        return pick


def _why_unused(parameter: Parameter, chosen: Mapping[str, Any]) -> str:
    """'codec is 'simcc'', or nothing where a parent is not used itself or could not be read."""
    for parent, allowed in parameter.when.items():
        if parent in chosen and not any(same(chosen[parent], value) for value in allowed):
            return f"{parent} is {say(chosen[parent])}"
    return ""
