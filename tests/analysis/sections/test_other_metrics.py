"""A sweep by another metric than AP: what its page must not say."""

import json
from pathlib import Path

import pytest

from posesweep.analysis.page import Grid
from posesweep.analysis.results import read_sweep_folder
from posesweep.analysis.sections.search import parameters_section
from posesweep.analysis.sections.why import sensitivity_section
from posesweep.analysis.story import Story
from tests.analysis.fake_sweep import write_fake_sweep


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_fake_sweep(tmp_path_factory.mktemp("sweep"), objects=12)


def story_by(folder: Path, name: str) -> Story:
    space = json.loads((folder / "space.json").read_text())
    (folder / "space.json").write_text(json.dumps(space | {"metric": {"name": name}}))
    return Story.of(read_sweep_folder(folder))


def _caption(story: Story) -> str:
    section = parameters_section(story)
    assert section is not None
    return next(block.caption for block in section.blocks if isinstance(block, Grid))


def test_only_ap_asks_for_sigmas(folder: Path) -> None:
    assert sensitivity_section(story_by(folder, "val/AP")) is not None
    assert sensitivity_section(story_by(folder, "val/PCK")) is None


def test_what_was_stopped_early_has_an_error_higher_than_it_might_have_become(folder: Path) -> None:
    assert "stopped early, so lower than it might" in _caption(story_by(folder, "val/PCK"))
    assert "stopped early, so higher than it might" in _caption(story_by(folder, "val/RMSE_px"))
