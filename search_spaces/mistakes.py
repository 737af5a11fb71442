"""One mistake in a sweep file, and pydantic's errors turned into sentences for the person who wrote the file."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from posesweep.errors import did_you_mean, nearest


@dataclass(frozen=True)
class Mistake:
    """`key` is dotted, as in the sweep file ('data.train', 'fixed.lr0'); `text` is one plain sentence."""

    key: str
    text: str


# pydantic's error type -> what the value must be; {..} is filled from the error's context
_MUST_BE = {
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "string_type": "text",
    "list_type": "a list",
    "tuple_type": "a list",
    "dict_type": "a block of keys",
    "none_required": "null",
    "greater_than": "above {gt:g}",
    "greater_than_equal": "at least {ge:g}",
    "less_than": "below {lt:g}",
    "less_than_equal": "at most {le:g}",
    "literal_error": "{expected}",
    "too_short": "a list of at least {min_length}",
    "too_long": "a list of at most {max_length}",
}


LONGEST_LIST = 20  # names; a longer list hides the sentence


def or_nearest(name: str, known: Iterable[str]) -> str:
    """'; did you mean 'x'?' for the nearest name, else the names themselves where they are few."""
    names = list(known)
    same_letters = [known_name for known_name in names if known_name.casefold() == name.casefold()]
    names = same_letters or names
    return did_you_mean(name, names) if names and (nearest(name, names) or len(names) <= LONGEST_LIST) else ""


def say(value: Any) -> str:
    """`value` as it would stand in the YAML file: true, null, 1e-05, [192, 256]; text in quotes."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(say, value))}]"
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{key}: {say(item)}' for key, item in value.items())}}}"
    return repr(value)


def mistakes_of(error: ValidationError, model: type[BaseModel], prefix: str = "") -> list[Mistake]:
    """What pydantic found wrong with a `model`, one sentence per key; the keys start with `prefix`.

    The branches of a union (`float | 'auto'`) fail one by one; they are said in one sentence.
    """
    by_key: dict[str, list[ErrorDetails]] = {}
    for detail in error.errors(include_url=False):
        if detail["type"] == "default_factory_not_called":  # the field it is made from is wrong, and that is said
            continue
        path, _ = _field_at(model, detail["loc"])
        if detail["type"] == "missing" and path[-1].isdigit():
            path.pop()
        by_key.setdefault(".".join(path), []).append(detail)
    joined = prefix + "." if prefix else ""
    return [Mistake((joined + key).rstrip("."), _sentence(model, details)) for key, details in by_key.items()]


def _field_at(model: type[BaseModel], loc: tuple[int | str, ...]) -> tuple[list[str], FieldInfo | None]:
    """The part of `loc` that stands in the file (pydantic adds the names of union branches), and the field there."""
    path: list[str] = []
    field: FieldInfo | None = None
    inside: type[BaseModel] | None = model
    for part in loc:
        if isinstance(part, str) and inside is None:
            break
        path.append(str(part))
        if isinstance(part, int) or inside is None:
            continue
        field = inside.model_fields.get(part)
        inside = _model_in(field.annotation) if field else None
    return path, field


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(filter(None, map(_model_in, get_args(annotation))), None)


def _sentence(model: type[BaseModel], details: list[ErrorDetails]) -> str:
    first = details[0]
    kind, value = first["type"], first["input"]
    _, field = _field_at(model, first["loc"])
    if kind == "extra_forbidden":
        return "unknown key" + or_nearest(str(first["loc"][-1]), _siblings(model, first["loc"]))
    if kind == "missing" and isinstance(value, (list, tuple)):
        return f"{say(value)} has too few values"
    if kind == "missing":
        return "is missing" + (f" ({field.description})" if field and field.description else "")
    if kind in ("model_type", "model_attributes_type"):
        inside = _model_in(field.annotation) if field else model
        return f"{say(value)} must be a block of keys: {', '.join((inside or model).model_fields)}"
    if not all(detail["type"] in _MUST_BE for detail in details):
        return next(detail["msg"] for detail in details if detail["type"] not in _MUST_BE)
    wanted = " or ".join(dict.fromkeys(_MUST_BE[d["type"]].format(**d.get("ctx", {})) for d in details))
    return f"{say(value)} must be {wanted}{_way_out(field, details)}"


def _way_out(field: FieldInfo | None, details: list[ErrorDetails]) -> str:
    """The nearest choice, else the field's meaning and default."""
    literals = [d["ctx"]["expected"] for d in details if d["type"] == "literal_error"]
    if literals:
        best = nearest(
            str(details[0]["input"]), [name.strip(" '") for name in literals[0].replace(" or ", ",").split(",")]
        )
        return f"; did you mean '{best}'?" if best else ""
    meaning = f" ({field.description})" if field and field.description else ""
    default = field.get_default() if field and not field.is_required() else None
    return meaning + (f"; the default is {say(default)}" if isinstance(default, (int, float, str)) else "")


def _siblings(model: type[BaseModel], loc: tuple[int | str, ...]) -> list[str]:
    """The keys that may stand where `loc` stands."""
    _, field = _field_at(model, loc[:-1])
    inside = _model_in(field.annotation) if field else model
    return list((inside or model).model_fields)
