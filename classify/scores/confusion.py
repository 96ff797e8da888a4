"""A confusion matrix as a table of a given width that loses no column."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from headstart.data.common.console import FIRST, GAP

CORNER = "true \\ predicted"
MOST_IN_MATRIX = 20  # classes that still make a readable matrix
MOST_CONFUSIONS = 15


def confusion_table(
    names: Sequence[str], counts: Sequence[Sequence[int]], width: int
) -> tuple[list[str], list[list[Any]]]:
    """Headers and rows: the matrix with names, or numbered, or else the worst confusions.

    Parameters
    ----------
    names
        Of the classes.
    counts
        Rows are true classes, columns predictions, `[classes, classes]`.
    width
        Columns of the terminal.
    """
    if len(names) <= MOST_IN_MATRIX:
        widest = [max(len(f"{row[place]:d}") for row in counts) for place in range(len(names))]
        first = max(map(len, (CORNER, *names)))
        if _fits(first, map(max, widest, map(len, names)), width):
            rows = [[name, *row] for name, row in zip(names, counts, strict=True)]
            return [CORNER, *names], rows
        numbers = [str(place) for place in range(1, len(names) + 1)]
        if _fits(FIRST, map(max, widest, map(len, numbers)), width):
            rows = [
                [f"{number:>2} {name}", *row]
                for number, name, row in zip(numbers, names, counts, strict=True)
            ]
            return [CORNER, *numbers], rows
    return worst_confusions(names, counts)


def _fits(first: int, others: Any, width: int) -> bool:
    return first + sum(GAP + each for each in others) <= width


def worst_confusions(
    names: Sequence[str], counts: Sequence[Sequence[int]]
) -> tuple[list[str], list[list[Any]]]:
    """The most frequent mistakes, `true -> predicted`, at most `MOST_CONFUSIONS`."""
    found = [
        (count, names[true], names[other])
        for true, row in enumerate(counts)
        for other, count in enumerate(row)
        if count and true != other
    ]
    found.sort(key=lambda each: -each[0])
    rows = [[f"{true} -> {other}", count] for count, true, other in found[:MOST_CONFUSIONS]]
    return ["worst confusions (true -> predicted)", "examples"], rows
