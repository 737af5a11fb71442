"""When a training ends, from its record alone."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from posesweep.trainables.patience import end_of, validated, without_improvement
from posesweep.trainables.tasks import make_config


def config(**settings):
    return make_config({"data": {"train": "train.json"}, "model": "tiny", "epochs": 50, **settings})


def rows(*values, name="val/AP"):
    return [{"epoch": i + 1, "loss": 1.0, **({name: v} if v is not None else {})} for i, v in enumerate(values)]


def end(found, **settings):
    return end_of(config(**settings), len(found), found)


def test_a_training_ends_after_its_epochs():
    assert end(rows(0.1, 0.2), epochs=2) == "trained all 2 epochs"
    assert end(rows(*[0.5] * 50), patience=3) == "trained all 50 epochs"


def test_without_patience_nothing_else_ends_it():
    assert end(rows(*[0.5] * 49)) == ""


def test_counted_by_hand():
    """Medians of three."""
    values = [0.1, 0.3, 0.4, 0.2, 0.3, 0.2]
    # smoothed: .1, .1, .3, .3, .3, .2
    assert without_improvement(values[:3], 3, 0.0) == 0
    assert without_improvement(values, 3, 0.0) == 3
    assert without_improvement(values, 1, 0.0) == 3  # unsmoothed: since the .4 of the third
    assert without_improvement([], 3, 0.0) == 0


def test_one_lucky_epoch_does_not_count():
    rising = [0.1, 0.9, 0.2, 0.3, 0.4, 0.5]
    assert without_improvement(rising, 1, 0.0) == 4
    assert without_improvement(rising, 3, 0.0) == 0


def test_too_small_an_improvement_does_not_count():
    creeping = [0.5, 0.5005, 0.501, 0.5015, 0.502]
    assert without_improvement(creeping, 1, 0.001) == 1  # .5015 is the first above .501; .502 is not above .5025
    assert without_improvement(creeping, 1, 0.0) == 0
    assert without_improvement(creeping, 1, 0.01) == 4


def test_the_reason_in_words():
    stalled = rows(0.1, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5)
    assert end(stalled, patience=5) == ""
    assert end(stalled[:-1], patience=3, patience_smooth=1, min_delta=0.01) == (
        "stopped early after epoch 6: val/AP has not risen by more than 0.01 for 4 validations"
    )
    assert end(rows(0.1, 0.5, 0.5, 0.4, 0.4, 0.4), patience=3) == (
        "stopped early after epoch 6: val/AP (smoothed) has not risen for 3 validations"
    )


def test_a_metric_to_be_minimised():
    metric = {"name": "val/RMSE_px", "goal": "minimize"}
    falling = rows(5.0, 4.0, 3.0, 2.0, 1.0, name="val/RMSE_px")
    assert end(falling, patience=2, metric=metric) == ""
    rising = rows(1.0, 2.0, 3.0, 4.0, name="val/RMSE_px")
    assert end(rising, patience=2, metric=metric).endswith("val/RMSE_px (smoothed) has not fallen for 3 validations")


def test_epochs_without_validation_do_not_count():
    sparse = rows(0.5, None, None, 0.5, None, None, 0.5)
    assert end(sparse, patience=3) == ""
    assert "for 2 validations" in end(sparse, patience=2)


@given(st.lists(st.floats(0, 1), max_size=30), st.integers(1, 5), st.integers(1, 5))
def test_what_comes_later_changes_nothing_before(values, patience, smooth):
    """A training that is cut and goes on is asked the same questions again."""
    asked = [without_improvement(values[:i], smooth, 0.0) >= patience for i in range(len(values) + 1)]
    again = [without_improvement(list(values)[:i], smooth, 0.0) >= patience for i in range(len(values) + 1)]
    assert asked == again
    assert not any(asked[: patience + 1])  # the first validation is an improvement on nothing


@pytest.mark.parametrize("patience", [1, 2])
def test_one_validation_never_ends_a_training(patience):
    assert end(rows(0.0), patience=patience) == ""


def test_the_loss_of_an_epoch_without_validation_is_no_validation():
    found = [{"epoch": i, "loss": 1.0, **({"val_s": 0.1} if i % 5 == 0 else {})} for i in range(1, 13)]
    asked = {"metric": {"name": "loss"}, "val_every": 5, "patience": 2}
    assert end(found[:10], **asked) == ""
    assert [row["epoch"] for row in validated(found, "loss")] == [5, 10]
    more = [*found, *({"epoch": i, "loss": 1.0, "val_s": 0.1} for i in range(13, 16))]
    assert "stopped early after epoch 15" in end(more, **asked)
