"""The common interface of all kinds of networks: named layers, conversion to ONNX, inference."""

from __future__ import annotations

import difflib
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from PIL import Image

from headstart.data.common.errors import BackboneError
from headstart.data.storage.files import digest
from headstart.export.networks.scaling import IN_WORDS, Scaling, find_rule
from headstart.export.options import BackboneOptions

NAME_A_LAYER = "Name one: --layer NAME (`python -m export layers` lists them)."
FIRST, LAST, TOKENS, FLAT = "first", "last", "tokens", "flat"
MOST_PREFIX = 16  # tokens before the patches: one class token, up to eight registers


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
    layout
        `first` or `last`, where the channels of a map are; `tokens`, `[tokens, channels]`; `flat`.
    kind
        Class or operator, such as `Conv2D`.
    prefix
        How many tokens come before those of the patches: class token, registers.
    """

    name: str
    shape: tuple[int, ...]
    layout: str
    kind: str = ""
    prefix: int = 0


def layout_of(shape: Sequence[int], channels_first: bool) -> str:
    """The layout of an output of this shape; a map's channels are where its network puts them."""
    return (FLAT, TOKENS, FIRST if channels_first else LAST)[len(shape) - 1]


def axes_that_grow(shape: Sequence[int], larger: Sequence[int] | None) -> bool | None:
    """Whether the channels of a map come first, by its shapes for two sizes of the picture.

    Height and width grow with the picture, channels do not. None where the shapes do not say it.
    """
    if larger is None or len(larger) != len(shape):
        return None
    grow = tuple(one != other for one, other in zip(shape, larger, strict=True))
    return True if grow == (False, True, True) else False if grow == (True, True, False) else None


def prefix_of(shape: Sequence[int], height: int, width: int) -> int:
    """How many of the tokens `[tokens, channels]` are no patches of the picture.

    197 tokens of 224x224 pixels are 14 x 14 patches of 16 pixels, and a class token.
    """
    if len(shape) != 2:
        return 0
    sides = range(1, min(height, width) + 1)
    whole = [side for side in sides if height % side == width % side == 0]
    for side in (*whole, *sides):
        left = shape[0] - (height // side) * (width // side)
        if 0 <= left <= MOST_PREFIX:
            return left
    return 0


class Original(ABC):
    """A network in its own framework, which its export is compared with.

    Parameters
    ----------
    name
        For people.
    height, width
        Of the input in pixels.
    default_pools
        What is used if the user names nothing.
    resize, interpolation, crop_fraction, crop_offset
        How the network was trained to see photographs, see `Preprocessing`.
    see
        Its own preprocessing of a whole photograph: to the network's input, `[3, height, width]`.
    warnings
        What a user should know about the network's own settings.
    """

    name: str
    height: int
    width: int
    scaling: Scaling
    weights: Weights
    default_pools: tuple[str, ...] = ("avg",)
    resize: str = "squash"
    interpolation: str = "bilinear"
    crop_fraction: float | None = None
    crop_offset: str = "round"
    see: Callable[[Image.Image], np.ndarray] | None = None
    warnings: tuple[str, ...] = ()

    @cached_property
    def default_layers(self) -> tuple[str, ...]:
        """What is used if the user names nothing; an opener may state them."""
        return (self.embedding(),)

    def embedding(self) -> str:
        """The layer of what the network's classifier sees."""
        raise BackboneError(
            f"{self.name} does not say which of its layers is an embedding", NAME_A_LAYER
        )

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
