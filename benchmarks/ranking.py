"""Time to rank 50 trials with 1,000 resamples, for validation sets of several sizes.

python -m posesweep.benchmarks.ranking
"""

from functools import partial

import numpy as np
from rich.console import Console
from rich.table import Table

from posesweep.analysis.keypoint_ap import Detections, match
from posesweep.analysis.ranking import Bootstrap, TrialEvidence, rank
from posesweep.benchmarks.evaluation import SIGMAS, Scene, cpu_seconds, random_scene

TRIALS = 50


def equal_trials(images: int) -> list[TrialEvidence]:
    """Trials that are equally good, on the same images: each has errors and scores of its own."""
    truth, found = random_scene(Scene(images, 1, 1), seed=0)
    trials = []
    for trial in range(TRIALS):
        rng = np.random.default_rng(trial)
        points = found.keypoints + rng.normal(0, 3, found.keypoints.shape)
        detections = Detections(found.image_ids, found.category_ids, points, rng.random(images))
        trials.append(TrialEvidence(trial, match(truth, detections, SIGMAS)))
    return trials


def main() -> None:
    """Print the table."""
    table = Table("images", "trials", "resamples", "processor seconds")
    for images in (100, 500):
        trials = equal_trials(images)
        seconds = min(cpu_seconds(partial(rank, trials)) for _ in range(2))
        table.add_row(*map(str, (images, TRIALS, Bootstrap().resamples, round(seconds, 2))))
    Console().print(table)


if __name__ == "__main__":
    main()
