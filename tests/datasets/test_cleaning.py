"""`posesweep clean`: what goes, what stays, and what is said."""

import gc
import os
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from posesweep.datasets.cleaning import clean, run
from posesweep.datasets.crops import Crops, CropSpec, open_crops
from posesweep.datasets.instances import Instances
from posesweep.datasets.skeleton import Skeleton
from posesweep.datasets.stores import open_or_build
from posesweep.errors import ConfigError

DAY_S = 86400.0


def store(cache: Path, digit: str, age_days: float, size: int = 2_000_000) -> Path:
    cache.mkdir(exist_ok=True)
    folder = cache / f"crops-{digit * 24}"
    open_or_build(folder, lambda unfinished: (unfinished / "images.npy").write_bytes(bytes(size))).close()
    then = time.time() - age_days * DAY_S
    os.utime(folder / "used", (then, then))
    return folder


def crops(folder: Path) -> Crops:
    cv2.imwrite(str(folder / "a.png"), np.full((60, 80, 3), 200, np.uint8))
    instances = Instances(
        skeleton=Skeleton("point", ("nose",), (), (), np.array([0.05])),
        image_files=(folder / "a.png",),
        image_ids=np.arange(1),
        image_groups=("",),
        image_index=np.arange(1),
        ids=np.arange(1),
        category_ids=np.ones(1, dtype=np.int64),
        boxes=np.array([[10.0, 8.0, 30.0, 40.0]]),
        keypoints=np.zeros((1, 1, 2)),
        visibility=np.zeros((1, 1), dtype=np.uint8),
        areas=np.ones(1),
        crowd=np.zeros(1, dtype=bool),
    )
    return open_crops(instances, CropSpec(24, 32), folder / "cache", threads=1)


def test_by_age(tmp_path: Path) -> None:
    old, young = store(tmp_path, "a", 40), store(tmp_path, "b", 5)
    done = clean(tmp_path)
    assert (old.exists(), young.exists()) == (False, True)
    assert done.fates == ["removed", "kept"]
    assert done.freed == done.left == 2_000_000
    assert clean(tmp_path, older_than_days=3).fates == ["removed"]
    assert not list(tmp_path.iterdir())


def test_all_but_never_within_the_hour_unless_asked(tmp_path: Path) -> None:
    store(tmp_path, "a", 0.01)
    assert clean(tmp_path, older_than_days=0).fates == ["kept"]
    assert clean(tmp_path, everything=True).fates == ["removed"]


def test_a_store_stays_as_long_as_a_part_of_its_array_is_used(tmp_path: Path) -> None:
    opened = crops(tmp_path)
    row = opened.images[0]
    del opened
    gc.collect()
    assert clean(tmp_path / "cache", everything=True).fates == ["in use"]
    assert row.max() == 200
    del row
    gc.collect()
    assert clean(tmp_path / "cache", everything=True).fates == ["removed"]


def test_what_dead_builders_left_goes_whatever_its_age(tmp_path: Path) -> None:
    store(tmp_path, "a", 0)
    left = tmp_path / f"crops-{'a' * 24}.m-1-2.unfinished"
    left.mkdir()
    os.utime(left, (0, 0))
    (tmp_path / f"crops-{'b' * 24}.lock").touch()
    (tmp_path / "synthetic-0").mkdir()
    assert clean(tmp_path).fates == ["removed", "kept"]
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        f"crops-{'a' * 24}",
        f"crops-{'a' * 24}.lock",
        "synthetic-0",
    ]


@pytest.mark.parametrize("days", [-1.0, float("nan")])
def test_a_negative_age_is_refused(days: float, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"^--older-than: {days:g} must be a number of days from 0 on; try 30$"):
        clean(tmp_path, days)


def test_what_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store(tmp_path, "a", 40)
    store(tmp_path, "b", 5.1, size=150_000_000)
    store(tmp_path, "c", 0)
    run(tmp_path)
    assert capsys.readouterr().out == (
        f"crops-{'a' * 24}     2.0 MB   last used 40 days ago  removed\n"
        f"crops-{'b' * 24}    0.15 GB   last used 5 days ago   kept\n"
        f"crops-{'c' * 24}     2.0 MB   last used just now     kept\n"
        f"{tmp_path}: freed 2.0 MB; 2 stores with 0.15 GB are left\n"
        "--older-than DAYS removes younger ones, --all every store that nothing uses now\n"
    )
    run(tmp_path, everything=True)
    assert capsys.readouterr().out.endswith(f"{tmp_path}: freed 0.15 GB; 0 stores with 0.0 MB are left\n")


def test_an_empty_cache(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(tmp_path / "nothing")
    assert capsys.readouterr().out == f"{tmp_path / 'nothing'}: freed 0.0 MB; 0 stores with 0.0 MB are left\n"
