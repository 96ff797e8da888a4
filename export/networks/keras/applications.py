"""The image networks of `keras.applications`, by name."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from headstart.data.common.console import first_few
from headstart.data.common.errors import BackboneError
from headstart.export.networks.catalogue import APPLICATIONS
from headstart.export.networks.keras.network import KerasNetwork
from headstart.export.networks.keras.stack import SEED, import_keras
from headstart.export.networks.network import NO_WEIGHTS, Original, Weights, chosen_scaling
from headstart.export.networks.scaling import RULES
from headstart.export.options import BackboneOptions


class Application(KerasNetwork):
    """A network of `keras.applications`; checked with its family's own preprocessing function."""

    family_preprocess: Callable[[np.ndarray], np.ndarray] | None = None

    def preprocess(self, images: np.ndarray) -> np.ndarray:
        """By the family's `preprocess_input`, unless another rule was asked for."""
        if self.family_preprocess is None:
            return super().preprocess(images)
        return np.asarray(self.family_preprocess(images.astype(np.float32)))


def application_functions(keras: Any) -> dict[str, tuple[Any, Any]]:
    """Builder and preprocessing function of every network of `keras.applications`, by name."""
    found = {}
    for name in dir(keras.applications):
        function = getattr(keras.applications, name)
        if name[0].isupper() and callable(function):
            family = sys.modules[function.__module__]
            found[name.lower()] = (function, family.preprocess_input)
    return found


def open_application(name: str, options: BackboneOptions) -> Original:
    """Build a network of `keras.applications` with its weights.

    Raises
    ------
    BackboneError
        If the weights are missing or do not fit, or the network cannot be built at this size.
    """
    keras = import_keras()
    keras.utils.set_random_seed(SEED)
    _, preprocess = application_functions(keras)[name]
    facts = APPLICATIONS[name]
    size = options.size or facts.size
    model, weights = build_application(keras, name, size, options)
    network = Application(
        keras,
        model,
        name,
        (size, size),
        chosen_scaling(options, RULES[facts.scaling], name),
        weights,
        (model.layers[-1].name,),
    )
    if options.scaling is None:
        network.family_preprocess = preprocess
    return network


def build_application(
    keras: Any, name: str, size: int, options: BackboneOptions
) -> tuple[Any, Weights]:
    """The Keras model of a name, with its weights, and where they come from.

    Raises
    ------
    BackboneError
        If the weights are missing or do not fit, or the network cannot be built at this size.
    """
    function, _ = application_functions(keras)[name]
    arguments: dict[str, Any] = {
        "weights": "imagenet" if options.weights == "imagenet" else None,
        "input_shape": (size, size, 3),
        "include_top": options.include_top,
    }
    if options.include_top:
        arguments["classifier_activation"] = None
    try:
        with warnings.catch_warnings():  # about sizes without published weights
            warnings.simplefilter("ignore")
            model = function(**arguments)
    except Exception as error:  # the download and the builder raise errors of many classes
        if options.weights == "imagenet":
            raise BackboneError(
                f"the ImageNet weights of {name} could not be downloaded: {error}",
                "Download them elsewhere and pass --weights FILE.",
            ) from error
        raise BackboneError(
            f"{name} cannot be built at {size}x{size}: {error}", "Choose another --size."
        ) from error
    file = options.weights_file
    if file is None:
        if options.weights == "none":
            return model, NO_WEIGHTS
        return model, Weights("imagenet (keras.applications)", APPLICATIONS[name].licence)
    with_top = "with" if options.include_top else "without"
    _load_weights(model, file, name, f"{with_top} its classifier")
    return model, Weights.of_file(file)


def _load_weights(model: Any, file: Path, name: str, part: str) -> None:
    """Load a file of weights, and check that it has all of them."""
    fix = f"Give the weights of exactly this network ({part}), as .weights.h5 or .h5."
    # Keras only warns if a file lacks a layer: what is still NaN afterwards was not in it.
    for variable in model.variables:
        variable.assign(np.full(variable.shape, np.nan))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model.load_weights(file)
    except (ValueError, OSError, KeyError) as error:
        raise BackboneError(
            f"{file} does not contain the weights of {name}: {error}", fix
        ) from error
    empty = [v.path for v in model.variables if np.isnan(v.numpy()).any()]
    if empty:
        raise BackboneError(
            f"{file} lacks {len(empty)} of the {len(model.variables)} weights of {name}: "
            f"{first_few(empty, 3)}",
            fix,
        )
