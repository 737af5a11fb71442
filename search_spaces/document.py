"""The text of a sweep file as a tree of plain values that knows the line of every key.

Only plain values are read: no tags, no merges, no code. Aliases (`*name`) are copied out, up to a limit.
"""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from posesweep.errors import ConfigError
from posesweep.search_spaces.mistakes import Mistake, say

COMMAND_LINE = "the command line"
MOST_VALUES = 10_000  # an alias can stand for a million values; no honest sweep file holds this many
DEEPEST = 30
MOST_CHARACTERS = 1_000_000

_TAG = "tag:yaml.org,2002:"
_TEXT_TAGS = {f"{_TAG}{kind}" for kind in ("str", "timestamp", "value")}  # name: 2026-11-20 is a name
_SCALAR_TAGS = _TEXT_TAGS | {f"{_TAG}{kind}" for kind in ("int", "float", "bool", "null")}
_NUMBER_WITHOUT_POINT = re.compile(r"[-+]?(\d[\d_]*\.?\d*|\.\d+)[eE][-+]?\d+")  # text to YAML 1.1, a number to people

# what PyYAML says -> what is wrong, and the way out
_SYNTAX = (
    ("'\\t'", "a tab cannot indent; use spaces"),
    ("mapping values are not allowed here", "a second ':' here; put the value in quotes, or check the indentation"),
    ("could not find expected ':'", "a key without ':'; write key: value"),
    ("expected the node content", "a value is missing, or a bracket is never closed"),
    ("expected ',' or ']'", "a list whose ']' or ',' is missing"),
    ("expected ',' or '}'", "a block whose '}' or ',' is missing"),
    ("expected <block end>", "the indentation differs from the lines above"),
    ("unexpected end of stream", "a quote that is never closed"),
    ("found undefined alias", "an alias (*name) whose anchor (&name) is not above it"),
    ("found another document", "a second document (---) starts here; a sweep file holds one"),
)


class YamlError(Exception):
    """The text is no YAML that could be read any further; carries the one sentence."""


@dataclass
class Document:
    """`values` is the nested content; `lines` has the line of every dotted key (None: from the command line);
    `texts` has every scalar as it is written, because a name such as 2026 or 12e4 is not a number."""

    root: MappingNode
    values: dict[str, Any] = field(default_factory=dict)
    lines: dict[str, int | None] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, root: MappingNode) -> "Document":
        """The values and places of a tree that `read_tree` has made."""
        document = cls(root, plain(root))
        for key, name, node in _walk(root, ""):
            line = name.start_mark
            document.lines[key] = None if line.name == COMMAND_LINE else line.line + 1
            if isinstance(node, ScalarNode):
                document.texts[key] = node.value
        return document

    def sentence(self, mistake: Mistake) -> str:
        """'lr0 (line 8): what is wrong'; what stands in fixed and parameters goes by its own name."""
        shown = re.sub(r"^(parameters|fixed)\.", "", mistake.key)
        place = self._place(mistake.key)
        if not shown:
            return mistake.text
        return f"{shown} ({place}): {mistake.text}" if place else f"{shown}: {mistake.text}"

    def order(self, mistake: Mistake) -> tuple[bool, int]:
        """Sorts mistakes by line; those without one, or from the command line, come last."""
        line = self.lines.get(self._nearest_key(mistake.key))
        return (line is None, line or 0)

    def _nearest_key(self, key: str) -> str:
        while key and key not in self.lines:
            key = key.rpartition(".")[0]
        return key

    def _place(self, key: str) -> str:
        key = self._nearest_key(key)
        if not key:
            return ""
        line = self.lines[key]
        if line is None:
            return f"from {COMMAND_LINE}"
        changed = any(place is None for below, place in self.lines.items() if below.startswith(f"{key}."))
        return f"line {line}, changed from {COMMAND_LINE}" if changed else f"line {line}"


def read_tree(text: str, name: str = "the file") -> tuple[MappingNode, list[Mistake]]:
    """The tree of a YAML text: dotted keys nested, aliases copied, and the mistakes found on the way.

    Raises YamlError where nothing further can be said.
    """
    node = compose(text, name)
    if node is None:
        raise YamlError(f"{name} is empty; begin with data: and parameters:")
    if not isinstance(node, MappingNode):
        raise YamlError(f"{name} must hold keys such as 'data:' and 'parameters:', not a list or a single value")
    reader = _Reader()
    tree = reader.mapping(node, "", 0)
    return tree, reader.mistakes


def read_override(override: str) -> tuple[list[str], Node]:
    """'key=value' -> the parts of the dotted key and the tree of the value. Raises YamlError."""
    key, equals, text = override.partition("=")
    names = key.strip().split(".")
    if not equals or not all(names):
        raise YamlError("must be key=value, such as search.trials=20")
    node = compose(text, COMMAND_LINE) or ScalarNode(f"{_TAG}null", "null", _mark(COMMAND_LINE), _mark(COMMAND_LINE))
    reader = _Reader()
    copied = reader.node(node, "", 0)
    if reader.mistakes:
        raise YamlError(reader.mistakes[0].text)
    return names, copied


def compose(text: str, name: str) -> Node | None:
    """PyYAML's node tree, None for an empty text. Raises YamlError with the line and what is wrong there."""
    if len(text) > MOST_CHARACTERS:
        raise YamlError(f"{name} has {len(text):,} characters; a sweep file has at most {MOST_CHARACTERS:,}")
    try:
        loader = yaml.SafeLoader(text)
        loader.name = name
        return loader.get_single_node()
    except yaml.reader.ReaderError as error:
        raise YamlError(f"character {error.position + 1} is not text; save the file as UTF-8") from None
    except yaml.MarkedYAMLError as error:
        raise YamlError(_syntax_sentence(error)) from None
    except RecursionError:
        raise YamlError(f"values are nested more than {DEEPEST} deep") from None


def _syntax_sentence(error: yaml.MarkedYAMLError) -> str:
    problem = f"{error.problem}"
    meaning = next((plain for said, plain in _SYNTAX if said in problem), problem)
    mark = error.problem_mark or error.context_mark
    if mark is None or mark.name == COMMAND_LINE:
        return f"not YAML: {meaning}"
    return f"line {mark.line + 1}, column {mark.column + 1}: not YAML: {meaning}"


class _Reader:
    """Copies a node tree, so that no two places share a node, and notes what a sweep file may not hold."""

    def __init__(self) -> None:
        self.mistakes: list[Mistake] = []
        self._count = 0
        self._only_dotted: set[int] = set()  # blocks that exist because of a dotted key: they may be given once more

    def node(self, node: Node, path: str, depth: int) -> Node:
        self._count += 1
        if self._count > MOST_VALUES:
            raise YamlError(f"the aliases (*name) stand for more than {MOST_VALUES:,} values; write out what is needed")
        if depth > DEEPEST:
            raise YamlError(f"line {node.start_mark.line + 1}: values are nested more than {DEEPEST} deep")
        if isinstance(node, MappingNode):
            return self.mapping(node, path, depth)
        if isinstance(node, SequenceNode):
            return self._sequence(node, path, depth)
        return self._scalar(node, path)

    def mapping(self, node: MappingNode, path: str, depth: int) -> MappingNode:
        self._refuse_tag(node, "map", path)
        fresh = MappingNode(f"{_TAG}map", [], node.start_mark, node.end_mark, flow_style=node.flow_style)
        for key, value in node.value:
            if (names := self._names(key, path)) is None:
                continue
            copied = self.node(value, _join(path, ".".join(names)), depth + 1)
            self._put(fresh, names, key, copied, path)
        return fresh

    def _sequence(self, node: SequenceNode, path: str, depth: int) -> SequenceNode:
        self._refuse_tag(node, "seq", path)
        items = [self.node(item, _join(path, str(i)), depth + 1) for i, item in enumerate(node.value)]
        return SequenceNode(f"{_TAG}seq", items, node.start_mark, node.end_mark, flow_style=node.flow_style)

    def _scalar(self, node: Node, path: str) -> ScalarNode:
        null = ScalarNode(f"{_TAG}null", "null", node.start_mark, node.end_mark)
        if not isinstance(node, ScalarNode) or node.tag not in _SCALAR_TAGS:
            self._refuse_tag(node, "", path)
            return null
        try:
            value = _scalar_value(node)
        except (ValueError, OverflowError):
            value = math.nan
        if isinstance(value, float) and not math.isfinite(value):
            self.mistakes.append(Mistake(path, f"{node.value} must be a finite number"))
            return null
        return ScalarNode(node.tag, node.value, node.start_mark, node.end_mark, style=node.style)

    def _refuse_tag(self, node: Node, allowed: str, path: str) -> None:
        if node.tag != f"{_TAG}{allowed}":
            tag = node.tag.replace(_TAG, "!!")
            self.mistakes.append(Mistake(path, f"the tag {tag} is not allowed; a sweep file holds plain values only"))

    def _names(self, key: Node, path: str) -> list[str] | None:
        line = key.start_mark.line + 1
        if key.tag == f"{_TAG}merge":
            self.mistakes.append(Mistake(path, f"'<<' on line {line} is not read; write the keys out"))
        elif not isinstance(key, ScalarNode) or key.tag not in _TEXT_TAGS:
            written = f"'{key.value}' " if isinstance(key, ScalarNode) else ""
            self.mistakes.append(Mistake(path, f"the key {written}on line {line} must be a word; put it in quotes"))
        else:
            names = key.value.split(".")
            if all(names):
                return names
            self.mistakes.append(Mistake(path, f"the key '{key.value}' on line {line} has an empty part"))
        return None

    def _put(self, block: MappingNode, names: list[str], key: Node, value: Node, path: str) -> None:
        *parents, last = names
        for name in parents:
            path = _join(path, name)
            inner = entry(block, name)
            if inner is None:
                inner = MappingNode(f"{_TAG}map", [], key.start_mark, key.end_mark, flow_style=False)
                self._only_dotted.add(id(inner))
                block.value.append((_named(name, key), inner))
            elif not isinstance(inner, MappingNode):
                text = f"is {say(plain(inner))}, so it cannot hold '{last}' too; give it once, as a block of keys"
                self.mistakes.append(Mistake(path, text))
                return
            block = inner
        self._put_last(block, last, key, value, _join(path, last))

    def _put_last(self, block: MappingNode, name: str, key: Node, value: Node, path: str) -> None:
        present = entry(block, name)
        if present is None:
            block.value.append((_named(name, key), value))
        elif id(present) in self._only_dotted and isinstance(value, MappingNode) and isinstance(present, MappingNode):
            self._only_dotted.discard(id(present))
            for inner_key, inner in value.value:
                self._put_last(present, inner_key.value, inner_key, inner, _join(path, inner_key.value))
        else:
            before = next(k for k, _ in block.value if k.value == name).start_mark.line + 1
            lines = f"lines {before} and {key.start_mark.line + 1}"
            if before == key.start_mark.line + 1:
                lines = f"line {before}"
            self.mistakes.append(Mistake(path, f"is given twice, on {lines}; keep one"))


def _mark(name: str) -> yaml.Mark:
    return yaml.Mark(name, 0, 0, 0, "", 0)


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _named(name: str, at: Node) -> ScalarNode:
    return ScalarNode(f"{_TAG}str", name, at.start_mark, at.end_mark)


def _scalar_value(node: ScalarNode) -> Any:
    construct = yaml.constructor.SafeConstructor()
    return {
        "str": lambda text: text.value,
        "int": construct.construct_yaml_int,
        "float": construct.construct_yaml_float,
        "bool": construct.construct_yaml_bool,
        "null": construct.construct_yaml_null,
    }[_meaning(node)](node)


def _meaning(node: ScalarNode) -> str:
    """What a person means: 1e-5 is a number, which YAML 1.1 takes for text; 2026-11-20 and 256:192 are text."""
    kind = node.tag.removeprefix(_TAG)
    if kind == "str" and node.style is None and _NUMBER_WITHOUT_POINT.fullmatch(node.value):
        return "float"
    sexagesimal = kind in ("int", "float") and ":" in node.value
    return "str" if sexagesimal or node.tag in _TEXT_TAGS else kind


def plain(node: Node) -> Any:
    """The Python value of a tree made by this module."""
    if isinstance(node, MappingNode):
        return {key.value: plain(value) for key, value in node.value}
    if isinstance(node, SequenceNode):
        return [plain(item) for item in node.value]
    assert isinstance(node, ScalarNode)
    return _scalar_value(node)


def _walk(node: Node, path: str) -> Iterator[tuple[str, Node, Node]]:
    """Every (dotted key, node that carries its line, value node) below `node`."""
    pairs: list[tuple[str, Node, Node]] = []
    if isinstance(node, MappingNode):
        pairs = [(key.value, key, value) for key, value in node.value]
    elif isinstance(node, SequenceNode):
        pairs = [(str(i), item, item) for i, item in enumerate(node.value)]
    for name, at, value in pairs:
        yield _join(path, name), at, value
        yield from _walk(value, _join(path, name))


def entry(block: Node | None, name: str) -> Node | None:
    """The node at `name` of a mapping, or None."""
    pairs = block.value if isinstance(block, MappingNode) else []
    return next((value for key, value in pairs if key.value == name), None)


def names_in(block: Node | None) -> list[str]:
    """The keys of a mapping; none of anything else."""
    return [key.value for key, _ in block.value] if isinstance(block, MappingNode) else []


def find(root: MappingNode, *names: str) -> Node | None:
    """The node at the end of the path `names`, or None."""
    node: Node | None = root
    for name in names:
        node = entry(node, name)
    return node


def put(root: MappingNode, names: list[str], value: Node) -> None:
    """Set the value at the path `names`, as the command line's; missing blocks are made, null ones replaced."""
    *parents, last = names
    block = root
    for name in parents:
        inner = entry(block, name)
        if not isinstance(inner, MappingNode):
            inner = MappingNode(f"{_TAG}map", [], _mark(COMMAND_LINE), None, flow_style=False)
            _set(block, name, inner)
        block = inner
    _set(block, last, value)


def block_of(**values: Node) -> MappingNode:
    """A block of the command line's, written on one line."""
    mark = _mark(COMMAND_LINE)
    pairs = [(ScalarNode(f"{_TAG}str", name, mark, mark), value) for name, value in values.items()]
    return MappingNode(f"{_TAG}map", pairs, mark, mark, flow_style=True)


def _set(block: MappingNode, name: str, value: Node) -> None:
    mark = _mark(COMMAND_LINE)
    pair = (ScalarNode(f"{_TAG}str", name, mark, mark), value)
    if name in names_in(block):
        block.value[names_in(block).index(name)] = pair
    else:
        block.value.append(pair)


def drop(block: Node | None, name: str) -> bool:
    """Take `name` out of a mapping; whether it was there."""
    if not isinstance(block, MappingNode) or entry(block, name) is None:
        return False
    block.value = [(key, value) for key, value in block.value if key.value != name]
    return True


def written(root: MappingNode) -> str:
    """The tree as YAML text; reads back as the same tree."""
    return yaml.serialize(root, Dumper=yaml.SafeDumper, width=120, allow_unicode=True)


def apply_overrides(values: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """A copy of nested `values` with `key=value` overrides in it; keys may be dotted ('data.train').

    Raises ConfigError for what is no key=value; whether there is such a key is for the reader of the values to say.
    """
    root = {**values}
    wrong = []
    for override in overrides:
        try:
            names, node = read_override(override)
        except YamlError as error:
            wrong.append(f"{override.partition('=')[0]} (from {COMMAND_LINE}): {error}")
            continue
        block = root
        for name in names[:-1]:
            inner = block.get(name)
            copied = dict(inner) if isinstance(inner, Mapping) else {}
            block[name] = copied
            block = copied
        block[names[-1]] = plain(node)
    if wrong:
        raise ConfigError(wrong)
    return root
