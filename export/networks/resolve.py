"""Opens the network that the user named: by name, by file or by framework."""

from __future__ import annotations

import difflib
from pathlib import Path

from headstart.data.common.errors import BackboneError
from headstart.data.contracts.tuned import TUNED
from headstart.data.storage.files import local_path
from headstart.export.networks.catalogue import APPLICATIONS, LITE
from headstart.export.networks.network import Original
from headstart.export.networks.tuned import tuned_options, tuned_reference, tuned_weights
from headstart.export.options import BackboneOptions

DEFAULT = "efficientnet_lite0"
FRAMEWORKS = ("timm", "torchvision", "hf")
FILES = (".onnx", ".keras", ".h5", ".hdf5")


def open_original(reference: str, options: BackboneOptions) -> Original:
    """Open what `reference` names.

    Parameters
    ----------
    reference
        A name in the catalogue (`export list`); `timm:NAME` or `torchvision:NAME`; `hf:FOLDER` of a
        Hugging Face checkpoint; a file `.keras`, `.h5` or `.onnx`; the folder of a SavedModel, or
        of a tuned network.

    Raises
    ------
    BackboneError
        If there is no such network, or it is damaged or not supported.
    MissingPackageError
        If the framework it needs is not installed.
    """
    options.check()
    framework, _, rest = reference.partition(":")
    if framework in FRAMEWORKS and rest:
        from headstart.export.networks.torch.zoo import open_named

        return open_named(framework, rest, options)
    lite, application = plain_name(reference), application_name(reference)
    if lite in LITE:
        from headstart.export.networks.lite import open_lite

        return open_lite(lite, options)
    if application in APPLICATIONS:
        from headstart.export.networks.keras.applications import open_application

        return open_application(application, options)
    path = local_path(reference)
    suffix = path.suffix.lower()
    if suffix not in FILES and not path.exists():
        raise _unknown(reference)
    if not path.exists():
        raise BackboneError(f"{reference}: no such file", "Check the path.")
    if (path / TUNED).is_file():
        return _open_tuned(path, options)
    _refuse_for_files(reference, options)
    if path.is_dir():
        from headstart.export.networks.keras.saved_model import open_saved_model

        return open_saved_model(path, options)
    if suffix == ".onnx":
        from headstart.export.networks.onnx.file import open_onnx

        return open_onnx(path, options)
    if suffix in FILES:
        from headstart.export.networks.keras.file import open_keras_file

        return open_keras_file(path, options)
    raise _not_a_network(path, reference)


def _open_tuned(path: Path, options: BackboneOptions) -> Original:
    tuned, own = tuned_options(path, options)
    network = open_original(*tuned_reference(tuned, own))
    network.name, network.weights = tuned.card.name, tuned_weights(tuned)
    network.resize, network.interpolation = tuned.card.resize, tuned.card.interpolation
    return network


def plain_name(name: str) -> str:
    """A name as the catalogue writes those of EfficientNet-Lite."""
    return name.lower().replace("-", "_")


def application_name(name: str) -> str:
    """A name as the catalogue writes those of `keras.applications`."""
    return name.lower().replace("_", "").replace("-", "")


def _unknown(reference: str) -> BackboneError:
    known = [*LITE, *APPLICATIONS]
    near = difflib.get_close_matches(reference.lower(), known, 3, 0.5)
    return BackboneError(
        f"unknown backbone {reference!r}",
        f"Did you mean {' or '.join(near)}?"
        if near
        else "`python -m export list` shows the available ones.",
    )


def _refuse_for_files(reference: str, options: BackboneOptions) -> None:
    if options.weights not in ("imagenet", "none"):
        raise BackboneError(
            f"--weights {options.weights} cannot be used with {reference}, which has its own",
            "Leave out --weights, or name the architecture that the weights belong to.",
        )
    if options.include_top:
        raise BackboneError(
            f"--include-top cannot be used with {reference}",
            "Name its last layer instead: --layer NAME "
            f"(`python -m export layers {reference}` lists them).",
        )


def _not_a_network(path: Path, reference: str) -> BackboneError:
    if path.suffix.lower() in (".pt", ".pth", ".bin", ".safetensors"):
        return BackboneError(
            f"{reference} contains weights, but not the network that they belong to",
            f"Name it too: timm:NAME --weights {reference}, or hf:FOLDER for a checkpoint with its "
            "config.json.",
        )
    return BackboneError(
        f"{reference} is not a network in a supported format",
        "Give a .keras, .h5 or .onnx file, or the folder of a SavedModel.",
    )
