"""status.json keeps the times of a trial: the seconds in which it was running, and no others."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from posesweep.trainables import status
from posesweep.trainables.status import read_status, write_status


class Clock(datetime):
    """Stands where the test puts it."""

    at = 1_000_000.0

    @classmethod
    def now(cls, tz: object = None) -> datetime:
        return datetime.fromtimestamp(cls.at, UTC)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> type[Clock]:
    Clock.at = 1_000_000.0
    monkeypatch.setattr(status, "datetime", Clock)
    return Clock


def test_seconds_count_while_a_trial_runs_and_not_while_it_waits(tmp_path: Path, clock: type[Clock]) -> None:
    write_status(tmp_path, state="running", idle=True)
    clock.at += 10
    write_status(tmp_path, state="running", epochs=1)
    assert read_status(tmp_path)["ended"] is None
    clock.at += 2
    write_status(tmp_path, state="waiting")
    clock.at += 500
    write_status(tmp_path, state="running", idle=True)
    clock.at += 8
    write_status(tmp_path, state="finished")
    clock.at += 500
    write_status(tmp_path, note="looked at")
    assert read_status(tmp_path)["held_s"] == 10 + 2 + 8


def test_what_lies_between_the_death_of_a_driver_and_the_next_run_does_not_count(
    tmp_path: Path, clock: type[Clock]
) -> None:
    write_status(tmp_path, state="running", idle=True)
    clock.at += 10
    write_status(tmp_path, state="running", epochs=1)
    clock.at += 500  # dead
    write_status(tmp_path, state="running", idle=True)
    clock.at += 10
    write_status(tmp_path, state="running", epochs=2)
    clock.at -= 30  # the clock of another machine
    write_status(tmp_path, state="running", epochs=3)
    assert read_status(tmp_path)["held_s"] == 20


def test_a_status_that_an_older_version_wrote_goes_on_without_its_past(tmp_path: Path, clock: type[Clock]) -> None:
    (tmp_path / "status.json").write_text('{"state": "running", "started": "2026-11-20T10:00:00+00:00"}')
    write_status(tmp_path, state="running", epochs=4)
    clock.at += 5
    write_status(tmp_path, state="finished")
    assert read_status(tmp_path)["held_s"] == 5
    assert read_status(tmp_path)["started"] == "2026-11-20T10:00:00+00:00"
