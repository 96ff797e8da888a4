"""`python -m classify finetune`: parse, call, print."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from headstart.data.common import console

if TYPE_CHECKING:
    from headstart.classify.finetune.finetuning import Finetuned
    from headstart.classify.finetune.sweep import Trial

Track = Annotated[
    str | None,
    typer.Option(help="mlflow: log parameters, scores and files, at MLFLOW_TRACKING_URI."),
]


def finetune(
    context: typer.Context,
    source: Annotated[str, typer.Argument(help="The photographs that MODEL's features are of.")],
    backbone: Annotated[
        str,
        typer.Option(help="The backbone file of the features, or a network's name."),
    ],
    model: Annotated[str, typer.Option(help="Model folder of the frozen features: the baseline.")],
    output: Annotated[str, typer.Option("-o", "--output", help="Folder to write.")],
    network: Annotated[
        str | None,
        typer.Option(help="Which network a backbone file was exported from, if it does not say."),
    ] = None,
    weights: Annotated[
        str, typer.Option(help="imagenet, none, or a file, for a network by name.")
    ] = "imagenet",
    train_blocks: Annotated[
        str, typer.Option(help="How many of the last blocks are trained: a number, all, or auto.")
    ] = "auto",
    retrained_conv_layers: Annotated[
        int | None, typer.Option(help="Instead: how many of the last convolutions.")
    ] = None,
    cache: Annotated[
        str, typer.Option(help="Keep the output of the frozen blocks: auto, yes or no.")
    ] = "auto",
    minutes: Annotated[float, typer.Option(help="Time that auto may plan with.")] = 15.0,
    gigabytes: Annotated[float, typer.Option(help="Disk that a cache may take.")] = 10.0,
    cache_folder: Annotated[
        str | None, typer.Option(help="Keep caches there, for further runs; default: in OUTPUT.")
    ] = None,
    max_epochs: Annotated[int, typer.Option(help="Epochs, at most.")] = 12,
    use_early_stop: Annotated[
        int, typer.Option(help="Stop after this many epochs without improvement; 0: never.")
    ] = 0,
    learning_rate: Annotated[float, typer.Option(help="Of the last block.")] = 3e-4,
    head_rate: Annotated[float, typer.Option(help="Learning rate of the head.")] = 1e-3,
    layer_decay: Annotated[
        float, typer.Option(help="Factor of the rate from each block to the one before.")
    ] = 1.0,
    weight_decay: Annotated[float, typer.Option(help="Of kernels.")] = 0.05,
    label_smoothing: Annotated[float, typer.Option(help="0 to 0.9.")] = 0.1,
    dropout: Annotated[float, typer.Option(help="Before the head.")] = 0.2,
    batch: Annotated[int, typer.Option(help="Photographs of a step, on all workers.")] = 32,
    average: Annotated[
        float, typer.Option(help="Decay of the weights' average over steps; 0: none.")
    ] = 0.0,
    augment: Annotated[
        str, typer.Option(help="none, mirror, flips, turns (all keep a cache), or photo.")
    ] = "mirror",
    strength: Annotated[float, typer.Option(help="Of --augment photo.")] = 1.0,
    validation: Annotated[
        float, typer.Option(help="Share of the training examples that chooses; 0: none.")
    ] = 0.1,
    interpolate: Annotated[
        bool, typer.Option(help="Mix start and end as the validation examples say.")
    ] = True,
    class_weight: Annotated[
        str, typer.Option(help="balanced: rare classes count as much as frequent ones.")
    ] = "",
    samples_per_class: Annotated[
        int | None, typer.Option(help="Train on this many examples of each class.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Random seed.")] = 0,
    sweep: Annotated[
        list[str] | None,
        typer.Option(help="NAME=A,B: try these values of an option; may be repeated."),
    ] = None,
    address: Annotated[
        str | None, typer.Option(help="Ray cluster to run on; default: this machine.")
    ] = None,
    workers: Annotated[int, typer.Option(help="That train one network together.")] = 1,
    gpus_per_worker: Annotated[float, typer.Option(help="GPUs of each worker.")] = 0.0,
    then_export: Annotated[
        bool,
        typer.Option(
            "--then-export", help="Also write backbone, features, a model and an edge model."
        ),
    ] = False,
    track: Track = None,
    trust: Annotated[bool, typer.Option("--trust", help="Run code that a file contains.")] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the output if it is there.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Train a network's last blocks, or all, where frozen features are not enough."""
    from headstart.classify.finetune.finetuning import finetune
    from headstart.classify.finetune.options import (
        FinetuneOptions,
        MachineOptions,
        NetworkOptions,
        Recipe,
        ScopeOptions,
        parse_sweep,
    )
    from headstart.classify.finetune.then_export import EDGE, export_all
    from headstart.data.common.errors import Checklist
    from headstart.data.tracking import check_tracking, track_tuned

    checks = Checklist()
    with checks.item():
        check_tracking(track)
    with checks.item():
        recipe = Recipe(
            epochs=max_epochs,
            learning_rate=learning_rate,
            head_rate=head_rate,
            layer_decay=layer_decay,
            weight_decay=weight_decay,
            label_smoothing=label_smoothing,
            dropout=dropout,
            batch=batch,
            average=average,
            augmentation=augment,
            strength=strength,
            validation=validation,
            early_stop=use_early_stop,
            interpolate=interpolate,
            class_weight=class_weight,
            seed=seed,
        )
    with checks.item():
        scope = ScopeOptions(
            blocks=train_blocks,
            convolutions=retrained_conv_layers,
            cache=cache,
            minutes=minutes,
            gigabytes=gigabytes,
            folder=cache_folder,
        )
    with checks.item():
        machine = MachineOptions(address, workers, gpus_per_worker)
    with checks.item():
        space = parse_sweep(sweep or [])
    checks.finish()
    options = FinetuneOptions(
        recipe=recipe,
        scope=scope,
        network=NetworkOptions(network, weights, trust),
        machine=machine,
        samples_per_class=samples_per_class,
        sweep=space,
        overwrite=overwrite,
    )
    tuned = finetune(source, backbone, model, output, options)
    if as_json:
        console.show_json(tuned.to_json())
    else:
        _show(tuned)
    if then_export:
        export_all(source, tuned)
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
