"""The plot of accuracy against cost, with the Pareto front."""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from io import BytesIO
from itertools import pairwise
from pathlib import Path, PurePosixPath

import matplotlib
import numpy as np
from jinja2 import Environment
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Annotation
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from matplotlib.transforms import Bbox

from headstart.classify.pareto.candidates import Candidate, Pareto, in_words, pareto_optimal, table
from headstart.classify.report.drawing import INK, MUTED, PALETTE, STYLE
from headstart.data.storage.files import write_whole

INCHES, DPI = (8.0, 5.0), 150
WIDE = 4  # ratio of the fastest to the slowest from which the axis is logarithmic
NEAR, FAR = 9, (18, 30, 44, 60)  # points from a dot to its label; a far label gets a line
ANGLES = (0, 180, 90, 270, 45, 315, 135, 225)  # degrees, in the order in which they are tried
LONGEST = 24  # characters of a label
MARGIN = 4  # pixels kept free around what is drawn

_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width">
<title>{{ title }}</title>
<style>
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60em; margin: 2em auto; padding: 0 1em;
  color: #1f2328; background: #fff }
svg { width: 100%; height: auto }
div { overflow-x: auto }
table { border-collapse: collapse; font-variant-numeric: tabular-nums }
td, th { padding: .2em .8em; border-bottom: 1px solid #d8dee4; text-align: right;
  white-space: nowrap }
td:first-child, th:first-child { text-align: left }
</style>
<h1>{{ title }}</h1>
<p>{{ lead }}</p>
{{ svg | safe }}
<div><table>
<tr>{% for name in columns %}<th>{{ name }}</th>{% endfor %}</tr>
{% for row in rows %}<tr>{% for cell in row %}<td>{{ cell }}</td>{% endfor %}</tr>
{% endfor %}</table></div>
</html>
"""


def write_plot(found: Pareto, path: Path) -> None:
    """Write the plot: `.png`, `.svg`, or `.html` with the table below it."""
    kind = path.suffix.lower()
    style = STYLE | {"figure.facecolor": "white", "font.size": 10}
    # A character missing from the font is a box in a PNG; a browser shows it in an SVG.
    with matplotlib.rc_context(style), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph", UserWarning)
        figure = draw(found)
        buffer = BytesIO()
        if kind == ".png":
            figure.savefig(buffer, format="png", dpi=DPI)
        else:
            figure.savefig(buffer, format="svg", metadata={"Date": None}, dpi=DPI)
    content = buffer.getvalue()
    if kind == ".html":
        columns, rows = table(found)
        content = page(content.decode(), "What a backbone is worth", in_words(found), columns, rows)
    write_whole(path, content)


def page(svg: str, title: str, lead: str, columns: list[str], rows: list[list[str]]) -> bytes:
    """A page with a plot and the table below it, in one file."""
    template = Environment(autoescape=True).from_string(_PAGE)
    svg = re.sub(r"^.*?(?=<svg)|<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    return template.render(svg=svg, title=title, lead=lead, columns=columns, rows=rows).encode()


def draw(found: Pareto) -> Figure:
    """The plot, on a new figure; call it with the style set."""
    figure = Figure(figsize=INCHES, dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    costs = all(each.cost for each in found.candidates)
    x = np.array([_cost(each) for each in found.candidates])
    y = 100 * np.array([each.accuracy for each in found.candidates])
    spread = 100 * np.array([each.std for each in found.candidates])
    best = np.array([each.best for each in found.candidates])
    axes.errorbar(
        x, y, spread, fmt="none", ecolor=MUTED, elinewidth=1, capsize=3, alpha=0.6, zorder=2
    )
    what = "accuracy, speed and size" if costs else "accuracy and width"
    for mask, face, label in (
        (best, PALETTE[0], f"Pareto-optimal in {what}"),
        (~best, "white", "not Pareto-optimal"),
    ):
        if mask.any():
            axes.scatter(x[mask], y[mask], 46, face, edgecolors=PALETTE[0], label=label, zorder=3)
    axes.set(ylabel="accuracy, %", xlabel="numbers in an embedding")
    if costs:
        axes.set_xlabel("examples per second of the backbone, this machine, one thread")
    _scale(axes, x)
    steps = _front(axes, x, y, faster_is_better=costs)
    figure.legend(loc="outside upper left", ncols=3, frameon=False)
    figure.draw_without_rendering()  # places the axes, before the labels are placed in them
    names = [_cut(name) for name in short_names([each.store for each in found.candidates])]
    _label(axes, names, np.stack([x, y], axis=1), spread, steps)
    return figure


def _cost(each: Candidate) -> float:
    return each.cost.images_per_second if each.cost else each.fingerprint.dim


def _scale(axes: Axes, x: np.ndarray) -> None:
    """Set the cost axis: room for labels at both sides; logarithmic if the costs differ widely."""
    if x.max() >= WIDE * x.min():
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_minor_formatter(NullFormatter())
        room = (x.max() / x.min()) ** 0.15
        axes.set_xlim(x.min() / room, x.max() * room)
    else:
        room = 0.15 * (np.ptp(x) or x.max())
        axes.set_xlim(x.min() - room, x.max() + room)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    axes.margins(y=0.12)


def _front(axes: Axes, x: np.ndarray, y: np.ndarray, faster_is_better: bool) -> np.ndarray:
    """Draw the best accuracy for each cost, with a step at each dot on it; returns its corners."""
    sign = 1 if faster_is_better else -1
    on = np.flatnonzero(pareto_optimal(list(zip((sign * x).tolist(), y.tolist(), strict=True))))
    on = on[np.argsort(-sign * x[on], kind="stable")]  # the cheapest first
    left, right = axes.get_xlim()
    corners = [(x[on[0]], axes.get_ylim()[0])]
    for here, after in zip(on, [*on[1:], None], strict=True):
        end = (left if faster_is_better else right) if after is None else x[after]
        corners += [(x[here], y[here]), (end, y[here])]
    steps = np.array(corners)
    low, high = axes.get_ylim()
    axes.plot(*steps.T, color=PALETTE[1], linewidth=1.3, label="best for its cost", zorder=1)
    axes.set(xlim=(left, right), ylim=(low, high))
    return steps


def short_names(stores: Sequence[str]) -> list[str]:
    """The shortest ends of the paths that are distinct."""
    parts = [PurePosixPath(store).parts for store in stores]
    for count in range(1, max(map(len, parts)) + 1):
        names = [str(PurePosixPath(*part[-count:])) for part in parts]
        if len(set(names)) == len(set(stores)):
            break
    return names


def _cut(name: str) -> str:
    """Without its middle if it is long; the table has the full name."""
    half = LONGEST // 2
    return name if len(name) <= LONGEST else f"{name[:half]}…{name[-half:]}"


def _label(
    axes: Axes, names: Sequence[str], dots: np.ndarray, spread: np.ndarray, steps: np.ndarray
) -> None:
    """Write names beside their dots, each where it covers the least of what is drawn."""
    to_pixels = axes.transData.transform
    occupied: list[tuple[Bbox, float]] = []  # boxes, and the penalty for covering them
    for (x, y), around in zip(dots, spread, strict=True):
        bar = to_pixels([(x, y - around), (x, y + around)])
        occupied += [(Bbox(bar).padded(2), 1), (Bbox([to_pixels((x, y))] * 2).padded(9), 5)]
    occupied += [
        (Bbox([np.minimum(a, b), np.maximum(a, b)]), 1) for a, b in pairwise(to_pixels(steps))
    ]
    for name, dot in zip(names, dots, strict=True):
        occupied.append((_place(axes, name, dot, occupied), 5))


def _place(axes: Axes, name: str, dot: np.ndarray, occupied: Sequence[tuple[Bbox, float]]) -> Bbox:
    """Write a name where it covers least; returns its box."""

    def badness(place: tuple[float, float]) -> float:
        text = _write(axes, name, dot, *place)
        box = text.get_window_extent().padded(MARGIN)
        text.remove()
        outside = box.width * box.height - _overlap(box, axes.bbox)
        covered = sum(weight * _overlap(box, other) for other, weight in occupied)
        return covered + 30 * outside + 8 * (place[0] - NEAR)

    near = [(NEAR, angle) for angle in ANGLES]
    # Not far away at the same height: the line to the dot would look like the front.
    far = [(distance, angle) for distance in FAR for angle in ANGLES if angle % 180]
    best = min(near + far, key=badness)  # among equals, the first
    text = _write(axes, name, dot, *best, line=best[0] != NEAR)
    return text.get_window_extent().padded(MARGIN)


def _write(
    axes: Axes, name: str, dot: np.ndarray, distance: float, angle: float, line: bool = False
) -> Annotation:
    across, up = np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))
    text = axes.annotate(
        name,
        (dot[0], dot[1]),
        (distance * across, distance * up),
        textcoords="offset points",
        ha="center" if abs(across) < 0.1 else "left" if across > 0 else "right",
        va="center" if abs(up) < 0.1 else "bottom" if up > 0 else "top",
        color=INK,
        arrowprops={"arrowstyle": "-", "color": MUTED, "linewidth": 0.7} if line else None,
        bbox={"facecolor": "white", "alpha": 0.8, "edgecolor": "none", "pad": 1},
        zorder=2.5,  # above the bars, below the dots
    )
    text.set_in_layout(False)  # so that the axes do not move after the labels are placed
    return text


def _overlap(a: Bbox, b: Bbox) -> float:
    """The area that two boxes share; a line counts by its length."""
    width = min(a.x1, b.x1) - max(a.x0, b.x0)
    height = min(a.y1, b.y1) - max(a.y0, b.y0)
    return max(width, 1) * max(height, 1) if width >= 0 and height >= 0 else 0.0
