"""Videos, frame by frame: reading them and writing them, with OpenCV's FFmpeg."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import UInt8

from posesweep.datasets import decoding as decoding  # OpenCV's own messages are silenced there
from posesweep.errors import DataError

USUAL_FPS = 25.0  # of a file that does not say
MOST_MISSING = 0.05  # share of the frames that a file says it has; containers round


@dataclass(frozen=True)
class Clip:
    """What a video file says of itself; `frames` is 0 where it does not say, and an estimate for most containers."""

    path: Path
    width: int
    height: int
    fps: float
    frames: int


def read_clip(path: Path) -> Clip:
    """Size, pace and length. DataError: missing, or no video that can be read; its text is the reason in few words."""
    with _opened(path) as video:
        width, height = (round(video.get(which)) for which in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT))
        fps = video.get(cv2.CAP_PROP_FPS)
        frames = round(video.get(cv2.CAP_PROP_FRAME_COUNT))
        if not video.grab():
            raise DataError("damaged: it has no frame that can be read")
        return Clip(path, width, height, fps if 0 < fps < 1000 else USUAL_FPS, max(0, frames))


def frames_of(clip: Clip) -> Iterator[UInt8[np.ndarray, "H W 3"]]:
    """Every frame in RGB, upright. DataError after the last where the file ends too early: it is damaged there."""
    number = 0
    with _opened(clip.path) as video:
        while True:
            read, frame = video.read()
            if not read:
                break
            number += 1
            yield cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)
    if number < (1 - MOST_MISSING) * clip.frames - 1:
        raise DataError(f"damaged: it ends after {number} of about {clip.frames} frames")


@contextmanager
def _opened(path: Path) -> Iterator[cv2.VideoCapture]:
    if not path.is_file():
        raise DataError("missing" if not path.exists() else "not a regular file")
    video = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
    try:
        if not video.isOpened():
            raise DataError("not a video that can be read")
        yield video
    finally:
        video.release()


class Mp4:
    """A video that is written frame by frame: MPEG-4 part 2, which every player and ffmpeg reads.

    The file appears with the first frame; an odd side loses its last row or column, which the format cannot have."""

    def __init__(self, path: Path, fps: float) -> None:
        self._path, self._fps = path, fps
        self._writer: cv2.VideoWriter | None = None
        self._size = (0, 0)

    def add(self, picture: UInt8[np.ndarray, "H W 3"]) -> None:
        """One more frame, RGB. DataError: it cannot be written there."""
        if self._writer is None:
            self._begin(picture)
        width, height = self._size
        assert self._writer is not None
        self._writer.write(cv2.cvtColor(picture[:height, :width], cv2.COLOR_RGB2BGR))

    def _begin(self, picture: np.ndarray) -> None:
        self._size = (picture.shape[1] // 2 * 2, picture.shape[0] // 2 * 2)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        fourcc = cv2.VideoWriter.fourcc(*"mp4v")
        self._writer = cv2.VideoWriter(str(self._path), cv2.CAP_FFMPEG, fourcc, self._fps, self._size)
        if not self._writer.isOpened():
            raise DataError(f"{self._path}: no video can be written there")

    def close(self) -> None:
        """Finish the file."""
        if self._writer is not None:
            self._writer.release()
