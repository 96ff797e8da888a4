"""Opens a tuned network as the network that it was, with its new weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from headstart.data.common.errors import BackboneError
from headstart.data.contracts.tuned import Tuned
from headstart.data.storage.files import digest
from headstart.export.networks.network import Weights
from headstart.export.options import BackboneOptions


def tuned_options(path: Path, options: BackboneOptions) -> tuple[Tuned, BackboneOptions]:
    """The tuned network in a folder, and the options that open it.

    Raises
    ------
    ModelError
        If it is damaged.
    BackboneError
        If other weights are asked for.
    """
    if options.weights != "imagenet":
        raise BackboneError(
            f"--weights {options.weights} cannot be used with {path}, which has its own",
            "Leave out --weights.",
        )
    tuned = Tuned.open(path)
    card = tuned.card
    own = options.resize is None and options.crop_fraction is None
    return tuned, replace(
        options,
        crop_fraction=card.crop_fraction if own else options.crop_fraction,
        crop_offset=card.crop_offset if own else options.crop_offset,
        weights=str(tuned.weights),
        size=options.size or card.size,
        scaling=options.scaling or card.scaling,
        resize=options.resize or card.resize,
        interpolation=options.interpolation or card.interpolation,
    )


def tuned_weights(tuned: Tuned) -> Weights:
    """Where the weights come from."""
    sha = digest(tuned.weights.read_bytes())[:12]
    return Weights(f"fine-tuned (sha256 {sha}) from {tuned.card.origin}", tuned.card.licence)


def tuned_reference(tuned: Tuned, options: BackboneOptions) -> tuple[str, BackboneOptions]:
    """What to open: the network by its name with new weights, or the whole network in a file."""
    if tuned.weights.suffix == ".keras":
        return str(tuned.weights), replace(options, weights="imagenet")
    return tuned.card.network, options
