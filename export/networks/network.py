"""The common interface of all kinds of networks: named layers, conversion to ONNX, inference."""

from __future__ import annotations

import difflib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from math import isqrt
from typing import Any

import numpy as np

from headstart.data.common.errors import BackboneError
from headstart.data.storage.files import digest
from headstart.export.networks.scaling import IN_WORDS, Scaling, find_rule
from headstart.export.options import BackboneOptions

CLASSIFIERS = ("Dense", "Linear", "Softmax", "LogSoftmax", "Activation", "Dropout", "Flatten")
POOLINGS = ("GlobalAveragePooling2D", "GlobalMaxPooling2D", "AdaptiveAvgPool2d", "AvgPool2d")


@dataclass(frozen=True)
class Weights:
    """Where weights come from, and their licence."""

    origin: str
    licence: str = "not stated"

    @classmethod
    def of_file(cls, path: Any) -> Weights:
        """Weights from the user's own file."""
        with open(path, "rb") as file:
            content = file.read()
        return cls(f"file {path.name} (sha256 {digest(content)[:12]})")


NO_WEIGHTS = Weights("none (random)")


@dataclass(frozen=True)
class Layer:
    """A layer whose output can be an embedding.

    Parameters
    ----------
    name
        Its name in its framework.
    shape
        Of its output for one image, without the batch.
    kind
        Class or operator, such as `Conv2D`.
    """

    name: str
    shape: tuple[int, ...]
    kind: str = ""

    @property
    def layout(self) -> str:
        """`last` or `first` (where the channels are), `tokens`, or `flat`."""
        if len(self.shape) == 3:
            a, b, c = self.shape
            return "first" if b == c and a != b else "last"
        return {1: "flat", 2: "tokens"}[len(self.shape)]

    @property
    def prefix(self) -> int:
        """How many tokens come before those of the patches, which form a square grid.

        197 tokens are a class token and 14 x 14 patches.
        """
        return self.shape[0] - isqrt(self.shape[0]) ** 2


class Original(ABC):
    """A network in its own framework, which its export is compared with.

    Parameters
    ----------
    name
        For people.
    height, width
        Of the input in pixels.
    default_layers, default_pools
        What is used if the user names nothing.
    """

    name: str
    height: int
    width: int
    scaling: Scaling
    weights: Weights
    default_layers: tuple[str, ...]
    default_pools: tuple[str, ...] = ("avg",)

    @abstractmethod
    def layers(self) -> list[Layer]:
        """All layers, in the order in which they are computed."""

    @abstractmethod
    def to_onnx(self, layers: Sequence[str]) -> Any:
        """An `onnx.ModelProto` from scaled pixels to these layers, in this order.

        The input is float32 (or uint8 if the network scales pixels itself), `[batch, height,
        width, 3]` or `[batch, 3, height, width]`.
        """

    @abstractmethod
    def run(self, pixels: np.ndarray, layers: Sequence[str]) -> list[np.ndarray]:
        """The network's own outputs for scaled pixels, `[batch, height, width, 3]`."""

    def preprocess(self, images: np.ndarray) -> np.ndarray:
        """Scale uint8 images as the network's own library would."""
        return self.scaling.apply(images)

    def find(self, names: Sequence[str]) -> list[Layer]:
        """The layers of these names; raises `BackboneError` naming similar ones for others."""
        known = {layer.name: layer for layer in self.layers()}
        for name in names:
            if name in known:
                continue
            if name in self.default_layers:
                raise BackboneError(
                    f"the shape of {name!r}, the output of {self.name}, cannot be inferred from "
                    "its graph",
                    "Name a layer: `python -m export layers` lists those whose shape is known.",
                )
            near = difflib.get_close_matches(name, known, 3, 0.4)
            raise BackboneError(
                f"{self.name} has no layer {name!r}",
                f"Similar names: {', '.join(near)}."
                if near
                else "`python -m export layers NAME` lists its layers.",
            )
        return [known[name] for name in names]


def last_features(layers: Sequence[Layer]) -> str:
    """The last layer before a network's classifier.

    Walks back from the last fully connected layer, over activations, dropout and pooling, to the
    last layer with height and width, or to that layer's input if other layers come between.
    """
    position = len(layers) - 1
    dense = [n for n, layer in enumerate(layers) if layer.kind in ("Dense", "Linear")]
    if dense and len(layers[-1].shape) == 1:
        position = dense[-1] - 1
        while position > 0 and layers[position].kind in (*CLASSIFIERS[2:], *POOLINGS):
            position -= 1
    return layers[max(position, 0)].name


def chosen_scaling(options: BackboneOptions, own: Scaling | None, what: str) -> Scaling:
    """The scaling that was asked for, or the network's own; raises `BackboneError` without both."""
    if options.scaling is not None:
        return find_rule(options.scaling)
    if own is None:
        raise BackboneError(
            f"{what} does not say how its pixels are scaled",
            f"Give the scaling that it was trained with, --scaling RULE: {IN_WORDS}.",
        )
    return own


def input_size(shape: Sequence[int | None], options: BackboneOptions, what: str) -> tuple[int, int]:
    """Height and width of an input `[height, width]`; `--size` replaces what is not fixed.

    Raises
    ------
    BackboneError
        If a side is not fixed and no size is given, or a given size differs from a fixed one.
    """
    height, width = (side or options.size for side in shape)
    if height is None or width is None:
        raise BackboneError(
            f"{what} takes images of any size", "Choose one: --size PIXELS (such as 224)."
        )
    if options.size is not None and (height, width) != (options.size, options.size):
        raise BackboneError(
            f"{what} takes images of {height}x{width}, not {options.size}x{options.size}",
            "Leave --size out.",
        )
    return height, width
