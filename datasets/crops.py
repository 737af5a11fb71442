"""The crop store: every instance decoded and cropped once per node, memory-mapped, shared by all trials and workers.

A store is the folder `cache/crops-<key>/` of `images.npy` and `left_out.json`. The key is a hash of what went in
(crop sizes, boxes, image contents), so a store is never out of date, only unused.
"""

import fcntl
import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache, partial
from hashlib import blake2b
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8

from posesweep.datasets.instances import Instances
from posesweep.errors import DataError
from posesweep.files import write_json

# The one place this is set: a trial's threads are its loading threads, and OpenCV's own pool on top of them made two
# trials on two cores twelve times slower (see "Threads per trial" in the facts of the project).
cv2.setNumThreads(1)

BOX_PADDING = 1.25  # region = box x 1.25, as in mmpose and the HRNet paper
MOST_LEFT_OUT = 0.05  # share of images that may be unreadable before the data counts as misplaced
_LAYOUT = 1  # part of the key: raise it when the pixels of a store would come out differently
_WHOLE_FILE, _ENDS = 256 * 1024, 64 * 1024  # bytes hashed: all of a small file, both ends of a large one
_EXAMPLES = 5

Progress = Callable[[int, int], None]  # images done, images in all


@dataclass(frozen=True)
class CropSpec:
    """Network input `width` x `height` in pixels, and how much wider and higher than it a stored crop is (>= 1)."""

    width: int
    height: int
    margin_width: float = 1.0
    margin_height: float = 1.0

    @property
    def stored_size(self) -> tuple[int, int]:
        """Width and height of a stored crop in pixels; the margin is a whole number of pixels on every side."""
        return _with_margin(self.width, self.margin_width), _with_margin(self.height, self.margin_height)


def _with_margin(pixels: int, margin: float) -> int:
    return pixels + 2 * round(pixels * (margin - 1) / 2)


@dataclass(frozen=True)
class Crops:
    """An open store. `images` is read only and shared: row i is the crop of instance i, RGB."""

    images: UInt8[np.ndarray, "n h w 3"]
    from_image: Float[np.ndarray, "n 2 3"]  # affine: image pixels -> stored crop pixels
    usable: Bool[np.ndarray, "n"]  # False: the image is missing or corrupt, the row is empty
    left_out: list[str]  # one line per such image: its path and what is wrong


def regions(
    boxes: Float[np.ndarray, "n 4"], imgsz: tuple[int, int]
) -> tuple[Float[np.ndarray, "n 2"], Float[np.ndarray, "n 2"]]:
    """Centre and size, in image pixels, of what the network sees of each box: padded, enlarged to the input's aspect.

    The formula is mmpose's GetBBoxCenterScale and TopdownAffine: box centre, size x 1.25, the short side enlarged.
    """
    width, height = imgsz
    centres = boxes[:, :2] + boxes[:, 2:] / 2
    padded = boxes[:, 2:] * BOX_PADDING
    wide = np.maximum(padded[:, 0], padded[:, 1] * width / height)
    return centres, np.stack([wide, wide * height / width], axis=1)


def image_to_crop(boxes: Float[np.ndarray, "n 4"], spec: CropSpec) -> Float[np.ndarray, "n 2 3"]:
    """Affines from image pixels to stored crop pixels; both middles coincide, sizes minus one as in UDP."""
    size = np.array([spec.width, spec.height])
    centres, spans = regions(boxes, (spec.width, spec.height))
    density = (size - 1) / spans  # crop pixels per image pixel
    middle = (np.array(spec.stored_size) - 1) / 2
    affines = np.zeros((len(boxes), 2, 3))
    affines[:, [0, 1], [0, 1]] = density
    affines[:, :, 2] = middle - density * centres
    return affines


def cut(image: UInt8[np.ndarray, "H W 3"], affine: Float[np.ndarray, "2 3"], out: UInt8[np.ndarray, "h w 3"]) -> None:
    """Fill `out` with the part of `image` that `affine` (image -> crop, no rotation) names; black outside the image.

    Bilinear. A region more than twice as large as its crop is first averaged over blocks of 2, 4, 8 ... pixels
    (INTER_AREA), or bilinear sampling would skip pixels and alias.
    """
    blocks = 2 ** int(np.log2(max(1.0, 1 / affine.diagonal().min())))
    if blocks > 1:
        image, affine = _averaged(image, affine, out.shape[1::-1], blocks)
    height, width = out.shape[:2]
    cv2.warpAffine(image, affine, (width, height), dst=out, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)


def _averaged(
    image: np.ndarray, affine: np.ndarray, crop_size: tuple[int, ...], blocks: int
) -> tuple[np.ndarray, np.ndarray]:
    """The part of `image` below the crop, shrunk by the whole factor `blocks`, and the affine from there."""
    scale, offset = affine.diagonal(), affine[:, 2]
    size = np.array(image.shape[1::-1])
    first = np.clip(np.floor(-offset / scale).astype(int) - blocks, 0, size - 1)
    last = np.clip(np.ceil((np.array(crop_size) - offset) / scale).astype(int) + blocks, first + 1, size)
    part = image[first[1] : last[1], first[0] : last[0]]
    right, bottom = -(last - first) % blocks  # the last block is filled up with the edge's own pixels
    part = cv2.copyMakeBorder(part, 0, int(bottom), 0, int(right), cv2.BORDER_REPLICATE)
    small = cv2.resize(part, (part.shape[1] // blocks, part.shape[0] // blocks), interpolation=cv2.INTER_AREA)
    moved = affine.copy()
    moved[:, :2] *= blocks
    moved[:, 2] += scale * (first + (blocks - 1) / 2)
    return small, moved


def read_image(path: Path) -> UInt8[np.ndarray, "H W 3"]:
    """Decode to 8-bit RGB: grey is repeated, alpha dropped, 16 bits scaled, EXIF orientation applied.

    Raises DataError for a missing, empty, truncated or undecodable file; its text is the reason in a few words.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise DataError("missing") from None
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror}") from error
    if not data:
        raise DataError("empty file")
    if _cut_short(data):
        raise DataError("truncated")
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
    except cv2.error as error:  # for example more pixels than OpenCV allows
        raise DataError(f"cannot be decoded: {error.err}") from error
    if image is None:
        raise DataError("not an image OpenCV can decode")
    return image


def _cut_short(data: bytes) -> bool:
    """A JPEG without its end marker: some versions of OpenCV decode one without an error and fill up with grey."""
    if not data.startswith(b"\xff\xd8"):
        return False
    at = 2
    while data[at : at + 1] == b"\xff" and data[at + 1 : at + 2] != b"\xda":  # header segments; EXIF may hold a JPEG
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return data.find(b"\xff\xd9", at) < 0


def open_crops(
    instances: Instances, spec: CropSpec, cache: Path, progress: Progress | None = None, threads: int | None = None
) -> Crops:
    """Open the store of these crops below `cache`, building it first if it is not there.

    One process builds, others wait for it; a builder that dies leaves no store and the next one builds. `threads`
    decode while building (None: as many as the CPUs this process may use).

    Raises DataError when more than 5 % of the images cannot be read, a box is empty, or the disk is full.
    """
    _check(instances)
    folder = cache / f"crops-{content_key(instances, spec)}"
    if not folder.is_dir():
        cache.mkdir(parents=True, exist_ok=True)
        with _locked(folder.with_suffix(".lock")):
            if not folder.is_dir():  # else another process built it while this one waited
                _build(instances, spec, folder, _Work(progress, threads or len(os.sched_getaffinity(0))))
    return _open(instances, spec, folder)


def _check(instances: Instances) -> None:
    if not len(instances):
        raise DataError("no annotated object is left to crop; look at data.train, data.categories and the split")
    good = np.isfinite(instances.boxes).all(axis=1) & (instances.boxes[:, 2:] > 0).all(axis=1)
    if not good.all():
        row = int(np.flatnonzero(~good)[0])
        raise DataError(
            f"annotation {instances.ids[row]} of {instances.image_files[instances.image_index[row]]}: "
            f"box {instances.boxes[row].tolist()} must have a width and a height above 0 ({(~good).sum()} such in all)"
        )


def content_key(instances: Instances, spec: CropSpec) -> str:
    """Hash of everything the pixels of a store depend on. Paths do not count: a moved data set keeps its store."""
    used, image_of_row = np.unique(instances.image_index, return_inverse=True)
    key = blake2b(repr((_LAYOUT, spec)).encode(), digest_size=12)
    for position in used:
        key.update(_fingerprint_now(instances.image_files[position]))
    key.update(image_of_row.astype("<i8").tobytes())
    key.update(instances.boxes.astype("<f8").tobytes())
    return key.hexdigest()


def _fingerprint_now(path: Path) -> bytes:
    try:
        status = path.stat()
        return _fingerprint(path, status.st_size, status.st_mtime_ns)
    except OSError:
        return b"unreadable".ljust(16)


@lru_cache(maxsize=1 << 18)  # a reused worker opens the same store for every trial; stat is all that is left then
def _fingerprint(path: Path, size: int, modified_ns: int) -> bytes:
    """Hash of a file's size and bytes (of its two ends when it is large). `modified_ns` only tells the cache."""
    with path.open("rb") as file:
        if size <= _WHOLE_FILE:
            data = file.read()
        else:
            data = file.read(_ENDS)
            file.seek(-_ENDS, os.SEEK_END)
            data += file.read()
    return blake2b(size.to_bytes(8, "little") + data, digest_size=16).digest()


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock; the kernel releases it when the holder dies, whatever kills it."""
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@dataclass(frozen=True)
class _Work:
    progress: Progress | None
    threads: int


def _build(instances: Instances, spec: CropSpec, folder: Path, work: _Work) -> None:
    """Write the store beside its place and rename it. Called with the lock held, so a leftover is a dead builder's."""
    unfinished = folder.with_suffix(".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir()
    try:
        reasons = _write_images(instances, spec, unfinished / "images.npy", work)
        _check_left_out(instances, reasons)
        rows = {str(row): reasons[i] for row, i in enumerate(instances.image_index.tolist()) if i in reasons}
        write_json(unfinished / "left_out.json", rows)
        unfinished.rename(folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _write_images(instances: Instances, spec: CropSpec, path: Path, work: _Work) -> dict[int, str]:
    """Crop every instance into `path`, each image decoded once. Position of every unreadable image -> the reason."""
    images = _empty_images(path, (len(instances), *spec.stored_size[::-1], 3))
    affines = image_to_crop(instances.boxes, spec)
    by_image = np.argsort(instances.image_index, kind="stable")
    used, starts = np.unique(instances.image_index[by_image], return_index=True)
    groups = np.split(by_image, starts[1:])
    reasons: dict[int, str] = {}
    cut_one = partial(_cut_image, affines=affines, images=np.asarray(images))
    paths = [instances.image_files[i] for i in used]
    pool = ThreadPoolExecutor(work.threads)
    try:
        outcomes = zip(used.tolist(), pool.map(cut_one, paths, groups), strict=True)
        for done, (position, reason) in enumerate(outcomes, start=1):
            if reason:
                reasons[position] = reason
            if work.progress:
                work.progress(done, len(used))
    finally:
        pool.shutdown(cancel_futures=True)  # Ctrl-C does not wait for the rest
    images.flush()
    return reasons


def _empty_images(path: Path, shape: tuple[int, ...]) -> np.memmap:
    """A new .npy file of zeros with its room on the disk reserved: a full disk is an error here, not a crash later."""
    images = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=shape)
    try:
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    except OSError as error:
        raise DataError(
            f"{path.parent.parent}: the crop store needs {images.nbytes / 1e9:.2f} GB there ({error.strerror}); "
            "free some room or move the cache"
        ) from error
    return images


def _cut_image(path: Path, rows: np.ndarray, affines: np.ndarray, images: np.ndarray) -> str:
    """Crop the instances `rows` of one image; what is wrong with the image, or ''."""
    try:
        image = read_image(path)
    except DataError as error:
        return str(error)
    for row in rows:
        cut(image, affines[row], images[row])
    return ""


def _check_left_out(instances: Instances, reasons: dict[int, str]) -> None:
    total = len(np.unique(instances.image_index))
    if len(reasons) <= MOST_LEFT_OUT * total:
        return
    paths = [instances.image_files[i] for i in reasons]
    folder = Counter(path.parent for path in paths).most_common(1)[0][0]
    examples = ", ".join(f"{instances.image_files[i].name} ({why})" for i, why in list(reasons.items())[:_EXAMPLES])
    raise DataError(
        f"{folder}: {len(reasons)} of {total} images cannot be used and at most {MOST_LEFT_OUT:.0%} may be left out: "
        f"{examples}{' ...' if len(reasons) > _EXAMPLES else ''}; is data.images the right folder?"
    )


def _open(instances: Instances, spec: CropSpec, folder: Path) -> Crops:
    reasons = {int(row): why for row, why in json.loads((folder / "left_out.json").read_text()).items()}
    usable = np.ones(len(instances), dtype=bool)
    usable[list(reasons)] = False
    files = [(instances.image_files[instances.image_index[row]], why) for row, why in reasons.items()]
    return Crops(
        images=np.asarray(np.load(folder / "images.npy", mmap_mode="r")),
        from_image=image_to_crop(instances.boxes, spec),
        usable=usable,
        left_out=list(dict.fromkeys(f"{path}: {why}" for path, why in files)),
    )
