"""The common interface of networks that can be trained: blocks in order, cuts between them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headstart.data.common.errors import BackboneError
from headstart.data.modalities.image.preprocessing import Preprocessing
from headstart.export.networks.network import Weights
from headstart.export.networks.scaling import Scaling


@dataclass(frozen=True)
class Block:
    """A part of a network that is trained or frozen as a whole.

    Parameters
    ----------
    name
        Of its first module or layer.
    end
        The module or layer whose output is the block's.
    parameters
        Of PyTorch; those of normalization included.
    convolutions
        The parameters of each convolution in it, with those of the normalization after it.
    """

    name: str
    end: str
    parameters: tuple[Any, ...]
    convolutions: tuple[tuple[Any, ...], ...] = ()


class Trainable(ABC):
    """A network in PyTorch whose weights can be trained; dropout and statistics stay off.

    Attributes
    ----------
    name
        For people.
    height, width
        Of the input in pixels.
    blocks
        From the input on. A block that starts after a cut needs nothing but the output of the
        block before it.
    dim
        Width of the features.
    channels_first
        Whether scaled pixels are `[batch, 3, height, width]`.
    """

    name: str
    height: int
    width: int
    scaling: Scaling
    weights: Weights
    resize: str = "squash"
    interpolation: str = "bilinear"
    crop_fraction: float | None = None
    crop_offset: str = "round"
    blocks: list[Block]
    dim: int
    channels_first: bool = True

    @property
    def preprocessing(self) -> Preprocessing:
        """How photographs are resized."""
        rule = self.resize, self.interpolation, self.crop_fraction, self.crop_offset
        return Preprocessing(self.height, self.width, *rule)

    @property
    @abstractmethod
    def module(self) -> Any:
        """A `torch.nn.Module` from `(values, cut)` to features `[batch, dim]`.

        With a cut of 0, the values are scaled pixels; with another, the output of the blocks before
        that one.
        """

    @abstractmethod
    def prepare(self) -> None:
        """Get ready to be trained: what makes it faster, and keeps its numbers and weights."""

    @abstractmethod
    def front_to_onnx(self, cut: int) -> bytes:
        """The blocks before `cut` as an ONNX file, from scaled pixels."""

    @abstractmethod
    def front(self, pixels: Any, cut: int) -> Any:
        """The output of the blocks before `cut`, for scaled pixels."""

    @abstractmethod
    def to(self, device: Any) -> None:
        """Move all weights to a device."""

    @abstractmethod
    def save(self, folder: Path) -> str:
        """Write all weights in the form that `export backbone` reads; returns the file's name."""

    def first_trained(self, count: int) -> int:
        """The first of the last `count` blocks; raises `BackboneError` if there are fewer."""
        if not 0 <= count <= len(self.blocks):
            raise BackboneError(
                f"--train-blocks {count}: {self.name} has {len(self.blocks)} blocks",
                f"Give 0 to {len(self.blocks)}, all, or auto.",
            )
        return len(self.blocks) - count
