"""PoseSweep: finds the best keypoint model for your own data.

This package is the import name of the folders beside it: `posesweep.search_spaces`, `posesweep.trainables`,
`posesweep.datasets` and `posesweep.analysis`.
"""

from pathlib import Path

__version__ = "0.1.0"

_root = Path(__file__).resolve().parents[1]
if (_root / "run_sweep.py").is_file():  # a checkout; once installed, the folders lie inside this package
    __path__.append(str(_root))
