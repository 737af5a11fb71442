"""Bad input and the sentence it gets: a Markdown table, made by really giving it.

python benchmarks/error_table.py > docs/errors.md
"""

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from posesweep.datasets.load import DataRequest, load_data
from posesweep.errors import PoseSweepError
from posesweep.search_spaces.space import read_sweep
from posesweep.trainables.tasks import check_values, defaults_of

DATA = "data: {train: a.json}\n"
LR = "parameters: {lr0: {min: 1e-4, max: 1e-2, log: true}}\n"
YAMLS = {
    "an unknown key": DATA + LR + "serch: {trials: 9}\n",
    "a misspelt setting": DATA + LR + "fixed: {layer_dekay: 0.7}\n",
    "an empty range": DATA + "parameters: {lr0: {min: 1e-2, max: 1e-3}}\n",
    "log from zero": DATA + "parameters: {lr0: {min: 0, max: 1e-2, log: true}}\n",
    "another tool's words": DATA + "parameters: {lr0: {low: 1e-4, high: 1e-2}}\n",
    "W&B's exponents": DATA + "parameters: {lr0: {distribution: log_uniform, min: -9, max: -4}}\n",
    "a setting the codec does not use": DATA + LR + "fixed: {codec: simcc, udp: true}\n",
    "a condition on a later parameter": DATA
    + "parameters: {sigma: {min: 1, max: 3, when: {codec: heatmap}}, codec: {values: [heatmap, simcc]}}\n",
    "a network that is not there": DATA + LR + "fixed: {model: hrnet_w33}\n",
    "a size the stride does not divide": DATA + LR + "fixed: {model: hrnet_w32, imgsz: [200, 256]}\n",
    "freezing more layers than there are": DATA + LR + "fixed: {model: tiny, freeze: 9}\n",
    "a baseline outside the range": DATA + LR + "baseline: {lr0: 0.5}\n",
    "the same key twice": DATA + LR + "fixed: {epochs: 5, epochs: 6}\n",
    "no data": LR,
}

Change = Callable[[dict[str, Any]], Any]
COCO: dict[str, Change] = {
    "keypoints of another number": lambda d: d["annotations"][0].update(keypoints=[1, 2, 2] * 3),
    "an unknown category": lambda d: d["annotations"][1].update(category_id=9),
    "a box of zero size": lambda d: d["annotations"][2].update(bbox=[5, 5, 0, 9]),
    "the same id twice": lambda d: d["annotations"][3].update(id=1),
    "an image that the file does not list": lambda d: d["annotations"][0].update(image_id=77),
    "coordinates that are no numbers": lambda d: d["annotations"][0]["keypoints"].__setitem__(0, float("nan")),
    "a visibility that does not exist": lambda d: d["annotations"][0]["keypoints"].__setitem__(2, 7),
    "no labelled keypoint at all": lambda d: [a.update(keypoints=[0] * 12) for a in d["annotations"]],
    "a path out of the folder": lambda d: d["images"][0].update(file_name="../secret.jpg"),
    "no annotations": lambda d: d.update(annotations=[]),
    "images that are not there": lambda d: [i.update(file_name="no" + i["file_name"]) for i in d["images"]],
    "not a COCO file": lambda d: [d.pop(key) for key in ("images", "annotations", "categories")],
}


def sentence_of(call: Callable[[], Any], folder: Path) -> str:
    """What the user reads, the folder's own name shortened."""
    try:
        call()
    except PoseSweepError as error:
        return (
            str(error).replace(str(folder) + "/", "").replace(str(folder), ".").replace("\n", "<br>").replace("|", "/")
        )
    raise AssertionError("this was to be refused")


def coco(folder: Path) -> dict[str, Any]:
    """A sound file of six mice, four keypoints each."""
    names = ["snout", "leftear", "rightear", "tailbase"]
    images, annotations = [], []
    for i in range(1, 7):
        cv2.imwrite(str(folder / f"{i}.png"), np.full((60, 80, 3), i * 30, np.uint8))
        images.append({"id": i, "file_name": f"{i}.png", "width": 80, "height": 60})
        keypoints = [10, 20, 2, 20, 12, 2, 22, 30, 2, 60, 40, 1]
        annotations.append(
            {"id": i, "image_id": i, "category_id": 1, "bbox": [5, 8, 60, 40], "area": 1200, "keypoints": keypoints}
        )
    category = {"id": 1, "name": "mouse", "keypoints": names, "skeleton": [[1, 4]]}
    return {"images": images, "annotations": annotations, "categories": [category]}


def main() -> None:
    """Print both tables."""
    print("# What bad input is told\n\nMade by `python benchmarks/error_table.py > docs/errors.md`.\n")
    print("| sweep file | sentence |\n|---|---|")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for what, text in YAMLS.items():
            file = folder / "sweep.yaml"
            file.write_text(text)
            print(f"| {what} | {sentence_of(lambda: read_sweep(file, (), check_values, defaults_of), folder)} |")  # noqa: B023
        print("\n| data | sentence |\n|---|---|")
        for what, change in COCO.items():
            document = coco(folder)
            change(document)
            train = folder / "train.json"
            train.write_text(json.dumps(document))
            print(f"| {what} | {sentence_of(lambda: load_data(DataRequest(train=train), folder), folder)} |")  # noqa: B023
        whole = folder / "train.json"
        whole.write_text(json.dumps(coco(folder)))
        both = DataRequest(train=whole, val=whole)
        print(f"| an image in train and val | {sentence_of(lambda: load_data(both, folder), folder)} |")
        whole.write_text(json.dumps(coco(folder))[:200])
        print(f"| a file cut short | {sentence_of(lambda: load_data(DataRequest(train=whole), folder), folder)} |")


if __name__ == "__main__":
    main()
