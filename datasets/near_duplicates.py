"""Pictures that look alike: copies, resized or recompressed ones, and neighbouring frames of one video.

Two steps. A hash of 63 bits names candidates: the signs, against their median, of the lowest frequencies of the grey
picture (DCT, as in Zauner's pHash, 2010). Before a camera that stands still all frames are candidates, whatever the
animal does. So candidates are judged by their small grey pictures, and only where either has an annotated object: what
is compared is the animals and where they are, not the arena.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Bool, Float, Int, UInt8, UInt64

from posesweep.datasets.decoding import read_image
from posesweep.datasets.instances import Instances
from posesweep.errors import DataError

SIDE = 64  # pixels of the small grey pictures
LOWEST = 8  # frequencies each way that are hashed; the mean brightness among them is left out
NEAR_BITS = 16  # of 63 that may differ: pictures that have nothing in common differ in 31 +- 4
ALIKE = 0.85  # correlation from which on two pictures are near-duplicates; openfield's mouse has then hardly moved
FLAT = 3.0  # grey levels; below this spread there is nothing to correlate, and below this difference it is the same
REACH = 32  # frames of a long video, on either side, that a frame is judged against
MOST = 32  # images of no video, or of others, that an image is judged against where many look alike
FEW = 400_000  # pairs, half a minute, up to which all are judged
LEAST_FRAMES = 5  # of a run of numbered files that may be called a video
ROWS, PAIRS = 64, 256  # hashed, and judged, in one go: bounds the memory

_NUMBERED = re.compile(r"(.*?)(\d+)(\D*)\Z")  # the last number in a file's name

Progress = Callable[[int, int], None]  # images done, images in all


class Look(NamedTuple):
    """What is kept of one decoded image."""

    hash: int
    picture: UInt8[np.ndarray, "64 64"]
    size: tuple[int, int]  # width, height; pixels as decoded, EXIF rotation applied
    content: bytes  # digest of the file
    reason: str  # why it cannot be read, or ""


@dataclass(frozen=True)
class Looks:
    """m images as columns; where `reasons` is not "" the image could not be read and the rest means nothing."""

    hashes: UInt64[np.ndarray, "m"]
    pictures: UInt8[np.ndarray, "m 64 64"]
    sizes: Int[np.ndarray, "m 2"]
    contents: tuple[bytes, ...]
    reasons: tuple[str, ...]

    @property
    def readable(self) -> Bool[np.ndarray, "m"]:
        return np.array([not reason for reason in self.reasons], dtype=bool)

    def take(self, kept: Bool[np.ndarray, "m"]) -> "Looks":
        """Those of the images of a mask."""
        at = np.flatnonzero(kept).tolist()
        contents, reasons = tuple(self.contents[i] for i in at), tuple(self.reasons[i] for i in at)
        return Looks(self.hashes[at], self.pictures[at], self.sizes[at], contents, reasons)


@dataclass(frozen=True)
class Alike:
    """p pairs of images, first < second, and how alike they are: 0.85 to 1."""

    first: Int[np.ndarray, "p"]
    second: Int[np.ndarray, "p"]
    likeness: Float[np.ndarray, "p"]


# ------------------------------------------------------------------------------------------------------- the pictures


def look_at(path: Path) -> Look:
    """Decode an image, once, and keep what comparing needs."""
    try:
        image = read_image(path)
    except DataError as error:
        return Look(0, np.zeros((SIDE, SIDE), np.uint8), (0, 0), b"", str(error))
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    small = cv2.resize(grey, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    content = blake2b(path.read_bytes(), digest_size=16).digest()
    return Look(perceptual_hash(small), small, (image.shape[1], image.shape[0]), content, "")


def perceptual_hash(picture: UInt8[np.ndarray, "64 64"]) -> int:
    """63 bits that brightness, contrast, size and compression hardly change."""
    quarter = cv2.resize(picture, (SIDE // 2, SIDE // 2), interpolation=cv2.INTER_AREA).astype(np.float32)
    lowest = cv2.dct(quarter)[:LOWEST, :LOWEST].ravel()[1:]
    return sum(1 << int(bit) for bit in np.flatnonzero(lowest > np.median(lowest)))


def look_at_all(files: Sequence[Path], threads: int, progress: Progress | None = None) -> Looks:
    """The looks of all files, decoded by `threads` threads; about 4 kB each are kept."""
    looks: list[Look] = []
    pool = ThreadPoolExecutor(threads)
    try:
        for look in pool.map(look_at, files):
            looks.append(look)
            if progress:
                progress(len(looks), len(files))
    finally:
        pool.shutdown(cancel_futures=True)  # Ctrl-C does not wait for the rest
    return Looks(
        hashes=np.array([look.hash for look in looks], dtype=np.uint64),
        pictures=np.array([look.picture for look in looks], dtype=np.uint8).reshape(-1, SIDE, SIDE),
        sizes=np.array([look.size for look in looks], dtype=np.int64).reshape(-1, 2),
        contents=tuple(look.content for look in looks),
        reasons=tuple(look.reason for look in looks),
    )


# ---------------------------------------------------------------------------------------------------------- the pairs


def alike_pairs(looks: Looks, instances: Instances) -> Alike:
    """The pairs of near-duplicates among the images of `instances`, which `looks` are of, in their order.

    All of them up to about `FEW` candidates; of more, those of near frames and of the images that differ least."""
    masks = _object_masks(looks, instances)
    videos = find_videos(instances.image_files, looks)
    found = [_judged(looks.pictures, masks, pairs) for pairs in _candidates(looks, videos)]
    first, second = (np.concatenate([np.zeros(0, np.int64), *[part[i] for part in found]]) for i in (0, 1))
    order = np.lexsort((second, first))
    return Alike(first[order], second[order], np.concatenate([np.zeros(0), *[part[2] for part in found]])[order])


def _candidates(looks: Looks, videos: Sequence["Video"]) -> Iterator[Int[np.ndarray, "2 p"]]:
    """Pairs (first, second) of readable images whose hashes differ in few bits.

    Before a camera that stands still all frames are such pairs, so within a video only frames are paired that at most
    `REACH` others lie between, and elsewhere each image with the `MOST` that differ least; as long as they are `FEW`
    altogether, all are. n frames of one video cost n x REACH judgements, about 2 ms a frame."""
    for pairs in (*(_in_video(looks.hashes, video) for video in videos), _elsewhere(looks, videos)):
        for several in pairs:
            several.sort(axis=0)
            for part in range(0, several.shape[1], PAIRS):
                yield several[:, part : part + PAIRS]


def _in_video(hashes: UInt64[np.ndarray, "m"], video: "Video") -> Iterator[Int[np.ndarray, "2 p"]]:
    frames = video.images
    reach = max(REACH, FEW // len(frames))
    for apart in range(1, min(reach, len(frames) - 1) + 1):
        pairs = np.stack([frames[:-apart], frames[apart:]])
        yield pairs[:, np.bitwise_count(hashes[pairs[0]] ^ hashes[pairs[1]]) <= NEAR_BITS]


def _elsewhere(looks: Looks, videos: Sequence["Video"]) -> Iterator[Int[np.ndarray, "2 p"]]:
    """Pairs that are not of one video. Each hash is compared with each: 100,000 photographs take about 20 s."""
    video_of = np.full(len(looks.hashes), len(videos))
    for number, video in enumerate(videos):
        video_of[video.images] = number
    at = np.flatnonzero(looks.readable)
    at = at[np.argsort(video_of[at], kind="stable")]  # those of no video come last
    own, hashes = video_of[at], looks.hashes[at]
    after = np.where(own < len(videos), np.searchsorted(own, own, side="right"), np.arange(len(at)) + 1)
    most = max(MOST, FEW // max(1, len(at)))
    for start in range(0, len(at), ROWS):
        rows, low = slice(start, start + ROWS), after[start]
        differing = np.bitwise_count(hashes[rows, None] ^ hashes[None, low:])
        close = (differing <= NEAR_BITS) & (np.arange(low, len(at)) >= after[rows, None])
        for row in np.flatnonzero(close.sum(axis=1) > most):
            ranked = np.argsort(np.where(close[row], differing[row], 64), kind="stable")
            close[row, ranked[most:]] = False
        first, second = np.nonzero(close)
        yield np.stack([at[start + first], at[low + second]])


def _judged(pictures: np.ndarray, masks: np.ndarray, pairs: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The pairs that are near-duplicates, and their likeness: the correlation where either has an object."""
    first, second = pairs
    where = np.unpackbits(masks[first] | masks[second], axis=1).astype(np.float32)
    a, b = (pictures[side].reshape(len(side), -1).astype(np.float32) for side in pairs)
    count = where.sum(axis=1)
    mean_a, mean_b = ((values * where).sum(axis=1) / count for values in (a, b))
    a, b = (a - mean_a[:, None]) * where, (b - mean_b[:, None]) * where
    spread_a, spread_b = (np.sqrt((values**2).sum(axis=1) / count) for values in (a, b))
    likeness = (a * b).sum(axis=1) / count / np.maximum(spread_a * spread_b, 1e-6)
    flat = np.minimum(spread_a, spread_b) < FLAT
    same = np.sqrt(((a - b) ** 2).sum(axis=1) / count) < FLAT
    likeness = np.clip(np.where(flat, np.where(same, 1.0, 0.0), likeness), 0.0, 1.0)
    alike = likeness >= ALIKE
    return first[alike], second[alike], likeness[alike].astype(np.float64)


def _object_masks(looks: Looks, instances: Instances) -> UInt8[np.ndarray, "m 512"]:
    """Where each image has an annotated object, a bit for each pixel of its small picture; all of it if nowhere."""
    sizes = looks.sizes[instances.image_index].clip(1)
    scaled = instances.boxes * np.tile(SIDE / sizes, 2)
    low = np.floor(scaled[:, :2]).clip(0, SIDE).astype(int)
    high = np.ceil(scaled[:, :2] + scaled[:, 2:]).clip(0, SIDE).astype(int)
    masks = np.full((len(looks.hashes), SIDE * SIDE // 8), 255, dtype=np.uint8)
    by_image = np.argsort(instances.image_index, kind="stable")
    used, starts = np.unique(instances.image_index[by_image], return_index=True)
    for image, rows in zip(used, np.split(by_image, starts[1:]), strict=True):
        mask = np.zeros((SIDE, SIDE), dtype=bool)
        for row in rows:
            mask[low[row, 1] : high[row, 1], low[row, 0] : high[row, 0]] = True
        if mask.any():
            masks[image] = np.packbits(mask)
    return masks


# --------------------------------------------------------------------------------------------------------- the videos


@dataclass(frozen=True)
class Video:
    """Images that are frames of one video, in the order of their numbers."""

    name: str
    images: Int[np.ndarray, "f"]  # positions
    numbers: Int[np.ndarray, "f"]  # of the frames, as their names say

    @property
    def step(self) -> int:
        """How far apart neighbouring frames are, by number, as a rule."""
        return int(np.sort(np.diff(self.numbers))[(len(self.numbers) - 1) // 2]) if len(self.numbers) > 1 else 1


def find_videos(files: Sequence[Path], looks: Looks) -> list[Video]:
    """The runs of numbered files (name_0001.png) in one folder of which neighbours mostly look alike.

    Photographs are numbered too, but their neighbours have nothing in common."""
    runs = defaultdict(list)
    for position in np.flatnonzero(looks.readable).tolist():
        name = _NUMBERED.match(files[position].stem)
        if name:
            runs[files[position].parent, name[1], name[3]].append(position)
    videos = [in_order(f"{folder.name}/{a}*{b}", files, images) for (folder, a, b), images in sorted(runs.items())]
    return [video for video in videos if len(video.images) >= LEAST_FRAMES and _is_one(looks.hashes[video.images])]


def in_order(name: str, files: Sequence[Path], images: Sequence[int]) -> Video:
    """The images at these positions as one video, by the last number in their names; those without one by name."""
    parts = {i: _NUMBERED.match(files[i].stem) for i in images}
    order = sorted(images, key=lambda i: (str(files[i].parent), _number(parts[i]), files[i].name))
    numbers = [_number(parts[i]) for i in order]
    if len(set(numbers)) < len(numbers) or -1 in numbers:
        numbers = list(range(len(order)))
    return Video(name, np.array(order, dtype=np.int64), np.array(numbers, dtype=np.int64))


def neighbours(video: Video, first: Bool[np.ndarray, "m"], second: Bool[np.ndarray, "m"], reach: int) -> np.ndarray:
    """Pairs (a, b) of frames, a from the images of the mask `first` and b of `second`, that are at most `reach` apart
    by number; of each b its nearest such a."""
    a, b = (np.flatnonzero(side[video.images]) for side in (first, second))
    if not len(a) or not len(b):
        return np.zeros((0, 2), dtype=np.int64)
    at = np.searchsorted(video.numbers[a], video.numbers[b])
    beside = np.stack([a[(at - 1).clip(0)], a[at.clip(None, len(a) - 1)]])
    apart = np.abs(video.numbers[beside] - video.numbers[b])
    nearest = apart.argmin(axis=0)
    close = apart.min(axis=0) <= reach
    return np.stack([video.images[beside[nearest, np.arange(len(b))]], video.images[b]], axis=1)[close]


def _number(name: re.Match[str] | None) -> int:
    return int(name[2]) if name else -1


def _is_one(hashes: UInt64[np.ndarray, "f"]) -> bool:
    return bool(np.median(np.bitwise_count(hashes[1:] ^ hashes[:-1])) <= NEAR_BITS)
