import json
import re
import shutil
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml

from posesweep.analysis.report import build_report, duration, flattened, setting_text, signed
from posesweep.errors import SweepError
from posesweep.files import trial_folder
from tests.analysis.fake_sweep import TRIALS, FakeTrial, write_fake_sweep

VOID = {"meta", "img", "br", "link", "use", "path"}


class Page(HTMLParser):
    """What a browser would make of the page: its visible text, ids and addresses. Fails on crossed tags."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: Counter[str] = Counter()
        self.links: list[str] = []
        self.text = ""
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)
        self.ids.update(value or "" for name, value in attrs if name == "id")
        self.links += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href")]

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not {"style", "script"} & set(self.open):
            self.text += data + " "

    @property
    def words(self) -> str:
        return " ".join(self.text.split())


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_fake_sweep(tmp_path_factory.mktemp("sweep"))
    build_report(folder)
    return folder


@pytest.fixture
def sweep(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "copy"))


def _page(folder: Path) -> Page:
    return Page(build_report(folder).read_text())


def test_one_file_with_everything_in_it(whole: Path) -> None:
    html = (whole / "report.html").read_text()
    page = Page(html)
    assert len(html) < 5_000_000
    assert "://" not in html
    assert not re.search(r"<script|<link|@import|url\((?!#)", html)
    assert all(link.startswith(("#", "data:image/jpeg;base64,")) for link in page.links)
    assert sum(link.startswith("data:") for link in page.links) == 12
    assert {link[1:] for link in page.links if link.startswith("#")} <= set(page.ids)
    assert [name for name, count in page.ids.items() if count > 1] == []


def test_it_opens_with_the_decision_and_has_every_section(whole: Path) -> None:
    words = Page((whole / "report.html").read_text()).words
    assert words.index("Trial 7 did best") < words.index("the gain is beyond chance") < words.index("In 9")
    order = (
        "Ranking",
        "Learning curves",
        "The ranking in figures",
        "Not ranked",
        "Score against each parameter",
        "Keypoints",
        "What the winner sees",
        "The worst",
        "The best",
        "Settings of the winner",
        "How the sweep went",
        "Data and versions",
    )
    places = [words.index(title, words.index("the gain is beyond chance")) for title in order]
    assert places == sorted(places)


def test_stop_reasons_costs_data_and_versions_are_told(whole: Path) -> None:
    words = Page((whole / "report.html").read_text()).words
    assert "stopped at epoch 6: val/AP 0.201 is below 0.344, the best third of the 7 trials that came this far" in words
    assert "trial 8, failed: out of memory on cuda:0" in words
    assert "6 trained to the end, 4 stopped early, 1 diverged, 1 failed" in words
    # 6 x 18 + 2 + 6 + 2 + 3 + 6 + 4 epochs of 4 s training and 0.5 s validation, 5.1 s each and 2 s a trial
    assert "epochs trained 131" in words
    assert "trial time 11 min 32 s: 76 % training, 9 % validating, 15 % neither" in words
    assert "3 annotations had no area" in words
    assert "3f9a1c22d07be481" in words
    assert "torch 2.15.0" in words


def test_settings_that_differ_from_the_baseline_come_first(whole: Path) -> None:
    words = Page((whole / "report.html").read_text()).words
    assert "setting winner baseline lr0 0.0017 0.0005 codec simcc heatmap aug_strength 0.48 0.5 sigma – 2" in words
    assert "9 settings the same in both" in words


def test_what_users_name_is_escaped(tmp_path: Path) -> None:
    evil = "<script>alert('$x$')</script>"
    trials = [
        FakeTrial(0.04, {evil: evil, "lr0": 1e-3}, role="baseline"),
        FakeTrial(0.03, {evil: "a$b$", "lr0": 2e-3}),
        FakeTrial(0.09, {evil: evil, "lr0": 9e-3}, "failed", 2, f"KeyError: {evil}"),
    ]
    folder = write_fake_sweep(tmp_path, trials, objects=6, name=evil)
    split = json.loads((folder / "split.json").read_text())
    split["skeleton"]["keypoints"][0] = evil
    split["skeleton"]["edges"] = []
    split["notes"] = [evil]
    (folder / "split.json").write_text(json.dumps(split))
    html = build_report(folder).read_text()
    assert "<script" not in html
    text = Page(html).text
    assert text.count(evil) > 8  # and is shown as it is, dollars included


@pytest.mark.parametrize(
    ("trials", "said"),
    [
        ((), "No trial has been started yet, so there is no winner."),
        (TRIALS[:1], "It is the baseline itself"),
        (TRIALS[3:4], "It is the only trial in the ranking."),
        ((TRIALS[8], replace(TRIALS[11], epochs=0)), "Every trial failed or diverged"),
        ((TRIALS[2], TRIALS[5]), "No trial has finished; what follows is only what was written on the way."),
        ((replace(TRIALS[0], state="running", epochs=0),), "No trial has come far enough to be ranked"),
        ((replace(TRIALS[0], state="failed", epochs=3), TRIALS[1]), "the baseline (trial 0) failed"),
    ],
)
def test_sweeps_with_little_in_them(tmp_path: Path, trials: tuple[FakeTrial, ...], said: str) -> None:
    assert said in _page(write_fake_sweep(tmp_path, trials, objects=4)).words


def test_half_a_copy(sweep: Path) -> None:
    for name in ("split.json", "space.json", "sweep.yaml"):
        (sweep / name).unlink()
    shutil.rmtree(trial_folder(sweep, 7))
    (trial_folder(sweep, 9) / "config.yaml").unlink()
    (trial_folder(sweep, 3) / "evidence.npz").write_bytes(b"PK")
    words = _page(sweep).words
    assert "split.json is missing." in words
    assert "split.json does not say which keypoints these are" in words
    assert "trials/0003/evidence.npz is only partly there" in words
    assert "Trial 9 did best" in words


def test_pictures_whose_image_is_gone_are_left_out_with_a_sentence(sweep: Path) -> None:
    split = json.loads((sweep / "split.json").read_text())
    split["images"] = {image: f"moved/{image}.jpg" for image in split["images"]}
    (sweep / "split.json").write_text(json.dumps(split))
    page = _page(sweep)
    assert "Not shown, because the image cannot be read from here: moved/" in page.words
    assert not any(link.startswith("data:") for link in page.links)
    assert "What the winner sees" not in page.words


def test_a_long_ranking_is_folded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("posesweep.analysis.report.ROWS_SHOWN", 2)
    trials = [FakeTrial(0.03 + n / 100, {"lr0": 1e-3}, epochs=2) for n in range(5)]
    page = _page(write_fake_sweep(tmp_path, trials, objects=4))
    assert "3 more" in page.words


def test_a_folder_that_is_no_sweep_gets_no_report(tmp_path: Path) -> None:
    with pytest.raises(SweepError):
        build_report(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_winners_config_is_flattened() -> None:
    config = yaml.safe_load("{data: {train: a.json, synthetic: {val: 3}}, imgsz: [192, 256]}")
    assert flattened(config) == {"data.train": "a.json", "data.synthetic.val": 3, "imgsz": [192, 256]}


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.2, "0 s"), (59.6, "1 min"), (125, "2 min 5 s"), (3600, "1 h"), (7830, "2 h 10 min"), (100_000, "1 d 3 h")],
)
def test_durations(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_values_are_written_as_people_write_them() -> None:
    assert [setting_text(v) for v in (None, True, 0.00123456, [192, 256], "simcc", 3)] == [
        "–", "yes", "0.00123", "192, 256", "simcc", "3",
    ]  # fmt: skip
    assert (signed(-0.0121), signed(0.5, 1), signed(float("nan"))) == ("−0.012", "+0.5", "–")


def test_the_picture_of_the_augmented_samples_is_on_the_page(tmp_path):
    sweep = write_fake_sweep(tmp_path)
    before = Page(build_report(sweep).read_text())
    (sweep / "pictures").mkdir()
    cv2.imwrite(str(sweep / "pictures" / "augmented.png"), np.full((40, 60, 3), 200, np.uint8))
    page = Page(build_report(sweep).read_text())
    assert "What the training sees" not in before.text
    assert "What the training sees" in page.text
    assert len(page.links) == len(before.links) + 1
