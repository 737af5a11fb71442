"""Reading a file of annotations in spite of its faults, each of which becomes a finding."""

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from posesweep.datasets.documents import read_json
from posesweep.datasets.findings import Finding
from posesweep.datasets.images import folder_beside, inside
from posesweep.datasets.instances import Instances
from posesweep.datasets.load import DataRequest, read_annotations
from posesweep.datasets.skeleton import Skeleton
from posesweep.errors import DataError

_Entry = dict[str, Any]


def read_despite(
    path: Path, request: DataRequest, skeleton: Skeleton | None, side: str = "", subset: str | None = None
) -> tuple[Instances, list[Finding]]:
    """What `read_annotations` makes of `path`, and what had to be left out or mended for it in a COCO file.

    DataError: what is left cannot be read, or the file is of another kind and has any fault."""
    document = read_json(path) if path.suffix.lower() == ".json" else None
    if not isinstance(document, dict) or not all(
        isinstance(document.get(key), list) for key in ("images", "annotations")
    ):
        return read_annotations(path, request, skeleton, subset), []
    mending = _Mending(document, request.images or _folder(path, document), side)
    mended = mending.document()
    if mended is None:
        return read_annotations(path, request, skeleton, subset), mending.findings
    with TemporaryDirectory(prefix="posesweep-check-") as folder:
        file = Path(folder) / path.name
        file.write_text(json.dumps(mended), encoding="utf-8")
        try:
            instances = read_annotations(file, replace(request, images=mending.folder), skeleton, subset)
        except DataError as error:
            raise DataError(str(error).replace(str(file), str(path))) from None
    return instances, mending.findings


def _folder(path: Path, document: Mapping[str, Any]) -> Path:
    return folder_beside(path, [str(image.get("file_name")) for image in document["images"] if isinstance(image, dict)])


class _Mending:
    """Goes through a COCO document once. What has another shape than it should is left for the reader to refuse."""

    def __init__(self, document: Mapping[str, Any], folder: Path, side: str) -> None:
        self.original, self.folder, self.side = document, folder, side
        self.names = {c.get("id"): c.get("keypoints") for c in document.get("categories", []) if isinstance(c, dict)}
        self.files: dict[Any, str] = {}  # image id -> file
        self.findings: list[Finding] = []
        self.changed = False

    def document(self) -> dict[str, Any] | None:
        """The document without its faults; None: the original will do."""
        images = [image for image in self.original["images"] if self._is_there(image)]
        gone = {image.get("id") for image in self.original["images"] if isinstance(image, dict)} - self.files.keys()
        kept = [
            one for one in self.original["annotations"] if not (isinstance(one, dict) and one.get("image_id") in gone)
        ]
        annotations = [mended for one in kept if (mended := self._mended(one)) is not None]
        return {**self.original, "images": images, "annotations": annotations} if self.changed else None

    def _is_there(self, image: Any) -> bool:
        if not isinstance(image, dict) or not isinstance(image.get("id"), int):
            return True
        file = inside(self.folder, image.get("file_name"))
        if file.is_file():
            self.files[image["id"]] = str(file)
            return True
        self.changed = True
        self.findings.append(Finding("missing image", "error", "there is no such file", str(file), self.side))
        return False

    def _mended(self, annotation: Any) -> Any:
        """The annotation, mended where need be; None: nothing of it can be used."""
        if not isinstance(annotation, dict):
            return annotation
        points = annotation.get("keypoints")
        if isinstance(points, list) and len(points) % 3 == 0 and all(map(_is_number, points)):
            annotation = self._with_sound_keypoints(annotation, points)
        box = annotation.get("bbox")
        if isinstance(box, list) and len(box) == 4 and all(map(_is_number, box)) and not _has_area(box):
            annotation = self._without_box(annotation, box)
        return annotation

    def _with_sound_keypoints(self, annotation: _Entry, points: list[Any]) -> _Entry:
        mended, names = list(points), self.names.get(annotation.get("category_id")) or []
        for k in range(len(points) // 3):
            x, y, visibility = points[3 * k : 3 * k + 3]
            name = str(names[k]) if k < len(names) else f"keypoint {k + 1}"
            if visibility not in (0, 1, 2):
                rule = "must be 0 (not labelled), 1 (hidden) or 2 (visible)"
                self._tell(annotation, "visibility", "error", f"visibility {visibility} of {name} {rule}", name)
                mended[3 * k + 2] = 2 if _is_finite(visibility) and visibility > 0 and _is_finite(x, y) else 0
            elif visibility > 0 and not _is_finite(x, y):
                self._tell(annotation, "unusable label", "error", f"{name} is labelled at ({x}, {y}), no place", name)
                mended[3 * k : 3 * k + 3] = [0, 0, 0]
            elif visibility == 0 and (x or y) and _is_finite(x, y):
                text = f"{name} has visibility 0, not labelled, but is at ({x:g}, {y:g})"
                self._tell(annotation, "visibility", "warning", text, name)
        if mended == points:
            return annotation
        self.changed = True
        return {**annotation, "keypoints": mended}

    def _without_box(self, annotation: _Entry, box: list[Any]) -> _Entry | None:
        """The annotation with its box left out, so that one is drawn; None where there is nothing to draw it around."""
        text = f"its box {box} has no area; width and height must be above 0"
        self._tell(annotation, "unusable label", "error", text)
        self.changed = True
        labelled = sum(1 for v in (annotation.get("keypoints") or [])[2::3] if v)
        return {**annotation, "bbox": None} if labelled > 1 else None

    def _tell(self, annotation: _Entry, kind: str, severity: Any, text: str, keypoint: str = "") -> None:
        image, known = self.files.get(annotation.get("image_id"), ""), annotation.get("id")
        known = known if isinstance(known, int) else None
        self.findings.append(Finding(kind, severity, text, image, self.side, known, keypoint))


def _is_number(value: Any) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))


def _is_finite(*values: Any) -> bool:
    return all(value is not None and math.isfinite(value) for value in values)


def _has_area(box: list[Any]) -> bool:
    return _is_finite(*box) and box[2] > 0 and box[3] > 0
