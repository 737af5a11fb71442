import pytest
import torch

from posesweep.files import read_json
from posesweep.search_spaces.schema import Metric
from posesweep.trainables.checkpoint import load_weights
from posesweep.trainables.topk import best_epochs, keep_top

VALUES = [0.1, 0.5, 0.3, 0.5, 0.4]


def rows(values, name="val/AP"):
    return [{"epoch": i + 1, **({name: v} if v is not None else {})} for i, v in enumerate(values)]


def train(folder, values, count):
    """As a training goes: after each epoch, what is known by then."""
    for i, row in enumerate(rows(values)):
        keep_top(
            folder, best_epochs(rows(values)[: i + 1], Metric(), count), row, {"w": torch.full((2,), row["epoch"])}
        )


def kept(folder):
    return sorted(path.name for path in folder.iterdir())


def test_the_best_epochs_by_hand():
    assert best_epochs(rows(VALUES), Metric(), 3) == [2, 4, 5]  # of equals the earlier
    assert best_epochs(rows(VALUES), Metric(), 9) == [2, 4, 5, 3, 1]
    assert best_epochs(rows([None, 0.2, None]), Metric(), 2) == [2]
    errors = rows(VALUES, "val/RMSE_px")
    assert best_epochs(errors, Metric(name="val/RMSE_px"), 2) == [1, 3]


def test_the_weights_of_the_best_epochs_stay(tmp_path):
    train(tmp_path, VALUES, 3)
    assert kept(tmp_path) == ["0002", "0004", "0005"]
    for name in kept(tmp_path):
        weights = load_weights(tmp_path / name / "weights.safetensors")
        assert weights["w"].tolist() == [int(name)] * 2
        assert read_json(tmp_path / name / "state.json")["metrics"]["val/AP"] == VALUES[int(name) - 1]


@pytest.mark.parametrize("cut", [1, 2, 3, 4])
def test_a_training_that_comes_by_an_epoch_again(tmp_path, cut):
    train(tmp_path, VALUES[:cut], 2)
    (tmp_path / "0009.new").mkdir()  # killed while it wrote
    (tmp_path / "0007").mkdir()  # killed before the losers were removed
    train(tmp_path, VALUES, 2)
    assert kept(tmp_path) == ["0002", "0004"]


def test_an_epoch_that_is_none_of_the_best_leaves_nothing(tmp_path):
    keep_top(tmp_path / "top", [], {"epoch": 1}, {})
    assert not (tmp_path / "top").exists()
