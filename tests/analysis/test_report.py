import base64
import json
import re
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pytest

from posesweep.analysis.report import build_report
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
    kinds = Counter(link.split(",")[0] if link[0] != "#" else "#" for link in page.links)
    assert set(kinds) == {"#", "data:image/jpeg;base64", "data:text/csv;charset=utf-8;base64"}
    assert kinds["data:image/jpeg;base64"] == html.count("<img") >= 12
    assert {link[1:] for link in page.links if link.startswith("#")} <= set(page.ids)
    assert [name for name, count in page.ids.items() if count > 1] == []


def test_it_opens_with_the_decision_and_has_every_section(whole: Path) -> None:
    words = Page((whole / "report.html").read_text()).words
    assert words.index("Trial 7 did best") < words.index("the gain is beyond chance") < words.index("In 9")
    order = (
        "Ranking",
        "What mattered",
        "Score against the settings",
        "Learning curves",
        "Keypoints",
        "What the winner sees",
        "The worst",
        "The best",
        "Labels to look at",
        "With other OKS sigmas",
        "Cost, and how each trial ended",
        "Each trial",
        "Data and versions",
        "Settings of the winner",
    )
    after = words.index("Its settings")  # the list of contents ends here
    places = [words.index(title, after) for title in order]
    assert places == sorted(places)


def test_a_keypoint_that_only_the_winner_lacks_is_named(sweep: Path) -> None:
    file = sweep / "trials" / "0007" / "evidence.npz"
    evidence = dict(np.load(file))
    evidence["error_px"][:, 0] = 500.0
    np.savez(file, **evidence)
    words = _page(sweep).words
    name = json.loads((sweep / "split.json").read_text())["skeleton"]["keypoints"][0]
    assert f"The winner did not learn {name} (PCK 0.00; trial " in words


def test_every_figure_has_its_numbers_on_the_page_and_beside_it(whole: Path) -> None:
    links = Page((whole / "report.html").read_text()).links
    stored = {file.name: file.read_bytes() for file in (whole / "csv").iterdir()}
    figures = {"intervals", "slices", "parallel", "curves", "keypoint_map", "cost"}
    assert {f"{name}.csv" for name in figures} <= set(stored)
    on_page = {base64.b64decode(link.split(",")[1]) for link in links if link.startswith("data:text/csv")}
    assert on_page == set(stored.values())
    parallel = pd.read_csv(whole / "csv" / "parallel.csv")
    assert parallel["trial"][0] == 7  # the best first
    assert set(pd.read_csv(whole / "csv" / "curves.csv").query("rung")["epoch"]) == {2, 6}


def test_a_table_too_large_for_the_page_lies_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("posesweep.analysis.page.INLINE_BYTES", 900)
    folder = write_fake_sweep(tmp_path, TRIALS[:3], objects=4)
    links = Page(build_report(folder).read_text()).links
    assert "csv/curves.csv" in links
    assert all((folder / link).is_file() for link in links if link.startswith("csv/"))


def test_no_figure_is_without_words_for_those_who_cannot_see_it(whole: Path) -> None:
    html = (whole / "report.html").read_text()
    assert (
        html.count("<svg")
        == html.count("<svg role=")
        == len(re.findall(r'<svg role="img" aria-label="[^"]{8,}"', html))
    )
    assert all(re.search(r'alt="[^"]{8,}"', image) for image in re.findall(r"<img[^>]*>", html))
    names = [link for link in re.findall(r'<a class="csv"[^>]*>', html) if "aria-label=" not in link]
    assert names == []


def test_it_follows_the_readers_colours_and_can_be_printed(whole: Path) -> None:
    html = (whole / "report.html").read_text()
    assert "prefers-color-scheme: dark" in html
    assert "@media print" in html
    drawings = "".join(re.findall(r"<svg.*?</svg>", html, flags=re.DOTALL))
    assert "currentColor" in drawings
    assert "#000000" not in drawings  # black ink would vanish on a dark page


def test_stop_reasons_costs_data_and_versions_are_told(whole: Path) -> None:
    words = Page((whole / "report.html").read_text()).words
    assert "stopped at epoch 6: val/AP 0.201 is below 0.344, the best third of the 7 trials that came this far" in words
    assert "8 failed out of memory on cuda:0 at batch 32 after 3 attempts; try a smaller batch" in words
    assert "6 trained to the end, 4 stopped early, 1 diverged, 1 failed" in words
    # 6 x 18 + 2 + 6 + 2 + 3 + 6 + 4 epochs of 4 s training and 0.5 s validation, 5.1 s each and 2 s a trial
    assert "epochs trained 131" in words
    assert "trial time 11 min 32 s: 76 % training, 9 % validating, 15 % neither" in words
    # of the 18 epochs, the stopped did 2, 6, 2, 6: 16 x 6.1 + 12 x 5.43 + 16 x 6.1 + 12 x 5.43 = 325.6 s unspent
    assert "saved by stopping 5 min 26 s, 32 % of what full length would have taken (4 trials stopped early)" in words
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
    assert evil not in (folder / "report.md").read_text()
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


def _rewrite(path: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    path.write_text(json.dumps(change(json.loads(path.read_text()))))


def _timeless(page: Page) -> str:
    return re.sub(r"written [-0-9: ]+ UTC", "", page.words)


def _small(tmp_path: Path) -> Path:
    """Three trials, two of them trained to the end."""
    return write_fake_sweep(tmp_path, (TRIALS[0], TRIALS[7], TRIALS[2]), objects=8)


def test_a_folder_of_an_older_version_shows_what_it_has(tmp_path: Path) -> None:
    folder = _small(tmp_path)
    known = ("trial", "state", "params", "best", "best_epoch", "epochs")
    for number in range(3):
        path = trial_folder(folder, number)
        _rewrite(path / "status.json", lambda status: {key: status[key] for key in known})
        with np.load(path / "evidence.npz") as stored:
            np.savez(
                path / "evidence.npz", **{key: stored[key] for key in stored.files if not key.startswith("match/")}
            )
    _rewrite(folder / "split.json", lambda split: {key: split[key] for key in ("train", "val", "images")})
    words = _page(folder).words
    assert "Trial 1 did best: val/AP 0." in words
    assert "without an interval" in words
    assert "No baseline was trained, so what the search gained is not known." in words  # roles were not written down
    assert "split.json does not say which keypoints these are, so they cannot be named or drawn." in words
    assert "split not known" in words


def test_what_a_later_version_adds_is_passed_over(tmp_path: Path) -> None:
    folder = _small(tmp_path)
    before = _timeless(_page(folder))
    for file in (*folder.glob("trials/*/status.json"), folder / "split.json", folder / "space.json"):
        _rewrite(file, lambda content: content | {"mood": {"of": ["the", "day"]}, "threads_hint": None})
    for file in folder.glob("trials/*/metrics.jsonl"):
        rows = [json.loads(line) | {"val/mood": "fine", "extra": [1]} for line in file.read_text().splitlines()]
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "moods.json").write_text("{}")
    assert _timeless(_page(folder)) == before
    _rewrite(trial_folder(folder, 2) / "status.json", lambda status: status | {"state": "paused"})
    assert "2 trained to the end, 1 not known" in _page(folder).words


def test_a_trial_without_a_defined_ap_is_shown_without_one(tmp_path: Path) -> None:
    folder = _small(tmp_path)
    rows = [{"epoch": epoch, "loss": 0.1, "val/AP": -1, "val/PCK": 0.5, "train_s": 4.0} for epoch in range(1, 19)]
    path = trial_folder(folder, 0)
    (path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    _rewrite(path / "status.json", lambda status: status | {"best": -1})
    words = _page(folder).words
    assert "Trained to the end, but without a score: trial 0; no validation object has a label." in words
    assert "What the search gained is not known: the baseline (trial 0) has no score." in words
    assert "Trial 1 did best: AP 0." in words
    assert "-1.000" not in words


def test_a_running_sweep_says_that_its_figures_may_change(tmp_path: Path) -> None:
    folder = _small(tmp_path)
    for number in range(3):
        path = trial_folder(folder, number) / "status.json"
        _rewrite(path, lambda status: status | {"state": "running", "ended": None, "reason": "", "cost": None})
    words = _page(folder).words
    assert "3 trials had not ended when this was read; their figures may still change." in words
    assert "So far trial 1 leads" in words
    assert "still running" in words


@pytest.mark.parametrize("text", ["{", "[]", '{"trials": [], "used": 1}'])
def test_files_with_anything_in_them_do_not_stop_the_report(tmp_path: Path, text: str) -> None:
    folder = _small(tmp_path)
    for name in (
        "confirm.json",
        "promote-30.json",
        "test.json",
        "split.json",
        "datacurve/datacurve.json",
        "trials/0002/latency.json",
    ):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    for name in ("status.json", "metrics.jsonl", "config.yaml", "evidence.npz"):
        (trial_folder(folder, 2) / name).write_text(text)
    words = _page(folder).words
    assert "Trial 1 did best" in words
    assert "test.json cannot be read; it may be only partly copied." in words


def test_pictures_whose_image_is_gone_are_left_out_with_a_sentence(sweep: Path) -> None:
    split = json.loads((sweep / "split.json").read_text())
    split["images"] = {image: f"moved/{image}.jpg" for image in split["images"]}
    (sweep / "split.json").write_text(json.dumps(split))
    page = _page(sweep)
    assert "Not shown, because the image cannot be read from here: moved/" in page.words
    assert not any(link.startswith("data:image") for link in page.links)
    assert "The worst" not in page.words


def test_a_long_ranking_is_folded(tmp_path: Path) -> None:
    trials = [FakeTrial(0.03 + n / 100, {"lr0": 1e-3}, epochs=2) for n in range(18)]
    page = _page(write_fake_sweep(tmp_path, trials, objects=4))
    assert "3 more" in page.words


def test_a_folder_that_is_no_sweep_gets_no_report(tmp_path: Path) -> None:
    with pytest.raises(SweepError):
        build_report(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_picture_of_the_augmented_samples_is_on_the_page(tmp_path):
    sweep = write_fake_sweep(tmp_path, TRIALS[:1], objects=4)
    before = Page(build_report(sweep).read_text())
    (sweep / "pictures").mkdir()
    cv2.imwrite(str(sweep / "pictures" / "augmented.png"), np.full((40, 60, 3), 200, np.uint8))
    page = Page(build_report(sweep).read_text())
    assert "What the training sees" not in before.text
    assert "What the training sees" in page.text
    assert len(page.links) == len(before.links) + 1
