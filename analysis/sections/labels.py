"""What the trials say of the data: labels that look wrong, and what more data would buy."""

from functools import partial

from posesweep.analysis.datacurve import datacurve, draw_datacurve
from posesweep.analysis.decision import listed
from posesweep.analysis.label_errors import LabelCrop, LabelErrors, draw_label_errors, label_crops, label_errors
from posesweep.analysis.page import (
    Block,
    Colours,
    Csv,
    Section,
    Shot,
    Shots,
    Table,
    Words,
    embedded,
    figure,
    plain_table,
)
from posesweep.analysis.results import SweepResults
from posesweep.analysis.story import Story
from posesweep.analysis.wording import number, percent

MOST_CROPS = 12
MOST_ROWS = 60  # of the table on the page; the CSV has all
COLOURS = (
    ("#fff", "as labelled"),
    ("#ffaa3c", "left"),
    ("#3caaff", "right"),
    ("#50dc78", "middle, as the trials agree"),
)


def label_errors_section(story: Story) -> Section | None:
    """Annotations of the validation set that the best trials contradict, the surest first."""
    found = label_errors(story.results, story.table)
    if not found.trials:
        return None  # no predictions: other sections say so
    best = "best trial" if len(found.trials) == 1 else f"best {len(found.trials)} trials"
    if found.table.empty:
        said = f"No label of the {found.objects} validation objects looks wrong to the {best}."
        return Section("labels", "Labels to look at", (Words((said, *found.notes)),), short="Labels")
    blocks: list[Block] = [_counts(found), _table(found), *_crops(found, story.results)]
    if found.notes:
        blocks.append(Words(found.notes))
    lead = (
        f"Where the {best} and the label do not agree, among {found.objects} validation "
        "objects. Candidates for a second look, not verdicts."
    )
    return Section("labels", "Labels to look at", tuple(blocks), lead, short="Labels")


def _counts(found: LabelErrors) -> Block:
    keypoints = len({name for names in found.table["keypoint"] for name in str(names).split("/")})
    return figure(
        partial(draw_label_errors, found),
        (5.4, 1.0 + 0.24 * min(keypoints, 20)),
        f"labels to look at, by keypoint and kind: {len(found.table)}",
        Csv("label_errors", found.table),
        most_px=680,
    )


def _table(found: LabelErrors) -> Table:
    rows = [
        (
            row["kind"],
            row["keypoint"].replace("/", ", "),
            percent(row["sure"]),
            str(row["annotation_id"]),
            str(row["image_id"]),
            number(row["off_px"], 0),
            row["suggestion"],
        )
        for row in found.table.head(MOST_ROWS).to_dict("records")
    ]
    return plain_table(("kind", "keypoint", ">sure", ">annotation", ">image", ">off, px", "suggestion"), rows, shown=8)


def _crops(found: LabelErrors, results: SweepResults) -> list[Block]:
    crops, missing = label_crops(found, results, MOST_CROPS)
    blocks: list[Block] = []
    if missing:
        said = f"Not shown, because the image cannot be read from here: {listed(missing, most=4)}."
        blocks.append(Words((said,)))
    if crops:
        blocks += [Colours(COLOURS), Shots(tuple(_shot(crop, found) for crop in crops))]
    return blocks


def _shot(crop: LabelCrop, found: LabelErrors) -> Shot:
    row = found.table.iloc[crop.place]
    where = f"annotation {row['annotation_id']}, image {row['image_id']}"
    return Shot(
        source=embedded(crop.jpeg),
        width=crop.width,
        height=crop.height,
        alt=f"label and consensus for {where}",
        head=f"{row['kind']}, {percent(row['sure'])} sure",
        lines=(where, str(row["suggestion"])),
    )


def datacurve_section(story: Story) -> Section | None:
    """AP against the amount of training data, where it was tried."""
    found = datacurve(story.results)
    if found.table.empty:
        return None
    looks_ahead = "; the band: 95 % interval of the curve; dashed: not tried" if len(found.curve) else ""
    drawn = figure(
        partial(draw_datacurve, found),
        (5.4, 3.2),
        f"AP of {len(found.table)} trainings on parts of the data",
        Csv("datacurve", found.table),
        caption=f"Dots: trainings{looks_ahead}.",
        most_px=680,
    )
    return Section("datacurve", "What more data would buy", (Words((found.sentence,)), drawn), short="More data")
