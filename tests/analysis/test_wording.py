import pytest
import yaml

from posesweep.analysis.ranking import Interval
from posesweep.analysis.wording import duration, flattened, number, percent, setting_text, signed, span


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


def test_shares_next_to_nothing_or_everything_are_said_so() -> None:
    assert [percent(share) for share in (0.0, 0.004, 0.624, 0.996, None)] == ["< 1 %", "< 1 %", "62 %", "> 99 %", "–"]


def test_numbers_that_are_not_known_are_a_dash() -> None:
    assert (number(None), number(float("nan")), number(0.61249, 2)) == ("–", "–", "0.61")
    assert span(Interval(0.1, -0.05, 0.25), sign=True) == "−0.050…+0.250"
