"""Stores: there whole or not at all, never removed while used, what the dead leave is cleared away."""

import fcntl
import os
import time
from pathlib import Path

import pytest

from posesweep.datasets import stores
from posesweep.datasets.stores import IDLE_S, entries, idle_s, make_room, open_or_build, remove, remove_idle_locks
from posesweep.errors import DataError

KEYS = [f"{digit}" * 24 for digit in "abcd"]


def fill(size: int):
    def build(unfinished: Path) -> None:
        (unfinished / "content").write_bytes(bytes(size))

    return build


def store(cache: Path, position: int = 0, size: int = 1000, age_s: float = 0.0) -> Path:
    """A store that nobody uses, opened `age_s` ago."""
    cache.mkdir(exist_ok=True)
    folder = cache / f"crops-{KEYS[position]}"
    open_or_build(folder, fill(size)).close()
    aged(folder, age_s)
    return folder


def aged(folder: Path, age_s: float) -> None:
    then = time.time() - age_s
    if (folder / "used").exists():
        os.utime(folder / "used", (then, then))
    os.utime(folder, (then, then))


def leftover(cache: Path, host: str, age_s: float = 0.0) -> Path:
    folder = cache / f"crops-{KEYS[0]}.{host}-4242-0a1b2c3d.unfinished"
    folder.mkdir(parents=True)
    (folder / "content").write_bytes(bytes(500))
    aged(folder, age_s)
    return folder


def elsewhere() -> str:
    return "another-machine.local"


def test_built_once_then_opened(tmp_path: Path) -> None:
    folder = tmp_path / f"crops-{KEYS[0]}"
    built = []
    for _ in range(2):
        with open_or_build(folder, lambda unfinished: built.append(unfinished)):
            assert folder.is_dir()
    assert len(built) == 1
    assert not built[0].exists()


def test_a_failed_build_leaves_nothing(tmp_path: Path) -> None:
    def fail(unfinished: Path) -> None:
        (unfinished / "half").touch()
        raise DataError("no")

    with pytest.raises(DataError, match="no"):
        open_or_build(tmp_path / f"crops-{KEYS[0]}", fail)
    assert [path.suffix for path in tmp_path.iterdir()] == [".lock"]
    remove_idle_locks(tmp_path)
    assert not list(tmp_path.iterdir())


def test_opening_is_remembered(tmp_path: Path) -> None:
    folder = store(tmp_path, age_s=5000)
    assert idle_s(folder) == pytest.approx(5000, abs=30)
    open_or_build(folder, fill(0)).close()
    assert idle_s(folder) < 30


def test_another_machine_that_is_first_wins(tmp_path: Path) -> None:
    folder = tmp_path / f"crops-{KEYS[0]}"

    def overtaken(unfinished: Path) -> None:
        folder.mkdir()
        (folder / "theirs").touch()
        (unfinished / "ours").touch()

    open_or_build(folder, overtaken).close()
    assert (folder / "theirs").exists()
    assert not (folder / "ours").exists()
    assert not list(tmp_path.glob("*.unfinished"))


def test_what_was_taken_away_while_being_built_is_built_again(tmp_path: Path) -> None:
    calls = []

    def build(unfinished: Path) -> None:
        calls.append(unfinished)
        (unfinished / "first").touch()
        if len(calls) == 1:
            stores._take_away(unfinished, tmp_path / f"crops-{KEYS[0]}")
            unfinished.mkdir()  # as a writer does that makes the folders it needs
        stores.say_alive(unfinished)
        (unfinished / "second").touch()

    folder = tmp_path / f"crops-{KEYS[0]}"
    open_or_build(folder, build).close()
    assert len(calls) == 2
    assert sorted(path.name for path in folder.iterdir()) == ["first", "second", "used"]


def test_leftovers_of_this_machine_go_at_the_next_build_those_of_others_after_an_hour(tmp_path: Path) -> None:
    ours = leftover(tmp_path, stores._host())
    fresh = leftover(tmp_path, elsewhere())
    old = leftover(tmp_path, "a-third", age_s=IDLE_S + 60)
    store(tmp_path)
    assert [path.exists() for path in (ours, fresh, old)] == [False, True, False]


def test_a_builder_that_says_it_lives_is_not_old(tmp_path: Path) -> None:
    folder = leftover(tmp_path, elsewhere(), age_s=9 * IDLE_S)
    (folder / "used").touch()
    aged(folder, 9 * IDLE_S)
    stores.say_alive(folder)
    store(tmp_path)
    assert folder.exists()


def test_entries_are_listed_longest_unused_first(tmp_path: Path) -> None:
    store(tmp_path, 0, size=700, age_s=100)
    store(tmp_path, 1, size=300, age_s=9000)
    left = leftover(tmp_path, elsewhere(), age_s=500)
    (tmp_path / "synthetic-0123").mkdir()
    (tmp_path / "crops-mine").mkdir()
    found = entries(tmp_path)
    assert [(entry.folder.name[:7], entry.size, entry.finished) for entry in found] == [
        ("crops-b", 300, True),
        (left.name[:7], 500, False),
        ("crops-a", 700, True),
    ]
    assert not entries(tmp_path / "no such folder")


def test_a_store_in_use_is_not_removed(tmp_path: Path) -> None:
    folder = store(tmp_path)
    with open_or_build(folder, fill(0)):
        assert not remove(entries(tmp_path)[0])
        assert (folder / "content").exists()
    assert remove(entries(tmp_path)[0])
    assert not list(tmp_path.iterdir()), "neither the store nor its lock nor anything half removed"


def test_a_builder_at_work_is_not_disturbed(tmp_path: Path) -> None:
    def build(unfinished: Path) -> None:
        (entry,) = entries(tmp_path)
        assert not entry.finished
        assert not remove(entry)
        (unfinished / "content").touch()

    open_or_build(tmp_path / f"crops-{KEYS[0]}", build).close()


def test_one_that_another_machine_builds_is_removed_only_when_it_was_silent(tmp_path: Path) -> None:
    leftover(tmp_path, elsewhere())
    assert not remove(entries(tmp_path)[0])
    aged(entries(tmp_path)[0].folder, IDLE_S + 60)
    assert remove(entries(tmp_path)[0])


def test_without_locks_only_what_is_old_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unsupported(*_: object) -> None:
        raise OSError(stores.errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", unsupported)
    folder = store(tmp_path)
    assert folder.is_dir(), "they are built and opened all the same"
    assert not remove(entries(tmp_path)[0])
    aged(folder, IDLE_S + 60)
    assert remove(entries(tmp_path)[0])


def test_who_waited_for_a_lock_that_was_removed_takes_the_new_one(tmp_path: Path) -> None:
    folder = store(tmp_path)
    lock = tmp_path / f"{folder.name}.lock"
    waited_for = stores._locked(lock, fcntl.LOCK_SH)
    lock.unlink()
    assert waited_for is not None
    assert not stores._is_still(lock, waited_for)
    with open_or_build(folder, fill(0)):
        assert not remove(entries(tmp_path)[0])
    waited_for.close()


@pytest.mark.parametrize(
    ("most", "ages_h", "fits", "left"),
    [
        (3000, (9, 8), True, [0, 1]),  # there is room
        (2999, (9, 8), True, [1]),
        (2999, (8, 9), True, [0]),
        (1000, (9, 8), True, []),
        (999, (9, 8), False, [0, 1]),  # it would not do: nothing is removed
        (2999, (9, 0), True, [1]),
        (1500, (9, 0), False, [0, 1]),  # used within the hour
        (0, (9, 8), False, [0, 1]),
    ],
)
def test_room_is_made_from_what_was_longest_unused(
    most: int, ages_h: tuple[int, int], fits: bool, left: list[int], tmp_path: Path
) -> None:
    folders = [store(tmp_path, i, 1000, age_h * 3600) for i, age_h in enumerate(ages_h)]
    assert make_room(tmp_path / f"crops-{KEYS[3]}", 1000, most) == fits
    assert [i for i, folder in enumerate(folders) if folder.is_dir()] == left


def test_room_is_not_made_from_what_is_in_use_nor_counted_twice(tmp_path: Path) -> None:
    folders = [store(tmp_path, i, 1000) for i in range(2)]
    with open_or_build(folders[0], fill(0)):
        for folder in folders:
            aged(folder, 9 * IDLE_S)
        assert not make_room(tmp_path / f"crops-{KEYS[3]}", 1000, 1500)
        assert folders[0].is_dir()
    leftover(tmp_path, elsewhere())
    assert make_room(tmp_path / f"crops-{KEYS[0]}", 1000, 1000), "what is being built of itself does not count"


def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refused)
    with pytest.raises(DataError) as error:
        open_or_build(tmp_path / f"crops-{KEYS[0]}", fill(0))
    assert str(error.value) == (
        f"{tmp_path}: the cache cannot be written (Permission denied); set POSESWEEP_CACHE to another folder"
    )
