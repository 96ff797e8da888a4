"""Opens a Keras model in a `.keras` or `.h5` file, in safe mode: no code in it is run."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from headstart.data.common.errors import BackboneError, first_line
from headstart.export.networks.keras.network import KerasNetwork
from headstart.export.networks.keras.stack import import_keras
from headstart.export.networks.network import (
    Original,
    Weights,
    chosen_scaling,
    input_size,
)
from headstart.export.networks.onnx.surgery import MOST_BYTES
from headstart.export.networks.scaling import RULES, Scaling
from headstart.export.options import BackboneOptions

SCALING_LAYERS = ("Rescaling", "Normalization")


def open_keras_file(path: Path, options: BackboneOptions) -> Original:
    """Open a saved Keras model.

    Raises
    ------
    BackboneError
        If it is damaged, contains only weights or code (unless `--trust`), or does not take one
        image.
    """
    keras = import_keras()
    model, size, scaling, weights = load_keras_file(keras, path, options)
    return KerasNetwork(keras, model, path.stem, size, scaling, weights)


def load_keras_file(
    keras: Any, path: Path, options: BackboneOptions
) -> tuple[Any, tuple[int, int], Scaling, Weights]:
    """The Keras model in a file, its height and width, scaling and weights; see above."""
    config = _read_config(path)
    code = sorted({kind for kind in _classes(config) if kind == "Lambda"})
    if code and not options.trust:
        raise BackboneError(
            f"{path} has a Lambda layer: Python code from the file's author, which would be run",
            "Pass --trust if you trust the author, or replace the layer and save the model again.",
        )
    try:
        model = keras.models.load_model(
            path, _of_keras_2(keras), compile=False, safe_mode=not options.trust
        )
    except Exception as error:  # Keras raises errors of many classes for a damaged file
        raise BackboneError(
            f"{path} cannot be loaded: {first_line(error)}",
            "If it has custom layers, open it in Python and pass "
            "headstart.export.networks.keras.network.KerasNetwork to export_backbone; "
            "if it is damaged, save it again.",
        ) from error
    inputs = model.inputs or []
    if len(inputs) != 1 or len(inputs[0].shape) != 4 or inputs[0].shape[-1] != 3:
        shapes = [list(value.shape) for value in inputs]
        raise BackboneError(
            f"{path} takes inputs of the shapes {shapes}, not one image",
            "An image is [batch, height, width, 3].",
        )
    own = None
    if set(_classes(config)) & set(SCALING_LAYERS) or "int" in str(inputs[0].dtype):
        own = RULES["none"]
    size = input_size(inputs[0].shape[1:3], options, str(path))
    scaling = chosen_scaling(options, own, str(path))
    return model, size, scaling, Weights.of_file(path)


def _of_keras_2(keras: Any) -> dict[str, Any]:
    """Layers that also take what Keras 2 wrote of them: `groups`, always 1.

    Teachable Machine's files have it, among others.
    """

    def reading(kind: Any) -> Any:
        def from_config(cls: Any, config: dict[str, Any]) -> Any:
            left = {key: value for key, value in config.items() if (key, value) != ("groups", 1)}
            return kind.from_config.__func__(cls, left)

        return type(kind.__name__, (kind,), {"from_config": classmethod(from_config)})

    names = (
        *("DepthwiseConv1D", "DepthwiseConv2D", "SeparableConv1D", "SeparableConv2D"),
        *("Conv1DTranspose", "Conv2DTranspose"),
    )
    return {name: reading(getattr(keras.layers, name)) for name in names}


def _read_config(path: Path) -> Any:
    """The configuration of the model in a file, without building anything."""
    try:
        if path.suffix.lower() == ".keras":
            with zipfile.ZipFile(path) as archive:
                size = sum(entry.file_size for entry in archive.infolist())
                if size > MOST_BYTES:
                    raise BackboneError(
                        f"{path} unpacks to {size / 1e9:.0f} GB; the limit is "
                        f"{MOST_BYTES / 1e9:.0f}",
                        "Choose a smaller network.",
                    )
                return json.loads(archive.read("config.json"))
        import h5py

        with h5py.File(path, "r") as file:
            _refuse_links(file, path)
            config = file.attrs.get("model_config")
    except BackboneError:
        raise
    except Exception as error:  # zip, HDF5 and JSON have an error class each for damage
        raise BackboneError(
            f"{path} is not a valid Keras file ({error})", "Save the model again."
        ) from error
    if config is None:
        raise BackboneError(
            f"{path} contains weights, but not the network that they belong to",
            f"Name it too: python -m export backbone NAME --weights {path}",
        )
    return json.loads(config)


def _refuse_links(group: Any, path: Path) -> None:
    """Raise `BackboneError` if an HDF5 file has links to other files."""
    import h5py

    for name in group:
        link = group.get(name, getlink=True)
        outside = isinstance(link, h5py.ExternalLink)
        item = None if outside else group.get(name)
        if outside or (isinstance(item, h5py.Dataset) and item.external):
            raise BackboneError(
                f"{path} refers to another file (in {name!r})",
                "Save the model again, as one file.",
            )
        if isinstance(item, h5py.Group) and isinstance(link, h5py.HardLink):
            _refuse_links(item, path)


def _classes(config: Any) -> Iterator[str]:
    """The class names in a model's configuration, including those of nested models."""
    if isinstance(config, dict):
        if isinstance(config.get("class_name"), str):
            yield config["class_name"]
        for value in config.values():
            yield from _classes(value)
    elif isinstance(config, list):
        for value in config:
            yield from _classes(value)
