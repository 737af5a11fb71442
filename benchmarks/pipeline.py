"""Augmented samples per second: from the crop store (warm page cache) against decoding the image each time.

Both go through the same `TopDownSamples`: the same draws, one warp, the same colour, blur, noise and dropout. Decoding
reads the file and warps straight from the whole image, so only where the pixels come from differs. Repetitions of the
two alternate and the ratio is the median over pairs. The first line counts CPU time, because the machine may be busy
with something else; with loading threads it is wall time.

    python -m posesweep.benchmarks.pipeline [--images 192] [--repeats 9] [--preset medium]
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from posesweep.datasets.augment import margin_for, preset
from posesweep.datasets.crops import Crops, CropSpec, open_crops, read_image
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


QUALITY = 96


def photograph(rng: np.random.Generator) -> np.ndarray:
    """Noise with a photograph's spectrum (more of it in large shapes), 640x480, about 150 KB as a JPEG of quality 96.

    So have real ones: COCO train2017 is 18 GB for 118,287 images of mostly that size, the samples at hand 150-205 KB.
    """
    width, height = IMAGE_SIZE
    image = np.full((height, width, 3), 128, np.float32)
    for shape_px, contrast in ((160, 40), (64, 30), (16, 16), (4, 11), (2, 9)):
        coarse = rng.normal(0, contrast, (height // shape_px + 2, width // shape_px + 2, 3)).astype(np.float32)
        image += cv2.resize(coarse, IMAGE_SIZE, interpolation=cv2.INTER_CUBIC)
    return np.clip(image, 0, 255).astype(np.uint8)


def make_instances(folder: Path, n: int) -> Instances:
    """n JPEGs in `folder` with one object each: a quarter to a half of the image's height, somewhere inside."""
    rng = np.random.default_rng(0)
    files = tuple(folder / f"{i:05d}.jpg" for i in range(n))
    for file in files:
        cv2.imwrite(str(file), photograph(rng), [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
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
    """Per sample, over one epoch of batches. `threads` 0: CPU time of making them in this thread; else wall time."""
    order = training_order(len(samples), epoch, 0, BATCH, 0, 1)
    clock = time.perf_counter if threads else time.thread_time
    made: Iterator[dict[str, np.ndarray]]
    made = (samples.batch(positions, epoch) for positions in order)
    if threads:
        made = batches(samples, order, epoch, threads)
    begin = clock()
    count = sum(len(batch["id"]) for batch in made)
    return (clock() - begin) / count


def measure(store: TopDownSamples, decoding: TopDownSamples, repeats: int, threads: int) -> str:
    """Samples a second of both and their ratio, in words."""
    seconds(store, 0, threads)  # page cache warm, memory allocated
    epochs = range(1, repeats + 1)
    pairs = [(seconds(store, epoch, threads), seconds(decoding, epoch, threads)) for epoch in epochs]
    ours, theirs = (1 / statistics.median(times) for times in zip(*pairs, strict=True))
    ratios = sorted(slow / fast for fast, slow in pairs)
    spread = f"{ratios[0]:.1f}-{ratios[-1]:.1f}"
    return f"crop store {ours:7,.0f}/s   decoding {theirs:6,.0f}/s   ratio {statistics.median(ratios):.1f}x ({spread})"


def build(instances: Instances, spec: CropSpec, cache: Path) -> Crops:
    """Build the store, saying what it takes."""
    begin = time.perf_counter()
    crops = open_crops(instances, spec, cache, threads=1)
    built_s = time.perf_counter() - begin
    n = len(instances)
    file_kb = statistics.mean(file.stat().st_size for file in instances.image_files) / 1000
    width, height = spec.stored_size
    print(f"{n} JPEGs of 640x480, {file_kb:.0f} KB each; input {spec.width}x{spec.height}")
    print(
        f"store: crops of {width}x{height}, {crops.images.nbytes / n * 1e4 / 1e9:.2f} GB per 10,000, "
        f"built in {built_s / n * 1e3:.1f} ms a sample by one thread"
    )
    return crops


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--images", type=int, default=192)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--preset", default="medium")
    options = parser.parse_args()
    augmentation = preset(options.preset)
    spec = CropSpec(*INPUT_SIZE, *margin_for(augmentation, INPUT_SIZE))
    with tempfile.TemporaryDirectory() as folder:
        instances = make_instances(Path(folder), options.images)
        crops = build(instances, spec, Path(folder) / "cache")
        store = TopDownSamples(crops, instances, INPUT_SIZE, augmentation)
        decoding = TopDownSamples(Decoded(instances.image_files), instances, INPUT_SIZE, augmentation)
        for threads, words in ((0, "in this thread"), (1, "1 loading thread"), (2, "2 loading threads")):
            print(f"{words:18s} {measure(store, decoding, options.repeats, threads)}")


if __name__ == "__main__":
    main()
