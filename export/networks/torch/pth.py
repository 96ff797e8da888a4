"""Reads a PyTorch `.pth` state dict of the legacy (not zip) format, without PyTorch.

The format is that of `torch.save(..., _use_new_zipfile_serialization=False)`: four pickles (magic
number, protocol, system, object), a fifth with the keys of the storages, then every storage as an
int64 element count and raw little-endian elements.
"""

from __future__ import annotations

import pickle
from collections import OrderedDict
from math import prod
from pathlib import Path
from typing import IO, Any

import numpy as np

from headstart.data.common.errors import BackboneError
from headstart.data.common.packages import import_packages

MAGIC = 0x1950A86A20F9469CFC6C
PROTOCOL = 1001
SAFE = ".safetensors"

STORAGE_DTYPES = {
    "DoubleStorage": np.dtype("<f8"),
    "FloatStorage": np.dtype("<f4"),
    "HalfStorage": np.dtype("<f2"),
    "LongStorage": np.dtype("<i8"),
    "IntStorage": np.dtype("<i4"),
    "ShortStorage": np.dtype("<i2"),
    "CharStorage": np.dtype("i1"),
    "ByteStorage": np.dtype("u1"),
    "BoolStorage": np.dtype("?"),
}


class _Storage:
    """A flat array whose elements are read after the pickle that names it."""

    def __init__(self, dtype: np.dtype, size: int) -> None:
        self.dtype, self.size = dtype, size
        self.array: np.ndarray | None = None


class _Tensor:
    """A tensor's place in its storage: the arguments of `_rebuild_tensor_v2`."""

    def __init__(self, storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> None:
        self.storage, self.offset, self.shape, self.strides = storage, offset, shape, strides

    def array(self) -> np.ndarray:
        """A copy of the tensor; raises `ValueError` if it is not inside its storage."""
        # Checked here, not on construction: a pickle can change an object after it was built.
        if not isinstance(self.storage, _Storage) or self.storage.array is None:
            raise ValueError("a tensor refers to a storage that is not in the file")
        numbers = (self.offset, *self.shape, *self.strides)
        if not all(type(number) is int and number >= 0 for number in numbers):
            raise ValueError("the offset, shape or strides of a tensor are not counts")
        if len(self.shape) != len(self.strides):
            raise ValueError("a tensor has more or fewer strides than dimensions")
        flat = self.storage.array
        if prod(self.shape) == 0:
            return np.empty(self.shape, flat.dtype)
        last = self.offset + sum(
            (n - 1) * step for n, step in zip(self.shape, self.strides, strict=True)
        )
        # Overlapping strides could turn a few bytes into terabytes; weights never overlap.
        if last >= flat.size or prod(self.shape) > flat.size:
            raise ValueError("a tensor reaches beyond the end of its storage")
        steps = tuple(step * flat.itemsize for step in self.strides)
        return np.lib.stride_tricks.as_strided(flat[self.offset :], self.shape, steps).copy()


class _TensorUnpickler(pickle.Unpickler):
    """An unpickler that can build dictionaries, numbers and tensors, and nothing else."""

    def __init__(self, file: IO[bytes]) -> None:
        super().__init__(file)
        self.storages: dict[str, _Storage] = {}

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _Tensor
        if module == "torch" and name in STORAGE_DTYPES:
            return STORAGE_DTYPES[name]
        raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is not a tensor")

    def persistent_load(self, pid: Any) -> _Storage:
        kind, dtype, key, _device, size, *_ = pid
        if kind != "storage" or not isinstance(dtype, np.dtype) or not isinstance(size, int):
            raise pickle.UnpicklingError("it refers to something that is not a storage")
        return self.storages.setdefault(str(key), _Storage(dtype, size))


def read_pth(path: str | Path) -> dict[str, np.ndarray]:
    """Read a legacy `.pth` state dict as arrays by name, building nothing but tensors.

    Raises
    ------
    BackboneError
        If the file has another format, is truncated, or asks for anything but tensors.
    """
    try:
        with open(path, "rb") as file:
            return _read(file)
    except FileNotFoundError:
        raise BackboneError(f"{path}: no such weights file", "Check the path.") from None
    except Exception as error:  # a pickle of arbitrary bytes raises errors of many classes
        raise BackboneError(
            f"{path} is not a readable PyTorch state dict of the legacy format: {error}",
            "Save it again with torch.save(model.state_dict(), FILE, "
            "_use_new_zipfile_serialization=False).",
        ) from error


def read_safetensors(path: str | Path) -> dict[str, np.ndarray]:
    """Read a safetensors file as arrays by name.

    Raises
    ------
    BackboneError
        If it is not one.
    MissingPackageError
        If the package safetensors is not installed.
    """
    (safetensors,) = import_packages(
        ["safetensors.numpy"], "reading safetensors needs the package safetensors", "torch"
    )
    try:
        return dict(safetensors.load_file(path))
    except Exception as error:  # safetensors has a class of its own for damage
        raise BackboneError(
            f"{path} cannot be read as safetensors: {error}", "Write or download it again."
        ) from error


def _read(file: IO[bytes]) -> dict[str, np.ndarray]:
    head = _TensorUnpickler(file)
    if head.load() != MAGIC:
        raise ValueError("it does not begin with PyTorch's magic number")
    if _TensorUnpickler(file).load() != PROTOCOL:
        raise ValueError(f"its protocol is not {PROTOCOL}")
    system = _TensorUnpickler(file).load()
    if not system.get("little_endian", False):
        raise ValueError("it was written on a big-endian machine")
    body = _TensorUnpickler(file)
    state = body.load()
    for key in _TensorUnpickler(file).load():
        storage = body.storages[key]
        size = int.from_bytes(file.read(8), "little")
        data = file.read(storage.dtype.itemsize * storage.size)
        if size != storage.size or len(data) != storage.dtype.itemsize * storage.size:
            raise ValueError("it ends in the middle of a tensor")
        storage.array = np.frombuffer(data, storage.dtype)
    if not isinstance(state, dict) or not state:
        raise ValueError("it does not contain a dictionary of tensors")
    tensors = {name: value for name, value in state.items() if isinstance(value, _Tensor)}
    if len(tensors) != len(state):
        raise ValueError("it contains other objects than tensors")
    return {name: tensor.array() for name, tensor in tensors.items()}
