"""A Keras network that can be trained: Keras runs on PyTorch, so that the loop is the same.

Keras chooses its backend when it is imported: this needs a process that has not imported it with
TensorFlow. Files are the same for both.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from headstart.data.common.errors import BackboneError
from headstart.data.common.onnx_graphs import IR_VERSION, OPSET
from headstart.data.common.packages import import_packages
from headstart.export.networks.catalogue import APPLICATIONS
from headstart.export.networks.keras.applications import build_application
from headstart.export.networks.keras.file import load_keras_file
from headstart.export.networks.keras.small_cnn import NAME, SIZE, build_small_cnn
from headstart.export.networks.network import NO_WEIGHTS, chosen_scaling
from headstart.export.networks.onnx.surgery import to_opset
from headstart.export.networks.scaling import RULES
from headstart.export.networks.torch.conversion import module_to_onnx
from headstart.export.networks.torch.stack import import_torch
from headstart.export.networks.trainable.trainable import Block, Trainable
from headstart.export.options import BackboneOptions

WEIGHTS, MODEL = "network.weights.h5", "network.keras"
SEED = 0
# Layers of one block of MobileNet, EfficientNet, ResNet and their like begin with its name.
OF_BLOCK = re.compile(r"(?:conv\d+_|stack_\d+_)?block_?\d+[a-z]?(?=_)")
NORMALIZATION = ("BatchNormalization", "LayerNormalization", "GroupNormalization")


def import_keras_on_torch() -> tuple[Any, Any]:
    """PyTorch and Keras; raises `BackboneError` if Keras runs on something else already.

    Raises
    ------
    MissingPackageError
        If one is not installed.
    """
    (torch,) = import_torch()
    if "keras" not in sys.modules:
        os.environ["KERAS_BACKEND"] = "torch"
    (keras,) = import_packages(["keras"], "this network needs Keras", "keras")
    if keras.backend.backend() != "torch":
        raise BackboneError(
            "Keras runs on TensorFlow in this process already, and networks are trained on PyTorch",
            "Run `python -m classify finetune` in a process of its own.",
        )
    return torch, keras


def open_trainable_application(name: str, options: BackboneOptions) -> TrainableKeras:
    """A network of `keras.applications`.

    Raises
    ------
    BackboneError
        If the weights are missing or do not fit.
    """
    torch, keras = import_keras_on_torch()
    keras.utils.set_random_seed(SEED)
    size = options.size or APPLICATIONS[name].size
    model, weights = build_application(keras, name, size, options)
    scaling = chosen_scaling(options, RULES[APPLICATIONS[name].scaling], name)
    return TrainableKeras(torch, keras, model, name, (size, size), scaling, weights, WEIGHTS)


def open_small_cnn(options: BackboneOptions) -> TrainableKeras:
    """A small network with random weights.

    Raises
    ------
    BackboneError
        If it cannot be built for the size.
    """
    torch, keras = import_keras_on_torch()
    keras.utils.set_random_seed(SEED)
    size = options.size or SIZE
    model = build_small_cnn(keras, size)
    scaling = chosen_scaling(options, RULES["none"], NAME)
    return TrainableKeras(torch, keras, model, NAME, (size, size), scaling, NO_WEIGHTS, MODEL)


def open_trainable_file(path: Path, options: BackboneOptions) -> TrainableKeras:
    """A Keras model in a file.

    Raises
    ------
    BackboneError
        If it is damaged, or not a functional model of one image.
    """
    torch, keras = import_keras_on_torch()
    model, size, scaling, weights = load_keras_file(keras, path, options)
    if not getattr(model, "operations", None):
        raise BackboneError(
            f"{path} is a subclassed model, whose blocks are not known",
            "Build it with Keras' functional interface.",
        )
    return TrainableKeras(torch, keras, model, path.stem, size, scaling, weights, MODEL)


class TrainableKeras(Trainable):
    """A functional Keras model on PyTorch."""

    channels_first = False

    def __init__(
        self,
        torch: Any,
        keras: Any,
        model: Any,
        name: str,
        size: tuple[int, int],
        scaling: Any,
        weights: Any,
        file: str,
    ) -> None:
        self.torch, self.keras, self.model, self.file = torch, keras, model, file
        self.name, (self.height, self.width) = name, size
        self.scaling, self.weights = scaling, weights
        layers = [layer for layer in model.layers if type(layer).__name__ != "InputLayer"]
        self.last = next((x for x in reversed(layers) if len(x.output.shape) == 4), None)
        if self.last is None:
            raise BackboneError(
                f"{name} has no layer with height and width, so its features are not known",
                "Give a network with its classifier removed (include_top=False).",
            )
        layers = layers[: layers.index(self.last) + 1]
        self.blocks = [_block(group) for group in _grouped(layers, model)]
        self.dim = int(self.last.output.shape[-1])
        self._parts: dict[tuple[int, int], Any] = {}
        self._module: Any = None

    def prepare(self) -> None:
        """Nothing is folded: Keras computes its layers by itself."""

    def to(self, device: Any) -> None:
        """Move all weights to a device."""
        self.model.to(device)

    def _part(self, first: int, last: int) -> Any:
        """The model of the blocks from `first` to before `last`."""
        if (first, last) not in self._parts:
            start = self.model.inputs[0]
            if first:
                start = self.model.get_layer(self.blocks[first - 1].end).output
            end = self.model.get_layer(self.blocks[last - 1].end).output
            self._parts[first, last] = self.keras.Model(start, end)
        return self._parts[first, last]

    @property
    def module(self) -> Any:
        """From `(values, cut)` to features `[batch, dim]`, means over the picture."""
        if self._module is None:
            outer, torch = self, self.torch

            class Features(torch.nn.Module):  # type: ignore[name-defined,misc]
                def __init__(self) -> None:
                    super().__init__()
                    self.network = outer.model

                def forward(self, values: Any, cut: int = 0) -> Any:
                    count = len(outer.blocks)
                    if cut < count:
                        values = outer._part(cut, count)(values, training=False)
                    return values.mean((1, 2))

            self._module = Features()
        return self._module

    def front(self, pixels: Any, cut: int) -> Any:
        """The output of the blocks before `cut`, for scaled pixels."""
        return self._part(0, cut)(pixels, training=False)

    def front_to_onnx(self, cut: int) -> bytes:
        """By PyTorch's exporter."""
        torch, outer = self.torch, self

        class Front(torch.nn.Module):  # type: ignore[name-defined,misc]
            def forward(self, pixels: Any) -> Any:
                return outer.front(pixels, cut)

        converted = module_to_onnx(
            Front(),
            (torch.rand(2, self.height, self.width, 3),),
            ({0: torch.export.Dim("batch")},),
            f"the frozen part of {self.name}",
            "Pass --cache no.",
        )
        proto = to_opset(converted, OPSET, self.name)
        proto.ir_version = IR_VERSION
        return bytes(proto.SerializeToString())

    def save(self, folder: Path) -> str:
        """As Keras writes weights, or the whole model if it came from a file."""
        path = folder / self.file
        if self.file == WEIGHTS:
            self.model.save_weights(path)
        else:
            self.model.save(path)
        return self.file


def _grouped(layers: list[Any], model: Any) -> Iterator[list[Any]]:
    """Layers of one block: between cuts, those without weights with the ones before them."""
    position = {id(layer): number for number, layer in enumerate(layers)}
    reach = [number for number in range(len(layers))]  # the furthest reader of each output
    for number, layer in enumerate(layers):
        inputs = layer.input if isinstance(layer.input, (list, tuple)) else [layer.input]
        for tensor in inputs:
            source = position.get(id(tensor._keras_history.operation))
            if source is not None:
                reach[source] = max(reach[source], number)
    groups: list[list[Any]] = []
    pending: list[Any] = []
    furthest = -1
    for number, layer in enumerate(layers):
        pending.append(layer)
        if furthest <= number:  # nothing before this layer is read after it
            own = any(part.trainable_variables for part in pending)
            plain = all(type(p).__name__ in NORMALIZATION or not p.weights for p in pending)
            if groups and (not own or plain or _block_name(groups[-1]) == _block_name(pending)):
                groups[-1].extend(pending)
            elif own or groups:
                groups.append(pending)
            else:  # before the first weights
                groups.append(pending)
            pending = []
        furthest = max(furthest, reach[number])
    if pending:
        groups[-1].extend(pending)
    if len(groups) > 1 and not any(layer.trainable_variables for layer in groups[0]):
        groups[:2] = [groups[0] + groups[1]]
    return iter(groups)


def _block_name(layers: list[Any]) -> str:
    """The name of the block that layers say they are of; one that no other has, if they do not."""
    found = OF_BLOCK.match(layers[0].name)
    return found[0] if found else layers[0].name


def _block(layers: list[Any]) -> Block:
    parameters = [v.value for layer in layers for v in layer.trainable_variables]
    convolutions: list[tuple[Any, ...]] = []
    for layer in layers:
        own = tuple(v.value for v in layer.trainable_variables)
        if "Conv2D" in type(layer).__name__:
            convolutions.append(own)
        elif type(layer).__name__ in NORMALIZATION and convolutions:
            convolutions[-1] += own
    return Block(layers[0].name, layers[-1].name, tuple(parameters), tuple(convolutions))
