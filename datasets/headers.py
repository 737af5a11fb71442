"""What the first bytes of an image file say: its size, and how EXIF turns it.

Images are decoded upright (`crops.read_image` applies EXIF), so coordinates must be upright too. Which way a tool
counted is told by the size it wrote down: that of the stored pixels means it ignored EXIF, and its coordinates are
turned here; any other means it did not. Orientations 2 to 4 keep the size, so nothing tells; they count as upright, as
does a square.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Float
from PIL import Image

from posesweep.datasets.instances import Instances
from posesweep.errors import DataError

warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)  # headers are read here, nothing is decoded

ORIENTATION = 0x0112  # EXIF's tag
_SNIFFED = 4096  # bytes: EXIF follows the first marker of a JPEG and the first chunk of a PNG
_WITH_EXIF = (b"Exif", b"eXIf", b"RIFF", b"II*\0", b"MM\0*")  # JPEG, PNG; WebP and TIFF keep theirs further down

# What to do with stored coordinates (x, y): swap them first, then mirror x (W - 1 - x), then mirror y (H - 1 - y).
_TURNS = {
    1: (False, False, False),
    2: (False, True, False),
    3: (False, True, True),
    4: (False, False, True),
    5: (True, False, False),
    6: (True, True, False),
    7: (True, True, True),
    8: (True, False, True),
}


@dataclass(frozen=True)
class Header:
    """Size in pixels as the image is shown, and EXIF's orientation (1: as it is stored)."""

    width: int
    height: int
    orientation: int = 1

    @property
    def turned(self) -> bool:
        """Whether width and height are swapped against the stored pixels."""
        return self.orientation >= 5


def read_header(path: Path) -> Header:
    """Size and orientation, without decoding. DataError: missing, or no image; its text is the reason in few words."""
    try:
        with Image.open(path) as image:
            orientation = _orientation(image)
            width, height = image.size
            stored = image.format != "TIFF"  # Pillow turns the size of a TIFF, and of no other format
    except FileNotFoundError:
        raise DataError("missing") from None
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(f"no readable image header ({type(error).__name__})") from error
    return Header(height, width, orientation) if stored and orientation >= 5 else Header(width, height, orientation)


def _orientation(image: Image.Image) -> int:
    if image.format == "TIFF":
        found = image.getexif().get(ORIENTATION, 1)
    elif "exif" in image.info:  # not getexif(): it decodes a whole PNG to look behind the pixels
        exif = Image.Exif()
        exif.load(image.info["exif"])
        found = exif.get(ORIENTATION, 1)
    else:
        return 1
    return found if found in _TURNS else 1


def may_be_turned(path: Path) -> bool:
    """Whether the file may hold EXIF: a look at its first bytes, many times cheaper than `read_header`."""
    try:
        with path.open("rb") as file:
            first = file.read(_SNIFFED)
    except OSError:
        return False
    return any(mark in first for mark in _WITH_EXIF)


def turn_points(points: Float[np.ndarray, "*n 2"], header: Header) -> Float[np.ndarray, "*n 2"]:
    """Coordinates in the stored pixels -> in the upright image; the centre of the first pixel is (0, 0) in both."""
    swap, mirror_x, mirror_y = _TURNS[header.orientation]
    x, y = (points[..., 1], points[..., 0]) if swap else (points[..., 0], points[..., 1])
    x = header.width - 1 - x if mirror_x else x
    y = header.height - 1 - y if mirror_y else y
    return np.stack([x, y], axis=-1)


def turn_boxes(boxes: Float[np.ndarray, "n 4"], header: Header) -> Float[np.ndarray, "n 4"]:
    """Boxes (x, y, width, height) in the stored pixels -> in the upright image."""
    corners = turn_points(np.stack([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1), header)
    low = corners.min(axis=1)
    return np.concatenate([low, corners.max(axis=1) - low], axis=1)


def upright(instances: Instances, written: Sequence[tuple[int, int] | None]) -> Instances:
    """The instances in upright coordinates, given the width and height that the annotations state for each image.

    Images without a stated size, and those that cannot be read, are taken as they are."""
    headers = {i: _unapplied(instances, i, size) for i, size in enumerate(written) if size}
    turned = {i: header for i, header in headers.items() if header}
    if not turned:
        return instances
    keypoints, boxes = instances.keypoints.copy(), instances.boxes.copy()
    for i, header in turned.items():
        rows = instances.image_index == i
        keypoints[rows] = turn_points(keypoints[rows], header)
        boxes[rows] = turn_boxes(boxes[rows], header)
    keypoints[instances.visibility == 0] = 0.0
    first = instances.image_files[min(turned)].name
    note = (
        f"{len(turned)} images are turned by EXIF and their annotations were not (their sizes tell): "
        f"keypoints and boxes were turned along, {first} for example"
    )
    return replace(instances, keypoints=keypoints, boxes=boxes, notes=(*instances.notes, note))


def _unapplied(instances: Instances, position: int, size: tuple[int, int]) -> Header | None:
    """The header of an image that EXIF turns and whose annotations count in its stored pixels; None for any other."""
    path = instances.image_files[position]
    if not may_be_turned(path):
        return None
    try:
        header = read_header(path)
    except DataError:  # left out, with its reason, when it is decoded
        return None
    upside = (header.height, header.width)
    return header if header.turned and size == upside and header.width != header.height else None
