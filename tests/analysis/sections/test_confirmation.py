import json
from dataclasses import replace
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from posesweep.analysis.chosen import Chosen
from posesweep.analysis.confirmed import Candidate, Confirmed
from posesweep.analysis.page import Page, Section, render
from posesweep.analysis.ranked import ranked
from posesweep.analysis.ranking import Interval
from posesweep.analysis.report import report_page
from posesweep.analysis.results import read_sweep_folder
from posesweep.analysis.rungs import RungCorrelation
from posesweep.analysis.sections.confirmation import confirmation_section, promotion_section
from posesweep.analysis.sections.tested import tested_section
from posesweep.analysis.shrinkage import confirmed_frame, draw_confirmed
from posesweep.analysis.story import Story
from tests.analysis.fake_sweep import TRIALS, write_fake_sweep
from tests.analysis.test_report import Page as Read

BEST = Candidate(
    trial=1,
    role="try_first",
    ap=Interval(0.61, 0.55, 0.67),
    gain=Interval(0.08, 0.03, 0.13),
    p_best=0.7,
    tied=True,
    seed_values={101: 0.60, 102: 0.62},
    sweep_value=0.66,
    parameters=2_500_000,
)
SECOND = Candidate(
    trial=2,
    role="search",
    ap=Interval(0.60, 0.54, 0.66),
    gain=Interval(0.07, 0.02, 0.12),
    p_best=0.3,
    tied=True,
    seed_values={101: 0.60},
    sweep_value=0.69,
    parameters=1_200_000,
)
BASELINE = Candidate(0, "baseline", ap=Interval(0.53, 0.5, 0.56), p_best=0.0, seed_values={101: 0.53}, sweep_value=0.5)
LOST = Candidate(5, "search", reason="diverged with seed 102, so it cannot be relied on")
FOUND = Confirmed(
    rows=(BEST, SECOND, BASELINE, LOST),
    epochs=240,
    seeds=(101, 102),
    seed_sd=0.012,
    rungs=(RungCorrelation(2, 6, Interval(0.71, 0.2, 0.9)), RungCorrelation(6, 3, None)),
    notes=("a note of the confirmation",),
)


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Story:
    """Trial 2 was best in the search; trained again, trial 1 is."""
    folder = write_fake_sweep(tmp_path_factory.mktemp("sweep"), (TRIALS[0], TRIALS[1], TRIALS[7]), objects=12)
    results = read_sweep_folder(folder)
    return Story(results, ranked(results), FOUND)


def _words(section: Section | None) -> str:
    assert section is not None
    return Read(render(Page("", "report", "", (), (section,)))).words


def test_the_searchs_number_stands_beside_the_confirmed_one(story: Story) -> None:
    words = _words(confirmation_section(story))
    assert "The best 3 configs of the search and the baseline, trained again for 240 epochs with 2 other seeds" in words
    assert "1 1 winner 0.610 0.550…0.670 0.660 −0.050 +0.080 +0.030…+0.130 70 % 2.50 M" in words
    assert "2 2 tied 0.600 0.540…0.660 0.690 −0.090" in words
    assert "Of those that are tied, trial 2 is the cheapest (1.20 M parameters)." in words
    assert "Another seed changes the AP of a config by about 0.012." in words
    assert "Trial 5 has no place: diverged with seed 102, so it cannot be relied on." in words
    assert "a note of the confirmation" in words


def test_luck_is_named_only_where_the_search_trained_as_long(story: Story) -> None:
    assert "The diamond: what the search saw, after other epochs." in _words(confirmation_section(story))
    same = replace(story, confirmed=replace(FOUND, epochs=story.results.full_epochs))
    words = _words(confirmation_section(same))
    assert "By how much it looks better than its dot, that was luck." in words


def test_whether_early_scores_foretold_the_end(story: Story) -> None:
    words = _words(confirmation_section(story))
    said = "Epoch 2: rank correlation with the final score 0.71 (0.20 to 0.90), over 6 trials that went on to the end."
    assert said in words
    assert "Epoch 6: 3 trials went on to the end, too few to say." in words


def test_the_page_tells_of_the_confirmed_winner(story: Story) -> None:
    assert story.table.winner is not None
    assert (story.table.winner.trial, story.winner_trial) == (2, 1)
    page = report_page(story)
    assert [(tile.text, tile.below) for tile in page.tiles[:2]] == [
        ("trial 1", "best, tied with 1 more"),
        ("0.610", "AP, 0.550 to 0.670, confirmed with other seeds"),
    ]
    words = Read(render(page)).words
    assert "2 best in the search" in words
    assert "Ranking of the search" in words
    assert words.count("Did early scores foretell the end?") == 1


def test_a_confirmation_that_has_only_begun(story: Story) -> None:
    begun = Confirmed((LOST,), None, (101,), None, (), ("Not trained to the end yet",), complete=False)
    early = Story(story.results, story.table, begun)
    assert early.winner_trial == 2  # still the search's
    assert "Trial 5 has no place" in _words(confirmation_section(early))
    assert confirmation_section(Story(story.results, story.table)) is None


def test_the_figure_shows_interval_seeds_and_what_the_search_saw() -> None:
    ax = Figure().subplots()
    draw_confirmed((BEST, BASELINE), ax)
    bars = [list(line.get_xdata()) for line in ax.lines if line.get_linewidth() == 3]
    assert bars == [[0.55, 0.67], [0.5, 0.56]]
    diamonds = [float(line.get_xdata()[0]) for line in ax.lines if line.get_marker() == "D" and len(line.get_xdata())]
    assert diamonds == [0.66, 0.5]
    assert list(confirmed_frame((BEST, LOST))["seed_value"])[:2] == [0.60, 0.62]


def test_the_test_split_is_shown_with_what_validation_had_promised(story: Story) -> None:
    ap, gain = {"value": 0.58, "low": 0.5, "high": 0.66}, {"value": 0.06, "low": 0.01, "high": 0.11}
    trials = [
        {"trial": 1, "role": "search", "folder": "confirm/0001-s102", "AP": ap, "gain": gain},
        {"trial": 0, "role": "baseline", "folder": "confirm/0000-s101", "AP": None},
    ]
    for one, best in zip(trials, (0.62, 0.53), strict=True):
        (story.results.folder / one["folder"]).mkdir(parents=True)
        (story.results.folder / one["folder"] / "status.json").write_text(json.dumps({"best": best}))
    record = {"used": "2026-11-28T10:00:00", "objects": 40, "trials": trials, "notes": ["few images"]}
    file = story.results.folder / "test.json"
    file.write_text(json.dumps(record))
    words = _words(tested_section(story))
    assert "40 objects that nothing was chosen on, read once, on 2026-11-28: the score to quote." in words
    assert "1 winner 0.580 0.500…0.660 0.620 +0.060 +0.010…+0.110" in words
    assert "0 baseline – 0.530" in words
    file.write_text(json.dumps(record | {"trials": [{**trials[0], "trial": 2}]}))
    words = _words(tested_section(story))
    assert "It was read for trial 2, and is not read again: trial 1, the winner now, has no score on it." in words
    longer = Chosen(2, story.results.folder, 0.7, None)
    assert "is not read again" not in _words(tested_section(replace(story, picked=longer))), "it is what was tested"
    other = replace(story.results, sweep={"metric": {"name": "val/PCK"}})
    assert "2 0.580 0.500…0.660 – +" in _words(tested_section(replace(story, results=other))), "PCK is not beside AP"
    file.unlink()
    assert tested_section(story) is None


def test_trials_trained_longer_stand_beside_the_baseline_trained_as_long(story: Story) -> None:
    folder = story.results.folder
    runs = [{"trial": trial, "seed": 0, "folder": f"promote-40/{trial:04d}-s0"} for trial in (1, 0, 2)]
    for run, best in zip(runs, (0.71, 0.64, None), strict=True):
        (folder / run["folder"]).mkdir(parents=True)
        status = {"state": "running" if best is None else "finished", "best": best}
        (folder / run["folder"] / "status.json").write_text(json.dumps(status))
    candidates = [{"trial": 1, "role": "search"}, {"trial": 0, "role": "baseline"}, {"trial": 2, "role": "search"}]
    record = {"epochs": 40, "baseline": 0, "candidates": candidates, "runs": runs}
    (folder / "promote-40.json").write_text(json.dumps(record))
    words = _words(promotion_section(story))
    assert "Trained longer 40 epochs" in words
    assert "1 0.710" in words
    assert "0 baseline 0.640" in words
    assert "1 training has not ended yet." in words
    (folder / "promote-40.json").write_text('{"epochs": 40, "runs": [')
    assert promotion_section(story) is None


def test_it_is_written_into_the_csv(story: Story, tmp_path: Path) -> None:
    csvs = {csv.name: csv.frame for csv in report_page(story).csvs}
    assert list(csvs["confirmed"]["trial"]) == [1, 1, 2, 0, 5]
