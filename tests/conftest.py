"""What several tests share: a small synthetic data set, a cache that is not the user's, and trials on them."""

import os
from pathlib import Path

import pytest
from jaxtyping import install_import_hook

# Shapes in signatures are checked wherever the tests call our code (pydantic checks search_spaces itself). Not by
# pytest's --jaxtyping-packages: it cannot parse a checker with arguments, and an int must do where a float is wanted.
install_import_hook(
    ["posesweep.datasets", "posesweep.analysis", "posesweep.trainables"],
    "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))",
)

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Crop stores and synthetic images of the tests, away from the user's."""
    folder = tmp_path_factory.mktemp("cache")
    os.environ["POSESWEEP_CACHE"] = str(folder)
    return folder


@pytest.fixture(scope="session")
def horses() -> dict:
    """A `data:` block of few, small synthetic horses."""
    return {"synthetic": {"train": 32, "val": 19, "seed": 1, "width": 160, "height": 120}}
