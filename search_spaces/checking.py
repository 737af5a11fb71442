"""Asks the training about the settings of a sweep before anything is trained: at the space's corners and within."""

import random
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from posesweep.search_spaces.choices import corners, sample
from posesweep.search_spaces.first_trials import FirstTrials
from posesweep.search_spaces.mistakes import Mistake, or_nearest
from posesweep.search_spaces.parameters import Parameter
from posesweep.search_spaces.schema import FILE_KEYS, LONG_KEYS

SAMPLES = 64
MOST_PER_SETTING = 3  # a setting that is wrong at every corner is wrong once

Ask = Callable[[dict[str, Any]], list[Mistake]]  # a full set of settings -> what is wrong; keys are the settings' names


@dataclass
class Checking:
    """What `ask` finds wrong with a space; a setting whose parameter is `broken` is not spoken of again."""

    ask: Ask
    parameters: Mapping[str, Parameter]
    fixed: Mapping[str, Any]
    broken: Collection[str]
    mistakes: list[Mistake] = field(default_factory=list)
    _said: dict[str, set[str]] = field(default_factory=dict)

    def all(self, first: FirstTrials) -> list[Mistake]:
        """Ask about every corner; about random choices and the first trials, where no corner has said it already."""
        for choice in corners(self.parameters, self.fixed):
            self._one(choice, "", MOST_PER_SETTING)
        rng = random.Random(0)
        for _ in range(SAMPLES):
            self._one(sample(self.parameters, self.fixed, rng), "", 1)
        self._one(first.baseline, "baseline", MOST_PER_SETTING)
        for i, choice in enumerate(first.try_first):
            self._one(choice, f"try_first.{i}", MOST_PER_SETTING)
        return self.mistakes

    def _one(self, choice: dict[str, Any], place: str, most: int) -> None:
        for found in self.ask({**self.fixed, **choice}):
            texts = self._said.setdefault(found.key, set())
            if found.text in texts or len(texts) >= most or self._is_of_broken(found):
                continue
            texts.add(found.text)
            self.mistakes.append(Mistake(self._key(found.key, place), found.text))

    def _is_of_broken(self, found: Mistake) -> bool:
        words = set(re.findall(r"\w+", f"{found.key} {found.text}"))
        return not words.isdisjoint(self.broken)

    def _key(self, key: str, place: str) -> str:
        """Where a setting's value stands in the file."""
        name = key.split(".")[0]
        if place and (not name or name in self.parameters):
            return f"{place}.{key}".rstrip(".")
        if name in self.parameters:
            return f"parameters.{key}"
        return f"fixed.{key}" if name in self.fixed else key


def unknown_names(section: str, names: Collection[str], settings: Collection[str]) -> list[Mistake]:
    """The names in fixed or parameters that no training has; with no `settings` every name is accepted."""
    mistakes = []
    for name in names:
        if name in FILE_KEYS:
            text = f"is a key of the file itself; move it out of {section}"
        elif not settings or name in settings:
            continue
        elif name in LONG_KEYS:
            text = f"unknown setting; did you mean '{LONG_KEYS[name]}'?"
        else:
            text = f"unknown setting{or_nearest(name, settings)}"
        mistakes.append(Mistake(f"{section}.{name}", text))
    return mistakes
