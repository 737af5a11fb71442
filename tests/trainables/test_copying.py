"""The copy of a sweep folder: at every moment one can go on from it, and nothing of anybody's is overwritten."""

import io
import shutil
import tarfile
import threading
import time
from contextlib import nullcontext

import pytest
import torch

from posesweep.errors import ConfigError, SweepError
from posesweep.files import append_json_line, read_json, read_json_lines, write_json, write_text
from posesweep.trainables import copying
from posesweep.trainables.checkpoint import Checkpoint, LoopState, load_checkpoint, save_checkpoint
from posesweep.trainables.copying import Copy, Keeper


def silent(line: str) -> None:
    """Say nothing."""


def train(folder, epoch, number=0):
    """What one epoch of a trial leaves, in the order in which it does; every one is the best so far."""
    trial = folder / "trials" / f"{number:04d}"
    write_json(trial / "best" / "state.json", {"epoch": epoch})
    save_checkpoint(trial / "last", Checkpoint(LoopState(epoch=epoch), {"w": torch.full((3,), float(epoch))}, None, {}))
    append_json_line(trial / "metrics.jsonl", {"epoch": epoch})
    write_json(trial / "status.json", {"state": "running", "epochs": epoch})
    append_json_line(folder / "journal.log", {"trial": number, "epoch": epoch})


def stages(folder, number):
    """How far the journal, the state, the metrics, the checkpoint and the best weights of a trial are, in epochs."""
    trial = folder / "trials" / f"{number:04d}"
    checkpoint = load_checkpoint(trial / "last")
    assert checkpoint is None or checkpoint.note == ""
    return (
        max((row["epoch"] for row in read_json_lines(folder / "journal.log") if row["trial"] == number), default=0),
        read_json(trial / "status.json")["epochs"] if (trial / "status.json").is_file() else 0,
        len(read_json_lines(trial / "metrics.jsonl")),
        checkpoint.loop.epoch if checkpoint is not None else 0,
        read_json(trial / "best" / "state.json")["epoch"] if (trial / "best").is_dir() else 0,
    )


def contents(folder, besides=("copy.json", "lease.json")):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name not in besides and "last.old" not in path.parts
    }


@pytest.fixture
def folder(tmp_path):
    train(tmp_path / "runs" / "mice", epoch=1)
    return tmp_path / "runs" / "mice"


@pytest.fixture
def copy(tmp_path, folder):
    copy = Copy.open(str(tmp_path / "far"), "mice")
    copy.take_over(folder, silent)
    return copy


def fetched(copy, tmp_path):
    """A new machine's folder."""
    new = tmp_path / "new" / "mice"
    Copy.open(str(tmp_path / "far"), "mice").take_over(new, silent)
    return new


def test_a_new_machine_has_every_file_and_goes_on_from_the_checkpoint(copy, folder, tmp_path):
    write_text(folder / "sweep.yaml", "name: mice\n")
    write_text(folder / "trials" / "0000" / "best" / "state.json", "{}")
    copy.bring_up_to_date(folder)
    new = fetched(copy, tmp_path)
    assert contents(new) == contents(folder)
    checkpoint = load_checkpoint(new / "trials" / "0000" / "last")
    assert checkpoint.loop.epoch == 1
    assert torch.equal(checkpoint.weights["w"], torch.ones(3))


def test_only_what_is_new_is_copied_and_what_is_gone_goes(copy, folder):
    train(folder, epoch=1, number=1)
    assert copy.bring_up_to_date(folder) == 9  # the journal; status, metrics, checkpoint, best of two trials
    assert copy.bring_up_to_date(folder) == 0
    train(folder, epoch=2, number=1)
    shutil.rmtree(folder / "trials" / "0000" / "last")
    assert copy.bring_up_to_date(folder) == 5
    assert "trials/0000/last.tar" not in copy.names()
    assert "trials/0001/last.tar" in copy.names()


def test_what_belongs_to_one_machine_or_moment_is_not_copied(copy, folder):
    for name in ("lease.json", "driver.json", "stop.json", "trials/.status.json.7.tmp", "journal.log.lock"):
        write_text(folder / name, "{}")
    write_text(folder / "trials" / "0000" / "last.new" / "state.json", "{}")
    write_text(folder / "ray" / "session", "")
    copy.bring_up_to_date(folder)
    assert sorted(copy.names()) == [
        "copy.json",
        "journal.log",
        "trials/0000/best/state.json",
        "trials/0000/last.tar",
        "trials/0000/metrics.jsonl",
        "trials/0000/status.json",
    ]


@pytest.mark.parametrize("at", range(1, 10))
@pytest.mark.parametrize("breaks_off", [False, True])
def test_whatever_is_written_meanwhile_one_can_go_on_from_the_copy(at, breaks_off, copy, folder, tmp_path, monkeypatch):
    """Before the copying's write number `at` both trials train on; with or without the machine's end at the next."""
    copy.bring_up_to_date(folder)
    train(folder, epoch=2)
    train(folder, epoch=1, number=1)
    done = 0

    def put(self, name, content, put=Copy.put):
        nonlocal done
        done += 1
        if done == at:
            train(folder, epoch=3)
            train(folder, epoch=2, number=1)
            train(folder, epoch=1, number=2)
        if breaks_off and done > at:
            raise OSError("the machine is gone")
        put(self, name, content)

    monkeypatch.setattr(Copy, "put", put)
    with pytest.raises(OSError, match="gone") if breaks_off else nullcontext():
        copy.bring_up_to_date(folder)
    monkeypatch.undo()
    assert done >= at
    new = fetched(copy, tmp_path)
    for number in (0, 1, 2):
        assert list(stages(new, number)) == sorted(stages(new, number))
    if not breaks_off:
        assert stages(new, 0)[0] >= 2


def test_a_trial_that_ends_meanwhile_keeps_what_it_goes_on_from(copy, folder, tmp_path, monkeypatch):
    """The journal was read while it ran; then it ended, and its weights went."""
    train(folder, epoch=2)

    def read(folder, *more, taken=copying._taken):
        found = taken(folder, *more)
        if more[0] == "journal.log":
            shutil.rmtree(folder / "trials" / "0000" / "last")
        return found

    monkeypatch.setattr(copying, "_taken", read)
    copy.bring_up_to_date(folder)
    monkeypatch.undo()
    assert "trials/0000/last.tar" not in copy.names(), "never copied"
    train(folder, epoch=3)
    copy.bring_up_to_date(folder)
    train(folder, epoch=4)
    monkeypatch.setattr(copying, "_taken", read)
    copy.bring_up_to_date(folder)
    assert load_checkpoint(fetched(copy, tmp_path) / "trials" / "0000" / "last").loop.epoch == 3


def test_another_place_and_one_that_was_emptied_get_everything(copy, folder, tmp_path):
    copy.bring_up_to_date(folder)
    other = Copy.open(str(tmp_path / "other"), "mice")
    other.take_over(folder, silent)
    other.bring_up_to_date(folder)
    assert other.names() == copy.names()
    shutil.rmtree(tmp_path / "other")
    other.bring_up_to_date(folder)
    assert other.names() == copy.names()
    shutil.rmtree(tmp_path / "other")
    again = Copy.open(str(tmp_path / "other"), "mice")
    again.take_over(folder, silent)
    again.bring_up_to_date(folder)
    assert again.names() == copy.names()


def test_an_object_that_breaks_off_leaves_the_one_before(copy, folder):
    copy.bring_up_to_date(folder)

    class Breaking(io.BytesIO):
        def read(self, size=-1):
            if self.tell() > 0:
                raise OSError("stale")
            return super().read(2)

    with pytest.raises(OSError, match="stale"):
        copy.put("trials/0000/status.json", Breaking(b"much more"))
    with copy.files.open_input_stream(f"{copy.root}/trials/0000/status.json") as stream:
        assert stream.read() == (folder / "trials" / "0000" / "status.json").read_bytes()


@pytest.mark.parametrize("count", range(5))
def test_a_fetching_that_breaks_off_is_begun_again(count, copy, folder, tmp_path, monkeypatch):
    copy.bring_up_to_date(folder)
    done = 0

    def fetch_one(self, *more, fetch_one=Copy._fetch_one):
        nonlocal done
        if done == count:
            raise KeyboardInterrupt
        done += 1
        fetch_one(self, *more)

    monkeypatch.setattr(Copy, "_fetch_one", fetch_one)
    with pytest.raises(KeyboardInterrupt):
        fetched(copy, tmp_path)
    monkeypatch.undo()
    assert contents(fetched(copy, tmp_path)) == contents(folder)


def test_a_first_copying_that_broke_off_is_begun_anew(copy, folder, tmp_path):
    copy.bring_up_to_date(folder)
    copy.remove("journal.log")  # written last, so it is what lacks
    new = fetched(copy, tmp_path)
    assert contents(new) == {}
    assert copy.names() == {"copy.json"}


def test_an_older_folder_is_not_gone_on_with(copy, folder, tmp_path):
    """A spot machine comes back after another one has gone on."""
    copy.bring_up_to_date(folder)
    new = fetched(copy, tmp_path)
    train(new, epoch=2)
    with pytest.raises(SweepError, match=r"is ahead of .*runs/mice: .* went on with it at .*; to go on from there"):
        Copy.open(str(tmp_path / "far"), "mice").take_over(folder, silent)


def test_who_was_relieved_stops_copying(copy, folder, tmp_path):
    copy.bring_up_to_date(folder)
    fetched(copy, tmp_path)
    train(folder, epoch=2)
    with pytest.raises(SweepError, match=r"has taken .*far/mice over; two must not train one sweep"):
        copy.bring_up_to_date(folder)


def test_files_that_are_no_copy_stay(folder, tmp_path):
    write_text(tmp_path / "far" / "mice" / "thesis.tex", "")
    with pytest.raises(SweepError, match=r"no copy of a sweep, such as thesis.tex; remove them, or give keep.copy_to"):
        Copy.open(str(tmp_path / "far"), "mice").take_over(folder, silent)
    assert (tmp_path / "far" / "mice" / "thesis.tex").is_file()


def test_a_place_that_cannot_be_written_is_told_before_anything_begins(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"keep.copy_to: .*file/runs/mice cannot be written \(.*\); give a bucket"):
        Copy.open(str(tmp_path / "file" / "runs"), "mice")
    with pytest.raises(ConfigError, match=r"keep.copy_to: s4://bucket/mice cannot be written"):
        Copy.open("s4://bucket?region=x", "mice")


@pytest.mark.parametrize("place", ["s3://me:hidden@bucket/runs", "s3://bucket/runs?access_key=me&secret_key=hidden"])
def test_a_key_in_the_sweep_file_is_refused(place):
    with pytest.raises(ConfigError, match="has a key in it") as told:
        Copy.open(place, "mice")
    assert "hidden" not in str(told.value)


def test_azure_writes_its_container_before_an_at_sign():
    assert not copying._has_key("abfs://container@account.dfs.core.windows.net/runs")
    assert copying._has_key("abfs://container:hidden@account.dfs.core.windows.net/runs")


@pytest.mark.parametrize("place", ["runs", "runs/mice", "."])
def test_a_place_in_the_sweep_folder_is_refused(place, folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path if place != "." else tmp_path / "runs")
    with pytest.raises(ConfigError, match=r"and the sweep folder lie in each other; give another place"):
        Copy.open(place, "mice").take_over(folder, silent)
    assert (folder / "journal.log").is_file()


@pytest.mark.parametrize("damage", [b"no archive", None])
def test_a_copy_that_cannot_be_fetched_is_told_in_a_sentence(damage, copy, folder, tmp_path):
    copy.bring_up_to_date(folder)
    archive = tmp_path / "far" / "mice" / "trials" / "0000" / "last.tar"
    if damage is not None:
        archive.write_bytes(damage)
    else:
        with tarfile.open(archive, "w") as tar:
            tar.addfile(tarfile.TarInfo("../../../../evil"))
    with pytest.raises(SweepError, match=r"far/mice could not be taken over \((Read|OutsideDest).*Error: "):
        fetched(copy, tmp_path)
    assert not list(tmp_path.rglob("evil"))


def test_a_checkpoint_that_is_replaced_while_it_is_read_is_copied_whole(copy, folder, tmp_path):
    """Every copy holds one epoch's files, whatever the trial does meanwhile."""
    over = threading.Event()

    def keep_training():
        for epoch in range(2, 10_000):
            if over.is_set():
                return
            train(folder, epoch)

    training = threading.Thread(target=keep_training)
    training.start()
    try:
        epochs = set()
        for _ in range(15):
            copy.bring_up_to_date(folder)
            shutil.copytree(tmp_path / "far", tmp_path / "seen" / "far")
            new = tmp_path / "seen" / "mice"
            Copy.open(str(tmp_path / "seen" / "far"), "mice").take_over(new, silent)
            assert list(stages(new, 0)) == sorted(stages(new, 0))
            found = load_checkpoint(new / "trials" / "0000" / "last")
            assert torch.equal(found.weights["w"], torch.full((3,), float(found.loop.epoch)))
            epochs.add(found.loop.epoch)
            shutil.rmtree(tmp_path / "seen")
    finally:
        over.set()
        training.join()
    assert len(epochs) > 3


def test_a_place_that_fails_for_a_while_costs_a_line_and_the_rest_is_copied_later(copy, folder, monkeypatch):
    said, failing = [], threading.Event()
    failing.set()

    def put(self, name, content, put=Copy.put):
        if failing.is_set():
            raise OSError("the network is down\nand pages more")
        put(self, name, content)

    monkeypatch.setattr(Copy, "put", put)
    keeper = Keeper(copy, folder, said.append, every_s=0.01)
    end = time.monotonic() + 60
    while not said and time.monotonic() < end:
        time.sleep(0.01)
    failing.clear()
    keeper.close()
    assert said[0].endswith("could not be brought up to date (the network is down); it is tried again")
    assert said[1:] == [f"copy: {copy} is up to date"]
    assert "journal.log" in copy.names()


def test_what_could_not_be_copied_at_the_end_is_told(copy, folder, monkeypatch):
    said = []

    def put(self, name, content):
        raise OSError("the network is down")

    monkeypatch.setattr(Copy, "put", put)
    Keeper(copy, folder, said.append, every_s=60).close()
    assert said == [
        f"note: the copy {copy} lacks what is newest (the network is down); nothing is lost in {folder}, and the same "
        "command copies the rest"
    ]
