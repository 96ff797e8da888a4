"""Calibration of the confidence, and the trade-off between coverage and precision."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from headstart.classify.report.content import HeldOut
from headstart.classify.report.drawing import INK, MUTED, colour, draw, thinned
from headstart.classify.report.parts import INTERVAL, PERCENT, Key, Plot, Section, count, percent
from headstart.classify.scores.metrics import Reliability, reliability, risk_coverage
from headstart.data.common.intervals import design_effect, proportion, share


def calibration(held_out: HeldOut) -> Section:
    """The reliability diagram, before and after calibration."""
    after = reliability(held_out.labels, held_out.probabilities)
    drawn = [(1, "uncalibrated", after)]
    title = "Can the probabilities be trusted?"
    text = f"Of all answers given with 80{PERCENT} confidence, 80{PERCENT} should be right."
    right = held_out.probabilities.argmax(axis=1) == held_out.labels
    surplus = right - held_out.probabilities.max(axis=1)
    effect = design_effect(surplus - surplus.mean(), held_out.groups)
    error = f"expected calibration error {percent(after.expected_calibration_error)}"
    if held_out.uncalibrated is not None:
        before = reliability(held_out.labels, held_out.uncalibrated)
        drawn = [(1, "before calibration", before), (0, "after calibration", after)]
        errors = before.expected_calibration_error, after.expected_calibration_error
        error = (
            f"expected calibration error {percent(errors[0])} before calibration, "
            f"{percent(errors[1])} after"
        )
        if errors[1] > errors[0]:
            text += (
                f" On these examples, calibration made the error larger ({percent(errors[0])} "
                f"before, {percent(errors[1])} after): it was fitted on training examples, and on "
                f"{count(len(right), 'example')} the error is a rough figure. If it stays larger "
                "with more examples, train with --calibration none."
            )

    if right.all() and all(len(bins.count) == 1 for _, _, bins in drawn):
        low, high = (float(end(held_out.probabilities.max(axis=1))) for end in (np.min, np.max))
        text += (
            f" All {len(right):,} answers are right, with a confidence of {percent(low)} to "
            f"{percent(high)}: there is no curve to draw."
        )
        return Section(name="calibration", title=title, text=text)

    def paint(figure: Figure) -> None:
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(4, 1))
        upper.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle=":")
        for series, _, bins in drawn:
            upper.errorbar(
                bins.confidence,
                bins.accuracy,
                yerr=_error_bars(bins, effect),
                color=colour(series),
                marker="os"[series],
                markersize=5,
                elinewidth=1,
            )
        lower.bar(after.confidence, after.count, width=0.03, color=MUTED)
        upper.set(ylabel="share right", ylim=(-0.02, 1.02))
        lower.set(xlabel="confidence", ylabel="examples", xlim=(-0.02, 1.02))

    return Section(
        name="calibration",
        title=title,
        text=text,
        plots=(
            Plot(
                draw("calibration", f"Reliability diagram: {error}", paint, 340),
                "On the dotted line, confidence equals accuracy; below it the model is "
                f"overconfident, above it underconfident: {error}. Bars are {INTERVAL}s; the lower "
                "plot shows how many answers had each confidence.",
                tuple(Key(name, series) for series, name, _ in drawn),
            ),
        ),
    )


def _error_bars(bins: Reliability, effect: float) -> np.ndarray:
    """Distances down and up to the 95 % interval, `[2, bins]`."""
    intervals = [
        proportion(mean * total, total, effect)
        for mean, total in zip(bins.accuracy, bins.count, strict=True)
    ]
    low, high = np.array([(i.low, i.high) for i in intervals]).T
    return np.maximum(0, [bins.accuracy - low, high - bins.accuracy])


def rejection(held_out: HeldOut) -> Section:
    """The risk-coverage curve, with the threshold marked."""
    curve = risk_coverage(held_out.labels, held_out.probabilities)
    coverage, risk = thinned(curve.coverage, 1 - curve.precision)
    everything = percent(float(1 - curve.precision[-1]))
    title = 'The effect of answering "unknown"'
    if held_out.threshold is None and not risk.any():
        return Section(
            name="rejection",
            title=title,
            text=f"All {len(held_out.labels):,} held-out examples are classified correctly: there "
            "is nothing to gain from leaving unsure ones to a person.",
        )
    alt = f"Risk-coverage curve: {everything} wrong when every example is answered"
    note, point = " No threshold was chosen: every example is answered.", None
    if held_out.threshold is not None:
        note, point = _at_threshold(held_out, held_out.threshold)
        alt += f", {percent(point[1])} wrong when {percent(point[0])} are"

    def paint(figure: Figure) -> None:
        axes = figure.add_subplot()
        axes.step(100 * coverage, 100 * risk, where="post", color=colour(0))
        if point is not None:
            x, y = 100 * point[0], 100 * point[1]
            axes.axvline(x, color=INK, linewidth=1, linestyle="--")
            axes.plot([x], [y], marker="o", markersize=7, color=colour(1))
        axes.set(xlabel="answered, %", ylabel="wrong among the answered, %", xlim=(0, 101))
        axes.set_ylim(0, max(1.0, 108 * float(risk.max()), axes.get_ylim()[1]))

    return Section(
        name="rejection",
        title=title,
        text="Unsure examples can be left to a person: the model then answers fewer examples, and "
        f"a larger share of its answers is right.{note}",
        plots=(
            Plot(
                draw("rejection", alt, paint),
                "From right to left, the least confident answers are left out, and the share of "
                "wrong answers among the rest should decrease.",
                (Key("threshold", 1, "circle"),) if point is not None else (),
            ),
        ),
    )


def _at_threshold(held_out: HeldOut, threshold: float) -> tuple[str, tuple[float, float]]:
    """The effect of the threshold, as text, and its coverage and risk."""
    answered = held_out.probabilities.max(axis=1) >= threshold
    right = held_out.probabilities.argmax(axis=1) == held_out.labels
    total = int(answered.sum())
    chosen = f", chosen for {held_out.threshold_for}" if held_out.threshold_for else ""
    start = f" Below a confidence of {threshold:.3f}{chosen}, the answer is unknown: "
    if not total:
        return f"{start}this holds for all of these examples.", (0.0, 0.0)
    groups = None if held_out.groups is None else held_out.groups[answered]
    precision, wanted = share(right[answered], groups), held_out.precision
    missed = ""
    if wanted is not None and precision.value < wanted:
        missed = f" That is less than the {percent(wanted)} that were asked for: "
        missed += (
            "the interval includes it, so chance in the choice of the held-out examples explains "
            "the difference."
            if precision.high >= wanted
            else "the threshold was chosen on training examples, which these differ from more than "
            "by chance. Check that both are of the same kind, or ask for a higher precision."
        )
    return (
        f"{start}{percent(total / len(answered))} of these examples are answered, and "
        f"{percent(precision.value)} of the answers are right ({INTERVAL} "
        f"{percent(precision.low)} to {percent(precision.high)}).{missed}",
        (total / len(answered), 1 - precision.value),
    )
