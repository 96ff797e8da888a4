"""Precision-recall and ROC curves: how well the probabilities of a class rank its examples."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from sklearn.metrics import roc_curve

from headstart.classify.report.content import HeldOut
from headstart.classify.report.drawing import MUTED, colour, dash, draw, thinned
from headstart.classify.report.parts import Key, Plot, Section, count

MOST_CLASSES = 10  # up to which each class has a curve
MOST_VALUES = 4_000_000  # probabilities to sort; above that, a sample of the examples is used
GRID_POINTS = 101  # at which macro averages are computed
SEED = 0

Curve = tuple[str, np.ndarray, np.ndarray, float]  # name, x, y, area


def ranking(held_out: HeldOut, classes: tuple[str, ...]) -> Section:
    """Precision-recall and ROC curves: of each class for up to ten classes, otherwise averages.

    The micro average ranks the probabilities of all classes together; the macro average is the mean
    of the classes' curves.
    """
    labels, probabilities, note = held_out.labels, held_out.probabilities, ""
    most = max(1, MOST_VALUES // len(classes))
    if len(labels) > most:
        rows = np.random.default_rng(SEED).choice(len(labels), most, replace=False)
        labels, probabilities = labels[rows], probabilities[rows]
        note = f" Drawn from a random {most:,} of the {len(held_out.labels):,} examples."
    present = [index for index in np.unique(labels).tolist() if (labels != index).any()]
    title = "Precision, recall and ROC"
    if not present:
        return Section(
            name="ranking",
            title=title,
            text="All held-out examples are of one class: there is nothing to rank.",
        )
    if len(classes) <= MOST_CLASSES:
        what = "One curve for each class: that class against all others."
        both = [_curves(classes[i], labels == i, probabilities[:, i]) for i in present]
    else:
        what = f"Averages over {len(classes):,} classes, each against all others."
        truth = np.zeros(probabilities.shape, bool)
        truth[np.arange(len(labels)), labels] = True
        both = [_curves("micro average", truth.ravel(), probabilities.ravel())]
        if not note:  # in a sample, most classes would have one example or none
            each = [_curves("", truth[:, i], probabilities[:, i]) for i in present]
            both.append((_mean([recall for recall, _ in each]), _mean([roc for _, roc in each])))
    recall, roc = zip(*both, strict=True)
    if all(curve[3] == 1 for curve in (*recall, *roc)):
        return Section(
            name="ranking",
            title=title,
            text="Every class is ranked perfectly: each of its examples has a higher probability "
            "of it than any other example has. All curves would run along the edges, with an area "
            f"of 1.{note}",
        )
    plots = (
        _plot("recall", ("recall", "precision"), recall, "average precision", False),
        _plot(
            "roc", ("false positive rate", "true positive rate"), roc, "area under the curve", True
        ),
    )
    return Section(name="ranking", title=title, text=what + note, plots=plots)


def _curves(name: str, truth: np.ndarray, score: np.ndarray) -> tuple[Curve, Curve]:
    """Precision over recall, and ROC, of one sorting: there may be millions of scores.

    The areas are those of scikit-learn's `average_precision_score` and `roc_auc_score`, of whole
    numbers, so that a perfect one is 1.
    """
    x, y, _ = roc_curve(truth, score, drop_intermediate=False)
    positives = int(truth.sum())
    negatives = len(truth) - positives
    right, wrong = np.rint(y * positives), np.rint(x * negatives)  # of the scores from there on
    precision = np.append(1.0, right[1:] / (right[1:] + wrong[1:]))
    average = float((np.diff(right) * precision[1:]).sum() / positives)
    under = float((np.diff(wrong) * (right[1:] + right[:-1])).sum() / 2 / positives / negatives)
    ends = np.append(np.logical_or(np.diff(right[:-1]), np.diff(right[1:])), True)
    corners = np.append(np.logical_or(np.diff(wrong, 2), np.diff(right, 2)), True)
    ends, corners = np.append(True, ends), np.append(True, corners)  # between them: straight lines
    return (
        (name, *thinned(y[ends], precision[ends]), average),  # type: ignore[return-value]
        (name, *thinned(x[corners], y[corners]), under),
    )


def _mean(curves: Sequence[Curve]) -> Curve:
    grid = np.linspace(0, 1, GRID_POINTS)
    heights = np.mean([np.interp(grid, x, y) for _, x, y, _ in curves], axis=0)
    return "macro average", grid, heights, float(np.mean([area for *_, area in curves]))


def _plot(
    name: str, axes_names: tuple[str, str], curves: Sequence[Curve], area: str, chance: bool
) -> Plot:
    def paint(figure: Figure) -> None:
        axes: Axes = figure.add_subplot()
        if chance:
            axes.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle=":")
        for series, (_, x, y, _) in enumerate(curves):
            axes.plot(x, y, color=colour(series), linestyle=dash(series))
        axes.set(xlabel=axes_names[0], ylabel=axes_names[1], xlim=(-0.01, 1.01), ylim=(-0.01, 1.02))

    figures = f"{area} {', '.join(f'{area_:.3f}' for *_, area_ in curves)}"
    if chance:
        title = "ROC curves"
        caption = (
            "The share of a class that is found (up) against the share of false alarms (right). "
            "Good curves are close to the upper left corner; guessing is the dotted line, with an "
            "area of 0.5. The legend has the area under each curve."
        )
    else:
        title = "Precision-recall curves"
        caption = (
            "The share of the predictions of a class that is right (up) against the share of its "
            "examples that is found (right). Good curves are close to the upper right corner. The "
            "legend has the average precision of each curve."
        )
    return Plot(
        draw(name, f"{title}, {count(len(curves), 'curve')}: {figures}", paint),
        caption,
        tuple(
            Key(who, series, figure=f"{value:.3f}")
            for series, (who, _, _, value) in enumerate(curves)
        ),
    )
