"""`key=value` from the command line, put into the tree of a sweep file.

A short key is a setting of the training: `lr0=1e-3` is `fixed.lr0=1e-3`. A setting that the file searches is then
searched no longer; what is changed beyond the key itself is said in a note.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from yaml.nodes import MappingNode, Node, SequenceNode

from posesweep.search_spaces.document import YamlError, block_of, drop, entry, find, names_in, plain, put, read_override
from posesweep.search_spaces.mistakes import Mistake, or_nearest, say
from posesweep.search_spaces.parameters import same
from posesweep.search_spaces.schema import FILE_KEYS, LONG_KEYS


@dataclass
class Overrides:
    """Applies overrides to `root`, one after the other; `known` are the settings of a training (empty: any)."""

    root: MappingNode
    known: Collection[str]
    notes: list[str] = field(default_factory=list)
    mistakes: list[Mistake] = field(default_factory=list)

    def apply(self, overrides: Sequence[str]) -> None:
        """Apply all; what cannot be applied is noted in `mistakes`."""
        for override in overrides:
            try:
                names, value = read_override(override)
            except YamlError as error:
                self.mistakes.append(Mistake(override.partition("=")[0].strip() or override, str(error)))
                continue
            self._set(names, value)

    def _set(self, names: list[str], value: Node) -> None:
        if names[0] not in FILE_KEYS:
            names = self._long(names)
        if not names or self._is_blocked(names):
            return
        match names:
            case ["fixed", name]:
                self._fix(name, value)
            case ["parameters", name]:
                if drop(find(self.root, "fixed"), name):
                    self.notes.append(f"{name}: searched, from the command line, and no longer fixed")
                put(self.root, names, value)
            case ["parameters", name, *_] if find(self.root, "parameters", name) is None:
                searched = names_in(find(self.root, "parameters"))
                self._wrong(names, f"no parameter '{name}' is searched{or_nearest(name, searched)}")
            case ["try_first", _, *_]:
                self._wrong(names, "give the whole list: try_first=[{lr0: 0.001}]")
            case _:
                put(self.root, names, value)

    def _long(self, names: list[str]) -> list[str]:
        """The whole path of a short key; empty, and a mistake noted, where there is none."""
        name = names[0]
        settings = {*self.known, *names_in(find(self.root, "fixed")), *names_in(find(self.root, "parameters"))}
        if len(names) == 1 and (name in settings or not self.known):
            return ["fixed", name]
        if len(names) > 1 and name in settings:
            self._wrong(names, f"unknown key; did you mean 'parameters.{'.'.join(names)}'?")
        elif name in LONG_KEYS:
            self._wrong(names, f"unknown key; did you mean '{LONG_KEYS[name]}'?")
        else:
            known = LONG_KEYS.values() if len(names) > 1 else [*FILE_KEYS, *settings]
            self._wrong(names, f"unknown key{or_nearest('.'.join(names), known)}")
        return []

    def _is_blocked(self, names: list[str]) -> bool:
        """Whether the file has a value where a block is to hold the new one; then that is said."""
        for depth in range(1, len(names)):
            holder = find(self.root, *names[:depth])
            if isinstance(holder, MappingNode) or holder is None or plain(holder) is None:
                continue
            if names[0] != "try_first":
                self._wrong(names, f"{'.'.join(names[:depth])} is {say(plain(holder))} in the file, no block of keys")
                return True
        return False

    def _wrong(self, names: list[str], text: str) -> None:
        self.mistakes.append(Mistake(".".join(names), text))

    def _fix(self, name: str, value: Node) -> None:
        """Give `name` one value: in fixed, or, where it is used under a condition, as a constant parameter."""
        if isinstance(value, MappingNode):
            self._wrong([name], f"{say(plain(value))} is no single value; to search it, write parameters.{name}=..")
            return
        parameters = find(self.root, "parameters")
        when = find(self.root, "parameters", name, "when")
        if entry(parameters, name) is not None:
            self.notes.append(f"{name}: {say(plain(value))} from the command line, not searched")
            self._forget_choices(name)
        if isinstance(when, MappingNode):
            put(self.root, ["parameters", name], block_of(value=value, when=when))
        else:
            drop(parameters, name)
            put(self.root, ["fixed", name], value)
        self._drop_unused(name, [plain(value)])

    def _forget_choices(self, name: str) -> None:
        """Take a parameter's values out of baseline and try_first."""
        first = find(self.root, "try_first")
        entries = first.value if isinstance(first, SequenceNode) else []
        for block in (find(self.root, "baseline"), *entries):
            drop(block, name)

    def _drop_unused(self, parent: str, possible: list[object]) -> None:
        """Take out the parameters that are never used now that `parent` has only the `possible` values."""
        parameters = find(self.root, "parameters")
        for name in names_in(parameters):
            allowed_node = find(self.root, "parameters", name, "when", parent)
            if allowed_node is None:
                continue
            allowed = plain(allowed_node)
            options = [allowed, *allowed] if isinstance(allowed, list) else [allowed]
            if any(same(one, option) for one in possible for option in options):
                continue
            reason = f"because {parent} is {say(possible[0])}" if possible else f"like {parent}"
            self.notes.append(f"{name}: not searched, {reason}")
            self._forget_choices(name)
            drop(parameters, name)
            self._drop_unused(name, [])
