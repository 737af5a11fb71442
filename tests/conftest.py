"""What several tests share: a small synthetic data set, a cache that is not the user's, and trials on them."""

import os
from pathlib import Path

import pytest

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
