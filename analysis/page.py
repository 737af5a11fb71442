"""What the report is made of: sections of a few kinds of blocks, which report.html draws. No numbers are made here."""

import base64
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, TypeAlias

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from posesweep.analysis.drawing import Draw, svg
from posesweep.files import write_text

ROWS_SHOWN = 15  # of each table; the rest is folded away
INLINE_BYTES = 60_000  # a table above this is only beside the page, not in it
CSV_FOLDER = "csv"


@dataclass(frozen=True)
class Csv:
    """The numbers behind a figure or table: `name` (letters, digits, _) is its file's, unique in a report."""

    name: str
    frame: pd.DataFrame

    @property
    def text(self) -> str:
        """With a header; floats in six digits."""
        return str(self.frame.to_csv(index=False, float_format="%.6g", lineterminator="\n"))

    @property
    def href(self) -> str:
        """The table itself where it is small, else where it lies beside the page."""
        data = self.text.encode()
        if len(data) > INLINE_BYTES:
            return f"{CSV_FOLDER}/{self.name}.csv"
        return "data:text/csv;charset=utf-8;base64," + base64.b64encode(data).decode()


@dataclass(frozen=True)
class Figure:
    """A drawing, what to say below it, and its numbers. `least_px`: narrower screens scroll it sideways."""

    kind: ClassVar = "figure"
    svg: Markup
    caption: str = ""
    csv: Csv | None = None
    least_px: int = 0
    most_px: int = 0  # a small drawing does not grow beyond this
    halo: bool = False  # texts stand out from lines that they lie on


def figure(
    draw: Draw, size_in: tuple[float, float], alt: str, csv: Csv | None, *, name: str = "", **look: Any
) -> Figure:
    """`draw` as a Figure. `name` keeps its ids apart on the page: the CSV's, unless given."""
    ids = name or (csv.name if csv is not None else "")
    assert ids
    return Figure(Markup(svg(draw, size_in, ids.replace("_", ""), alt)), csv=csv, **look)


@dataclass(frozen=True)
class Grid:
    """Small drawings side by side, with one caption and one table of numbers."""

    kind: ClassVar = "grid"
    svgs: tuple[Markup, ...]
    caption: str = ""
    csv: Csv | None = None


@dataclass(frozen=True)
class Chip:
    """A word in a rounded frame; `look` is a class of report.css."""

    text: str
    look: str = ""


@dataclass(frozen=True)
class Cell:
    """One cell. `soft` follows in grey, or in the colour of `tone`: "up" is good, "down" is bad, "same"."""

    text: str = ""
    soft: str = ""
    tone: str = ""
    chips: tuple[Chip, ...] = ()
    strong: bool = False
    bar: float | None = None  # 0 to 1, drawn before the text


@dataclass(frozen=True)
class Column:
    """A heading; `look`: "num" (right), "name" (never broken), "why" (wide), "" (plain)."""

    title: str
    look: str = ""


@dataclass(frozen=True)
class Row:
    """`look`: "winner", "differs" or ""."""

    cells: tuple[Cell, ...]
    look: str = ""


@dataclass(frozen=True)
class Table:
    """The first `shown` rows; the rest is folded away."""

    kind: ClassVar = "table"
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    csv: Csv | None = None
    title: str = ""
    shown: int = ROWS_SHOWN


def plain_table(columns: Sequence[str], rows: Iterable[Sequence[str]], **rest: Any) -> Table:
    """A table of texts; a heading that begins with ">" stands right, over numbers."""
    heads = tuple(Column(name.removeprefix(">"), "num" if name.startswith(">") else "") for name in columns)
    return Table(heads, tuple(Row(tuple(Cell(text) for text in row)) for row in rows), **rest)


@dataclass(frozen=True)
class Shot:
    """A picture and up to three lines about it."""

    source: str
    width: int
    height: int
    alt: str
    head: str
    lines: tuple[str, ...] = ()


@dataclass(frozen=True)
class Shots:
    """Pictures side by side. `wide`: one to a line."""

    kind: ClassVar = "shots"
    shots: tuple[Shot, ...]
    title: str = ""
    csv: Csv | None = None
    wide: bool = False


def embedded(jpeg: bytes) -> str:
    """A JPEG file as the source of an <img>."""
    return "data:image/jpeg;base64," + base64.b64encode(jpeg).decode()


@dataclass(frozen=True)
class Facts:
    """Names and values. With a `summary`, folded away under it."""

    kind: ClassVar = "facts"
    facts: tuple[tuple[str, str], ...]
    summary: str = ""


@dataclass(frozen=True)
class Words:
    """Sentences: paragraphs, or with `points` a list."""

    kind: ClassVar = "words"
    sentences: tuple[str, ...]
    title: str = ""
    points: bool = False


@dataclass(frozen=True)
class Colours:
    """What the colours of pictures mean: (colour, word)."""

    kind: ClassVar = "colours"
    colours: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Beside:
    """Two blocks, side by side where there is room."""

    kind: ClassVar = "beside"
    left: "Block"
    right: "Block"


Block: TypeAlias = Figure | Grid | Table | Shots | Facts | Words | Colours | Beside


@dataclass(frozen=True)
class Section:
    """One card of the page. `key` is its anchor, `short` its name in the list of contents."""

    key: str
    title: str
    blocks: tuple[Block, ...]
    lead: str = ""
    short: str = ""


@dataclass(frozen=True)
class Tile:
    """One number in large letters."""

    text: str
    below: str


@dataclass(frozen=True)
class Page:
    """A whole page. `decision`: (about what, what) in the order of reading."""

    title: str
    kind: str  # "report", "comparison"
    subtitle: str
    decision: tuple[tuple[str, str], ...]
    sections: tuple[Section, ...]
    tiles: tuple[Tile, ...] = ()
    notes: tuple[str, ...] = ()
    footer: str = ""

    @property
    def csvs(self) -> tuple[Csv, ...]:
        """Every table of numbers on the page."""
        return tuple(csv for section in self.sections for csv in _csvs(section.blocks))


def _csvs(blocks: Iterable[Block]) -> Iterator[Csv]:
    for block in blocks:
        if isinstance(block, Beside):
            yield from _csvs((block.left, block.right))
        elif isinstance(block, Figure | Grid | Table | Shots) and block.csv is not None:
            yield block.csv


def write_page(page: Page, path: Path) -> None:
    """The page at `path`, and the tables behind its figures in csv/ beside it."""
    for csv in page.csvs:
        write_text(path.parent / CSV_FOLDER / f"{csv.name}.csv", csv.text)
    write_text(path, render(page))


def render(page: Page) -> str:
    """The page as HTML: everything is escaped except the drawings of posesweep.analysis.drawing.svg."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    style = Markup(Path(__file__).with_name("report.css").read_text(encoding="utf-8"))
    return environment.get_template("report.html").render(page=page, style=style)
