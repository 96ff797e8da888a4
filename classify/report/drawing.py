"""Drawings as SVG that take their colours from the page, for light and dark mode.

Text of the user's is never drawn: legends are HTML, which wraps and supports every script.
"""

from __future__ import annotations

import html
import re
from collections.abc import Callable
from io import StringIO
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

# The colours of Okabe and Ito (2008), which colour-blind people can distinguish, that contrast with
# white; further series are dashed or have another shape.
PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#000001")
INK, MUTED, GRID, PAGE = "#1f2328", "#59636e", "#d8dee4", "#fefefe"
MOST_SERIES = 2 * len(PALETTE)
WIDTH = 380  # points; text of 12 points is 10 pixels high on a phone
MOST_POINTS = 200  # of a curve; more are not visible

_VARIABLES = {colour: f"var(--series-{number})" for number, colour in enumerate(PALETTE)} | {
    INK: "var(--ink)",
    MUTED: "var(--muted)",
    GRID: "var(--grid)",
    PAGE: "var(--page)",
}
STYLE: dict[Any, Any] = {  # matplotlib types the keys as literals
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "headstart",  # the same drawing, the same bytes
    "font.family": ["sans-serif"],
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 12,
    "text.color": INK,
    "text.parse_math": False,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "grid.color": GRID,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "lines.linewidth": 1.8,
}
_UNSEEN = re.compile(
    r"^.*?(?=<svg)|<metadata>.*?</metadata>|<!--.*?-->|<style.*?</style>", re.DOTALL
)


def colour(series: int) -> str:
    """The colour of a series; grey if it is -1."""
    return MUTED if series < 0 else PALETTE[series % len(PALETTE)]


def dash(series: int) -> str:
    """The line style of a series."""
    return "--" if series >= len(PALETTE) else "-"


def draw(name: str, alt: str, paint: Callable[[Figure], None], height: int = 300) -> str:
    """A drawing as an `<svg>` element.

    Parameters
    ----------
    name
        Prefix of all ids in it; unique on a page.
    alt
        A text description of the drawing, for screen readers.
    paint
        Draws on an empty figure, with only the colours `PALETTE`, `INK`, `MUTED`, `GRID`, `PAGE`.
    height
        In points; the width is 380.
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH / 72, height / 72), layout="constrained")
        paint(figure)
        buffer = StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    svg = _UNSEEN.sub("", buffer.getvalue())
    svg = re.sub(r'\bid="', f'id="{name}-', svg)
    svg = re.sub(r'(href="|url\()#', rf"\1#{name}-", svg)
    svg = re.sub(r"#[0-9a-f]{6}\b", lambda found: _VARIABLES.get(found[0], found[0]), svg)
    svg = re.sub(r"(\.\d)\d{2,}", r"\1", svg)
    label = html.escape(alt)
    return re.sub(
        r"<svg[^>]*>",
        lambda _: f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{label}">',
        svg,
        count=1,
    ).strip()


def thinned(*columns: np.ndarray) -> tuple[np.ndarray, ...]:
    """The same rows of every column, at most `MOST_POINTS`, with the first and the last."""
    length = len(columns[0])
    rows = np.unique(np.linspace(0, length - 1, min(length, MOST_POINTS)).round().astype(np.int64))
    return tuple(column[rows] for column in columns)
