"""Bytes of a file of arrays in, pixels and labels out: CIFAR's binary and Python batches, IDX.

Sources: the page of CIFAR-10 and CIFAR-100 (Krizhevsky, 2009) and that of MNIST (LeCun et al.).
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from headstart.data.examples.packed.pickled import PickleError, read_pickled

SIDE = 32  # of CIFAR's pictures, in three planes
PIXELS = 3 * SIDE * SIDE
UNSIGNED = 8  # the code of bytes in an IDX header
MOST_SIDE = 1 << 14


class FormatError(ValueError):
    """Content that is not of its format; the message is the end of a sentence about the file."""


@dataclass(frozen=True)
class Batch:
    """What a file of arrays holds.

    Parameters
    ----------
    pixels
        uint8 `[examples, height, width, 3]` or, if grey, `[examples, height, width]`.
    labels
        Class numbers by column, int64 `[examples]`: `label`, and `coarse` of CIFAR-100.
    """

    pixels: np.ndarray
    labels: dict[str, np.ndarray] = field(default_factory=dict)


def parse(kind: str, content: bytes) -> Batch:
    """Pixels and labels of a file.

    Parameters
    ----------
    kind
        `cifar10`, `cifar100`, `cifar-python` or `idx`.

    Raises
    ------
    FormatError
        If the content is not of that kind.
    """
    return _PARSERS[kind](content)


def _planes(pixels: np.ndarray) -> np.ndarray:
    return pixels.reshape(-1, 3, SIDE, SIDE).transpose(0, 2, 3, 1)


def _binary(columns: tuple[str, ...]) -> Callable[[bytes], Batch]:
    """Records of a byte for each label, then the pixels."""
    size = len(columns) + PIXELS

    def read(content: bytes) -> Batch:
        if not content or len(content) % size:
            raise FormatError(
                f"is damaged or truncated: its {len(content):,} bytes are not records of {size:,}"
            )
        records = np.frombuffer(content, np.uint8).reshape(-1, size)
        labels = {name: records[:, at].astype(np.int64) for at, name in enumerate(columns)}
        return Batch(_planes(records[:, len(columns) :]), labels)

    return read


def _pickled(content: bytes) -> Batch:
    try:
        found = read_pickled(content)
    except PickleError as error:
        raise FormatError(f"{error}; only data is read from a pickle") from None
    pixels = found.get("data")
    if not isinstance(pixels, np.ndarray) or pixels.ndim != 2 or pixels.shape[1] != PIXELS:
        raise FormatError(f"has no array `data` of {PIXELS:,} bytes for each example")
    labels = {}
    for column, keys in {"label": ("labels", "fine_labels"), "coarse": ("coarse_labels",)}.items():
        numbers = next((found[key] for key in keys if key in found), None)
        if numbers is None:
            continue
        good = isinstance(numbers, list) and all(type(n) is int and 0 <= n < 256 for n in numbers)
        if not good or len(numbers) != len(pixels):
            raise FormatError("has labels that do not fit its examples")
        labels[column] = np.array(numbers, np.int64)
    return Batch(_planes(pixels), labels)


def idx_array(content: bytes) -> np.ndarray:
    """The array of bytes in an IDX file.

    Raises
    ------
    FormatError
        If it is damaged, or its numbers are not bytes.
    """
    if len(content) < 4 or content[:2] != b"\0\0" or not 1 <= content[3] <= 3:
        raise FormatError("is not an IDX file of one to three dimensions")
    if content[2] != UNSIGNED:
        raise FormatError(f"holds numbers of the kind 0x{content[2]:02x}, not bytes")
    start = 4 + 4 * content[3]
    if len(content) < start:
        raise FormatError("is damaged or truncated: its header is not complete")
    shape = struct.unpack(f">{content[3]}I", content[4:start])
    if math.prod(shape) != len(content) - start:
        raise FormatError(
            f"is damaged or truncated: it should hold {' x '.join(map(str, shape))} bytes, and has "
            f"{len(content) - start:,}"
        )
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


def _idx(content: bytes) -> Batch:
    pixels = idx_array(content)
    if pixels.ndim != 3 or not all(1 <= side <= MOST_SIDE for side in pixels.shape[1:]):
        raise FormatError("does not hold pictures")
    return Batch(pixels)


def names_in(content: bytes, column: str) -> list[str]:
    """The names of classes in a file of CIFAR: lines of text, or a pickle.

    Raises
    ------
    FormatError
        If it has none.
    """
    if not content.startswith(b"\x80"):
        return [line.strip() for line in content.decode("utf-8", "replace").split("\n") if line]
    try:
        found = read_pickled(content)
    except PickleError as error:
        raise FormatError(f"{error}; only data is read from a pickle") from None
    keys = ("coarse_label_names",) if column == "coarse" else ("label_names", "fine_label_names")
    names: Any = next((found[key] for key in keys if key in found), [])
    if not isinstance(names, list) or not all(isinstance(name, str | bytes) for name in names):
        raise FormatError("has names of classes that are not texts")
    return [n.decode("utf-8", "replace") if isinstance(n, bytes) else n for n in names]


_PARSERS: dict[str, Callable[[bytes], Batch]] = {
    "cifar10": _binary(("label",)),
    "cifar100": _binary(("coarse", "label")),
    "cifar-python": _pickled,
    "idx": _idx,
}
