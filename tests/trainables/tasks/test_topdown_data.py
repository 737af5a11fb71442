"""When a worker reads its data again."""

import os

from posesweep.datasets.skeleton import FOLDER
from posesweep.datasets.synthetic import write_synthetic
from posesweep.trainables.tasks import make_config
from posesweep.trainables.tasks.topdown import load, read_once


def test_data_are_read_once_until_a_file_changes(tmp_path):
    annotations = write_synthetic(tmp_path / "horses", 6, 1, (96, 72))
    skeleton = tmp_path / "own.yaml"
    text = (FOLDER / "horse26.yaml").read_text()
    skeleton.write_text(text)
    config = make_config({"data": {"train": str(annotations), "skeleton": str(skeleton)}, "model": "tiny"})
    read_once.cache_clear()
    first = load(config)
    assert load(config) is first
    skeleton.write_text(text.replace("name: horse26", "name: other"))
    os.utime(skeleton, ns=(1, 1))
    assert load(config).train.skeleton.name == "other"
    assert first.train.skeleton.name == "horse26"


def test_a_folder_is_read_anew(tmp_path):
    config = make_config({"data": {"train": str(tmp_path)}, "model": "tiny"})
    from posesweep.trainables.tasks.topdown import versions_of

    assert versions_of(config.data) != versions_of(config.data)
