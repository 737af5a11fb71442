"""What `check` finds of faults planted in synthetic horses: recall and false alarms of each kind, as a table.

OMP_NUM_THREADS=1 python -m posesweep.benchmarks.check [--sets 6] [--openfield CollectedData_Pranav.csv]
"""

import argparse
import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from posesweep.datasets.check import check
from posesweep.datasets.findings import Finding, exit_code
from posesweep.datasets.load import DataRequest
from posesweep.datasets.skeleton import load_skeleton
from posesweep.datasets.swaps import swap_units
from posesweep.datasets.synthetic import write_synthetic

SIZE = (240, 180)
APART = 0.15  # of the box's longer side: two keypoints that are nearer may change places without harm
MOVED = 0.4  # of the box's longer side: how far a misplaced keypoint is from where it belongs
VAL_IDS = 1_000_000  # image and annotation ids of the near-duplicates in val begin here
Entry = dict[str, Any]


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    kind: str
    planted: int
    found: int
    false_alarms: int
    clean: int  # objects of which none had this fault

    @property
    def recall(self) -> float:
        return self.found / self.planted

    @property
    def false_share(self) -> float:
        return self.false_alarms / self.clean


class Planted:
    """A set of horses, and which of its images and annotations were spoilt, by kind."""

    def __init__(self, folder: Path, images: int, each: int, seed: int) -> None:
        path = write_synthetic(folder / "train", images, seed, SIZE)
        self.train, self.val = path, folder / "val.json"
        self.folder, self.each = path.parent / "images", each
        self.document = json.loads(path.read_text(encoding="utf-8"))
        self.images = {image["id"]: image for image in self.document["images"]}
        self.truth: dict[str, set[str | int]] = {}
        self.rng = np.random.default_rng(seed)
        first: dict[int, Entry] = {}
        for one in self.document["annotations"]:
            first.setdefault(one["image_id"], one)
        self.left = [first[i] for i in self.rng.permutation(sorted(first))]  # not spoilt yet

    def write(self) -> None:
        """Plant all faults, each in images of its own, and write both files."""
        for kind, spoil in SPOIL.items():
            self.truth.setdefault(kind, set()).update(self._spoilt(spoil))
        self.val.write_text(json.dumps(self._near_duplicates()), encoding="utf-8")
        self.train.write_text(json.dumps(self.document), encoding="utf-8")

    def _spoilt(self, spoil: "Spoil") -> Iterator[str | int]:
        """Spoil as many annotations, or their images, as asked; those that cannot have the fault wait for another."""
        todo, waiting = self.each, []
        while todo:
            annotation = self.left.pop()
            told = spoil(self, annotation)
            if told is None:
                waiting.append(annotation)
            else:
                todo -= 1
                yield told
        self.left += waiting

    def _near_duplicates(self) -> Entry:
        """Val: images of train, smaller, brighter and compressed again, with their annotations."""
        chosen = [self.left.pop() for _ in range(self.each)]
        names = {one["image_id"]: f"again_{one['image_id']:x}_.jpg" for one in chosen}
        for image_id, name in names.items():
            image = cv2.imread(str(self.folder / self.images[image_id]["file_name"]))
            smaller = cv2.resize(image, None, fx=0.8, fy=0.8, interpolation=cv2.INTER_AREA)
            brighter = cv2.convertScaleAbs(smaller, alpha=1.05, beta=6)
            cv2.imwrite(str(self.folder / name), brighter, [cv2.IMWRITE_JPEG_QUALITY, 60])
        self.truth["near-duplicate images"] = set(names.values())
        annotations = [_smaller(one, 0.8) for one in self.document["annotations"] if one["image_id"] in names]
        images = [{"id": VAL_IDS + i, "file_name": name} for i, name in names.items()]
        return {"images": images, "annotations": annotations, "categories": self.document["categories"]}


Spoil = Callable[[Planted, Entry], str | int | None]  # -> the image's name or the annotation's id; None: not this one


def planted_table(folder: Path, images: int, each: int, seed: int) -> tuple[list[Row], list[Finding]]:
    """Plant `each` faults of every kind in `images` synthetic horses below `folder`, check, and compare."""
    planted = Planted(folder, images, each, seed)
    planted.write()
    checked = check(DataRequest(train=planted.train, val=planted.val, images=planted.folder, skeleton="horse26"))
    instances = checked.labels.instances
    rows = []
    for kind, truth in planted.truth.items():
        by_image = isinstance(next(iter(truth)), str)
        told = {
            Path(one.image).name if by_image else one.annotation
            for one in checked.findings
            if one.kind == kind and (one.image or one.annotation)
        }
        objects = len(planted.images) + each if by_image else len(instances)
        rows.append(Row(kind, len(truth), len(truth & told), len(told - truth), objects - len(truth)))
    return rows, checked.findings


# ---------------------------------------------------------------------------------------------------------- the faults


def _missing(planted: Planted, one: Entry) -> str:
    name = planted.images[one["image_id"]]["file_name"]
    (planted.folder / name).unlink()
    return str(name)


def _truncated(planted: Planted, one: Entry) -> str:
    name = planted.images[one["image_id"]]["file_name"]
    file = planted.folder / name
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    return str(name)


def _copied(planted: Planted, one: Entry) -> str:
    """A second entry, of a copy of the file."""
    image = planted.images[one["image_id"]]
    name, new = f"copy_{image['id']:x}_.jpg", VAL_IDS // 2 + image["id"]
    (planted.folder / name).write_bytes((planted.folder / image["file_name"]).read_bytes())
    planted.document["images"].append({**image, "id": new, "file_name": name})
    planted.document["annotations"].append({**one, "id": VAL_IDS // 2 + one["id"], "image_id": new})
    return name


def _box_away(planted: Planted, one: Entry) -> int:
    x, y, width, height = one["bbox"]
    one["bbox"] = (
        [SIZE[0] - 0.3 * width, y, width, height] if planted.rng.random() < 0.5 else [x, -0.8 * height, width, height]
    )
    return int(one["id"])


def _box_without_area(planted: Planted, one: Entry) -> int:
    one["bbox"][int(planted.rng.integers(2, 4))] = 0
    return int(one["id"])


def _keypoint_outside(planted: Planted, one: Entry) -> int:
    k = _labelled(planted, one)
    one["keypoints"][3 * k] = SIZE[0] + float(planted.rng.uniform(0.1, 0.5)) * SIZE[0]
    return int(one["id"])


def _keypoint_far(planted: Planted, one: Entry) -> int | None:
    """Onto the image, but at least 0.35 of the box's longer side from the box."""
    x, y, width, height = one["bbox"]
    for _ in range(50):
        place = planted.rng.uniform(0, 1, 2) * (np.array(SIZE) - 1)
        away = max(x - place[0], place[0] - x - width, y - place[1], place[1] - y - height)
        if away > 0.35 * max(width, height):
            k = _labelled(planted, one)
            one["keypoints"][3 * k : 3 * k + 2] = place.tolist()
            return int(one["id"])
    return None


def _keypoint_misplaced(planted: Planted, one: Entry) -> int | None:
    """Elsewhere in its own box."""
    x, y, width, height = one["bbox"]
    for _ in range(50):
        k = _labelled(planted, one)
        place = np.array([x, y]) + planted.rng.uniform(0, 1, 2) * [width, height]
        inside = ((place >= 0) & (place <= np.array(SIZE) - 1)).all()
        if inside and np.linalg.norm(place - one["keypoints"][3 * k : 3 * k + 2]) > MOVED * max(width, height):
            one["keypoints"][3 * k : 3 * k + 2] = place.tolist()
            return int(one["id"])
    return None


def _swapped(planted: Planted, one: Entry) -> int | None:
    """One pair, a pair of legs or all, in turn, where the points that change places are far enough apart."""
    units = swap_units(load_skeleton("horse26"))
    of_this_turn = [[u for u in units if len(u.pairs) == 1], [u for u in units if 1 < len(u.pairs) < 11], units[-1:]]
    points = np.array(one["keypoints"]).reshape(-1, 3)
    possible = [u for u in of_this_turn[one["id"] % 3] if _far_enough(points, u.pairs, max(one["bbox"][2:]))]
    if not possible:
        return None
    for left, right in possible[int(planted.rng.integers(len(possible)))].pairs:
        points[[left, right]] = points[[right, left]]
    one["keypoints"] = points.ravel().tolist()
    return int(one["id"])


def _far_enough(points: np.ndarray, pairs: tuple[tuple[int, int], ...], side: float) -> bool:
    both = [pair for pair in pairs if (points[list(pair), 2] > 0).all()]
    apart = [np.linalg.norm(points[a, :2] - points[b, :2]) / side for a, b in both]
    return len(both) >= 0.75 * len(pairs) and (len(pairs) > 6 or bool(np.mean(apart) > APART))


def _visibility_7(planted: Planted, one: Entry) -> int:
    one["keypoints"][3 * _labelled(planted, one) + 2] = 7
    return int(one["id"])


def _unlabelled_with_place(planted: Planted, one: Entry) -> int:
    one["keypoints"][3 * _labelled(planted, one) + 2] = 0
    return int(one["id"])


def _labelled_at_origin(planted: Planted, one: Entry) -> int:
    k = _labelled(planted, one)
    one["keypoints"][3 * k : 3 * k + 2] = [0, 0]
    return int(one["id"])


def _visibility(planted: Planted, one: Entry) -> int:
    """One of the three, in turn."""
    return (_visibility_7, _unlabelled_with_place, _labelled_at_origin)[one["id"] % 3](planted, one)


def _emptied(planted: Planted, one: Entry) -> int:
    one["keypoints"] = [0] * len(one["keypoints"])
    return int(one["id"])


def _labelled(planted: Planted, one: Entry) -> int:
    """A labelled keypoint, by chance."""
    return int(planted.rng.choice(np.flatnonzero(np.array(one["keypoints"][2::3]) > 0)))


def _smaller(one: Entry, factor: float) -> Entry:
    points = np.array(one["keypoints"], dtype=float).reshape(-1, 3) * [factor, factor, 1]
    box = [factor * value for value in one["bbox"]]
    area = factor**2 * one["area"]
    ids = {"id": VAL_IDS + one["id"], "image_id": VAL_IDS + one["image_id"]}
    return {**one, **ids, "keypoints": points.ravel().tolist(), "bbox": box, "area": area}


SPOIL: dict[str, Spoil] = {
    "missing image": _missing,
    "unreadable image": _truncated,
    "duplicate image": _copied,
    "keypoint far from its box": _keypoint_far,
    "improbable limb": _keypoint_misplaced,
    "left and right swapped": _swapped,
    "box outside the image": _box_away,
    "unusable label": _box_without_area,
    "keypoint outside the image": _keypoint_outside,
    "visibility": _visibility,
    "empty annotation": _emptied,
}


# ----------------------------------------------------------------------------------------------------------- openfield


def openfield_lines(table: Path) -> Iterator[str]:
    """What is said of DeepLabCut's mice split at random, frame by frame, and by split: auto."""
    for name, request in (
        ("at random", DataRequest(train=table, group_by="(.*)")),
        ("split: auto", DataRequest(train=table, split="auto")),
    ):
        findings = check(request, split=True).findings
        across = [one.kind for one in findings if one.severity == "error"]
        near, beside = (across.count(k) for k in ("near-duplicate images", "neighbouring frames apart"))
        ends = f"exit {exit_code(findings)}"
        yield f"openfield, {name}: {near} near-duplicates and {beside} neighbouring frames across, {ends}"


def _together(rows: Sequence[Row]) -> Row:
    """One kind's rows of several sets as one."""
    counts = zip(*[(row.planted, row.found, row.false_alarms, row.clean) for row in rows], strict=True)
    return Row(rows[0].kind, *(sum(count) for count in counts))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=400)
    parser.add_argument("--each", type=int, default=20)
    parser.add_argument("--seed", type=int, default=7, help="of the first set")
    parser.add_argument("--sets", type=int, default=6, help="drawn with seeds that follow, counted together")
    parser.add_argument("--openfield", type=Path)
    asked = parser.parse_args()
    tables = []
    for seed in range(asked.seed, asked.seed + asked.sets):
        with tempfile.TemporaryDirectory() as folder:
            tables.append(planted_table(Path(folder), asked.images, asked.each, seed)[0])
    rows = [_together(rows) for rows in zip(*tables, strict=True)]
    print("| fault | planted | found | recall | false alarms | of clean | share |\n|---|---|---|---|---|---|---|")
    for row in rows:
        counts = f"{row.planted} | {row.found} | {row.recall:.2f} | {row.false_alarms} | {row.clean}"
        print(f"| {row.kind} | {counts} | {row.false_share:.1%} |")
    if asked.openfield:
        print("\n" + "\n".join(openfield_lines(asked.openfield)))


if __name__ == "__main__":
    main()
