"""Which trials are trained again, with which seeds, into which folders; and that a plan that was begun stays."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from posesweep.cli import main
from posesweep.errors import SweepError
from posesweep.files import read_json, trial_folder, write_json
from posesweep.search_spaces.space import Sweep, read_sweep
from posesweep.trainables import retraining
from posesweep.trainables import sweep as sweeping
from posesweep.trainables.cluster import Slots
from posesweep.trainables.folder import record_sweep, refuse_changes
from posesweep.trainables.housekeeping import Orders
from posesweep.trainables.records import Queue
from posesweep.trainables.retraining import Promote, Run, agreed_plan, confirm_plan, read_plan, unfinished
from posesweep.trainables.search import Search

TEXT = """
name: s
data: {train: a.json}
fixed: {epochs: 6}
parameters: {lr0: {min: 1.0e-4, max: 1.0e-2, log: true}}
search: {trials: 5}
early_terminate: {type: none}
"""
CONFIRM = "confirm: {top_k: 2, seeds: 2}\n"
VALUES = [0.50, 0.40, 0.70, 0.60, 0.55]  # of trials 0 (the baseline) to 4


def sweep_of(tmp_path: Path, text: str = TEXT + CONFIRM) -> Sweep:
    (tmp_path / "s.yaml").write_text(text)
    return read_sweep(tmp_path / "s.yaml")


def searched(sweep: Sweep, folder: Path, values: list[float]) -> Search:
    """A search whose trials finished with these values."""
    search = Search.open(sweep, folder)
    for value in values:
        number = search.next_trial().number
        search.report(number, 6, value)
        search.finish(number)
    return search


def test_the_best_besides_the_baseline_and_the_baseline_are_trained_again(tmp_path):
    sweep = sweep_of(tmp_path)
    plan = confirm_plan(sweep, searched(sweep, tmp_path / "runs", VALUES))
    assert plan.candidates == ((2, "search"), (3, "search"))
    assert (plan.baseline, plan.seeds, plan.epochs, plan.trials) == (0, (101, 102), 6, 5)
    assert [run.folder for run in plan.runs] == [
        *("confirm/0002-s101", "confirm/0003-s101", "confirm/0000-s101"),
        *("confirm/0002-s102", "confirm/0003-s102", "confirm/0000-s102"),
    ]


def test_only_trials_that_finished_are_confirmed(tmp_path):
    sweep = sweep_of(tmp_path)
    search = searched(sweep, tmp_path / "runs", VALUES[:2])
    search.fail(search.next_trial().number, "a reason")
    number = search.next_trial().number
    search.report(number, 1, 0.99)
    search.diverge(number, 2, "diverged")
    assert confirm_plan(sweep, search).candidates == ((1, "search"),)


def test_a_metric_to_be_minimised(tmp_path):
    sweep = sweep_of(tmp_path, TEXT + CONFIRM + "metric: {name: val/NME}\n")
    plan = confirm_plan(sweep, searched(sweep, tmp_path / "runs", VALUES))
    assert plan.candidates == ((1, "search"), (4, "search"))


@pytest.mark.parametrize(
    ("before", "after", "seeds"),
    [
        ("{epochs: 6}", "{epochs: 6, seed: 7}", [108, 109]),
        ("lr0: {min", "seed: {min: 0, max: 30}, lr0: {min", [131, 132]),
        ("lr0: {min", "seed: {values: [3, 9]}, lr0: {min", [110, 111]),
    ],
)
def test_seeds_are_none_of_the_search(tmp_path, before, after, seeds):
    assert retraining.new_seeds(sweep_of(tmp_path, TEXT.replace(before, after)), 2) == seeds


def test_a_searched_length_is_each_trials_own(tmp_path):
    text = TEXT.replace("fixed: {epochs: 6}", "").replace("parameters: {", "parameters: {epochs: {min: 2, max: 9}, ")
    sweep = sweep_of(tmp_path, text + CONFIRM)
    plan = confirm_plan(sweep, searched(sweep, tmp_path / "runs", VALUES))
    assert plan.epochs is None
    run = Run(2, 101, "confirm/0002-s101")
    assert retraining.settings_of(plan, run, {"epochs": 4, "lr0": 0.1}) == {"epochs": 4, "lr0": 0.1, "seed": 101}


def test_a_plan_that_was_begun_stays(tmp_path):
    sweep, folder = sweep_of(tmp_path), tmp_path / "runs"
    search = searched(sweep, folder, VALUES)
    plan = agreed_plan(folder, confirm_plan(sweep, search))
    assert read_plan(folder, "confirm") == plan
    begin(folder, plan.runs[0], "running")
    longer = sweep_of(tmp_path, TEXT + "confirm: {top_k: 1, seeds: 5}\n")
    assert agreed_plan(folder, confirm_plan(longer, search)) == plan


def test_a_plan_that_was_not_begun_may_be_another(tmp_path):
    sweep, folder = sweep_of(tmp_path), tmp_path / "runs"
    search = searched(sweep, folder, VALUES)
    agreed_plan(folder, confirm_plan(sweep, search))
    other = confirm_plan(sweep_of(tmp_path, TEXT + "confirm: {top_k: 1, seeds: 5}\n"), search)
    assert agreed_plan(folder, other) == other == read_plan(folder, "confirm")


def test_an_extended_search_adds_candidates_and_takes_none_out(tmp_path, capsys):
    sweep, folder = sweep_of(tmp_path), tmp_path / "runs"
    search = searched(sweep, folder, VALUES)
    before = agreed_plan(folder, confirm_plan(sweep, search))
    for run in before.runs:
        begin(folder, run, "finished")
    search.extend(2)
    searched(sweep, folder, [0.65, 0.1])
    plan = agreed_plan(folder, confirm_plan(sweep, Search.open(sweep, folder)))
    assert plan.candidates == ((2, "search"), (3, "search"), (5, "search"))
    assert plan.trials == 7
    assert [run.folder for run in unfinished(folder, plan)] == ["confirm/0005-s101", "confirm/0005-s102"]
    assert "confirm: trial 5 is among the best now, and trained again beside those of before" in capsys.readouterr().out
    assert read_json(folder / "confirm.json")["runs"][0] == {"trial": 2, "seed": 101, "folder": "confirm/0002-s101"}


def begin(folder: Path, run: Run, state: str) -> None:
    write_json(folder / run.folder / "status.json", {"state": state, "reason": "", "best": 0.5})


def test_confirm_may_be_added_and_not_changed_once_begun(tmp_path):
    folder = tmp_path / "runs"
    record_sweep(sweep_of(tmp_path, TEXT), folder)
    sweep = sweep_of(tmp_path)
    refuse_changes(sweep, folder)
    record_sweep(sweep, folder)
    assert "confirm" in (folder / "sweep.yaml").read_text()
    changed = sweep_of(tmp_path, TEXT + "confirm: {top_k: 4, seeds: 2}\n")
    refuse_changes(changed, folder)
    begin(folder, Run(2, 101, "confirm/0002-s101"), "running")
    with pytest.raises(SweepError) as refused:
        refuse_changes(changed, folder)
    assert str(refused.value) == (
        f"{folder}: confirm was begun and stays as it is (confirm.top_k: 2 -> 4); put it back, or remove "
        f"{folder}/confirm to confirm anew"
    )
    with pytest.raises(SweepError, match="confirm was begun"):
        refuse_changes(sweep_of(tmp_path, TEXT), folder)


class KilledError(Exception):
    """Stands for the death of the driver."""


UNBEGUN = "The actor died unexpectedly"  # of a training whose process did not come up


def executed(train: Callable[[Path, dict[str, Any]], str], most: int = 99) -> Callable[..., None]:
    """What Ray Tune does, one job after the other, in this process; the driver dies before job `most`."""

    def execute(trainable: Any, queue: Any, folder: Path, slots: Slots, **run: Any) -> None:
        records = run["callbacks"][0]
        for count in range(run["left"]()):
            if count == most:
                raise KilledError
            trial = SimpleNamespace(config=queue.suggest("a"), error_file=str(folder / "error.txt"), status="RUNNING")
            records.on_trial_start(0, [], trial)
            if error := train(folder / trial.config["folder"], trial.config):
                Path(trial.error_file).write_text(f"Failure # 1\n{error}\n")
                trial.status = "PENDING" if error == UNBEGUN else "RUNNING"
                run["scheduler"].on_trial_error(None, trial)
                records.on_trial_error(0, [], trial)
            else:
                records.on_trial_complete(0, [], trial)

    return execute


def finish(folder: Path, job: dict[str, Any]) -> str:
    """A training as far as the records see it: trial 3 breaks with seed 102."""
    if (job["status"]["trial"], job["status"]["seed"]) == (3, 102):
        return "ValueError: no"
    write_json(folder / "last.old" / "state.json", {})
    write_json(folder / "best" / "state.json", {})
    status = read_json(folder / "status.json")
    write_json(folder / "status.json", status | {"state": "finished", "best": 0.5, "settings": job["params"]})
    return ""


def test_a_training_whose_process_dies_before_it_begins_is_begun_again(tmp_path, monkeypatch, capsys):
    sweep, folder = sweep_of(tmp_path), tmp_path / "runs"
    search = searched(sweep, folder, VALUES)
    write_json(trial_folder(folder, 0) / "status.json", {"state": "finished"})
    begun = []

    def train(place: Path, job: dict[str, Any]) -> str:
        begun.append(place.name)
        return UNBEGUN if begun.count("0002-s102") == 1 and place.name == "0002-s102" else finish(place, job)

    monkeypatch.setattr(sweeping, "execute", executed(train))
    sweeping.confirm(sweep, search, folder, lambda job: None, Slots(1, 1, 0.0, 1))
    assert begun[-1] == "0002-s102"
    assert begun.count("0002-s102") == 2
    assert read_json(folder / "confirm" / "0002-s102" / "status.json")["state"] == "finished"
    assert "before the trial began; begun again after the others (1 of 2)" in capsys.readouterr().out


def test_ctrl_c_ends_a_confirmation_although_a_training_is_to_be_begun_again(tmp_path, monkeypatch):
    sweep, folder = sweep_of(tmp_path), tmp_path / "runs"
    search, begun = searched(sweep, folder, VALUES), []

    def train(place: Path, job: dict[str, Any]) -> str:
        begun.append(place.name)
        return UNBEGUN

    def interrupted(trainable: Any, queue: Any, folder: Path, slots: Slots, **run: Any) -> None:
        executed(train)(trainable, queue, folder, slots, **{**run, "left": lambda: 1})  # one of six, then Tune returns

    monkeypatch.setattr(sweeping, "execute", interrupted)
    with pytest.raises(KeyboardInterrupt):
        sweeping.confirm(sweep, search, folder, lambda job: None, Slots(1, 1, 0.0, 1))
    assert len(begun) == 1


def test_a_killed_confirmation_goes_on_with_what_is_left(tmp_path, monkeypatch, capsys):
    sweep, folder = sweep_of(tmp_path), tmp_path / "runs"
    search = searched(sweep, folder, VALUES)
    write_json(trial_folder(folder, 0) / "status.json", {"state": "finished"})
    slots = Slots(1, 1, 0.0, 1)
    monkeypatch.setattr(sweeping, "execute", executed(finish, most=4))
    with pytest.raises(KilledError):
        sweeping.confirm(sweep, search, folder, lambda job: None, slots)
    write_json(folder / "confirm" / "0000-s101" / "last" / "state.json", {})  # as an older PoseSweep left it
    begun = {file.parent.name: file.read_text() for file in (folder / "confirm").glob("*/status.json")}
    assert len(begun) == 4
    monkeypatch.setattr(sweeping, "execute", executed(finish))
    sweeping.confirm(sweep, search, folder, lambda job: None, slots)
    for name, text in begun.items():
        assert (folder / "confirm" / name / "status.json").read_text() == text, "a finished training was touched"
    status = read_json(folder / "confirm" / "0000-s102" / "status.json")
    assert status["role"] == "confirm"
    assert (status["trial"], status["seed"], status["state"]) == (0, 102, "finished")
    assert status["params"] == search.proposals()[0].params
    assert status["settings"] == {**status["params"], "seed": 102, "epochs": 6}
    failed = read_json(folder / "confirm" / "0003-s102" / "status.json")
    assert (failed["state"], failed["reason"]) == ("failed", "ValueError: no")
    said = capsys.readouterr().out
    assert "s: confirm trains trials 2, 3 and the baseline with seeds 101, 102, 6 epochs each; 4 of 6 done" in said
    assert "trial 3, seed 102: failed after 0 epochs: ValueError: no" in said
    assert unfinished(folder, read_plan(folder, "confirm")) == []
    left = {str(path.relative_to(folder)) for path in (folder / "confirm").glob("*/*") if path.is_dir()}
    kept = {f"confirm/000{trial}-s{seed}/best" for trial in (0, 2, 3) for seed in (101, 102)}
    assert left == kept - {"confirm/0003-s102/best"}, "what nothing goes on from is removed at once"


def test_jobs_that_run_are_still_to_be_trained():
    """An autoscaler is shown what is left; it would take away nodes that train the last jobs."""
    queue = Queue([{"number": number} for number in range(3)], Orders())
    assert [queue.suggest(name)["number"] for name in "ab"] == [0, 1]
    assert queue.left == 3
    queue.on_trial_complete("a")
    queue.on_trial_complete("b", error=True)
    assert queue.left == 1


def test_without_a_finished_trial_there_is_nothing_to_confirm(tmp_path, capsys):
    sweep, folder = sweep_of(tmp_path), tmp_path / "runs"
    search = Search.open(sweep, folder)
    search.fail(search.next_trial().number, "a reason")
    sweeping.confirm(sweep, search, folder, lambda job: None, Slots(1, 1, 0.0, 1))
    assert capsys.readouterr().out == "note: confirm: no trial has finished, so there is nothing to confirm\n"
    assert not (folder / "confirm.json").exists()


# --- promotion -------------------------------------------------------------------------------------------------------


def test_the_best_are_promoted_those_that_were_confirmed_first(tmp_path):
    sweep = sweep_of(tmp_path)
    search = searched(sweep, tmp_path / "runs", VALUES)
    plan = retraining.promote_plan(sweep, search, Promote(2, 30), [])
    assert (plan.what, plan.candidates) == ("promote-30", ((2, "search"), (3, "search")))
    assert (plan.seeds, plan.epochs, plan.baseline) == ((101,), 30, 0)
    after = retraining.promote_plan(sweep, search, Promote(2, 30), [3, 0, 2])
    assert after.candidates == ((3, "search"), (2, "search"))


def test_more_may_be_promoted_later(tmp_path, capsys):
    sweep, folder = sweep_of(tmp_path), tmp_path / "runs"
    search = searched(sweep, folder, VALUES)
    first = agreed_plan(folder, retraining.promote_plan(sweep, search, Promote(1, 30), []))
    for run in first.runs:
        begin(folder, run, "finished")
    assert agreed_plan(folder, retraining.promote_plan(sweep, search, Promote(1, 30), [])) == first
    assert capsys.readouterr().out == "", "the same command goes on without a word"
    more = agreed_plan(folder, retraining.promote_plan(sweep, search, Promote(2, 30), []))
    assert [run.folder for run in unfinished(folder, more)] == ["promote-30/0003-s101"]


def test_a_promotion_that_makes_nothing_longer_is_refused(tmp_path):
    sweep = sweep_of(tmp_path)
    search = searched(sweep, tmp_path / "runs", VALUES)
    with pytest.raises(SweepError, match="--epochs 6 is not longer than the 6 of the search; give more"):
        retraining.promote_plan(sweep, search, Promote(2, 6), [])


def test_a_sweep_that_is_not_through_cannot_be_promoted(tmp_path):
    sweep, folder = sweep_of(tmp_path), tmp_path / "runs"
    search = Search.open(sweep, folder)
    with pytest.raises(SweepError, match="s was never started, so there is nothing to promote"):
        sweeping.promotion(sweep, search, folder, Promote(2, 30))
    searched(sweep, folder, VALUES[:2])
    with pytest.raises(SweepError, match="s has 3 trials to run yet; repeat without --promote until it ends"):
        sweeping.promotion(sweep, Search.open(sweep, folder), folder, Promote(2, 30))


def test_promote_and_epochs_go_together(capsys):
    for arguments in (["--promote", "3"], ["--epochs", "30"]):
        assert main(["sweep", *arguments]) == 2
        assert (
            "--promote K says how many are trained longer and --epochs E how long; give both" in capsys.readouterr().err
        )
    assert main(["sweep", "--promote", "3", "--epochs", "30", "--extend", "2"]) == 2
    assert "extend the sweep first, then promote its best" in capsys.readouterr().err
