"""Seconds to rank 50 trials with 1,000 resamples, for validation sets of several sizes.

    python -m posesweep.benchmarks.ranking
"""

import numpy as np
from rich.console import Console
from rich.table import Table

from posesweep.analysis.keypoint_ap import Detections, match
from posesweep.analysis.ranking import TrialEvidence, rank
from posesweep.benchmarks.evaluation import SIGMAS, Scene, best_time, random_scene

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
    table = Table("images", "trials", "resamples", "seconds", "tied with the best")
    for images in (100, 500):
        trials = equal_trials(images)
        results = []
        seconds = best_time(lambda trials=trials, results=results: results.append(rank(trials)), 2)  # type: ignore[misc]
        table.add_row(*map(str, (images, TRIALS, 1000, round(seconds, 2), len(results[0].tied))))
    Console().print(table)


if __name__ == "__main__":
    main()
