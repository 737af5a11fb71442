"""Annotation files that strangers wrote, read within bounds: JSON, YAML and XML, each mistake one sentence."""

import json
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

import yaml

from posesweep.errors import DataError

DEEPEST = 100  # levels of nesting; real annotation files have fewer than ten
LARGEST_YAML = 2**19  # characters: a data.yaml lists names, not images; this much takes seconds to read
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml's, where it was built in, is ten times faster
NOT_HERE = "no such file; data.train and data.val name the annotations"


def read_bytes(path: Path) -> bytes:
    """The content of an annotation file. DataError: missing, a folder, not readable, or empty."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise DataError(f"{path}: {NOT_HERE}") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    if not data:
        raise DataError(f"{path}: is empty (0 bytes); write or copy it again")
    return data


def read_text(path: Path, kind: str) -> str:
    """The text of an annotation file in UTF-8, with or without a byte order mark; `kind` names what it should be."""
    try:
        return read_bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise DataError(f"{path}: is not text, so not {kind}; data.train and data.val name the annotations") from None


def read_json(path: Path) -> Any:
    """The JSON value in `path`. DataError: not whole, nested too deep, or a number beyond all bounds."""
    text = read_text(path, "JSON")
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}: {error.msg}"
        raise DataError(f"{path}: is not whole JSON ({where}); was it cut off? write or copy it again") from None
    except RecursionError:
        raise DataError(f"{path}: is nested thousands of levels deep, which no annotation file is") from None
    except ValueError as error:  # Python's bound on the digits of an integer
        raise DataError(f"{path}: holds a number that cannot be read ({error})") from None


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file. DataError: no mapping, too large, nested too deep, or with anchors and aliases.

    Ten lines of aliases can stand for billions of entries, and no data.yaml needs one."""
    text = read_text(path, "YAML")
    if len(text) > LARGEST_YAML:
        raise DataError(f"{path}: has {len(text)} characters, more than the {LARGEST_YAML} that a data.yaml may have")
    try:
        _check_events(text, path)
        value = yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        where, what = getattr(error, "problem_mark", None), getattr(error, "problem", None) or "unknown characters"
        line = f" (line {where.line + 1}, column {where.column + 1})" if where else ""
        raise DataError(f"{path}: is not readable as YAML: {what}{line}") from None
    except ValueError as error:  # a date that is none, an integer beyond Python's bound
        raise DataError(f"{path}: holds a value that cannot be read ({error})") from None
    if not isinstance(value, dict):
        raise DataError(f"{path}: is not a mapping of names to values, as data.yaml is")
    return value


def _check_events(text: str, path: Path) -> None:
    depth = 0
    for event in yaml.parse(text, Loader=_Loader):
        if isinstance(event, yaml.AliasEvent):
            raise DataError(f"{path}: uses the alias '*{event.anchor}'; write the value out, without anchors")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > DEEPEST:
            raise DataError(f"{path}: is nested more than {DEEPEST} levels deep, which no data.yaml is")


def read_xml(path: Path) -> Element:
    """The root element of an XML file. DataError: not whole, nested too deep, or with a document type.

    A document type is where entities are declared, with which a few lines expand to gigabytes or read other files."""
    builder, parser = TreeBuilder(), expat.ParserCreate()
    depth = 0

    def start(tag: str, attributes: dict[str, str]) -> None:
        nonlocal depth
        depth += 1
        if depth > DEEPEST:
            raise DataError(f"{path}: is nested more than {DEEPEST} levels deep, which no annotation file is")
        builder.start(tag, attributes)

    def end(tag: str) -> None:
        nonlocal depth
        depth -= 1
        builder.end(tag)

    def refuse(*_: Any) -> None:
        raise DataError(f"{path}: declares a document type (<!DOCTYPE ...>); annotation files need none, take it out")

    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.CharacterDataHandler, parser.StartDoctypeDeclHandler = builder.data, refuse
    data = read_bytes(path)
    try:
        parser.Parse(data, True)
    except expat.ExpatError as error:
        where = f"line {error.lineno}, column {error.offset + 1}: {expat.ErrorString(error.code)}"
        raise DataError(f"{path}: is not whole XML ({where}); was it cut off? export it again") from None
    return builder.close()
