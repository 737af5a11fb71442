"""A sweep file -> Sweep: the file is read, changed from the command line, checked whole, and filled in.

    read_sweep(Path("horse26.yaml"), ["search.trials=20"], check, known)

Every mistake of the file is said at once, one line each with the key and its line. How a file is written: see the ready
ones beside this module.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from posesweep.errors import ConfigError, nearest
from posesweep.search_spaces.checking import Checking, unknown_names
from posesweep.search_spaces.choices import combinations, corners, grid_values, sample
from posesweep.search_spaces.document import COMMAND_LINE, Document, YamlError, read_tree, written
from posesweep.search_spaces.first_trials import read_first_trials
from posesweep.search_spaces.mistakes import Mistake, mistakes_of, or_nearest, say
from posesweep.search_spaces.notes import notes_of
from posesweep.search_spaces.overrides import Overrides
from posesweep.search_spaces.parameters import Parameter, Space, is_active, read_space
from posesweep.search_spaces.schema import (
    BLOCKS,
    FILE_KEYS,
    LONG_KEYS,
    Block,
    Confirm,
    DataSpec,
    Sweep,
    path_from,
    text_fields,
    with_paths_from,
)
from posesweep.search_spaces.table import differences, space_json, space_table

__all__ = [
    "ConfigCheck",
    "DataSpec",
    "KnownSettings",
    "Mistake",
    "Parameter",
    "Sweep",
    "differences",
    "edges",
    "grid",
    "is_active",
    "read_sweep",
    "sample",
    "space_json",
    "space_table",
]

# task, one full set of settings (fixed and one choice) -> what is wrong with it, with the settings' names as keys
ConfigCheck = Callable[[str, dict[str, Any]], list[Mistake]]
# task -> its settings and their defaults; ConfigError when there is no such task
KnownSettings = Callable[[str], Mapping[str, Any]]

READY_MADE = Path(__file__).parent
DEMO = READY_MADE / "demo.yaml"
MOST_GRID_TRIALS = 100_000
_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,98}[A-Za-z0-9_-])?")
_OTHER_KEYS = {  # of W&B's files
    "method": "write search: {method: tpe}",
    "run_cap": "write search: {trials: 60}",
    "program": "there is no program to name; take it out",
    "command": "there is no command to name; take it out",
}


def read_sweep(
    path: Path | None,
    overrides: Sequence[str] = (),
    check: ConfigCheck | None = None,
    known: KnownSettings | None = None,
) -> Sweep:
    """Read a sweep file (None: the demo), with `key=value` overrides.

    `known` gives the settings of the file's task and their defaults; without it every name is accepted in fixed and
    parameters. `check` is asked about the corners of the space, 64 random choices, the baseline and try_first, each
    merged with the fixed settings. What the baseline leaves out is filled in: see `read_first_trials`.
    Raises ConfigError with all mistakes at once.
    """
    path = DEMO if path is None else path
    text = _read_text(path)
    try:
        root, mistakes = read_tree(text, path.name)
    except YamlError as error:
        raise ConfigError([str(error)], where=str(path)) from None
    defaults, no_task = _settings_of_task(Document.of(root), overrides, known)
    changes = Overrides(root, defaults)
    changes.apply(overrides)
    reading = _Reading(Document.of(root), path, defaults, mistakes, changes.mistakes)
    reading.mistakes += no_task
    sweep = reading.sweep(None if no_task else check)
    notes = (*changes.notes, *sweep.notes, *notes_of(sweep, defaults))
    return sweep.model_copy(update={"text": written(root) if overrides else text, "notes": notes})


def _settings_of_task(
    document: Document, overrides: Sequence[str], known: KnownSettings | None
) -> tuple[Mapping[str, Any], list[Mistake]]:
    """The settings that the file's task (or the command line's) has; a mistake when there is no such task."""
    task = document.texts.get("task", Sweep.model_fields["task"].default)
    task = next((text.removeprefix("task=") for text in reversed(overrides) if text.startswith("task=")), task)
    try:
        return (known(task) if known is not None else {}), []
    except ConfigError as error:
        return {}, [Mistake("task", text.removeprefix("task: ")) for text in error.mistakes]


def _read_text(path: Path) -> str:
    if path.is_dir():
        raise ConfigError(f"{path} is a folder; name the sweep file in it")
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        beside = [file for folder in (path.parent, READY_MADE) for file in sorted(folder.glob("*.yaml"))]
        best = nearest(path.stem, [file.stem for file in beside])
        found = next((file for file in beside if file.stem == best), None)
        raise ConfigError(f"no sweep file {path}" + (f"; did you mean {found}?" if found else "")) from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path} is not text in UTF-8; is it a sweep file?") from None
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error


@dataclass
class _Reading:
    """One file on its way to a Sweep, and what is wrong with it so far."""

    document: Document
    path: Path
    defaults: Mapping[str, Any]  # of the known settings; empty: any name is accepted
    unread: list[Mistake]  # found in the tree: these values are not known
    in_overrides: list[Mistake]
    mistakes: list[Mistake] = field(default_factory=list)

    def sweep(self, check: ConfigCheck | None) -> Sweep:
        """The Sweep without its text, or ConfigError with every mistake."""
        content = self.document.values
        self._file_keys(content)
        blocks = {key: self._block(key, model) for key, model in BLOCKS.items()}
        fixed = self._mapping("fixed")
        space = self._space(fixed)
        first = read_first_trials(content, space, fixed, self.defaults)
        self.mistakes += first.mistakes
        earlier = self._earlier_sweeps()
        name, task = self._name(), self._text("task", Sweep.model_fields["task"].default)
        if check is not None:
            checking = Checking(lambda values: check(task, values), space.parameters, fixed, self._broken(space))
            self.mistakes += checking.all(first)
            choices = [first.baseline, *corners(space.parameters, fixed)]
            self._confirm(blocks["confirm"], space, ({**fixed, **choice} for choice in choices), partial(check, task))
        self._raise_mistakes()
        filled: dict[str, Any] = {key: block for key, block in blocks.items() if block is not None}
        filled |= {"name": name, "task": task, "fixed": fixed, "parameters": space.parameters}
        filled |= {"warm_start": earlier}
        filled |= {"baseline": first.baseline, "try_first": first.try_first, "notes": first.notes}
        sweep = Sweep.model_validate(filled)
        sweep = self._with_trials(sweep)
        self._raise_mistakes()
        return sweep

    def _add(self, key: str, text: str) -> None:
        self.mistakes.append(Mistake(key, text))

    def _raise_mistakes(self) -> None:
        unread = [f"{mistake.key}." for mistake in self.unread]
        others = [mistake for mistake in self.mistakes if not any(key.startswith(f"{mistake.key}.") for key in unread)]
        ordered = sorted(dict.fromkeys([*self.unread, *others]), key=self.document.order)
        lines = [self.document.sentence(mistake) for mistake in ordered]
        lines += [f"{mistake.key} (from {COMMAND_LINE}): {mistake.text}" for mistake in self.in_overrides]
        if lines:
            raise ConfigError(lines, where=str(self.path))

    def _file_keys(self, content: Mapping[str, Any]) -> None:
        for key in content:
            if key in FILE_KEYS:
                continue
            if key in self.defaults:
                self._add(key, f"belongs under fixed (fixed.{key}), or under parameters to search it")
            elif key in _OTHER_KEYS:
                self._add(key, f"unknown key; {_OTHER_KEYS[key]}")
            elif key in LONG_KEYS:
                self._add(key, f"unknown key; did you mean '{LONG_KEYS[key]}'?")
            else:
                self._add(key, f"unknown key{or_nearest(key, FILE_KEYS)}")

    def _mapping(self, key: str) -> dict[str, Any]:
        value = self.document.values.get(key)
        if value is None or isinstance(value, dict):
            return value or {}
        self._add(key, f"must be a block of keys, not {say(value)}")
        return {}

    def _text(self, key: str, default: str) -> str:
        """A value that is text however it looks: name: 2026 is the name '2026'."""
        value = self.document.values.get(key)
        if isinstance(value, (dict, list)):
            self._add(key, f"must be text, not {say(value)}")
        return default if value is None else self.document.texts.get(key, default)

    def _name(self) -> str:
        name = self._text("name", self.path.stem)
        if not _NAME.fullmatch(name):
            better = re.sub(r"[^A-Za-z0-9._-]+", "-", name)[:100].strip("-._") or "my-sweep"
            source = "" if self.document.values.get("name") is not None else ", from the file's name,"
            self._add("name", f"'{name}'{source} cannot be the name of the sweep's folder; write name: {better}")
        return name

    def _block(self, key: str, model: type[Block]) -> Block | None:
        given = self.document.values.get(key)
        if given is None:
            if key == "data":
                self._add(key, "is missing; give data: {train: .., images: .., skeleton: ..}")
            return None
        try:
            block = model.model_validate(self._as_written(key, given, model))
        except ValidationError as error:
            self.mistakes += mistakes_of(error, model, key)
            return None
        return with_paths_from(self.path.parent, block) if isinstance(block, DataSpec) else block

    def _as_written(self, key: str, given: Any, model: type[Block]) -> Any:
        """`given` with the text of the file where text is wanted: split_hash: 12e4 is not 120000.0."""
        if not isinstance(given, dict):
            return given
        texts = self.document.texts
        meant = dict(given)
        for name in text_fields(model) & {name for name, value in given.items() if value is not None}:
            value = given[name]
            if isinstance(value, list):
                meant[name] = [texts.get(f"{key}.{name}.{i}", item) for i, item in enumerate(value)]
            else:
                meant[name] = texts.get(f"{key}.{name}", value)
        return meant

    def _earlier_sweeps(self) -> tuple[str, ...]:
        """The folders that warm_start names, absolute."""
        given = self.document.values.get("warm_start")
        listed = given if isinstance(given, list) else [] if given is None else [given]
        for i, item in enumerate(listed):
            if not isinstance(item, str):
                key = f"warm_start.{i}" if isinstance(given, list) else "warm_start"
                self._add(key, f"must be the folder of an earlier sweep, such as runs/mice, not {say(item)}")
        folders = [path_from(self.path.parent, item) for item in listed if isinstance(item, str)]
        return tuple(dict.fromkeys(folders))

    def _confirm(
        self,
        confirm: Block | None,
        space: Space,
        choices: Iterable[dict[str, Any]],
        check: Callable[[dict[str, Any]], list[Mistake]],
    ) -> None:
        """What is wrong with trainings of another length than those of the search."""
        if not isinstance(confirm, Confirm) or confirm.epochs is None:
            return
        if "epochs" in space.parameters:
            self._add("confirm.epochs", "epochs is searched, so each trial is confirmed at its own; take it out")
            return
        if self.mistakes:
            return  # they would be said again
        found = [mistake for choice in choices for mistake in check({**choice, "epochs": confirm.epochs})]
        for mistake in dict.fromkeys(found):
            self._add("confirm.epochs", f"{confirm.epochs} does not do: {mistake.key}: {mistake.text}")

    def _space(self, fixed: dict[str, Any]) -> Space:
        specs = self._mapping("parameters")
        for name in specs.keys() & fixed.keys():
            line = self.document.lines.get(f"fixed.{name}")
            where = f", on line {line}" if line is not None else ""
            self._add(f"parameters.{name}", f"is fixed too{where}; take one of the two out")
        self.mistakes += unknown_names("fixed", fixed, self.defaults)
        self.mistakes += unknown_names("parameters", specs, self.defaults)
        space = read_space(specs, fixed)
        self.mistakes += space.mistakes
        return space

    def _broken(self, space: Space) -> set[str]:
        """Settings of which enough is said already."""
        own = [mistake.key.split(".") for mistake in self.mistakes]
        return {key[1] for key in own if key[0] in ("fixed", "parameters") and len(key) == 2} | space.broken

    def _with_trials(self, sweep: Sweep) -> Sweep:
        """The sweep with the trials that it really has: a grid has as many as its points."""
        if not sweep.parameters and sweep.search.trials > 1:
            self._add(
                "parameters",
                "nothing is searched; search something, such as lr0: {min: 1e-5, max: 1e-2, log: true}, "
                "or write search: {trials: 1}",
            )
        if sweep.search.method != "grid" or not sweep.parameters:
            return sweep
        endless = [name for name, parameter in sweep.parameters.items() if not grid_values(parameter)]
        for name in endless:
            self._add(f"parameters.{name}", "a grid needs step or points for this range, such as points: 5")
        trials = 0 if endless else self._grid_trials(sweep)
        return sweep.model_copy(update={"search": sweep.search.model_copy(update={"trials": trials})})

    def _grid_trials(self, sweep: Sweep) -> int:
        count = sum(1 for _ in islice(_grid(sweep), MOST_GRID_TRIALS + 1))
        if count > MOST_GRID_TRIALS:
            self._add(
                "search.method", f"the grid has more than {MOST_GRID_TRIALS:,} trials; use random, or fewer values"
            )
        trials = 1 + len(sweep.try_first) + count
        if "trials" in sweep.search.model_fields_set and sweep.search.trials < trials:
            text = f"{sweep.search.trials} is less than the {trials} of the grid and the trials before it"
            self._add("search.trials", f"{text}; take trials out, or use method: random")
        return trials


def _grid(sweep: Sweep) -> Iterator[dict[str, Any]]:
    return combinations(sweep.parameters, sweep.fixed, grid_values)


def grid(sweep: Sweep) -> list[dict[str, Any]]:
    """Every choice of `method: grid`, the first parameter varying slowest; in a conditional space, too, none twice."""
    return list(_grid(sweep))


def edges(sweep: Sweep) -> Iterator[dict[str, Any]]:
    """The choices at which a space shows its mistakes: see `choices.corners`."""
    return corners(sweep.parameters, sweep.fixed)
