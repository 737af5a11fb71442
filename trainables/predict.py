"""`posesweep predict`: keypoints in images and videos that nobody annotated.

A top-down network looks at one object in a box. Boxes come from a detector's file; else the whole picture is the box of
one object, or, in a video, what the keypoints of the frame before say (`track`).
"""

import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8

from posesweep.datasets.boxes import box_around
from posesweep.datasets.crops import CropSpec, cut, from_shrunk, image_to_crop, shown, shrinks
from posesweep.datasets.decoding import Decoded, decode, read_image
from posesweep.datasets.detections import EVERY_FRAME, Boxes, assign, read_boxes
from posesweep.datasets.footage import Footage, find_footage, outputs_of
from posesweep.datasets.headers import read_header
from posesweep.datasets.pace import Pace, pace
from posesweep.datasets.videos import Clip, Mp4, frames_of, read_clip
from posesweep.datasets.warps import inverse
from posesweep.errors import ConfigError, DataError, SweepError
from posesweep.files import cpus
from posesweep.trainables import predictions as files
from posesweep.trainables.context import prepare_process
from posesweep.trainables.predictions import Found, Picture, Predictions
from posesweep.trainables.rescoring import OKS_THRESHOLD, best_of_each, rescored, seen_areas
from posesweep.trainables.tasks.topdown import KEYPOINT_SCORE_COUNTS_ABOVE
from posesweep.trainables.trained import Predictor, Trained, find_trained

BATCH = 32  # objects in one forward pass
MOST_BYTES = 1 << 28  # of decoded frames that wait for their batch
AHEAD = 4  # images decoded ahead for each thread
TRACK_MARGIN = 0.25  # around the keypoints of the frame before, of the longer side: as boxes are drawn without one
TRACK_LEAST = 0.3  # share of the keypoints that must be found for a box to follow them
WHOLE = (
    "no boxes are given, so each whole picture is taken for the box of one object; where an object fills little of its "
    "picture, give its boxes: --boxes detections.json, or a .csv with the columns file, x, y, w, h"
)


@dataclass(frozen=True)
class Asked:
    """The options of `posesweep predict`."""

    out: Path
    boxes: Path | None = None
    min_score: float = 0.0  # of a box
    track: bool = False
    overlays: bool = True
    batch: int = BATCH
    nms: float = OKS_THRESHOLD
    flip_test: bool | None = None  # None: as the config says
    trial: int | None = None


def predict(where: Path, inputs: list[str], asked: Asked) -> int:
    """Predict on all that `inputs` name and write the results; 1 when something of it could not be read, else 0.

    Raises SweepError or ConfigError for a model that cannot be used, DataError for boxes that cannot be read or are of
    none of the pictures.
    """
    files.check_folder(asked.out)
    trained = find_trained(where, asked.trial)
    given = read_boxes(asked.boxes) if asked.boxes is not None else None
    footage, problems = find_footage(inputs, asked.out)
    by_name = _boxes_by_name(given, footage, asked.min_score) if given is not None and footage else None
    if by_name is None and footage:
        print(f"note: {WHOLE}")
    prepare_process(cpus(), trained.config.seed)
    with files.whole_folder(asked.out) as folder:
        session = Session(trained, Predictor.of(trained, asked.flip_test), asked, folder, by_name, problems)
        session.run(footage)
        if session.found.pictures:
            videos = {piece.name for piece in footage if piece.is_video}
            session.found.write(folder, trained.name, session.stems, videos)
    for problem in problems:
        print(f"left out: {problem}", file=sys.stderr)
    print(session.summary())
    return 1 if problems else 0


def _boxes_by_name(boxes: Boxes, footage: Sequence[Footage], min_score: float) -> dict[str, Boxes]:
    """The boxes of each picture or video, those below `min_score` left out. DataError: there are none for any."""
    rows = assign(boxes, [piece.name for piece in footage])
    total = sum(map(len, rows))
    if not total:
        named = next((file for file in boxes.files if file), None) or "only image ids"
        raise DataError(
            f"{boxes.path}: none of its {len(boxes)} boxes is of a picture that is given (it names {named}, the first "
            f"picture is {footage[0].name}); name pictures by file_name, or in a table with the column file"
        )
    if total < len(boxes):
        print(f"note: {len(boxes) - total} of {len(boxes)} boxes in {boxes.path} are of other pictures")
    kept = (row[boxes.scores[row] >= min_score] for row in rows)
    return {piece.name: boxes.take(row) for piece, row in zip(footage, kept, strict=True)}


@dataclass(frozen=True)
class Objects:
    """The n boxes of one picture."""

    boxes: Float[np.ndarray, "n 4"]  # x, y, width, height
    scores: Float[np.ndarray, "n"]
    category_ids: Int[np.ndarray, "n"]

    @classmethod
    def whole(cls, width: int, height: int) -> "Objects":
        """One object that fills the picture."""
        return cls(np.array([[0.0, 0.0, width, height]]), np.ones(1), np.ones(1, np.int64))

    @classmethod
    def of(cls, boxes: Boxes, frame: int | None = None) -> "Objects":
        """Those of an image, or of one frame: its own and those of every frame."""
        rows = np.isin(boxes.frames, (EVERY_FRAME, frame)) if frame is not None else np.ones(len(boxes), bool)
        return cls(boxes.boxes[rows], boxes.scores[rows], boxes.category_ids[rows])


@dataclass(frozen=True)
class Ready:
    """One picture whose objects wait for the network."""

    picture: Picture
    objects: Objects
    inputs: UInt8[np.ndarray, "n h w 3"]
    to_image: Float[np.ndarray, "n 2 3"]
    draw: Callable[[Found], None] | None = None
    waiting_bytes: int = 0  # of the frame that is kept for `draw`


@dataclass
class Session:
    """One run over all footage. `by_name` None: no boxes were given. `problems` grows with what cannot be read."""

    trained: Trained
    predictor: Predictor
    asked: Asked
    folder: Path  # where files are written for now
    by_name: dict[str, Boxes] | None
    problems: list[str]
    stems: dict[str, str] = field(default_factory=dict)
    waiting: list[Ready] = field(default_factory=list)
    without_boxes: int = 0
    seconds: float = 0.0

    def __post_init__(self) -> None:
        self.found = Predictions(self.trained.skeleton)

    def run(self, footage: Sequence[Footage]) -> None:
        """Everything, images first."""
        self.stems = outputs_of(footage)
        images = [piece for piece in footage if not piece.is_video]
        clips = self._clips([piece for piece in footage if piece.is_video])
        total = len(images) + sum(clip.frames for _, clip in clips)
        started = time.monotonic()
        with pace("pictures", total) as watched:
            self._images(images, watched)
            for piece, clip in clips:
                self._video(piece, clip, watched)
        self.seconds = time.monotonic() - started

    def summary(self) -> str:
        """What was done, in a line or two."""
        pictures = len(self.found.pictures)
        if not pictures:
            return "nothing could be predicted on, and nothing is written"
        lines = []
        if self.without_boxes:
            lines.append(f"note: {self.without_boxes} pictures have no box: nothing is predicted in them")
        written = [name for name in sorted(files.OURS) if (self.asked.out / name).exists()]
        device, rate = self.predictor.precision.device, pictures / max(1e-9, self.seconds)
        lines.append(
            f"{self.asked.out}: {self.found.objects} objects in {pictures} pictures by {self.trained.name} "
            f"({rate:.1f} pictures/s on {device.type}): {', '.join(written)}"
        )
        return "\n".join(lines)

    # ------------------------------------------------------------------------------------------------------- images

    def _images(self, images: Sequence[Footage], watched: Pace) -> None:
        for piece, ready in _ahead(images, self._image):
            if isinstance(ready, Ready):
                self._take(ready)
            else:
                self.problems.append(f"{shown(piece.path)}: {ready}")
            watched.step()
        self._flush()

    def _image(self, piece: Footage) -> Ready | DataError:
        """Decode an image and cut its objects out; runs in several threads. What is wrong with it comes back."""
        imgsz = self.trained.config.imgsz
        try:
            width, height = _size(piece.path)
            objects = self._objects(piece.name, None, width, height)
            affines = image_to_crop(objects.boxes, CropSpec(*imgsz))
            shrink = int(shrinks(affines, np.zeros(len(affines), np.int64)).min()) if len(affines) else 1
            inputs = _inputs(decode(piece.path, shrink), affines, imgsz)
        except DataError as error:
            return error
        picture = Picture(piece.name, width, height)
        draw = (lambda found: self._draw_image(piece, found)) if self.asked.overlays else None
        return Ready(picture, objects, inputs, inverse(affines), draw)

    def _objects(self, name: str, frame: int | None, width: int, height: int) -> Objects:
        return Objects.whole(width, height) if self.by_name is None else Objects.of(self.by_name[name], frame)

    def _draw_image(self, piece: Footage, found: Found) -> None:
        drawn = files.overlay(read_image(piece.path), found, self.trained.skeleton)
        files.write_jpeg(self.folder / "overlays" / f"{self.stems[piece.name]}.jpg", drawn)

    # ------------------------------------------------------------------------------------------------------- videos

    def _clips(self, videos: Sequence[Footage]) -> list[tuple[Footage, Clip]]:
        clips = []
        for piece in videos:
            try:
                clips.append((piece, read_clip(piece.path)))
            except DataError as error:
                self.problems.append(f"{shown(piece.path)}: {error}")
        return clips

    def _video(self, piece: Footage, clip: Clip, watched: Pace) -> None:
        """Every frame of one video; what is before a damaged place counts."""
        followed: Objects | None = None
        with closing(Mp4(self.folder / "overlays" / f"{self.stems[piece.name]}.mp4", clip.fps)) as video:
            try:
                for number, pixels in enumerate(frames_of(clip)):
                    height, width = pixels.shape[:2]
                    objects = self._objects(piece.name, number, width, height)
                    if followed is not None and (self.by_name is None or not len(objects.scores)):
                        objects = followed
                    picture = Picture(piece.name, width, height, number, round(number / clip.fps, 4))
                    self._take(self._frame(picture, objects, pixels, video))
                    if self.asked.track:
                        self._flush()
                        followed = follow(self.found.found[-1], width, height)
                    watched.step()
            except DataError as error:
                self.problems.append(f"{shown(piece.path)}: {error}")
            self._flush()

    def _frame(self, picture: Picture, objects: Objects, pixels: np.ndarray, video: Mp4) -> Ready:
        affines = image_to_crop(objects.boxes, CropSpec(*self.trained.config.imgsz))
        inputs = _inputs(Decoded(pixels, 1), affines, self.trained.config.imgsz)
        if not self.asked.overlays:
            return Ready(picture, objects, inputs, inverse(affines))
        skeleton = self.trained.skeleton
        return Ready(
            picture,
            objects,
            inputs,
            inverse(affines),
            lambda found: video.add(files.overlay(pixels, found, skeleton)),
            pixels.nbytes,
        )

    # ------------------------------------------------------------------------------------------------------ network

    def _take(self, ready: Ready) -> None:
        self.waiting.append(ready)
        objects = sum(len(one.inputs) for one in self.waiting)
        if objects >= self.asked.batch or sum(one.waiting_bytes for one in self.waiting) >= MOST_BYTES:
            self._flush()

    def _flush(self) -> None:
        """Predict on all that waits, and write what was found."""
        if not self.waiting:
            return
        counts = [len(one.inputs) for one in self.waiting]
        rows = self._predicted(
            np.concatenate([one.inputs for one in self.waiting]), np.concatenate([one.to_image for one in self.waiting])
        )
        for one, own in zip(self.waiting, np.split(rows, np.cumsum(counts)[:-1]), strict=True):
            found = self._kept(one.objects, own)
            self.without_boxes += not len(one.objects.scores)
            self.found.add(one.picture, found)
            if one.draw is not None:
                one.draw(found)
        self.waiting = []

    def _predicted(self, inputs: np.ndarray, to_image: np.ndarray) -> Float[np.ndarray, "n K 3"]:
        parts = [np.zeros((0, len(self.trained.skeleton.keypoints), 3))]
        try:
            for start in range(0, len(inputs), self.asked.batch):
                part = slice(start, start + self.asked.batch)
                parts.append(self.predictor(inputs[part], to_image[part]))
        except torch.OutOfMemoryError:
            least = max(1, self.asked.batch // 4)
            raise ConfigError(
                f"--batch {self.asked.batch} does not fit into the GPU's memory; try --batch {least}"
            ) from None
        rows = np.concatenate(parts)
        if not np.isfinite(rows).all():
            raise SweepError(f"{self.trained.name}: its answers are not finite numbers; has its training diverged?")
        return rows

    def _kept(self, objects: Objects, rows: Float[np.ndarray, "n K 3"]) -> Found:
        """The objects of one picture that are not found twice, with their scores."""
        scores = rescored(objects.scores, rows)
        areas = seen_areas(objects.boxes, self.trained.config.imgsz)
        sigmas = self.trained.skeleton.sigmas
        kept = best_of_each(rows, scores, areas, objects.category_ids, sigmas, self.asked.nms)
        return Found(rows[kept], scores[kept], objects.boxes[kept], objects.category_ids[kept])


def follow(found: Found, width: int, height: int) -> Objects | None:
    """Boxes for the next frame: around each object's keypoints of this one, within the frame; None when all are lost,
    and the next frame begins anew.

    An object is lost when fewer than 30 % of its keypoints, or fewer than two, score above 0.2."""
    boxes, kept = [], []
    for i, row in enumerate(found.rows):
        seen = row[:, 2] > KEYPOINT_SCORE_COUNTS_ABOVE
        if seen.sum() < max(2, TRACK_LEAST * len(row)):
            continue
        box = box_around(row[:, :2], seen.astype(np.uint8), TRACK_MARGIN)
        low = np.clip(box[:2], 0, (width - 2, height - 2))
        high = np.clip(box[:2] + box[2:], low + 2, (width, height))
        boxes.append(np.concatenate([low, high - low]))
        kept.append(i)
    return Objects(np.array(boxes), np.ones(len(kept)), found.category_ids[kept]) if kept else None


def _size(path: Path) -> tuple[int, int]:
    """Width and height of an image, upright."""
    try:
        header = read_header(path)
    except DataError:
        read_image(path)  # which knows the reason better
        raise
    return header.width, header.height


def _inputs(
    image: Decoded, affines: Float[np.ndarray, "n 2 3"], imgsz: tuple[int, int]
) -> UInt8[np.ndarray, "n h w 3"]:
    """What the network sees of each box, as in validation."""
    inputs = np.zeros((len(affines), imgsz[1], imgsz[0], 3), np.uint8)
    for affine, one in zip(affines, inputs, strict=True):
        cut(image.pixels, from_shrunk(affine, image.shrink), one)
    return inputs


def _ahead(
    pieces: Sequence[Footage], work: Callable[[Footage], Ready | DataError]
) -> Iterator[tuple[Footage, Ready | DataError]]:
    """Each piece with what `work` makes of it, in order, made ahead of time in as many threads as there are CPUs."""
    waiting: deque[tuple[Footage, Future[Ready | DataError]]] = deque()
    pool = ThreadPoolExecutor(cpus(), thread_name_prefix="decoding")
    try:
        for piece in pieces:
            waiting.append((piece, pool.submit(work, piece)))
            if len(waiting) >= AHEAD * cpus():
                first, future = waiting.popleft()
                yield first, future.result()
        for first, future in waiting:
            yield first, future.result()
    finally:
        pool.shutdown(cancel_futures=True)
