"""Real mice, where they are: the ready-made sweep reads them, and one short trial learns."""

from pathlib import Path

import pytest

from posesweep.files import read_json_lines
from posesweep.search_spaces.space import READY_MADE, read_sweep
from posesweep.trainables.debug import run_debug
from posesweep.trainables.tasks import check_values, defaults_of

MICE = Path(__file__).resolve().parents[2] / "../shared/data/openfield/labeled-data/m4s1/CollectedData_Pranav.csv"


def test_one_trial_on_real_mice(tmp_path):
    if not MICE.is_file():
        pytest.skip("shared/data/openfield is not here")
    sweep = read_sweep(READY_MADE / "openfield.yaml", [f"data.train={MICE}"], check_values, defaults_of)
    run_debug(sweep, tmp_path / "debug")
    first, last = read_json_lines(tmp_path / "debug" / "metrics.jsonl")
    assert last["loss"] < first["loss"]
    assert 0 < last["val/RMSE_px"] < 640
