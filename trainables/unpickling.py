"""Reading a pickled checkpoint without running anything it asks for.

A pickle names callables and has them called. Here a name becomes one of three things: a function that rebuilds tensors
and containers, a stand-in that ignores what it is given, or a refusal. Published OpenMMLab files hold stand-ins beside
their tensors (loggers' histories, NumPy scalars); only files made to do harm ask for `os.system`.
"""

import pickle
import sys
from collections import OrderedDict
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch

PLAIN_TYPES = {t.__name__: t for t in (set, frozenset, dict, list, tuple, int, float, complex, bool, str, bytes, slice)}
REBUILDERS: dict[tuple[str, str], Callable[..., Any]] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch", "Size"): torch.Size,
    ("torch._utils", "_rebuild_tensor"): torch._utils._rebuild_tensor,
    ("torch._utils", "_rebuild_tensor_v2"): torch._utils._rebuild_tensor_v2,
    ("torch._utils", "_rebuild_parameter"): torch._utils._rebuild_parameter,
}
OLD_NAMES = {"__builtin__": "builtins", "copy_reg": "copyreg"}  # Python 2's, which pickles of protocol 2 still use
# of the standard library, what describes data; other names in it open files, start programs or reach further ones
DATA_MODULES = {"_codecs", "argparse", "collections", "copyreg", "datetime", "decimal", "enum", "pathlib", "uuid"}


class _Rebuilder:
    """One of torch's functions for one pickle: what the pickle does to it stays with it."""

    __slots__ = ("_rebuild",)

    def __init__(self, rebuild: Callable[..., Any]) -> None:
        self._rebuild = rebuild

    def __call__(self, *args: Any) -> Any:
        return self._rebuild(*args)

    def __setstate__(self, state: Any) -> None:
        raise CodeInPickleError(f"{self._rebuild.__module__}.{self._rebuild.__name__}.__setstate__")


class CodeInPickleError(Exception):
    """The pickle asks for a callable that no checkpoint needs; the text is its dotted name."""


class StandIn:
    """Takes the place of an object of an unknown class: accepts whatever the pickle does to it, and does nothing."""

    def __new__(cls, *_: Any, **__: Any) -> "StandIn":
        return super().__new__(cls)

    def __setstate__(self, state: Any) -> None: ...

    def __setitem__(self, key: Any, value: Any) -> None: ...

    def append(self, item: Any) -> None:
        """Opcode APPEND."""

    def extend(self, items: Any) -> None:
        """Opcode APPENDS."""

    def add(self, item: Any) -> None:
        """Opcode ADDITEMS."""


def inert_pickle(met: set[str]) -> Any:
    """What `torch.load(pickle_module=...)` needs of a pickle module. Dotted names of stand-ins are added to `met`.

    Its reading raises CodeInPickleError for a name that runs code.
    """

    class InertUnpickler(pickle.Unpickler):
        def find_class(self, module: str, name: str) -> Any:
            return _stand_for(OLD_NAMES.get(module, module), name, met)

    def load(file: Any, **options: Any) -> Any:
        return InertUnpickler(file, **options).load()

    return SimpleNamespace(__name__="inert_pickle", Unpickler=InertUnpickler, load=load)


def _stand_for(module: str, name: str, met: set[str]) -> Any:
    """What a global of a pickle is read as. Nothing is imported, so no module of the name needs to exist."""
    if (module, name) in REBUILDERS:
        rebuild = REBUILDERS[module, name]
        return rebuild if isinstance(rebuild, type) else _Rebuilder(rebuild)
    if module == "builtins" and name in PLAIN_TYPES:
        return PLAIN_TYPES[name]
    if module == "torch" and isinstance(getattr(torch, name, None), torch.dtype):
        return getattr(torch, name)
    root = module.partition(".")[0]
    if root in sys.stdlib_module_names and root not in DATA_MODULES:
        raise CodeInPickleError(f"{module}.{name}")
    met.add(f"{module}.{name}")
    return type(name, (StandIn,), {})
