"""Options of fine-tuning: which blocks, the recipe, the cache, the machines."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any

import typer

from headstart.data.common.application.arguments import Address, ClassWeight, Seed
from headstart.data.common.errors import Checklist, InputError

ALL, AUTO = "all", "auto"
# Changes that do not change what a picture shows, by name; see `training.augmentation`.
AUGMENTATIONS = ("none", "mirror", "flips", "turns", "photo")
CACHED = ("auto", "yes", "no")
PRECISIONS = ("auto", "fp32", "bf16")
MOST_VALIDATION = 0.5


@dataclass(frozen=True)
class NetworkOptions:
    """Which network, if the backbone file alone does not say it.

    Parameters
    ----------
    name
        As for `export backbone`; none for the one that the backbone file was made from.
    weights
        Its weights: `imagenet`, `none` (random) or a file.
    trust
        Run code that a file contains.
    """

    name: Annotated[
        str | None,
        typer.Option(
            "--network", help="Which network a backbone file was exported from, if it is not said."
        ),
    ] = None
    weights: Annotated[
        str, typer.Option(help="imagenet, none, or a file, for a network by name.")
    ] = "imagenet"
    trust: Annotated[bool, typer.Option("--trust", help="Run code that a file contains.")] = False


@dataclass(frozen=True)
class ScopeOptions:
    """How much of the network is trained, and from what.

    Parameters
    ----------
    blocks
        How many of the last blocks: a number, `all`, or `auto` (as many as the budget allows).
    convolutions
        Instead of blocks: how many of the last convolutions, with their normalization.
    cache
        Whether the frozen part is computed once and kept: `yes`, `no`, or `auto` (if it is less
        work).
    minutes, gigabytes
        The budget of `auto`: time of training, and disk of the cache.
    folder
        Where caches are kept and found again; none for a folder in the output.
    """

    blocks: Annotated[
        str,
        typer.Option(
            "--train-blocks",
            help="How many of the last blocks are trained: a number, all, or auto.",
        ),
    ] = AUTO
    convolutions: Annotated[
        int | None,
        typer.Option("--retrained-conv-layers", help="Instead: how many of the last convolutions."),
    ] = None
    cache: Annotated[
        str, typer.Option(help="Keep the output of the frozen blocks: auto, yes or no.")
    ] = "auto"
    minutes: Annotated[float, typer.Option(help="Time that auto may plan with.")] = 15.0
    gigabytes: Annotated[float, typer.Option(help="Disk that a cache may take.")] = 10.0
    folder: Annotated[
        str | None,
        typer.Option(
            "--cache-folder", help="Keep caches there, for further runs; default: in OUTPUT."
        ),
    ] = None

    def __post_init__(self) -> None:
        checks = Checklist()
        with checks.item():
            if self.blocks not in (ALL, AUTO) and not self.blocks.isdecimal():
                raise InputError(
                    f"--train-blocks {self.blocks} is not possible",
                    "Give a number, all, or auto.",
                )
        with checks.item():
            if self.convolutions is not None and self.convolutions < 0:
                raise InputError(
                    f"--retrained-conv-layers {self.convolutions} is negative", "Give 0 or more."
                )
        with checks.item():
            if self.convolutions is not None and self.blocks != AUTO:
                raise InputError(
                    "--train-blocks and --retrained-conv-layers both say what is trained",
                    "Give one of the two.",
                )
        with checks.item():
            if self.cache not in CACHED:
                raise InputError(
                    f"unknown --cache {self.cache!r}", f"Choose from {', '.join(CACHED)}."
                )
        for name in ("minutes", "gigabytes"):
            with checks.item():
                if getattr(self, name) <= 0:
                    raise InputError(
                        f"--{name} {getattr(self, name):g} is not possible", "Give more than 0."
                    )
        checks.finish()


@dataclass(frozen=True)
class Recipe:
    """How the weights are trained; docs/finetune.md measures the defaults on ELPV.

    Parameters
    ----------
    epochs
        At most.
    learning_rate, head_rate
        Of AdamW, for the last block and for the head.
    layer_decay
        Factor of the learning rate from each block to the one before it.
    weight_decay
        Of kernels; biases and normalization have none.
    warmup
        Share of the steps in which the learning rate rises; after it, it falls as a cosine.
    label_smoothing, dropout
        Of the head.
    batch
        Examples of a step, on all workers together.
    average
        Decay of the average of the weights over steps, which is used at the end; 0 for none.
    augmentation, strength
        One of `AUGMENTATIONS`; the strength scales what it draws, 1 as in docs/finetune.md.
    validation
        Share of the training examples that is not trained on and chooses: when to stop, and how far
        to go from the start to the end (WiSE-FT). 0 for none: the last weights are taken.
    early_stop
        Stop after this many epochs without a lower validation loss, and restore the best; 0 for
        never.
    interpolate
        Whether start and end are mixed, by the validation examples.
    class_weight
        `balanced`: rare classes count as much as frequent ones.
    precision
        Of steps: `fp32`, `bf16` (mixed: weights, their gradients and all answers stay float32), or
        `auto`, bf16 on GPUs that have it, and on CPUs where it was measured to be much faster.
    """

    epochs: Annotated[int, typer.Option("--max-epochs", help="Epochs, at most.")] = 12
    learning_rate: Annotated[float, typer.Option(help="Of the last block.")] = 3e-4
    head_rate: Annotated[float, typer.Option(help="Learning rate of the head.")] = 1e-3
    layer_decay: Annotated[
        float, typer.Option(help="Factor of the rate from each block to the one before.")
    ] = 1.0
    weight_decay: Annotated[float, typer.Option(help="Of kernels.")] = 0.05
    warmup: float = 0.1
    label_smoothing: Annotated[float, typer.Option(help="0 to 0.9.")] = 0.1
    dropout: Annotated[float, typer.Option(help="Before the head.")] = 0.2
    batch: Annotated[int, typer.Option(help="Photographs of a step, on all workers.")] = 32
    average: Annotated[
        float, typer.Option(help="Decay of the weights' average over steps; 0: none.")
    ] = 0.0
    augmentation: Annotated[
        str,
        typer.Option("--augment", help="none, mirror, flips, turns (all keep a cache), or photo."),
    ] = "mirror"
    strength: Annotated[float, typer.Option(help="Of --augment photo.")] = 1.0
    validation: Annotated[
        float, typer.Option(help="Share of the training examples that chooses; 0: none.")
    ] = 0.1
    early_stop: Annotated[
        int,
        typer.Option(
            "--use-early-stop", help="Stop after this many epochs without improvement; 0: never."
        ),
    ] = 0
    interpolate: Annotated[
        bool, typer.Option(help="Mix start and end as the validation examples say.")
    ] = True
    class_weight: ClassWeight = ""
    precision: Annotated[
        str, typer.Option(help="Of training: fp32, bf16 (mixed), or auto, bf16 where it pays.")
    ] = AUTO
    seed: Seed = 0

    def __post_init__(self) -> None:
        checks = Checklist()
        limits: dict[str, tuple[float, float]] = {
            "epochs": (1, 10_000),
            "learning_rate": (0, 10),
            "head_rate": (0, 10),
            "layer_decay": (0.01, 1),
            "weight_decay": (0, 10),
            "warmup": (0, 0.9),
            "label_smoothing": (0, 0.9),
            "dropout": (0, 0.95),
            "batch": (2, 4096),
            "average": (0, 0.9999),
            "strength": (0, 3),
            "validation": (0, MOST_VALIDATION),
            "early_stop": (0, 10_000),
            "seed": (0, 2**32 - 1),
        }
        for name, (low, high) in limits.items():
            with checks.item():
                if not low <= getattr(self, name) <= high:
                    raise InputError(
                        f"{flag(name)} {getattr(self, name):g} is not possible",
                        f"Give {low:g} to {high:g}.",
                    )
        with checks.item():
            if self.augmentation not in AUGMENTATIONS:
                near = difflib.get_close_matches(self.augmentation, AUGMENTATIONS, 1, 0.5)
                raise InputError(
                    f"unknown --augment {self.augmentation!r}",
                    f"Did you mean {near[0]}?"
                    if near
                    else f"Choose from {', '.join(AUGMENTATIONS)}.",
                )
        with checks.item():
            if self.class_weight not in ("", "balanced"):
                raise InputError(
                    f"unknown --class-weight {self.class_weight!r}",
                    "Give balanced, or leave it out.",
                )
        with checks.item():
            if self.precision not in PRECISIONS:
                raise InputError(
                    f"unknown --precision {self.precision!r}",
                    f"Choose from {', '.join(PRECISIONS)}.",
                )
        with checks.item():
            if self.early_stop and not self.validation:
                raise InputError(
                    "early stopping needs validation examples", "Leave --validation at its default."
                )
        checks.finish()

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return asdict(self)


def flag(name: str) -> str:
    """The command's flag of a recipe's field."""
    return {"epochs": "--max-epochs", "augmentation": "--augment"}.get(
        name, "--" + name.replace("_", "-")
    )


@dataclass(frozen=True)
class MachineOptions:
    """Where it runs.

    Parameters
    ----------
    address
        Of a Ray cluster; by default, a local one is started.
    workers
        That train one network together, each on a share of every batch.
    gpus
        Of each worker; 0 for CPUs.
    """

    address: Address = None
    workers: Annotated[int, typer.Option(help="That train one network together.")] = 1
    gpus: Annotated[float, typer.Option("--gpus-per-worker", help="GPUs of each worker.")] = 0.0

    def __post_init__(self) -> None:
        checks = Checklist()
        with checks.item():
            if not 1 <= self.workers <= 1024:
                raise InputError(f"--workers {self.workers} is not possible", "Give 1 to 1,024.")
        with checks.item():
            if not 0 <= self.gpus <= 16:
                raise InputError(
                    f"--gpus-per-worker {self.gpus:g} is not possible", "Give 0 to 16."
                )
        checks.finish()


# What may be swept: the cache stays the same, whatever these are.
SWEPT: dict[str, type] = {
    "learning_rate": float,
    "head_rate": float,
    "layer_decay": float,
    "weight_decay": float,
    "label_smoothing": float,
    "dropout": float,
    "batch": int,
    "average": float,
}


def parse_sweep(texts: Sequence[str]) -> dict[str, tuple[Any, ...]]:
    """The values of `NAME=A,B`; raises `InputError` with all that is wrong with them."""
    checks = Checklist()
    space: dict[str, tuple[Any, ...]] = {}
    for text in texts:
        name, _, values = text.partition("=")
        name = name.strip().lstrip("-").replace("-", "_")
        with checks.item():
            if name not in SWEPT:
                near = difflib.get_close_matches(name, SWEPT, 1, 0.5)
                raise InputError(
                    f"--sweep {text}: {name!r} cannot be swept",
                    f"Did you mean {near[0]}?" if near else f"Choose from {', '.join(SWEPT)}.",
                )
            try:
                space[name] = tuple(dict.fromkeys(SWEPT[name](each) for each in values.split(",")))
            except ValueError:
                raise InputError(
                    f"--sweep {text}: {values!r} are not numbers", f"Write --sweep {name}=A,B."
                ) from None
            for value in space[name]:
                Recipe(**{name: value})
    checks.finish()
    return space


@dataclass(frozen=True)
class FinetuneOptions:
    """All options of a fine-tuning.

    Parameters
    ----------
    samples_per_class
        Train on this many examples of each class, drawn by the seed; none for all.
    sweep
        Values of fields of the recipe: all combinations are tried first, and the best is used.
    overwrite
        Replace a tuned network that is there.
    """

    recipe: Recipe = Recipe()
    scope: ScopeOptions = ScopeOptions()
    network: NetworkOptions = NetworkOptions()
    machine: MachineOptions = MachineOptions()
    samples_per_class: int | None = None
    sweep: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    overwrite: bool = False

    def __post_init__(self) -> None:
        if self.samples_per_class is not None and self.samples_per_class < 1:
            raise InputError(
                f"--samples-per-class {self.samples_per_class} is not possible", "Give 1 or more."
            )
        if self.sweep and not self.recipe.validation:
            raise InputError(
                "a sweep is decided by validation examples", "Leave --validation at its default."
            )
