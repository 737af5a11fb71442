"""Reading a file of annotations in spite of its faults, each of which becomes a finding."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from posesweep.datasets.documents import read_json
from posesweep.datasets.findings import Finding
from posesweep.datasets.images import MOST_MISSING, folder_beside, inside
from posesweep.datasets.instances import Instances
from posesweep.datasets.load import DataRequest, read_annotations
from posesweep.datasets.skeleton import Skeleton
from posesweep.errors import DataError

FARTHEST = 1e9  # pixels; what lies beyond is no place in any image, and sums of such numbers overflow
LONGEST = 20  # characters of a number in a finding
_NO_ID = -(2**64)  # ids have 64 bits
_Entry = dict[str, Any]


def read_despite(
    path: Path, request: DataRequest, skeleton: Skeleton | None, side: str = "", subset: str | None = None
) -> tuple[Instances, list[Finding]]:
    """What `read_annotations` makes of `path`, and what had to be left out or mended for it in a COCO file.

    DataError: what is left cannot be read, or the file is of another kind and has any fault."""
    document = read_json(path) if path.suffix.lower() == ".json" else None
    if not isinstance(document, dict) or not all(
        isinstance(document.get(key), list) for key in ("images", "annotations", "categories")
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
        categories = [one for one in document["categories"] if isinstance(one, dict) and _is_id(one.get("id"))]
        self.names = {one["id"]: one["keypoints"] for one in categories if isinstance(one.get("keypoints"), list)}
        self.files: dict[int, str] = {}  # image id -> file
        self.findings: list[Finding] = []
        self.changed = False

    def document(self) -> dict[str, Any] | None:
        """The document without its faults; None: the original will do.

        Where so many images are missing that the folder is the wrong one, they stay, for the reader to say so."""
        images = self.original["images"]
        missing = {image["id"]: file for image in images if (file := self._missing(image)) is not None}
        if len(missing) > MOST_MISSING * len(images):
            missing = {}
        for file in missing.values():
            self.findings.append(Finding("missing image", "error", "there is no such file", str(file), self.side))
        self.changed = bool(missing)
        images = [image for image in images if not (isinstance(image, dict) and _known(image.get("id")) in missing)]
        kept = [
            one
            for one in self.original["annotations"]
            if not (isinstance(one, dict) and _known(one.get("image_id")) in missing)
        ]
        annotations = [mended for one in kept if (mended := self._mended(one)) is not None]
        return {**self.original, "images": images, "annotations": annotations} if self.changed else None

    def _missing(self, image: Any) -> Path | None:
        """The file of an image that is not there; None where it is, or where the reader has to refuse the entry."""
        if not isinstance(image, dict) or not _is_id(image.get("id")):
            return None
        try:
            file = inside(self.folder, image.get("file_name"))
        except DataError:
            return None  # the reader says it, with the file and the entry
        self.files[image["id"]] = str(file)
        return None if file.is_file() else file

    def _mended(self, annotation: Any) -> Any:
        """The annotation, mended where need be; None: nothing of it can be used."""
        if not isinstance(annotation, dict):
            return annotation
        points = annotation.get("keypoints")
        if points is not None and not isinstance(points, list):
            return annotation
        if isinstance(points, list) and len(points) % 3 == 0 and all(map(_is_number, points)):
            annotation = self._with_sound_keypoints(annotation, points)
        box = annotation.get("bbox")
        if isinstance(box, list) and len(box) == 4 and all(map(_is_number, box)) and not _has_area(box):
            annotation = self._without_box(annotation, box)
        return annotation

    def _with_sound_keypoints(self, annotation: _Entry, points: list[Any]) -> _Entry:
        mended, names = list(points), self.names.get(_known(annotation.get("category_id")), [])
        for k in range(len(points) // 3):
            x, y, visibility = points[3 * k : 3 * k + 3]
            name = str(names[k]) if k < len(names) else f"keypoint {k + 1}"
            if visibility not in (0, 1, 2):
                rule = "must be 0 (not labelled), 1 (hidden) or 2 (visible)"
                self._tell(annotation, "visibility", "error", f"visibility {_short(visibility)} of {name} {rule}", name)
                mended[3 * k + 2] = 2 if _is_finite(visibility) and visibility > 0 and _is_finite(x, y) else 0
            elif visibility > 0 and not _is_finite(x, y):
                self._tell(
                    annotation,
                    "unusable label",
                    "error",
                    f"{name} is labelled at ({_short(x)}, {_short(y)}), no place",
                    name,
                )
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
        rule = "has no area; width and height must be above 0" if _is_finite(*box) else "is no place in an image"
        text = f"its box [{', '.join(map(_short, box))}] {rule}"
        self._tell(annotation, "unusable label", "error", text)
        self.changed = True
        labelled = sum(1 for v in (annotation.get("keypoints") or [])[2::3] if v)
        return {**annotation, "bbox": None} if labelled > 1 else None

    def _tell(self, annotation: _Entry, kind: str, severity: Any, text: str, keypoint: str = "") -> None:
        image, known = self.files.get(_known(annotation.get("image_id")), ""), annotation.get("id")
        known = known if _is_id(known) else None
        self.findings.append(Finding(kind, severity, text, image, self.side, known, keypoint))


def _is_id(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _known(value: Any) -> int:
    """An id to look up; where the file has none, one that nothing has."""
    return value if _is_id(value) else _NO_ID


def _is_number(value: Any) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))


def _is_finite(*values: Any) -> bool:
    """Whether all can be coordinates: numbers, and not so far out that computing with them overflows."""
    return all(value is not None and abs(value) <= FARTHEST for value in values)  # NaN is not <= anything


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."


def _has_area(box: list[Any]) -> bool:
    return _is_finite(*box) and box[2] > 0 and box[3] > 0
