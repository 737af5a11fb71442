"""The simulation itself: what it makes is what a trial would have written, and its truth is the truth."""

import numpy as np
import pytest

from posesweep.analysis.keypoint_ap import Detections, Truth, keypoint_ap, match
from posesweep.benchmarks import trust


@pytest.fixture(autouse=True)
def small_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trust, "MANY", 20_000)
    trust._ap_table.cache_clear()


def test_its_matches_are_those_of_real_predictions() -> None:
    rng = np.random.default_rng(0)
    images = 40
    log_error, sureness = rng.normal(-0.5, 0.6, images), rng.normal(0, 0.3, images)
    area, sigma = 200.0**2, 0.1
    truth = Truth(
        image_ids=np.arange(images),
        category_ids=np.zeros(images, int),
        keypoints=np.zeros((images, 1, 2)),
        visibility=np.full((images, 1), 2, np.uint8),
        areas=np.full(images, area),
        boxes=np.tile([0.0, 0.0, 200.0, 200.0], (images, 1)),
        crowd=np.zeros(images, bool),
        ids=np.arange(1, images + 1),
    )
    # OKS is exp(-d^2 / (2 area (2 sigma)^2)): an error of 1 is this many pixels
    away = np.exp(log_error) * np.sqrt(area) * 2 * sigma
    points = np.stack([away, np.zeros(images)], axis=1)[:, None]
    found = match(
        truth, Detections(truth.image_ids, truth.category_ids, points, sureness - log_error), np.array([sigma])
    )
    assert keypoint_ap(trust.matches(log_error, sureness))["AP"] == pytest.approx(keypoint_ap(found)["AP"])


def test_the_truth_is_the_mean_over_many_sets_and_seeds() -> None:
    world = trust.World(images=1000, seed_sd=0.03)
    nature = trust.Nature(world, np.random.default_rng(0))
    found = []
    for config in range(60):
        nature.difficulty = nature._field(trust.DIFFICULTY)
        found.append(keypoint_ap(nature.run(config, 0.2)[0])["AP"])
    assert np.mean(found) == pytest.approx(trust.expected_ap(0.2, nature.seed_sd(0)), abs=4 * np.std(found) / 60**0.5)


def test_a_simulated_sweep_is_a_sweep() -> None:
    results, trials, landscape, _ = trust.simulate(trust.World(effect=0.06, trials=12, method="random"), seed=0)
    assert len(trials) == 12
    assert results.trials["state"].isin(["finished", "pruned"]).all()
    assert results.trials["state"].iloc[0] == "finished"  # the baseline is never stopped
    assert set(landscape.size) == set(results.params)
    assert results.curves["epoch"].isin(trust.RUNGS).all()


def test_wilson_by_hand() -> None:
    assert trust.wilson(95, 100) == pytest.approx((0.8882, 0.9785), abs=2e-4)
    assert trust.wilson(10, 10)[1] == pytest.approx(1)


def test_a_goal_is_met_missed_or_within_chance() -> None:
    question = "sweep: AP interval, each network"
    assert trust.row_of(question, [True] * 96 + [False] * 4)[-1] == "yes"
    assert trust.row_of(question, [True] * 94 + [False] * 6)[-1] == "within chance"
    assert trust.row_of(question, [True] * 80 + [False] * 20)[-1] == "NO"
    at_most = f"  {trust.CLAIMED} (equal configs)"
    assert trust.row_of(at_most, [False] * 99 + [True])[-1] == "yes"
    assert trust.row_of(at_most, [True] * 20 + [False] * 80)[-1] == "NO"


@pytest.mark.slow
def test_every_question_is_answered() -> None:
    answers = trust.ask_about_gains(0) | trust.ask_about_ties(0) | trust.ask_about_importance(0)
    asked = set(trust.GOALS) - {f"  {trust.CLAIMED} (equal configs)"}
    late = {"sweep: it is, on fresh images", "confirm: the confirmed gain is true, on fresh images and seeds"}
    assert asked - late <= set(answers)
