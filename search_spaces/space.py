"""A sweep file -> Sweep: the file is read, changed from the command line, checked whole, and filled in.

    read_sweep("horse26.yaml", ["search.trials=20"], check, known)

Every mistake of the file is said at once, one line each with the key and its line. How a file is written: see the ready
ones beside this module.
"""

import random
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin

from pydantic import ValidationError

from posesweep.errors import ConfigError, did_you_mean, nearest
from posesweep.search_spaces.choices import combinations, corners, grid_values, sample
from posesweep.search_spaces.document import Document, YamlError, read_tree, written
from posesweep.search_spaces.first_trials import FirstTrials, read_first_trials
from posesweep.search_spaces.mistakes import Mistake, mistakes_of, say
from posesweep.search_spaces.overrides import Overrides
from posesweep.search_spaces.parameters import Parameter, Space, is_active, read_space
from posesweep.search_spaces.schema import BLOCKS, FILE_KEYS, LONG_KEYS, NOT_BUILT, Block, DataSpec, Sweep
from posesweep.search_spaces.table import differences, space_json, space_table

__all__ = [
    "ConfigCheck", "DataSpec", "Mistake", "Parameter", "Sweep", "differences", "edges", "grid", "is_active",
    "read_sweep", "sample", "space_json", "space_table",
]  # fmt: skip

ConfigCheck = Callable[[dict[str, Any]], list[Mistake]]

READY_MADE = Path(__file__).parent
DEMO = READY_MADE / "demo.yaml"
MOST_GRID_TRIALS = 100_000
CHECKED_SAMPLES = 64
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_PATHS = ("train", "val", "images", "skeleton")
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
    known: Mapping[str, Any] | Collection[str] = (),
) -> Sweep:
    """Read a sweep file (None: the demo) with `key=value` overrides.

    `known` are the settings of a training, name -> default; without them every name is accepted in fixed and parameters.
    `check` is asked about the corners of the space, 64 random choices, the baseline and try_first, each merged with the
    fixed settings; it answers with the settings' own names as keys.
    What the baseline leaves out is filled in: see `read_first_trials`.
    Raises ConfigError with all mistakes at once.
    """
    path = Path(path) if path is not None else DEMO
    text = _read_text(path)
    try:
        root, mistakes = read_tree(text, path.name)
    except YamlError as error:
        raise ConfigError([str(error)], where=str(path)) from None
    changes = Overrides(root, known)
    changes.apply(overrides)
    document = Document.of(root)
    document.lines.update({mistake.key: None for mistake in changes.mistakes})
    reading = _Reading(document, dict.fromkeys(known) | dict(known if isinstance(known, Mapping) else {}), path)
    reading.mistakes += [*mistakes, *changes.mistakes]
    reading.notes += changes.notes
    return reading.sweep(written(root) if overrides else text, check)


def _read_text(path: Path) -> str:
    if path.is_dir():
        raise ConfigError(f"{path} is a folder; name the sweep file in it")
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        beside = [file for folder in (path.parent, READY_MADE) for file in sorted(folder.glob("*.yaml"))]
        best = nearest(path.name, [file.name for file in beside])
        found = next((file for file in beside if file.name == best), None)
        raise ConfigError(f"no sweep file {path}" + (f"; did you mean {found}?" if found else "")) from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path} is not text in UTF-8; is it a sweep file?") from None
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from None


@dataclass
class _Reading:
    """One file on its way to a Sweep: what is wrong with it, and what the user should know."""

    document: Document
    defaults: dict[str, Any]  # of the known settings; empty: any name is accepted
    path: Path
    mistakes: list[Mistake] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def sweep(self, text: str, check: ConfigCheck | None) -> Sweep:
        """The Sweep, or ConfigError with every mistake."""
        content = self.document.values
        self._unknown_keys(content)
        blocks = {key: self._block(key, model) for key, model in BLOCKS.items() if key in content or key == "data"}
        fixed = self._mapping("fixed")
        space = self._space(fixed)
        first = read_first_trials(content, space, fixed, self.defaults)
        self.mistakes += first.mistakes
        head = {"name": self._name(), "task": self._text("task", "topdown")}
        if check is not None:
            self._check(check, space, fixed, first)
        self._raise_mistakes()
        filled = {key: block for key, block in blocks.items() if block is not None}
        tried = {"baseline": first.baseline, "try_first": first.try_first}
        sweep = Sweep(**head, **filled, **tried, fixed=fixed, parameters=space.parameters, text=text)
        sweep = self._with_trials(sweep)
        self._raise_mistakes()
        return sweep.model_copy(update={"notes": (*self.notes, *_notes(sweep, content, self.defaults))})

    def _add(self, key: str, text: str) -> None:
        self.mistakes.append(Mistake(key, text))

    def _raise_mistakes(self) -> None:
        if self.mistakes:
            ordered = sorted(dict.fromkeys(self.mistakes), key=self.document.order)
            raise ConfigError([self.document.sentence(mistake) for mistake in ordered], where=str(self.path))

    def _unknown_keys(self, content: Mapping[str, Any]) -> None:
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
                self._add(key, f"unknown key{did_you_mean(key, FILE_KEYS)}")
        for key in NOT_BUILT:
            if content.get(key) is not None:
                self._add(key, "is not built yet; take it out")

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
        if _NAME.fullmatch(name) and not name.endswith("."):
            return name
        better = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-._")[:100] or "my-sweep"
        source = "" if self.document.values.get("name") is not None else ", the file's name,"
        self._add("name", f"'{name}'{source} cannot name the sweep's folder; write name: {better}")
        return better

    def _block(self, key: str, model: type[Block]) -> Block | None:
        given = self.document.values.get(key)
        if given is None and key == "data":
            self._add(key, "is missing; give data: {train: .., images: .., skeleton: ..}")
        if given is None:
            return None
        try:
            block = model.model_validate(_with_texts(model, given, key, self.document.texts))
        except ValidationError as error:
            self.mistakes += mistakes_of(error, model, key)
            return None
        return self._data(block) if isinstance(block, DataSpec) else block

    def _data(self, data: DataSpec) -> DataSpec:
        """The data with its paths found and its pattern tried."""
        if data.group_by is not None:
            try:
                groups = re.compile(data.group_by).groups
            except re.error as error:
                self._add("data.group_by", f"'{data.group_by}' is no regular expression: {error}")
            else:
                if groups != 1:
                    self._add(
                        "data.group_by", f"'{data.group_by}' has {groups} groups (..), and needs one: the group's name"
                    )
        found = {
            name: _found(value, self.path.parent) for name in _PATHS if _is_path(name, value := getattr(data, name))
        }
        return data.model_copy(update=found)

    def _space(self, fixed: dict[str, Any]) -> Space:
        specs = self._mapping("parameters")
        for name in fixed:
            if name in specs:
                line = self.document.lines.get(f"fixed.{name}")
                self._add(
                    f"parameters.{name}", f"is fixed too{f', on line {line}' if line else ''}; take one of them out"
                )
        for section, names in (("fixed", fixed), ("parameters", specs)):
            for name in names:
                self._known_name(section, name)
        space = read_space(specs, fixed)
        self.mistakes += space.mistakes
        return space

    def _known_name(self, section: str, name: str) -> None:
        if name in FILE_KEYS:
            self._add(f"{section}.{name}", f"is a key of the file itself; move it out of {section}")
        elif self.defaults and name not in self.defaults:
            text = f"; did you mean '{LONG_KEYS[name]}'?" if name in LONG_KEYS else did_you_mean(name, self.defaults)
            self._add(f"{section}.{name}", f"unknown setting{text}")

    def _check(self, check: ConfigCheck, space: Space, fixed: dict[str, Any], first: FirstTrials) -> None:
        """Ask `check` about every corner; about samples and first trials only what no corner has shown already."""
        said: dict[str, set[str]] = {}
        broken = space.broken | {mistake.key.split(".")[1] for mistake in self.mistakes if mistake.key.count(".") == 1}
        mentions_broken = re.compile(rf"\b({'|'.join(map(re.escape, broken))})\b") if broken else None

        def ask(choice: dict[str, Any], place: str, most: int) -> None:
            for found in check({**fixed, **choice}):
                texts = said.setdefault(found.key, set())
                hidden = mentions_broken and mentions_broken.search(f"{found.key} {found.text}")
                if found.text not in texts and len(texts) < most and not hidden:
                    texts.add(found.text)
                    self._add(self._place(found.key, place, fixed, space), found.text)

        for choice in corners(space.parameters, fixed):
            ask(choice, "", most=3)
        rng = random.Random(0)
        for choice in (sample(space.parameters, fixed, rng) for _ in range(CHECKED_SAMPLES)):
            ask(choice, "", most=1)
        ask(first.baseline, "baseline", most=4)
        for i, choice in enumerate(first.try_first):
            ask(choice, f"try_first.{i}", most=4)

    def _place(self, key: str, place: str, fixed: Mapping[str, Any], space: Space) -> str:
        """Where a setting's value stands in the file."""
        name = key.split(".")[0]
        if place and name in space.parameters:
            return f"{place}.{key}"
        if name in space.parameters:
            return f"parameters.{key}"
        return f"fixed.{key}" if name in fixed else key

    def _with_trials(self, sweep: Sweep) -> Sweep:
        """The sweep with the trials that it really has; a grid has as many as its points."""
        if not sweep.parameters and sweep.search.trials > 1:
            self._add(
                "parameters",
                "nothing is searched; give one, such as lr0: {min: 1e-5, max: 1e-2, log: true}, or search.trials: 1",
            )
        if sweep.search.method != "grid" or not sweep.parameters:
            return sweep
        endless = [name for name, parameter in sweep.parameters.items() if not grid_values(parameter)]
        for name in endless:
            self._add(f"parameters.{name}", "a grid needs step or points for this range; add points: 5")
        if endless:
            return sweep
        points = list(islice(_points(sweep), MOST_GRID_TRIALS + 1))
        if len(points) > MOST_GRID_TRIALS:
            self._add(
                "search.method", f"the grid has more than {MOST_GRID_TRIALS:,} trials; use random, or fewer values"
            )
            return sweep
        extra = [choice for choice in _unique([sweep.baseline, *sweep.try_first]) if choice not in points]
        total = len(points) + len(extra)
        given = "trials" in sweep.search.model_fields_set
        if given and sweep.search.trials < total:
            self._add(
                "search.trials", f"{sweep.search.trials} is less than the grid's {total}; take it out, or use random"
            )
        return sweep.model_copy(update={"search": sweep.search.model_copy(update={"trials": total})})


def _with_texts(model: type[Block], given: Any, key: str, texts: Mapping[str, str]) -> Any:
    """`given` with the values of text fields as they are written: split_hash: 12e4 is not 120000.0."""
    if not isinstance(given, dict):
        return given
    meant = dict(given)
    for name, info in model.model_fields.items():
        value = given.get(name)
        if value is None or not _is_text(info.annotation):
            continue
        if isinstance(value, list):
            meant[name] = [texts.get(f"{key}.{name}.{i}", item) for i, item in enumerate(value)]
        else:
            meant[name] = texts.get(f"{key}.{name}", value)
    return meant


def _is_text(annotation: Any) -> bool:
    if get_origin(annotation) in (Union, UnionType, list):
        return any(map(_is_text, get_args(annotation)))
    return annotation is str


def _is_path(name: str, value: str | None) -> bool:
    return value is not None and (name != "skeleton" or value.endswith((".yaml", ".yml")))


def _found(value: str, folder: Path) -> str:
    """An absolute path: of the current directory where it exists there, else of the sweep file's folder."""
    path = Path(value).expanduser()
    return str(path.absolute() if path.exists() else (folder / path).absolute())


def _notes(sweep: Sweep, content: Mapping[str, Any], defaults: Mapping[str, Any]) -> Iterator[str]:
    """What the file says and nothing will use, and what it may not have meant."""
    search, stopping = sweep.search, sweep.early_terminate
    if search.method != "tpe" and "startup_trials" in search.model_fields_set:
        yield f"search.startup_trials: not used by {search.method}"
    if search.method == "tpe" and 1 < search.trials <= search.startup_trials and sweep.parameters:
        yield f"search: all {search.trials} trials are drawn at random; tpe chooses after startup_trials: {search.startup_trials}"
    used = {
        "asha": {"min_epochs", "eta"},
        "hyperband": {"min_epochs", "eta"},
        "median": {"min_epochs", "startup_trials"},
    }
    for name in sorted(stopping.model_fields_set - {"type"} - used.get(stopping.type, set())):
        yield f"early_terminate.{name}: not used by type {stopping.type}"
    for name, parameter in sweep.parameters.items():
        if parameter.points is not None and search.method != "grid":
            yield f"{name}: points is used by method grid only"
        if parameter.kind == "int" and isinstance(defaults.get(name), float):
            low, high = parameter.bounds
            yield f"{name}: only whole numbers from {low} to {high}; write min: {float(low)} to search between them"
        unmet = [parent for parent in parameter.when if parent in sweep.fixed]
        if unmet and not is_active(
            parameter.model_copy(update={"when": {p: parameter.when[p] for p in unmet}}), sweep.fixed
        ):
            yield f"{name}: never used, because {' and '.join(f'{p} is {say(sweep.fixed[p])}' for p in unmet)}"


def _unique(choices: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return [choice for i, choice in enumerate(choices) if choice not in choices[:i]]


def _points(sweep: Sweep) -> Iterator[dict[str, Any]]:
    return combinations(sweep.parameters, sweep.fixed, grid_values)


def grid(sweep: Sweep) -> list[dict[str, Any]]:
    """Every choice of `method: grid`, the first parameter varying slowest; of a conditional space no choice twice."""
    return list(_points(sweep))


def edges(sweep: Sweep) -> Iterator[dict[str, Any]]:
    """The choices at which a space shows its mistakes: see `choices.corners`."""
    return corners(sweep.parameters, sweep.fixed)
