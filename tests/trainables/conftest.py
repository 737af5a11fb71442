"""What a sweep hands over, trained once for all tests of it: tiny networks on a few drawn horses, in COCO files."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from posesweep.datasets.synthetic import write_synthetic
from posesweep.files import write_json, write_text
from posesweep.search_spaces.document import apply_overrides
from posesweep.trainables.context import in_this_process
from posesweep.trainables.status import write_status
from posesweep.trainables.tasks import find_task, make_config
from posesweep.trainables.trial import run_trial


@dataclass(frozen=True)
class HandedOver:
    """A sweep folder with one finished trial and the data that it was trained on."""

    sweep: Path
    data: Path  # train/ and val/, each with annotations.json and images/

    @property
    def training(self) -> Path:
        return self.sweep / "trials" / "0000"

    @property
    def annotations(self) -> Path:
        return self.data / "val" / "annotations.json"

    @property
    def images(self) -> list[Path]:
        return sorted((self.data / "val" / "images").iterdir())

    def moved(self, folder: Path) -> "HandedOver":
        """A copy of the sweep alone, as on a machine without the data."""
        shutil.copytree(self.sweep, folder / "runs" / "horses")
        return HandedOver(folder / "runs" / "horses", self.data)


@pytest.fixture(scope="session")
def handed_over(tmp_path_factory: pytest.TempPathFactory) -> HandedOver:
    folder = tmp_path_factory.mktemp("handed_over")
    train = write_synthetic(folder / "data" / "train", 12, 2, (160, 120))
    val = write_synthetic(folder / "data" / "val", 8, 3, (160, 120))
    data = {"train": str(train), "val": str(val), "skeleton": "horse26"}
    values = {"data": data, "model": "tiny", "imgsz": [64, 64], "epochs": 2, "batch": 4, "lr0": 3e-3, "threads": 1}
    config = make_config(values)
    sweep = folder / "runs" / "horses"
    record = find_task("topdown").prepare([config]).record
    write_json(sweep / "split.json", record)
    write_text(sweep / "sweep.yaml", json.dumps({"name": "horses", "data": data, "fixed": {"epochs": 2}}))
    trial = sweep / "trials" / "0000"
    run_trial(
        make_config(apply_overrides(values, [f"data.split_hash={record['hash']}"])), in_this_process(trial, print)
    )
    write_status(trial, role="baseline", params={})
    return HandedOver(sweep, folder / "data")
