"""The elements of a page: sections of plots, tables and photographs, as the template takes them."""

from __future__ import annotations

from dataclasses import dataclass

WIDEST_COLUMN = 6  # characters
MOST_ON_A_PHONE = 8  # classes of a matrix
PERCENT = "\u00a0%"  # a non-breaking space
INTERVAL = f"95{PERCENT} interval"


@dataclass(frozen=True)
class Key:
    """An entry of a plot's legend.

    Parameters
    ----------
    series
        Number of the series, which determines colour and dash or shape; -1 for grey.
    shape
        `line`, `circle`, `triangle`, `ring` or `diamond`.
    figure
        A number shown after the text; separate from it, since the text may be cut or run from right
        to left.
    """

    text: str
    series: int
    shape: str = "line"
    figure: str = ""


@dataclass(frozen=True)
class Points:
    """What a person may ask about the points of a drawing.

    Parameters
    ----------
    points
        Of each: how far from the left and from the top, in thousandths of the drawing; its lines of
        text; the number of its picture, or -1.
    pictures
        Data URIs.
    first
        The point that is shown first.
    """

    points: tuple[tuple[int, int, tuple[str, ...], int], ...]
    pictures: tuple[str, ...]
    first: int = 0


@dataclass(frozen=True)
class Plot:
    """A drawing (SVG without text of the user's), its legend, and how to read it."""

    svg: str
    caption: str
    keys: tuple[Key, ...] = ()
    points: Points | None = None


@dataclass(frozen=True)
class Table:
    """A table; the first `texts` columns are text, the others are numbers.

    `instead` is one that a telephone shows instead of a matrix that is too wide for it.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    texts: int = 1
    instead: bool = False


@dataclass(frozen=True)
class Cell:
    """A cell of a confusion matrix; `tint` is the opacity of its colour, 0 to 1."""

    count: int
    right: bool
    tint: float


@dataclass(frozen=True)
class Matrix:
    """A confusion matrix; a row is a true class, a column a prediction."""

    classes: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]

    @property
    def upright(self) -> bool:
        """Whether the column names are rotated, because they are wider than the numbers."""
        return max(map(len, self.classes)) > WIDEST_COLUMN

    @property
    def wide(self) -> bool:
        """Whether it is too wide for a telephone."""
        return len(self.classes) > MOST_ON_A_PHONE


@dataclass(frozen=True)
class Thumbnail:
    """A small picture as a data URI, perhaps with what a player plays, or a text, or why not.

    Parameters
    ----------
    caption
        Shown instead of the id.
    """

    id: str
    uri: str = ""
    reason: str = ""
    text: str = ""
    sound: str = ""
    caption: str = ""


@dataclass(frozen=True)
class Question:
    """What a person is asked about an example: is its label right?

    Parameters
    ----------
    label
        As it is; empty for an example without one.
    suggestion
        The class that is offered first.
    """

    id: str
    label: str
    suggestion: str


@dataclass(frozen=True)
class Card:
    """Photographs, with facts about them: names and values.

    Parameters
    ----------
    similar
        Smaller ones below, under a heading of their own.
    questions
        About its examples.
    classes
        By which it can be filtered.
    """

    thumbnails: tuple[Thumbnail, ...]
    facts: tuple[tuple[str, str], ...]
    similar: tuple[Thumbnail, ...] = ()
    questions: tuple[Question, ...] = ()
    classes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Section:
    """A section of the page.

    Parameters
    ----------
    name
        Its anchor.
    text
        What it shows and how to read it.
    note
        A sentence below, set apart: what else to know.
    command
        To run next, below that.
    """

    name: str
    title: str
    text: str
    plots: tuple[Plot, ...] = ()
    tables: tuple[Table, ...] = ()
    matrix: Matrix | None = None
    cards: tuple[Card, ...] = ()
    note: str = ""
    command: str = ""

    @property
    def classes(self) -> list[str]:
        """By which its cards can be filtered, sorted; none if all are of the same."""
        found = {name for card in self.cards for name in card.classes}
        return sorted(found) if len(found) > 1 and len(self.cards) > 1 else []


def percent(share: float) -> str:
    """A share such as `92.4 %`; `100.0 %` and `0.0 %` only if it is exact."""
    if 0 < share < 0.0005:
        return f"< 0.1{PERCENT}"
    if 0.9995 <= share < 1:
        return f"> 99.9{PERCENT}"
    return f"{100 * share:.1f}{PERCENT}"


def count(number: int, thing: str, things: str = "") -> str:
    """A number of things, such as `1 example` or `1,200 examples`."""
    return f"{number:,} {thing if number == 1 else things or f'{thing}s'}"
