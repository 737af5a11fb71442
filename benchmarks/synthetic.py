"""How many synthetic pictures a second are drawn, labelled and written as JPEG, by one process and by one per CPU.

OMP_NUM_THREADS=1 python benchmarks/synthetic.py [pictures]

The CPU time is that of the process and its children, with their start; wall time varies with what else runs.
"""

import os
import sys
import tempfile
import time
from pathlib import Path
from unittest.mock import patch

import cv2

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a checkout, not installed

from posesweep.datasets import synthetic


def main() -> None:
    cv2.setNumThreads(1)
    n = int(sys.argv[1]) if len(sys.argv) > 1 else 500
    synthetic.render_horse(0, 0)  # imports and first-call costs
    for size in ((320, 240), (640, 480)):
        for workers in sorted({1, len(os.sched_getaffinity(0))}):
            measure(n, size, workers)


def measure(n: int, size: tuple[int, int], workers: int) -> None:
    with tempfile.TemporaryDirectory() as folder, patch.object(synthetic, "_workers", lambda _n: workers):
        wall, own = time.perf_counter(), cpu_time_s()
        synthetic.write_synthetic(Path(folder) / "horses", n, seed=0, size=size)
        wall, own = time.perf_counter() - wall, cpu_time_s() - own
    by = f"{size[0]} x {size[1]}, {workers} process" + "es" * (workers > 1)
    print(f"{by}: {n / wall:.0f} images/s of wall time, {n / own:.0f} images/s of CPU time")


def cpu_time_s() -> float:
    """Of this process and of its children that have ended."""
    return sum(os.times()[:4])


if __name__ == "__main__":
    main()
