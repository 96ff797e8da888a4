"""`python -m classify finetune`: parse, call, print."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from headstart.classify.finetune.options import (
    FinetuneOptions,
    MachineOptions,
    NetworkOptions,
    Recipe,
    ScopeOptions,
    parse_sweep,
)
from headstart.data.common import console
from headstart.data.common.application.arguments import (
    AsJson,
    Overwrite,
    SamplesPerClass,
    Track,
    expanded,
)
from headstart.data.common.errors import Checklist
from headstart.data.source_options import SourceOptions

if TYPE_CHECKING:
    from headstart.classify.finetune.finetuning import Finetuned
    from headstart.classify.finetune.sweep import Trial


@expanded
def finetune(
    context: typer.Context,
    source: Annotated[str, typer.Argument(help="The photographs that MODEL's features are of.")],
    backbone: Annotated[
        str,
        typer.Option(help="The backbone file of the features, or a network's name."),
    ],
    model: Annotated[str, typer.Option(help="Model folder of the frozen features: the baseline.")],
    output: Annotated[str, typer.Option("-o", "--output", help="Folder to write.")],
    reading: SourceOptions,
    network: NetworkOptions,
    recipe: Recipe,
    scope: ScopeOptions,
    machine: MachineOptions,
    samples_per_class: SamplesPerClass = None,
    sweep: Annotated[
        list[str] | None,
        typer.Option(help="NAME=A,B: try these values of an option; may be repeated."),
    ] = None,
    then_export: Annotated[
        bool,
        typer.Option(
            "--then-export", help="Also write backbone, features, a model and an edge model."
        ),
    ] = False,
    track: Track = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Train a network's last blocks, or all, where frozen features are not enough."""
    from headstart.classify.finetune.finetuning import finetune
    from headstart.classify.finetune.then_export import EDGE, export_all
    from headstart.data.tracking import check_tracking, track_tuned

    checks = Checklist()
    with checks.item():
        check_tracking(track)
    with checks.item():
        space = parse_sweep(sweep or [])
    checks.finish()
    options = FinetuneOptions(
        recipe=recipe,
        scope=scope,
        network=network,
        machine=machine,
        samples_per_class=samples_per_class,
        sweep=space,
        overwrite=overwrite,
    )
    photographs = reading.address(source)
    tuned = finetune(photographs, backbone, model, output, options)
    if as_json:
        console.show_json(tuned.to_json())
    else:
        _show(tuned)
    if then_export:
        export_all(photographs, tuned)
    edge = tuned.tuned.folder.path(EDGE) if then_export else None
    track_tuned(track, str(tuned.tuned.folder), context.params, edge)


def _show(tuned: Finetuned) -> None:
    compared, card = tuned.comparison, tuned.tuned.card
    if tuned.trials:
        _show_trials(tuned.trials)
    console.show(
        {
            "trained": f"{console.counted(len(card.blocks), 'block')} and the head, "
            f"{console.counted(len(card.history), 'epoch')}",
            "took": ", ".join(f"{name} {value:.0f} s" for name, value in tuned.seconds.items()),
            "frozen": f"accuracy {compared.accuracy_a.value:.4f}, log loss "
            f"{compared.log_loss_a:.4f}",
            "tuned": f"accuracy {compared.accuracy_b.value:.4f}, log loss "
            f"{compared.log_loss_b:.4f}, macro F1 {tuned.scores.macro_f1:.4f}, calibration error "
            f"{tuned.scores.calibration_error:.4f}",
            "mix": f"{card.metrics['mix']:g} of the way from start to end",
        }
    )
    console.say(f"\n{tuned.verdict}")
    place = console.place(tuned.tuned.folder)
    console.say(f"wrote {place}; next: python -m export backbone {place} -o tuned.onnx")


def _show_trials(trials: Sequence[Trial]) -> None:
    names = list(trials[0].values)
    console.show_table(
        ["rank", *names, "epochs", "validation loss", "accuracy", "seconds"],
        [
            [
                rank,
                *(f"{trial.values[name]:g}" for name in names),
                trial.epochs,
                f"{trial.loss:.4f}",
                f"{trial.accuracy:.4f}",
                f"{trial.seconds:.1f}",
            ]
            for rank, trial in enumerate(trials, 1)
        ],
    )
    console.out.print()
