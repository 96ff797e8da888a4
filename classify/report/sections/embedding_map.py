"""A map of the embeddings: examples close together are similar to the backbone."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from threadpoolctl import threadpool_limits

from headstart.classify.report.content import TRAINING, WRONG, Sample
from headstart.classify.report.drawing import INK, MOST_SERIES, PALETTE, colour, draw
from headstart.classify.report.parts import Key, Plot, Section, count
from headstart.data.common import console

MOST_POINTS, FEWEST_FOR_TSNE, FEWEST = 2000, 50, 3
COMPONENTS = 50  # of PCA, before t-SNE
PERPLEXITY = 30
ITERATIONS = 500  # of t-SNE; twice as many hardly change a map of 2,000 points
SEED = 0


def embedding_map(sample: Sample, classes: tuple[str, ...]) -> Section:
    """A map in two dimensions; of more than ten classes, those with most mistakes in colour."""
    title = "A map of the embeddings"
    if len(sample.labels) < FEWEST or not np.ptp(sample.embeddings, axis=0).any():
        return Section(
            name="map", title=title, text="There are too few different embeddings to draw a map of."
        )
    sample = _at_most(sample)
    labels, marks = sample.labels, np.array(sample.marks)
    places, method = project(sample.embeddings)
    coloured = _coloured(labels, marks == WRONG)
    series = np.full(len(classes), -1)
    series[coloured] = np.arange(len(coloured))
    keys = [Key(classes[index], number, _shape(number)) for number, index in enumerate(coloured)]
    if (series[labels] < 0).any():
        keys.append(Key("other classes", -1, "circle"))
    if (marks == WRONG).any():
        keys.append(Key("held out and wrong", len(PALETTE) - 1, "ring"))
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
        "ones were held out, and those classified wrongly have a ring. A ringed point in the "
        "middle of another class may have a wrong label."
    )

    def paint(figure: Figure) -> None:
        _paint(figure.add_subplot(), places, series[labels], marks)

    plot = Plot(draw("map", alt, paint, 360), caption, tuple(keys))
    return Section(name="map", title=title, text=text, plots=(plot,))


def project(embeddings: np.ndarray) -> tuple[np.ndarray, str]:
    """Places on the map, float `[points, 2]`, and the name of the method.

    PCA to 50 components, then t-SNE (van der Maaten and Hinton 2008); only PCA for fewer than 50
    points. The seed is fixed.
    """
    if len(embeddings) < FEWEST_FOR_TSNE:
        places = PCA(min(2, embeddings.shape[1]), random_state=SEED).fit_transform(embeddings)
        return np.pad(places, ((0, 0), (0, 2 - places.shape[1]))), "PCA"
    components = min(COMPONENTS, *embeddings.shape)
    reduced = PCA(components, random_state=SEED).fit_transform(embeddings)
    # One thread: if other work uses the cores, threads that wait for each other are much slower.
    with (
        console.status(f"drawing a map of {len(embeddings):,} embeddings"),
        threadpool_limits(1),
    ):
        perplexity = min(PERPLEXITY, (len(embeddings) - 1) / 3)
        tsne = TSNE(2, perplexity=perplexity, init="pca", max_iter=ITERATIONS, random_state=SEED)
        return tsne.fit_transform(reduced), f"PCA to {components} and t-SNE"


def _at_most(sample: Sample) -> Sample:
    if len(sample.labels) <= MOST_POINTS:
        return sample
    rows = np.random.default_rng(SEED).choice(len(sample.labels), MOST_POINTS, replace=False)
    return Sample(
        sample.embeddings[rows], sample.labels[rows], [sample.marks[row] for row in rows.tolist()]
    )


def _coloured(labels: np.ndarray, wrong: np.ndarray) -> list[int]:
    """The classes that get a colour: all, or those with the most mistakes, then the most points."""
    present, counts = np.unique(labels, return_counts=True)
    if len(present) <= MOST_SERIES:
        return present.tolist()
    mistakes = np.array([wrong[labels == index].sum() for index in present])
    return sorted(present[np.lexsort((-counts, -mistakes))][: MOST_SERIES - 1].tolist())


def _shape(series: int) -> str:
    return "triangle" if series >= len(PALETTE) else "circle"


def _paint(axes: Axes, places: np.ndarray, series: np.ndarray, marks: np.ndarray) -> None:
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
    axes.plot(
        *places[wrong].T,
        linestyle="none",
        marker="o",
        markersize=9,
        markerfacecolor="none",
        markeredgecolor=INK,
        markeredgewidth=1.2,
    )
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
