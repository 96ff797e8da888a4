"""Small archives of CIFAR and MNIST as their authors wrote them, of the scanned digits."""

from __future__ import annotations

import gzip
import io
import struct
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
SPLITS = ("data_batch_1", "data_batch_2", "data_batch_3", "test_batch")


def digits(each: int, size: int = 32) -> tuple[np.ndarray, np.ndarray]:
    """The first digits: uint8 `[digits, 3, size, size]`, their classes `[digits]`."""
    data = load_digits()
    images = (data.images[:each] * 255 / 16).round().astype(np.uint8)
    large = [np.asarray(Image.fromarray(i).resize((size, size))) for i in images]
    return np.stack([np.stack([i, i // 2, 255 - i]) for i in large]), data.target[:each]


def write_tar(path: Path, files: dict[str, bytes]) -> Path:
    """A tar archive, gzipped by its name."""
    with tarfile.open(path, "w:gz" if path.name.endswith("gz") else "w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def cifar10_binary(each: int = 60) -> dict[str, bytes]:
    """The files of CIFAR-10's binary version, with four batches."""
    pixels, labels = digits(each * len(SPLITS))
    files = {"batches.meta.txt": "\n".join((*NAMES, "", "")).encode()}
    for number, name in enumerate(SPLITS):
        rows = range(number * each, (number + 1) * each)
        records = (bytes([labels[row]]) + pixels[row].tobytes() for row in rows)
        files[f"{name}.bin"] = b"".join(records)
    return {f"cifar-10-batches-bin/{name}": content for name, content in files.items()}


def cifar10_python(each: int = 60) -> dict[str, bytes]:
    """The files of CIFAR-10's Python version."""
    pixels, labels = digits(each * len(SPLITS))
    files = {"batches.meta": python2({"num_cases_per_batch": each, "label_names": list(NAMES)})}
    for number, name in enumerate(SPLITS):
        rows = slice(number * each, (number + 1) * each)
        files[name] = python2(
            {
                "batch_label": name,
                "labels": labels[rows].tolist(),
                "data": pixels[rows].reshape(each, -1),
                "filenames": [f"{row}.png" for row in range(each)],
            }
        )
    return {f"cifar-10-batches-py/{name}": content for name, content in files.items()}


def cifar100_binary(each: int = 40) -> dict[str, bytes]:
    """The files of CIFAR-100's binary version: the coarse class is odd or even."""
    pixels, labels = digits(each * 2)
    files = {
        "fine_label_names.txt": "\n".join((*NAMES, "")).encode(),
        "coarse_label_names.txt": b"even\nodd\n",
    }
    for number, name in enumerate(("train", "test")):
        rows = range(number * each, (number + 1) * each)
        files[f"{name}.bin"] = b"".join(
            bytes([labels[row] % 2, labels[row]]) + pixels[row].tobytes() for row in rows
        )
    return {f"cifar-100-binary/{name}": content for name, content in files.items()}


def cifar100_python(each: int = 40) -> dict[str, bytes]:
    """The files of CIFAR-100's Python version."""
    pixels, labels = digits(each * 2)
    meta = {"fine_label_names": list(NAMES), "coarse_label_names": ["even", "odd"]}
    files = {"meta": python2(meta)}
    for number, name in enumerate(("train", "test")):
        rows = slice(number * each, (number + 1) * each)
        files[name] = python2(
            {
                "data": pixels[rows].reshape(each, -1),
                "fine_labels": labels[rows].tolist(),
                "coarse_labels": (labels[rows] % 2).tolist(),
            }
        )
    return {f"cifar-100-python/{name}": content for name, content in files.items()}


def mnist(folder: Path, each: int = 40, zipped: bool = True) -> Path:
    """A folder with the four IDX files."""
    folder.mkdir()
    pixels, labels = digits(each * 2, 28)
    for number, name in enumerate(("train", "t10k")):
        rows = slice(number * each, (number + 1) * each)
        files = {"images-idx3": pixels[rows, 0], "labels-idx1": labels[rows].astype(np.uint8)}
        for what, array in files.items():
            path = folder / f"{name}-{what}-ubyte"
            content = idx(array)
            if zipped:
                path, content = path.with_name(f"{path.name}.gz"), gzip.compress(content)
            path.write_bytes(content)
    return folder


def idx(array: np.ndarray) -> bytes:
    """An array as an IDX file."""
    head = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return head + array.tobytes()


def python2(value: object) -> bytes:
    """A pickle as Python 2 wrote it, protocol 2: texts are bytes, arrays call numpy."""
    return b"\x80\x02" + _pickled(value) + b"."


def _pickled(value: object) -> bytes:
    if isinstance(value, dict):
        items = b"".join(_pickled(key) + _pickled(item) for key, item in value.items())
        return b"}q\x01(" + items + b"u"
    if isinstance(value, list):
        return b"](" + b"".join(map(_pickled, value)) + b"e"
    if isinstance(value, int):
        return b"K" + bytes([value]) if value < 256 else b"M" + struct.pack("<H", value)
    if isinstance(value, str):
        return b"U" + bytes([len(value)]) + value.encode("latin-1")
    if isinstance(value, np.ndarray):
        rows, columns = value.shape
        made = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
        shape = b"".join(map(_pickled, (rows, columns))) + b"\x86"
        kind = b"cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff"
        kind += b"\xff\xffK\x00tb"
        content = b"T" + struct.pack("<i", value.size) + value.tobytes()
        return made + b"(K\x01" + shape + kind + b"\x89" + content + b"tb"
    raise TypeError(value)
