"""The densities behind label errors, by hand."""

import numpy as np
import pytest

from posesweep.analysis.label_odds import (
    BOUND,
    FLOOR,
    Consensus,
    Labels,
    _about,
    _alone,
    _confused,
    _logistic_fit,
    _looks_labelled,
    _robust_fit,
)


def labels_of(points: np.ndarray, visibility: np.ndarray | None = None) -> Labels:
    """In boxes whose longer side is 100 pixels."""
    n, K = points.shape[:2]
    seen = np.full((n, K), 2) if visibility is None else visibility
    return Labels(points.astype(float), seen.astype(np.int64), np.tile([0.0, 0.0, 100.0, 50.0], (n, 1)))


def consensus_at(points: np.ndarray, confidence: np.ndarray | None = None) -> Consensus:
    """One trial."""
    n, K = points.shape[:2]
    scores = np.full((1, n, K), 0.5) if confidence is None else confidence[None]
    return Consensus.of(points[None].astype(float), scores, np.full((n, 1), 100.0))


def test_the_consensus_of_three_trials():
    points = np.array([[[[0.0, 0.0]]], [[[3.0, 4.0]]], [[[0.0, 0.0]]]])
    consensus = Consensus.of(points, np.array([[[0.2]], [[0.5]], [[0.8]]]), np.array([[100.0]]))
    assert consensus.middle.tolist() == [[[0.0, 0.0]]]
    assert consensus.spread == pytest.approx(0.05 / 3)
    assert consensus.confidence == pytest.approx(0.5)


def test_the_density_of_a_label_at_the_expected_distance():
    """At the centre a t distribution with 4 degrees of freedom and scale s has the density 0.375 / s; a ring of radius
    d turns it into 0.375 / (s 2 pi d^2) for each unit of area."""
    labels = labels_of(np.zeros((1, 1, 2)))
    d = 0.1 + FLOOR
    density = _about(labels, np.array([[[[10.0, 0.0]]]]), np.array([[np.log(d)]]), 0.5)
    assert np.exp(density[0, 0]) == pytest.approx(0.375 / (0.5 * 2 * np.pi * d**2))
    two = _about(labels, np.array([[[[10.0, 0.0]]], [[[0.0, 10.0]]]]), np.array([[np.log(d)]]), 0.5)
    assert two == pytest.approx(density)  # the mean of two equal densities


def test_a_density_is_one_in_all():
    """Summed over a fine grid of labels around a prediction."""
    step = 0.004
    xs = np.arange(-3, 3, step)
    grid = np.stack(np.meshgrid(xs, xs), axis=-1).reshape(-1, 1, 2) * 100
    density = _about(labels_of(grid), np.zeros((1, len(grid), 1, 2)), np.full((len(grid), 1), np.log(0.2)), 0.4)
    assert np.exp(density).sum() * step**2 == pytest.approx(1, abs=0.02)  # some of it lies further out


def test_how_often_left_is_taken_for_right():
    """Three objects: one confused, one not, one whose labels lie on each other, where nobody can tell."""
    left, right = [0.0, 0.0], [40.0, 0.0]
    points = np.array([[left, right], [left, right], [left, [5.0, 0.0]]])
    seen = np.array([[right, left], [left, right], [[5.0, 0.0], left]])
    share = _confused(labels_of(points), consensus_at(seen), np.array([1, 0]))
    assert share == pytest.approx([(2 + 1) / (4 + 10)] * 2)  # of four places two, drawn towards a tenth


def test_the_robust_fit_does_not_follow_outliers():
    x = np.linspace(0, 1, 60)
    target = 2 * x + 1
    target[::10] += 50
    weights = _robust_fit(np.column_stack([np.ones(60), x]), target)
    assert weights == pytest.approx([1, 2], abs=0.05)


def test_the_logistic_fit_finds_what_made_the_answers():
    rng = np.random.default_rng(0)
    x = np.column_stack([np.ones(20_000), rng.normal(size=20_000)])
    offset = rng.normal(size=20_000)
    chance = 1 / (1 + np.exp(-(x @ [0.5, -1.5] + offset)))
    weights = _logistic_fit(x, (rng.random(20_000) < chance).astype(float), offset)
    assert weights == pytest.approx([0.5, -1.5], abs=0.08)


def test_where_nothing_was_ever_left_out_everything_looks_labelled():
    points = np.zeros((40, 3, 2))
    odds = _looks_labelled(labels_of(points), consensus_at(points), np.full((40, 3), np.nan))
    assert (odds == BOUND).all()


def test_what_trials_are_sure_of_looks_labelled():
    rng = np.random.default_rng(1)
    visibility = np.where(rng.random((200, 2)) < 0.3, 0, 2)
    confidence = np.clip(np.where(visibility > 0, 0.8, 0.2) + rng.normal(0, 0.05, visibility.shape), 0, 1)
    points = np.zeros((200, 2, 2))
    odds = _looks_labelled(labels_of(points, visibility), consensus_at(points, confidence), np.full((200, 2), np.nan))
    assert odds[visibility > 0].min() > 0 > odds[visibility == 0].max()


def test_several_suspects_in_one_object_take_from_each_other():
    odds = _alone(np.array([[1.0, 0.0, -2.0, -9.0], [1.0, -9.0, -9.0, -np.inf]]))
    assert odds[0] == pytest.approx([1 - np.log(3), -np.log(3), -2 - np.log(3), -9 - np.log(4)])
    assert odds[1, 0] == 1
