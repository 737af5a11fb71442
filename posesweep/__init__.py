"""PoseSweep: finds the best keypoint model for your own data.

`from posesweep import load, sweep` is the Python API (see `api.py`); neither is imported before it is asked for.

This package is the import name of the folders beside it: `posesweep.search_spaces`, `posesweep.trainables`,
`posesweep.datasets` and `posesweep.analysis`.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from posesweep.api import Results, Winner, load, sweep

__all__ = ["Results", "Winner", "load", "sweep"]
__version__ = "0.1.0"

_root = Path(__file__).resolve().parents[1]
if (_root / "run_sweep.py").is_file():  # a checkout; once installed, the folders lie inside this package
    __path__.append(str(_root))


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'posesweep' has no attribute '{name}'")
    from posesweep import api

    return getattr(api, name)
