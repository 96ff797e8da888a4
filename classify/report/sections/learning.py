"""The learning curve: the effect of more labels."""

from __future__ import annotations

from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from headstart.classify.diagnosis.learning_curve import LearningCurve
from headstart.classify.report.drawing import colour, draw
from headstart.classify.report.parts import INTERVAL, Plot, Section, count, percent
from headstart.data.common.intervals import Interval

NOTABLE = 0.005  # a difference of accuracies that asks for an explanation


def learning(curve: LearningCurve, headline: Interval | None = None) -> Section:
    """Accuracy against the number of labels for each class.

    Parameters
    ----------
    headline
        The accuracy on the held-out examples, beside which the curve's last point is explained.
    """
    sizes, last = curve.labels_per_class, float(curve.accuracy[-1])
    title, text = "Would more labels help?", curve.advice
    if headline is not None and abs(last - headline.value) >= NOTABLE:
        text += (
            f" The curve ends at {percent(last)}, and the accuracy above is "
            f"{percent(headline.value)}: each point of the curve is of heads that were trained on "
            "at most half of the training examples and tested on the other half, the accuracy "
            "above is of the head that was trained on all of them."
        )
    if (curve.accuracy == 1).all():
        text += (
            f" With {count(int(sizes[0]), 'label')} for each class already, all answers were "
            "right: there is no curve to draw."
        )
        return Section(name="learning", title=title, text=text)

    def paint(figure: Figure) -> None:
        axes = figure.add_subplot()
        axes.fill_between(
            sizes, 100 * curve.low, 100 * curve.high, color=colour(0), alpha=0.2, linewidth=0
        )
        axes.plot(sizes, 100 * curve.accuracy, color=colour(0), marker="o", markersize=5)
        axes.set_xscale("log")
        # A tick at each size, except where its number would touch the previous one.
        ticks: list[int] = []
        for size in sizes.tolist():
            if not ticks or size >= ticks[-1] * (sizes[-1] / sizes[0]) ** 0.12:
                ticks.append(size)
        axes.xaxis.set_major_locator(FixedLocator(ticks))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set(xlabel="labels for each class", ylabel="accuracy, %")

    alt = (
        f"Learning curve: accuracy from {percent(float(curve.accuracy[0]))} with {sizes[0]:,} "
        f"labels for each class to {percent(float(curve.accuracy[-1]))} with {sizes[-1]:,}"
    )
    return Section(
        name="learning",
        title=title,
        text=text,
        plots=(
            Plot(
                draw("learning", alt, paint),
                "If the curve still rises at its right end, more labels would help; if it is flat, "
                f"they would not. The horizontal axis is logarithmic. The band is the {INTERVAL}.",
            ),
        ),
    )
