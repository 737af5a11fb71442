import json
from dataclasses import replace
from pathlib import Path

from posesweep.analysis.confirmed import Candidate, Confirmed
from posesweep.analysis.markdown import literal, markdown, table_of
from posesweep.analysis.ranking import Interval
from posesweep.analysis.results import read_sweep_folder
from posesweep.analysis.story import Story
from tests.analysis.fake_sweep import TRIALS, FakeTrial, write_fake_sweep


def _text(folder: Path) -> str:
    return markdown(Story.of(read_sweep_folder(folder)))


def test_decision_table_and_settings_fit_into_a_pull_request(tmp_path: Path) -> None:
    text = _text(write_fake_sweep(tmp_path))
    lines = text.splitlines()
    assert lines[0] == "## ponies"
    assert lines[2].startswith("- Trial 7 did best: AP 0.")
    assert lines[3].startswith("- On these images the gain is beyond chance")
    assert (
        lines[6] == "| \\# | trial | AP | P(best) | over the baseline | lr0 | codec | sigma | freeze | aug\\_strength |"
    )
    assert lines[8].startswith("| 1 | 7 | 0.")
    assert "| 6 | 0, the baseline | 0." in text
    assert "| lr0 | 0.0017 | 0.0005 |" in text
    assert lines[-1] == "<sub>12 trials; split 3f9a1c22d07be481; the whole report: report.html</sub>"
    assert len(text) < 4000


def test_the_baseline_is_shown_though_it_stands_far_below(tmp_path: Path) -> None:
    trials = [FakeTrial(0.03 + n / 300, {"lr0": 1e-3}, epochs=2) for n in range(11)]
    trials.append(FakeTrial(0.2, {"lr0": 1e-2}, role="baseline", epochs=2))
    text = _text(write_fake_sweep(tmp_path, trials, objects=4))
    assert "| 11, the baseline |" in text
    assert "and 3 trials more" in text


def test_a_confirmed_winner_is_shown_wherever_it_stood_in_the_search(tmp_path: Path) -> None:
    trials = [FakeTrial(0.03 + n / 300, {"lr0": 1e-3}, epochs=2) for n in range(11)]
    story = Story.of(read_sweep_folder(write_fake_sweep(tmp_path, trials, objects=12)))
    value, last = Interval(0.6, 0.5, 0.7), story.table.rows[-1]
    assert last.rank == 11
    assert last.ap is not None
    again = Candidate(last.trial, "search", value, value, 1.0, True, {1: 0.6, 2: 0.6}, 0.5)
    text = markdown(replace(story, confirmed=Confirmed((again,), 2, (1, 2), 0.01, (), ("a note of the confirmation",))))
    assert "**Ranking of the search**\n\n| \\# | trial |" in text
    assert f"| {last.trial} | {last.ap.value:.3f} (" in text
    assert "- a note of the confirmation" in text
    assert "**Ranking of the search**" not in markdown(story)


def test_names_cannot_break_out(tmp_path: Path) -> None:
    folder = write_fake_sweep(tmp_path, TRIALS[:1], objects=4, name="<script>x</script> [a](b) @all\n# b|c")
    split = json.loads((folder / "split.json").read_text())
    (folder / "split.json").write_text(json.dumps(split | {"hash": "<img>"}))
    text = _text(folder)
    assert text.startswith("## &#60;script&#62;x&#60;/script&#62; \\[a\\](b) &#64;all \\# b|c\n")
    assert "<img>" not in text
    assert table_of(("a|b",), [("c\nd",)]) == "| a\\|b |\n| --- |\n| c d |"
    assert literal("val_AP*") == "val\\_AP\\*"


def test_nothing_trained_yet_is_said(tmp_path: Path) -> None:
    text = _text(write_fake_sweep(tmp_path, (), objects=4))
    assert "- No trial has been started yet, so there is no winner." in text
    assert "| trial |" not in text
