"""What every task must keep, without Ray and without a GPU."""

import numpy as np
import pytest
import torch

from posesweep.trainables.task import Dataset, Task
from posesweep.trainables.tasks import build_task, find_task, make_config, task_names
from posesweep.trainables.trial import to_device

CASES = {  # task -> settings that make it small; one entry for each way its loss is computed
    "topdown": [
        {"model": "tiny", "imgsz": [64, 64], "codec": "heatmap"},
        {"model": "tiny", "imgsz": [64, 96], "codec": "simcc"},
    ]
}


@pytest.fixture(params=[(name, i) for name in task_names() for i in range(len(CASES[name]))], ids=str)
def task(request, horses) -> Task:
    name, i = request.param
    return build_task(make_config({"task": name, "data": horses, **CASES[name][i]}))


def batch_of(dataset: Dataset, positions=(0, 1, 2, 3)):
    return to_device(dataset.batch(np.array(positions), 0), torch.device("cpu"))


def test_it_is_a_task_with_two_datasets(task):
    assert isinstance(task, Task)
    for dataset in task.datasets():
        assert isinstance(dataset, Dataset)
        assert len(set(dataset.ids.tolist())) == len(dataset)


def test_the_loss_is_a_finite_scalar_and_reaches_every_parameter(task):
    model = task.model().train()
    loss = task.loss(model, batch_of(task.datasets()[0]))
    assert loss.total.shape == ()
    assert torch.isfinite(loss.total)
    loss.total.backward()
    without = [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert not without, "DDP would wait for these for ever"


def test_every_validation_id_is_predicted_once_and_scores_are_floats(task):
    _, val = task.datasets()
    model = task.model().eval()
    predictions = {}
    with torch.no_grad():
        for start in range(0, len(val), 4):
            positions = np.arange(start, min(start + 4, len(val)))
            part = task.predict(model, batch_of(val, positions))
            assert not part.keys() & predictions.keys()
            predictions |= part
    assert predictions.keys() == set(val.ids.tolist())
    score = task.score(predictions)
    assert all(type(value) is float for value in score.metrics.values())
    assert all(isinstance(array, np.ndarray) for array in score.evidence.values())


def test_its_companions_are_text_files(task):
    for name, text in task.companions().items():
        assert "/" not in name
        assert text.strip()


def test_layers_hold_every_parameter_once(task):
    model = task.model()
    listed = [id(p) for _, modules in model.layers() for module in modules for p in module.parameters()]
    assert sorted(listed) == sorted(id(p) for p in model.parameters())


def test_a_sample_does_not_depend_on_its_batch(task):
    train, _ = task.datasets()
    alone = train.batch(np.array([3]), 5)
    together = train.batch(np.array([7, 3, 1]), 5)
    for name in alone:
        np.testing.assert_array_equal(alone[name][0], together[name][1])


def test_defaults_are_a_valid_config(horses):
    for name in task_names():
        assert find_task(name).Config.model_validate({"task": name, "data": horses}).task == name
