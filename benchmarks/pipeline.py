"""Augmented samples per second: from the crop store (warm page cache) against decoding the image each time.

Both go through the same `TopDownSamples`: the same draws, one warp, the same colour, blur, noise and dropout. Decoding
reads the file and warps straight from the whole image, so only where the pixels come from differs. Repetitions of the
two alternate, and the ratio is the median over pairs: the machine may be busy.

    python -m posesweep.benchmarks.pipeline [--images 200] [--repeats 9] [--preset medium]
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from posesweep.datasets.augment import margin_for, preset
from posesweep.datasets.crops import CropSpec, open_crops, read_image
from posesweep.datasets.instances import Instances
from posesweep.datasets.loading import batches, training_order
from posesweep.datasets.skeleton import Skeleton
from posesweep.datasets.topdown import TopDownSamples

IMAGE_SIZE, INPUT_SIZE, BATCH, POINTS = (640, 480), (192, 256), 32, 17


class Decoded:
    """The images themselves as `topdown.Pictures`: indexing decodes the file."""

    def __init__(self, files: tuple[Path, ...]) -> None:
        self.files = files
        self.images = self
        self.usable = np.ones(len(files), dtype=bool)
        self.from_image = np.tile(np.eye(2, 3), (len(files), 1, 1))

    def __getitem__(self, row: int, /) -> np.ndarray:
        return read_image(self.files[row])


def photograph(rng: np.random.Generator) -> np.ndarray:
    """Noise with a photograph's spectrum (more of it in large shapes), 640x480: about 80 KB as a JPEG of quality 90."""
    width, height = IMAGE_SIZE
    image = np.full((height, width, 3), 128, np.float32)
    for shape_px, contrast in ((160, 40), (64, 30), (16, 16), (4, 9), (2, 6)):
        coarse = rng.normal(0, contrast, (height // shape_px + 2, width // shape_px + 2, 3)).astype(np.float32)
        image += cv2.resize(coarse, IMAGE_SIZE, interpolation=cv2.INTER_CUBIC)
    return np.clip(image, 0, 255).astype(np.uint8)


def make_instances(folder: Path, n: int) -> Instances:
    """n JPEGs in `folder` with one object each: a quarter to a half of the image's height, somewhere inside."""
    rng = np.random.default_rng(0)
    files = tuple(folder / f"{i:05d}.jpg" for i in range(n))
    for file in files:
        cv2.imwrite(str(file), photograph(rng), [cv2.IMWRITE_JPEG_QUALITY, 90])
    sizes = np.stack([rng.uniform(120, 300, n), rng.uniform(160, 400, n)], axis=1)
    corners = rng.random((n, 2)) * (np.array(IMAGE_SIZE) - sizes)
    names = tuple(f"point{i}" for i in range(POINTS))
    return Instances(
        skeleton=Skeleton("bench", names, (), (), np.full(POINTS, 0.05)),
        image_files=files,
        image_ids=np.arange(n),
        image_groups=("",) * n,
        image_index=np.arange(n),
        ids=np.arange(n),
        category_ids=np.ones(n, dtype=np.int64),
        boxes=np.concatenate([corners, sizes], axis=1),
        keypoints=corners[:, None] + rng.random((n, POINTS, 2)) * sizes[:, None],
        visibility=np.full((n, POINTS), 2, np.uint8),
        areas=sizes.prod(axis=1) / 2,
        crowd=np.zeros(n, dtype=bool),
    )


def seconds(samples: TopDownSamples, epoch: int, threads: int) -> float:
    """One epoch of batches; `threads` 0 makes them in this thread."""
    order = training_order(len(samples), epoch, 0, BATCH, 0, 1)
    made: Iterator[dict[str, np.ndarray]]
    made = (samples.batch(positions, epoch) for positions in order)
    if threads:
        made = batches(samples, order, epoch, threads)
    begin = time.perf_counter()
    count = sum(len(batch["id"]) for batch in made)
    return (time.perf_counter() - begin) / count


@dataclass(frozen=True)
class Rates:
    """Samples a second, one entry for each repetition; the two were measured one after the other."""

    store: list[float]
    decoding: list[float]

    @property
    def line(self) -> str:
        ratio = statistics.median(s / d for s, d in zip(self.store, self.decoding, strict=True))
        store, decoding = statistics.median(self.store), statistics.median(self.decoding)
        return f"crop store {store:7,.0f}/s   decoding {decoding:6,.0f}/s   ratio {ratio:.1f}x"


def measure(store: TopDownSamples, decoding: TopDownSamples, repeats: int, threads: int) -> Rates:
    seconds(store, 0, threads)  # page cache warm, memory allocated
    rates = Rates([], [])
    for epoch in range(1, repeats + 1):
        rates.store.append(1 / seconds(store, epoch, threads))
        rates.decoding.append(1 / seconds(decoding, epoch, threads))
    return rates


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=192)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--preset", default="medium")
    options = parser.parse_args()
    augmentation = preset(options.preset)
    spec = CropSpec(*INPUT_SIZE, *margin_for(augmentation, INPUT_SIZE))
    with tempfile.TemporaryDirectory() as folder:
        instances = make_instances(Path(folder), options.images)
        begin = time.perf_counter()
        crops = open_crops(instances, spec, Path(folder) / "cache", threads=1)
        built_s = time.perf_counter() - begin
        file_kb = statistics.mean(file.stat().st_size for file in instances.image_files) / 1000
        width, height = spec.stored_size
        print(f"{options.images} JPEGs of 640x480, {file_kb:.0f} KB each; input 192x256, preset {options.preset}")
        print(f"store: crops of {width}x{height}, {crops.images.nbytes / len(instances) * 1e4 / 1e9:.2f} GB per 10,000, ", end="")
        print(f"built in {built_s / len(instances) * 1e3:.1f} ms a sample, one thread")
        both = [TopDownSamples(p, instances, INPUT_SIZE, augmentation) for p in (crops, Decoded(instances.image_files))]
        for threads, words in ((0, "in this thread "), (1, "1 loading thread "), (2, "2 loading threads")):
            print(f"{words:18s} {measure(*both, options.repeats, threads).line}")


if __name__ == "__main__":
    main()
