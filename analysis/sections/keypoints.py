"""What the winner predicts: per keypoint, over trials, and on the objects it got best and worst."""

from functools import partial
from typing import Any

import pandas as pd

from posesweep.analysis.decision import listed
from posesweep.analysis.page import (
    Beside,
    Block,
    Cell,
    Colours,
    Column,
    Csv,
    Figure,
    Row,
    Section,
    Shot,
    Shots,
    Table,
    Words,
    embedded,
    figure,
)
from posesweep.analysis.per_keypoint import (
    PCK_SHARE,
    PerKeypoint,
    comparison,
    draw_keypoint_map,
    keypoint_map,
    per_keypoint,
    unlearned,
)
from posesweep.analysis.pictures import Picture, best_and_worst, draw_pictures
from posesweep.analysis.results import Evidence, SweepResults
from posesweep.analysis.story import Story
from posesweep.analysis.wording import number, signed
from posesweep.datasets.skeleton import Skeleton

BEST_PICTURES, WORST_PICTURES = 4, 8
MAP_TRIALS = 8  # columns of the heat map, the baseline's included
LONG_MAP = 32  # keypoints from which table and map stand below each other
COLOURS = (
    ("#fff", "truth"),
    ("#ffaa3c", "left"),
    ("#3caaff", "right"),
    ("#50dc78", "middle, as predicted"),
    ("#eb3c3c", "how far off"),
)


def named_skeleton(results: SweepResults, evidence: Evidence) -> Skeleton | None:
    """The skeleton, if it is that of the predictions."""
    skeleton = results.skeleton
    return skeleton if skeleton is not None and len(skeleton.keypoints) == evidence.keypoints.shape[1] else None


def keypoints_section(story: Story) -> Section | None:
    """The winner's numbers per keypoint beside the baseline's, and the heat map over the best trials."""
    results, winner, base = story.results, story.winner_trial, story.baseline_trial
    evidence = results.evidence(winner) if winner is not None else None
    if winner is None or evidence is None:
        return None
    if named_skeleton(results, evidence) is None:
        why = "split.json does not say which keypoints these are, so they cannot be named or drawn."
        return Section("keypoints", "Keypoints", (Words((why,)),))
    by_trial = _by_trial(story)
    other = by_trial.get(base) if base is not None and base != winner else None
    parts = _keypoint_table(by_trial[winner], other), _map(by_trial, winner, base)
    shown: tuple[Block, ...] = parts if len(by_trial[winner].names) > LONG_MAP else (Beside(*parts),)
    said = _not_learned(by_trial, winner)
    lead = "Means over the validation objects in which the keypoint is labelled, the winner's weakest first."
    lead += f" PCK: share found within {100 * PCK_SHARE:.0f} % of the longer side of the object's box."
    if other is not None:
        lead += " In colour: difference to the baseline."
    return Section("keypoints", "Keypoints", (*((Words((said,)),) if said else ()), *shown), lead)


def _not_learned(by_trial: dict[int, PerKeypoint], winner: int) -> str:
    """A sentence on the keypoints that the winner lacks and other trials have; "" where there are none."""
    lacking = unlearned(by_trial, winner)
    if not lacking:
        return ""
    each = [
        f"{one.keypoint} (PCK {number(one.pck, 2)}; trial {one.trial} has {number(one.pck_there, 2)})"
        for one in lacking
    ]
    return (
        f"The winner did not learn {listed(each, most=4)}, most likely by the luck of its training: train it with "
        "other seeds (`confirm`), or let the sweep try a wider network."
    )


def _by_trial(story: Story) -> dict[int, PerKeypoint]:
    """Numbers per keypoint of the best trials, winner and baseline among them, in the ranking's order."""
    ranked = [row.trial for row in story.table.rows if row.rank is not None]
    wanted = [story.winner_trial, story.baseline_trial, *ranked]
    kept = list(dict.fromkeys(trial for trial in wanted if trial in ranked))[:MAP_TRIALS]
    found = {trial: story.results.evidence(trial) for trial in ranked if trial in kept}
    named = {trial: (one, named_skeleton(story.results, one)) for trial, one in found.items() if one is not None}
    return {trial: per_keypoint(one, skeleton) for trial, (one, skeleton) in named.items() if skeleton is not None}


def _keypoint_table(winner: PerKeypoint, baseline: PerKeypoint | None) -> Table:
    frame = comparison(winner, baseline)
    columns = (Column("keypoint"), *(Column(name, "num") for name in ("labelled", "OKS", "error, px", "PCK")))
    rows = [
        Row(
            (
                Cell(row["keypoint"]),
                Cell(str(row["labelled"])),
                _compared(row, "oks", 3, bar=None if row["oks"] != row["oks"] else row["oks"]),
                _compared(row, "error_px", 1, good_is_up=False),
                _compared(row, "pck", 2),
            )
        )
        for row in frame.to_dict("records")
    ]
    return Table(columns, tuple(rows), Csv("keypoints", frame), shown=LONG_MAP)


def _compared(row: Any, name: str, digits: int, good_is_up: bool = True, bar: float | None = None) -> Cell:
    """A value with what it has over the baseline's."""
    gain = row[f"{name}_gain"]
    if gain != gain:
        return Cell(number(row[name], digits), bar=bar)
    shown = signed(gain, digits)
    same = not shown.strip("+−0.")
    tone = "same" if same else "up" if (gain > 0) == good_is_up else "down"
    return Cell(number(row[name], digits), soft=shown, tone=tone, bar=bar)


def _map(by_trial: dict[int, PerKeypoint], winner: int, baseline: int | None) -> Figure:
    numbers = keypoint_map(by_trial)
    labels = {winner: f"{winner}\nwinner"} | ({baseline: f"{baseline}\nbaseline"} if baseline is not None else {})
    width_in = 1.7 + 0.5 * len(numbers.trials)
    frame = pd.DataFrame(numbers.oks, columns=[f"trial_{trial}" for trial in numbers.trials])
    frame.insert(0, "keypoint", numbers.names)
    return figure(
        partial(draw_keypoint_map, numbers, labels=labels),
        (width_in, 0.6 + 0.23 * len(numbers.names)),
        f"mean OKS of {len(numbers.names)} keypoints in {len(numbers.trials)} trials",
        Csv("keypoint_map", frame),
        caption="OKS by keypoint, in hundredths, of the best trials.",
        most_px=round(110 * width_in),
    )


def pictures_section(story: Story) -> Section | None:
    """Validation objects that the winner got worst and best."""
    results, winner = story.results, story.winner_trial
    evidence = results.evidence(winner) if winner is not None else None
    skeleton = named_skeleton(results, evidence) if evidence is not None else None
    if evidence is None or skeleton is None:
        return None
    best_rows, worst_rows = best_and_worst(evidence.oks, BEST_PICTURES, WORST_PICTURES)
    best, missing = draw_pictures(results, evidence, skeleton, best_rows)
    worst, missing_too = draw_pictures(results, evidence, skeleton, worst_rows)
    blocks: list[Block] = []
    if gone := list(dict.fromkeys([*missing, *missing_too])):
        said = f"Not shown, because the image cannot be read from here: {listed(gone, most=4)}."
        blocks.append(Words((said,)))
    if best or worst:
        blocks.append(Colours(COLOURS))
    if worst:
        blocks.append(_shots("The worst", worst, Csv("objects", _objects(results, evidence))))
    if best:
        blocks.append(_shots("The best", best))
    return Section("pictures", "What the winner sees", tuple(blocks), short="Best and worst") if blocks else None


def _shots(title: str, pictures: list[Picture], csv: Csv | None = None) -> Shots:
    return Shots(tuple(_shot(picture) for picture in pictures), title, csv)


def _shot(picture: Picture) -> Shot:
    return Shot(
        source=embedded(picture.jpeg),
        width=picture.width,
        height=picture.height,
        alt=f"prediction over truth for annotation {picture.annotation_id}",
        head=f"OKS {picture.oks:.2f}",
        lines=(
            f"annotation {picture.annotation_id}, image {picture.image_id}",
            f"furthest off: {picture.worst_keypoint}, {picture.worst_px:.1f} px",
        ),
    )


def _objects(results: SweepResults, evidence: Evidence) -> pd.DataFrame:
    """Every validation object, the worst first: annotation, image, file, oks, mean_error_px."""
    files = results.split.get("images") or {}
    labelled = evidence.visibility > 0
    total = evidence.error_px.copy()
    total[~labelled] = 0.0
    frame = pd.DataFrame(
        {
            "annotation": evidence.ids,
            "image": evidence.image_ids,
            "file": [files.get(str(image), "") for image in evidence.image_ids],
            "oks": evidence.oks,
            "mean_error_px": total.sum(axis=1) / labelled.sum(axis=1).clip(min=1),
        }
    )
    return frame.sort_values("oks", kind="stable")
