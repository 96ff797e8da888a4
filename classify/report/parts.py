"""What a page is made of: sections of plots, tables and photographs. The template knows no more."""

from __future__ import annotations

from dataclasses import dataclass

WIDEST_COLUMN = 6  # letters
PERCENT = "\u00a0%"  # never at the start of a line
INTERVAL = f"95{PERCENT} interval"


@dataclass(frozen=True)
class Key:
    """An entry of a plot's legend.

    Parameters
    ----------
    series
        Number of the series, which decides colour and dash or shape; -1 for grey.
    shape
        `line`, `circle`, `triangle`, or `ring`.
    figure
        A number that belongs to it; apart from the text, which may be cut short or run from right
        to left.
    """

    text: str
    series: int
    shape: str = "line"
    figure: str = ""


@dataclass(frozen=True)
class Plot:
    """A drawing (SVG without any of the user's text), its legend, and how to read it."""

    svg: str
    caption: str
    keys: tuple[Key, ...] = ()


@dataclass(frozen=True)
class Table:
    """A table; the first `texts` columns are text, the others numbers."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    texts: int = 1


@dataclass(frozen=True)
class Cell:
    """A cell of a confusion matrix; `tint` is how much colour it has, 0 to 1."""

    count: int
    right: bool
    tint: float


@dataclass(frozen=True)
class Matrix:
    """A confusion matrix: row: true class, column: prediction."""

    classes: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]

    @property
    def upright(self) -> bool:
        """Whether the names above the columns are turned, being wider than numbers."""
        return max(map(len, self.classes)) > WIDEST_COLUMN


@dataclass(frozen=True)
class Thumbnail:
    """A small photograph as a data URI, or why there is none."""

    id: str
    uri: str = ""
    reason: str = ""


@dataclass(frozen=True)
class Card:
    """One photograph or two, and what to say of them: names and values."""

    thumbnails: tuple[Thumbnail, ...]
    facts: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Section:
    """A section of the page.

    Parameters
    ----------
    name
        Its anchor.
    text
        What it shows and how to read it.
    """

    name: str
    title: str
    text: str
    plots: tuple[Plot, ...] = ()
    tables: tuple[Table, ...] = ()
    matrix: Matrix | None = None
    cards: tuple[Card, ...] = ()


def percent(share: float) -> str:
    """A share such as `92.4 %`; only all is `100.0 %`, and only none is `0.0 %`."""
    if 0 < share < 0.0005:
        return f"< 0.1{PERCENT}"
    if 0.9995 <= share < 1:
        return f"> 99.9{PERCENT}"
    return f"{100 * share:.1f}{PERCENT}"


def count(number: int, thing: str, things: str = "") -> str:
    """A number of things, such as `1 example` or `1,200 examples`."""
    return f"{number:,} {thing if number == 1 else things or f'{thing}s'}"
