"""`python -m export measure`: parse, call, print."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from headstart.data.common import console
from headstart.data.common.application.arguments import AsJson, expanded
from headstart.data.common.console import counted
from headstart.data.source_options import SourceOptions

if TYPE_CHECKING:
    from headstart.data.common.intervals import Interval
    from headstart.export.measure.agreement import Agreement
    from headstart.export.measure.measure import Measurement

MOST_CLASSES, WORST = 20, 10


@expanded
def measure(
    edges: Annotated[
        list[str], typer.Argument(metavar="EDGE...", help="Edge models; compared with the first.")
    ],
    reading: SourceOptions,
    source: Annotated[
        str | None,
        typer.Option(help="Labelled examples not used in training, to measure accuracy as well."),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="Model folder, to measure accuracy on its held-out examples; --source says "
            "where they are now, if they were moved."
        ),
    ] = None,
    runs: Annotated[int, typer.Option(help="Runs of each, after warm-up.")] = 100,
    most_loss: Annotated[
        float | None,
        typer.Option(help="Exit 1 if one has this many points less accuracy than the first."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Measure edge models: size, latency, memory; on examples also accuracy and agreement."""
    from headstart.export.measure.measure import measure
    from headstart.export.options import MeasureOptions

    place = None if source is None else str(reading.address(source))
    found = measure(edges, MeasureOptions(runs, place, model, most_loss))
    if as_json:
        console.show_json(found.to_json())
    else:
        _show_latency(found)
        if found.agreement:
            _show_agreement(found, found.agreement)
    found.check(most_loss)


def _show_latency(found: Measurement) -> None:
    rows = [
        [
            *(console.place(model.path), model.precision, f"{model.size / 1e6:.1f}"),
            *(latency.threads, f"{1e3 * latency.median:.2f}", f"{1e3 * latency.percentile95:.2f}"),
            *(f"{faster:.2f}", f"{latency.peak_memory / 1e6:.0f}"),
        ]
        for model in found.models
        for latency, faster in zip(model.latency, model.times_as_fast, strict=True)
    ]
    console.show_table(
        [
            *("edge model", "precision", "MB", "threads", "median ms", "95 % ms"),
            *("times as fast", "memory MB"),
        ],
        rows,
    )
    before = max(latency.before for model in found.models for latency in model.latency)
    console.note(
        f"one example at a time, random input, {found.runs:,} runs each, alternating; memory: "
        "the largest resident size of the process, of which Python, NumPy and ONNX Runtime are "
        f"{before / 1e6:.0f} MB"
    )


def _show_agreement(found: Measurement, answers: Agreement) -> None:
    names = [console.place(model.path) for model in found.models]
    of = f", the split {answers.split!r}" if answers.split else ""
    console.say(f"\n{counted(answers.photographs, 'example')}{of}")
    console.show_table(
        ["edge model", "accuracy", "answered", "correct of these", "same label as the first"],
        [
            [
                *(name, _with_interval(scores.accuracy), f"{scores.answered.value:.1%}"),
                f"{scores.right_of_answers.value:.4f}" if scores.right_of_answers else "",
                f"{scores.agreement.value:.1%}",
            ]
            for name, scores in zip(names, answers.scores, strict=True)
        ],
    )
    _show_classes(names, answers)
    if any(scores.answered.value < 1 for scores in answers.scores):
        console.note('"unknown" counts as wrong in the accuracy')
    if answers.unlabelled:
        console.note(f"left out: {answers.unlabelled:,} without a label")
    if unread := answers.unread:
        shown = console.first_few(
            unread, show=lambda each: f"{each[0]} ({each[1]})", separator="; "
        )
        console.note(f"left out: {len(unread):,} that cannot be read: {shown}")


def _show_classes(names: list[str], answers: Agreement) -> None:
    """The first model's recall, and how much less the others have."""
    lost = 100 * (answers.recall[0] - answers.recall[1:])
    tested = [index for index, count in enumerate(answers.support) if count]
    console.out.print()
    if len(answers.classes) > MOST_CLASSES:
        if len(names) > 1:
            what = "lose the most recall"
            tested.sort(key=lambda index: -lost[:, index].max())
        else:
            what = "have the lowest recall"
            tested.sort(key=lambda index: answers.recall[0, index])
        tested = tested[:WORST]
        console.out.print(f"the {len(tested)} classes that {what}")
    rows: list[list[Any]] = [
        [
            *(answers.classes[index], f"{answers.support[index]:,}"),
            f"{answers.recall[0, index]:.3f}",
            *(f"{points:.1f}" for points in lost[:, index] + 0.0),
        ]
        for index in tested
    ]
    columns = ["class", "examples", f"recall of {names[0]}"]
    console.show_table([*columns, *(f"points lost by {name}" for name in names[1:])], rows)


def _with_interval(found: Interval) -> str:
    return f"{found.value:.4f}  (95 %: {found.low:.4f} to {found.high:.4f})"
