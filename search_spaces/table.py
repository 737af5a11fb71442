"""A sweep shown: the table before the start, the resolved space as JSON, and what changed between two files."""

from typing import Any

from rich.table import Table

from posesweep.search_spaces.document import plain, read_tree
from posesweep.search_spaces.mistakes import say
from posesweep.search_spaces.parameters import Parameter
from posesweep.search_spaces.schema import Sweep


def space_table(sweep: Sweep) -> Table:
    """One row per parameter: its name, kind, range, when it is used, and the baseline's value."""
    table = Table(title=f"{sweep.name}: {sweep.search.trials} trials over {len(sweep.parameters)} parameters")
    for column in ("parameter", "kind", "range", "when", "baseline"):
        table.add_column(column)
    for name, parameter in sweep.parameters.items():
        baseline = _bare(sweep.baseline[name]) if name in sweep.baseline else "-"
        table.add_row(name, parameter.kind, parameter.range, _when(parameter), baseline)
    return table


def _when(parameter: Parameter) -> str:
    return ", ".join(f"{name}: {' or '.join(map(_bare, allowed))}" for name, allowed in parameter.when.items())


def _bare(value: Any) -> str:
    return value if isinstance(value, str) else say(value)


def space_json(sweep: Sweep) -> dict[str, Any]:
    """The whole sweep with every value filled in, as plain JSON values."""
    return sweep.model_dump(mode="json", exclude={"text", "notes"})


def differences(old_text: str, new_text: str) -> list[str]:
    """What changed between two sweep files, in the order of the new one: 'search.trials: 60 -> 80'.

    Only values count: comments, order and another way to write the same number are no difference. Raises YamlError for
    a text that is no sweep file.
    """
    old, new = _leaves(plain(read_tree(old_text)[0])), _leaves(plain(read_tree(new_text)[0]))
    absent = object()
    lines = []
    for key in [*new, *(key for key in old if key not in new)]:
        before, after = old.get(key, absent), new.get(key, absent)
        if before != after or isinstance(before, bool) != isinstance(after, bool):
            said = ["(not given)" if value is absent else say(value) for value in (before, after)]
            lines.append(f"{key}: {said[0]} -> {said[1]}")
    return lines


def _leaves(value: Any, path: str = "") -> dict[str, Any]:
    """Every dotted key and the value there; lists are values."""
    if not isinstance(value, dict) or (not value and path):
        return {path: value}
    leaves: dict[str, Any] = {}
    for name, inner in value.items():
        leaves.update(_leaves(inner, f"{path}.{name}" if path else name))
    return leaves
