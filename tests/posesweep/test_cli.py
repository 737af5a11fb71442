"""What a user sees of the command line: one sentence and exit code 2, never a traceback."""

import pytest

from posesweep.cli import main, parser


def fails(capsys, *arguments: str) -> str:
    assert main(arguments) == 2
    said = capsys.readouterr().err
    assert said.startswith("posesweep: ")
    assert "Traceback" not in said
    return said


VERBS = sorted(next(action.choices for action in parser()._actions if action.choices))


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself_with_an_example_of_it(capsys, verb):
    with pytest.raises(SystemExit) as ended:
        main([verb, "--help"])
    assert ended.value.code == 0
    examples = capsys.readouterr().out.rpartition("example")[2]
    assert ("run_sweep.py " if verb == "sweep" else f"posesweep {verb} ") in examples


def test_a_sweep_file_that_is_not_there(capsys, tmp_path):
    assert "no sweep file" in fails(capsys, "sweep", str(tmp_path / "nothing.yaml"))


def test_all_mistakes_of_a_sweep_file_at_once(capsys, tmp_path):
    file = tmp_path / "bad.yaml"
    file.write_text(
        "name: bad\ndata: {synthetic: {train: 8, val: 4, width: 64, height: 64}}\n"
        "fixed: {model: hrnet_w33, epochs: 0, nesterov: true}\nparameters: {lr0: {min: 1e-2, max: 1e-3}}\n"
    )
    said = fails(capsys, "sweep", str(file))
    assert "4 mistakes" in said
    assert "model (line 3)" in said
    assert "did you mean 'hrnet_w32'?" in said
    assert "epochs (line 3)" in said
    assert "optimizer: adamw does not use it" in said
    assert "swap them" in said


def test_a_setting_of_the_command_line_that_is_unknown(capsys):
    said = fails(capsys, "sweep", "lr=1e-3")
    assert "lr" in said
    assert "did you mean 'lr0'?" in said


def test_report_of_a_folder_that_is_no_sweep(capsys, tmp_path):
    assert "not a sweep folder" in fails(capsys, "report", str(tmp_path))


def test_training_what_is_no_config(capsys, tmp_path):
    file = tmp_path / "best.yaml"
    file.write_text("epochs: 3\n")
    assert "is not the config of one training" in fails(capsys, "train", str(file), "--out", str(tmp_path / "out"))
    missing = fails(capsys, "train", str(tmp_path / "no.yaml"), "--out", str(tmp_path / "out"))
    assert "is not there; give the best.yaml of a sweep folder" in missing
    assert not (tmp_path / "out").exists()


def test_too_many_workers_for_the_machine(capsys, tmp_path):
    said = fails(capsys, "sweep", "resources.workers_per_trial=4096", "batch=4096", "--runs", str(tmp_path))
    assert "needs 4096 CPUs" in said
    assert "lower workers_per_trial" in said


def test_a_path_that_cannot_be_used_is_told_in_a_sentence(capsys, tmp_path):
    code = main(["weights", str(tmp_path / ("a" * 300))])
    captured = capsys.readouterr()
    assert code == 2
    assert captured.err.startswith("posesweep: ")
    assert "Traceback" not in captured.err
