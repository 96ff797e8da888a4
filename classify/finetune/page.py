"""The report of a fine-tuning: was it worth it, and how the training went."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from headstart.classify.report.drawing import colour, draw
from headstart.classify.report.page import render_sections
from headstart.classify.report.parts import (
    INTERVAL,
    Key,
    Plot,
    Section,
    Table,
    count,
    percent,
)
from headstart.classify.scores.comparison import Comparison
from headstart.data.common.intervals import Interval
from headstart.data.contracts.tuned import TunedCard

CURVES: dict[str, tuple[str, ...]] = {
    "loss": ("loss", "validation_loss"),
    "accuracy": ("accuracy", "validation_accuracy"),
}


def report(card: TunedCard, comparison: Comparison) -> str:
    """The text of one HTML file that needs no network and runs no script."""
    seconds = sum(card.metrics["seconds"].values())
    verdict = comparison.verdict[0].upper() + comparison.verdict[1:]
    lead = (
        f"{verdict}. A is the frozen model, B the tuned network, on the same "
        f"{count(comparison.examples, 'test example')}; it took {seconds / 60:.1f} minutes."
    )
    sections = [_scores(card, comparison), _curves(card), _epochs(card)]
    if card.metrics["mixes"]:
        sections.append(_mixes(card))
    return render_sections("Was fine-tuning worth it?", lead, [*sections, _made_with(card)])


def _with_interval(value: Interval) -> str:
    return f"{percent(value.value)} ({percent(value.low)} to {percent(value.high)})"


def _scores(card: TunedCard, comparison: Comparison) -> Section:
    test = card.metrics["test"]
    rows = [
        ("accuracy, frozen", _with_interval(comparison.accuracy_a)),
        ("accuracy, tuned", _with_interval(comparison.accuracy_b)),
        ("log loss, frozen and tuned", f"{comparison.log_loss_a:.4f}, {comparison.log_loss_b:.4f}"),
        ("macro F1, tuned", f"{test['macro_f1']:.4f}"),
        ("calibration error, tuned", f"{test['calibration_error']:.4f}"),
        ("only the frozen model is right", f"{comparison.only_a:,}"),
        ("only the tuned network is right", f"{comparison.only_b:,}"),
    ]
    return Section(
        name="scores",
        title="Frozen and tuned",
        text=f"Both answered the same test examples, which chose nothing. In brackets: {INTERVAL}.",
        tables=(Table(("", ""), tuple(rows)),),
    )


def _curves(card: TunedCard) -> Section:
    plots = []
    for name, series in CURVES.items():
        known = [each for each in series if each in card.history[0]]
        factor = 100 if name == "accuracy" else 1
        plots.append(
            Plot(
                _drawn(name, card.history, known, factor),
                "On the training examples (changed anew in each epoch), and, if some were held "
                "back, on validation examples as they are.",
                tuple(Key(each.replace("_", " "), number) for number, each in enumerate(known)),
            )
        )
    text = (
        f"{count(len(card.history), 'epoch')} on {count(len(card.blocks), 'block')} and the head; "
        f"the weights are those of epoch {card.metrics['best_epoch']}."
    )
    return Section(name="curves", title="How training went", text=text, plots=tuple(plots))


def _drawn(
    name: str, history: Sequence[dict[str, Any]], series: Sequence[str], factor: float
) -> str:
    def paint(figure: Figure) -> None:
        axes = figure.add_subplot()
        epochs = [each["epoch"] for each in history]
        for number, key in enumerate(series):
            values = [factor * each[key] for each in history]
            axes.plot(epochs, values, color=colour(number), marker="o", markersize=4)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set(xlabel="epoch", ylabel=f"{name}, %" if factor > 1 else name)

    last = "; ".join(f"{key.replace('_', ' ')} {history[-1][key]:.3f} at the end" for key in series)
    return draw(f"curve-{name}", f"{name} by epoch: {last}", paint)


def _epochs(card: TunedCard) -> Section:
    names: list[str] = [key for key in ("loss", "accuracy") if key in card.history[0]]
    names += [key for key in ("validation_loss", "validation_accuracy") if key in card.history[0]]
    rows = tuple(
        (
            str(each["epoch"]),
            *(
                percent(each[key]) if key.endswith("accuracy") else f"{each[key]:.4f}"
                for key in names
            ),
            f"{each['seconds']:.1f}",
            f"{each['rate']:.0f}",
        )
        for each in card.history
    )
    columns = ("epoch", *(key.replace("_", " ") for key in names), "seconds", "examples/s")
    return Section(
        name="epochs", title="Epochs", text="Each in figures.", tables=(Table(columns, rows),)
    )


def _mixes(card: TunedCard) -> Section:
    rows = tuple(
        (
            f"{each['mix']:.2f}" + (" (taken)" if each["mix"] == card.metrics["mix"] else ""),
            f"{each['validation_loss']:.4f}",
            percent(each["validation_accuracy"]),
        )
        for each in card.metrics["mixes"]
    )
    return Section(
        name="mixes",
        title="Between start and end",
        text="Weights between those before and after training, by the validation examples "
        "(WiSE-FT, arXiv:2109.01903); 1 is the end.",
        tables=(Table(("share", "validation loss", "validation accuracy"), rows),),
    )


def _made_with(card: TunedCard) -> Section:
    rows = [
        ("network", card.network),
        ("weights at the start", f"{card.origin}, licence {card.licence}"),
        ("input", f"{card.size}x{card.size} pixels"),
        ("trained blocks", ", ".join(card.blocks) or "none: the head alone"),
        *((name.replace("_", " "), str(value)) for name, value in card.recipe.items()),
        *((package, found) for package, found in card.versions.items()),
    ]
    return Section(
        name="made-with",
        title="Made with",
        text="What it takes to do it again.",
        tables=(Table(("", ""), tuple(rows), texts=2),),
    )
