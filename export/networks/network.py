"""The one form that every kind of network is brought into: ONNX with named layers, and itself."""

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
    """Where weights come from and under which licence they are."""

    origin: str
    licence: str = "not stated"

    @classmethod
    def of_file(cls, path: Any) -> Weights:
        """Weights of the user's own."""
        with open(path, "rb") as file:
            content = file.read()
        return cls(f"file {path.name} (sha256 {digest(content)[:12]})")


NO_WEIGHTS = Weights("none (random)")


@dataclass(frozen=True)
class Layer:
    """A layer whose output can be named.

    Parameters
    ----------
    name
        As its framework calls it.
    shape
        Of its output for one picture, without the batch.
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
        """How many tokens stand before those of the patches: what is left of a square grid.

        197 tokens are a class token and 14 x 14 patches.
        """
        return self.shape[0] - isqrt(self.shape[0]) ** 2


class Original(ABC):
    """A network in its own framework, which its export is held against.

    Parameters
    ----------
    name
        For people.
    height, width
        Of the input in pixels.
    default_layers, default_pools
        What is taken where nothing is named.
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
        """All layers that can be named, in the order in which they are computed."""

    @abstractmethod
    def to_onnx(self, layers: Sequence[str]) -> Any:
        """An `onnx.ModelProto` from scaled pixels to these layers, in this order.

        The input is float32 (or uint8 where the network scales them itself), `[batch, height,
        width, 3]` or `[batch, 3, height, width]`.
        """

    @abstractmethod
    def run(self, pixels: np.ndarray, layers: Sequence[str]) -> list[np.ndarray]:
        """What the network itself answers to scaled pixels, `[batch, height, width, 3]`."""

    def preprocess(self, images: np.ndarray) -> np.ndarray:
        """Scale uint8 pictures as the network's own library would."""
        return self.scaling.apply(images)

    def find(self, names: Sequence[str]) -> list[Layer]:
        """The layers of these names; raises `BackboneError` with the nearest names."""
        known = {layer.name: layer for layer in self.layers()}
        for name in names:
            if name in known:
                continue
            if name in self.default_layers:
                raise BackboneError(
                    f"the shape of {name!r}, what {self.name} answers, does not follow from its "
                    "graph",
                    "Name a layer: `python -m export layers` lists those that have a shape.",
                )
            near = difflib.get_close_matches(name, known, 3, 0.4)
            raise BackboneError(
                f"{self.name} has no layer {name!r}",
                f"Near are {', '.join(near)}."
                if near
                else "`python -m export layers NAME` lists those that it has.",
            )
        return [known[name] for name in names]


def last_features(layers: Sequence[Layer]) -> str:
    """The layer that a classifier's last part looks at; that part itself is cut off.

    Walks back over fully connected layers' companions to the last layer with height and width, or
    to the input of the last fully connected layer where there is a network between the two.
    """
    position = len(layers) - 1
    dense = [n for n, layer in enumerate(layers) if layer.kind in ("Dense", "Linear")]
    if dense and len(layers[-1].shape) == 1:
        position = dense[-1] - 1
        while position > 0 and layers[position].kind in (*CLASSIFIERS[2:], *POOLINGS):
            position -= 1
    return layers[max(position, 0)].name


def chosen_scaling(options: BackboneOptions, own: Scaling | None, what: str) -> Scaling:
    """The rule that was asked for, or the network's own; raises `BackboneError` if neither is."""
    if options.scaling is not None:
        return find_rule(options.scaling)
    if own is None:
        raise BackboneError(
            f"{what} does not say how its pixels are scaled",
            f"Say how it was trained, --scaling RULE: {IN_WORDS}.",
        )
    return own


def input_size(shape: Sequence[int | None], options: BackboneOptions, what: str) -> tuple[int, int]:
    """Height and width of an input `[height, width]`; `--size` fills in what is left open.

    Raises
    ------
    BackboneError
        If a side is open and no size is given, or another size than a fixed one is.
    """
    height, width = (side or options.size for side in shape)
    if height is None or width is None:
        raise BackboneError(
            f"{what} takes pictures of any size", "Say which: --size PIXELS (such as 224)."
        )
    if options.size is not None and (height, width) != (options.size, options.size):
        raise BackboneError(
            f"{what} takes pictures of {height}x{width}, not {options.size}x{options.size}",
            "Leave --size out.",
        )
    return height, width
