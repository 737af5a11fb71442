"""How many synthetic pictures a second one core draws, labels and writes as JPEG.

OMP_NUM_THREADS=1 python benchmarks/synthetic.py [pictures]
"""

import sys
import tempfile
import time
from pathlib import Path

import cv2

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a checkout, not installed

from posesweep.datasets.synthetic import render_horse, write_synthetic


def main() -> None:
    cv2.setNumThreads(1)
    n = int(sys.argv[1]) if len(sys.argv) > 1 else 500
    render_horse(0, 0)  # imports and first-call costs
    for size in ((320, 240), (640, 480)):
        with tempfile.TemporaryDirectory() as folder:
            wall, own = time.perf_counter(), time.process_time()
            write_synthetic(Path(folder) / "horses", n, seed=0, size=size)
            wall, own = time.perf_counter() - wall, time.process_time() - own
        print(f"{size[0]} x {size[1]}: {n / wall:.0f} images/s of wall time, {n / own:.0f} images/s of CPU time")


if __name__ == "__main__":
    main()
