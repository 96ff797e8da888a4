"""A map of the embeddings: examples close together are similar to the backbone."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from headstart.classify.report.content import TRAINING, WRONG, Examples, Sample
from headstart.classify.report.drawing import INK, MOST_SERIES, PALETTE, colour, draw
from headstart.classify.report.parts import Key, Plot, Points, Section, count
from headstart.classify.report.projection import SEED, project
from headstart.classify.report.thumbnails import TINY, Thumbnails
from headstart.data.common import console

MOST_POINTS, FEWEST = 2000, 3
EDGE = 0.03  # of the drawing, left free on each side
MOST_PICTURES = 400  # that points have: mistakes and suspects first


def embedding_map(
    sample: Sample, classes: tuple[str, ...], thumbnails: Thumbnails | None = None
) -> Section:
    """A map in two dimensions; of more than ten classes, those with most mistakes in colour."""
    title = "A map of the embeddings"
    if len(sample.labels) < FEWEST or not np.ptp(sample.embeddings, axis=0).any():
        return Section(
            name="map", title=title, text="There are too few different embeddings to draw a map of."
        )
    sample = _at_most(sample)
    labels, marks = sample.labels, np.array(sample.marks)
    with console.status(f"drawing a map of {len(labels):,} embeddings"):
        places, method = sample.places() if sample.places else project(sample.embeddings)
    coloured = _coloured(labels, marks == WRONG)
    series = np.full(len(classes), -1)
    series[coloured] = np.arange(len(coloured))
    keys = [Key(classes[index], number, _shape(number)) for number, index in enumerate(coloured)]
    if (series[labels] < 0).any():
        keys.append(Key("other classes", -1, "circle"))
    if (marks == WRONG).any():
        keys.append(Key("held out and wrong", len(PALETTE) - 1, "ring"))
    suspects = np.zeros(len(labels), bool) if sample.suspects is None else sample.suspects
    if suspects.any():
        keys.append(Key("label in doubt", len(PALETTE) - 1, "diamond"))
    alt = (
        f"Map of {count(len(labels), 'embedding')} by {method}: "
        f"{(marks == TRAINING).sum():,} of training, {(marks == WRONG).sum():,} classified wrongly"
    )
    text = (
        f"{count(len(labels), 'embedding')} in two dimensions by {method}. Points that are "
        "close together are similar to the backbone; classes that mix here are hard for any head. "
        "Distances between separate groups, and directions, have no meaning."
    )
    caption = (
        "Colour and shape show the true class. Small pale points are training examples, larger "
        "ones were held out, and those classified wrongly have a ring. Training examples whose "
        "label is in doubt have a diamond. A marked point in the middle of another class may have "
        "a wrong label. Point at one, tap it, or go from one to the next with the arrow keys."
    )

    def paint(figure: Figure) -> None:
        figure.set_layout_engine("none")
        axes = figure.add_axes((0, 0, 1, 1))
        _paint(axes, places, series[labels], marks, suspects)

    places = _within(places)
    shown = _points(sample, classes, places, suspects, thumbnails)
    plot = Plot(draw("map", alt, paint, 360), caption, tuple(keys), shown)
    return Section(name="map", title=title, text=text, plots=(plot,))


def _at_most(sample: Sample) -> Sample:
    if len(sample.labels) <= MOST_POINTS:
        return sample
    rows = np.random.default_rng(SEED).choice(len(sample.labels), MOST_POINTS, replace=False)
    examples = sample.examples
    if examples is not None:
        ids, paths = ([side[row] for row in rows] for side in (examples.ids, examples.paths))
        examples = Examples(ids, paths)
    return Sample(
        sample.embeddings[rows],
        sample.labels[rows],
        [sample.marks[row] for row in rows.tolist()],
        examples,
        None if sample.answers is None else sample.answers[rows],
        None if sample.suspects is None else sample.suspects[rows],
    )


def _within(places: np.ndarray) -> np.ndarray:
    """Places as shares of the drawing's width and height, from its lower left corner."""
    low, high = places.min(axis=0), places.max(axis=0)
    return EDGE + (1 - 2 * EDGE) * (places - low) / np.maximum(high - low, 1e-9)


def _points(
    sample: Sample,
    classes: tuple[str, ...],
    places: np.ndarray,
    suspects: np.ndarray,
    thumbnails: Thumbnails | None,
) -> Points | None:
    """What a person may ask about the points; mistakes and suspects have pictures first."""
    if sample.examples is None or thumbnails is None:
        return None
    marks = np.array(sample.marks)
    order = np.argsort(~((marks == WRONG) | suspects), kind="stable")
    pictures: dict[int, str] = {}
    chosen = order[:MOST_PICTURES].tolist()
    with console.progress("reading pictures of the map", len(chosen)) as advance:
        for row in chosen:
            found = thumbnails.small(*sample.examples.at(row), side=TINY)
            if found.uri:
                pictures[row] = found.uri
            advance(1)
    number = {row: at for at, row in enumerate(pictures)}
    points = []
    for row, (x, y) in enumerate((1000 * places).round().astype(int).tolist()):
        lines = [sample.examples.ids[row], classes[sample.labels[row]]]
        answer = -1 if sample.answers is None else int(sample.answers[row])
        lines.append("training" if answer < 0 else f"answer: {classes[answer]}")
        if suspects[row]:
            lines.append("label in doubt")
        points.append((x, 1000 - y, tuple(lines), number.get(row, -1)))
    return Points(tuple(points), tuple(pictures.values()), int(order[0]))


def _coloured(labels: np.ndarray, wrong: np.ndarray) -> list[int]:
    """The classes that get a colour: all, or those with the most mistakes, then the most points."""
    present, counts = np.unique(labels, return_counts=True)
    if len(present) <= MOST_SERIES:
        return present.tolist()
    mistakes = np.array([wrong[labels == index].sum() for index in present])
    return sorted(present[np.lexsort((-counts, -mistakes))][: MOST_SERIES - 1].tolist())


def _shape(series: int) -> str:
    return "triangle" if series >= len(PALETTE) else "circle"


def _paint(
    axes: Axes, places: np.ndarray, series: np.ndarray, marks: np.ndarray, suspects: np.ndarray
) -> None:
    training, wrong = marks == TRAINING, marks == WRONG
    for number in np.unique(series).tolist():
        here = series == number
        for which, size, alpha in ((here & training, 3, 0.35), (here & ~training, 5, 0.9)):
            axes.plot(
                *places[which].T,
                linestyle="none",
                marker="^" if _shape(number) == "triangle" else "o",
                markersize=size,
                markeredgewidth=0,
                color=colour(number),
                alpha=alpha,
            )
    for which, marker in ((wrong, "o"), (suspects, "D")):
        axes.plot(
            *places[which].T,
            linestyle="none",
            marker=marker,
            markersize=9,
            markerfacecolor="none",
            markeredgecolor=INK,
            markeredgewidth=1.2,
        )
    axes.set(xticks=[], yticks=[], xlim=(0, 1), ylim=(0, 1))
    axes.spines[:].set_visible(False)
