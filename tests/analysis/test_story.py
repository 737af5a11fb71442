"""One winner everywhere: what the page, the short report and the terminal say is what is handed over."""

from pathlib import Path

import pytest

from posesweep.analysis.chosen import chosen
from posesweep.analysis.markdown import markdown
from posesweep.analysis.ranked import ranked
from posesweep.analysis.report import report_page
from posesweep.analysis.results import read_sweep_folder
from posesweep.analysis.story import Story
from posesweep.files import read_json, write_json
from tests.analysis.fake_sweep import write_fake_sweep
from tests.analysis.test_chosen import again, confirm, record

LEFT = "1 training has still to confirm the winner; until then it is the one of the search"


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    return write_fake_sweep(tmp_path / "ponies")


def told(sweep: Path) -> tuple[Story, str]:
    story = Story.of(read_sweep_folder(sweep))
    picked = chosen(story.results, ranked(story.results))
    assert story.picked is not None
    assert (story.picked.trial, story.picked.folder) == (picked.trial, picked.folder)
    return story, markdown(story)


def test_half_a_confirmation_names_the_winner_of_the_search(sweep: Path) -> None:
    confirm(sweep, unfinished=1)
    story, text = told(sweep)
    assert story.confirmed is not None
    assert story.confirmed.winner is not None
    assert story.confirmed.winner.trial == 9, "it would, once it is whole"
    assert (story.decisive, story.candidate, story.winner_trial, story.handed_over) == (None, None, 7, 7)
    page = report_page(story)
    assert page.tiles[0].text == "trial 7"
    assert page.decision[0][1].startswith("Trial 7 did best: AP 0.")
    assert f"{LEFT}." in page.notes
    assert "- Trial 7 did best" in text
    assert LEFT in text


def test_a_whole_confirmation_names_its_own(sweep: Path) -> None:
    confirm(sweep)
    story, text = told(sweep)
    assert (story.winner_trial, story.handed_over, story.undecided) == (9, 9, "")
    assert report_page(story).tiles[0].text == "trial 9"
    assert "- Trial 9 is the best config" in text
    assert "**Ranking of the search**" in text


def test_one_that_became_better_when_trained_longer_is_named_beside_the_winner(sweep: Path) -> None:
    runs = [again(sweep, "promote-60", 4, 101, 7), again(sweep, "promote-60", 0, 101, 4)]
    record(sweep, "promote-60", runs, 60)
    status = sweep / "promote-60" / "0004-s101" / "status.json"
    write_json(status, {**read_json(status), "best": 0.99})
    story, text = told(sweep)
    assert (story.winner_trial, story.handed_over) == (7, 4)
    for said in (report_page(story).decision[0][1], text):
        assert "Trained for 60 epochs, trial 4 became better: AP 0." in said
