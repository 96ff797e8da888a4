"""Ready-made sample sets: from packages that hold them, recorded, or as Keras downloads them."""

from __future__ import annotations

import csv
import difflib
import importlib.util
import io
import os
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from headstart.data.common import console
from headstart.data.common.errors import InputError, MissingPackageError
from headstart.data.common.packages import import_packages
from headstart.data.storage.folder import Folder
from headstart.data.storage.local import LocalFolder


@dataclass(frozen=True)
class Sample:
    """A sample set: how many pictures it has, their licence, and a function that makes its files.

    `files` yields the names and bytes of the photographs, then those of other files.
    """

    about: str
    licence: str
    count: int
    files: Callable[[], Iterator[tuple[str, bytes]]]


def lay_out(name: str, path: str | Path) -> Folder:
    """Write a sample set into a new or empty folder.

    Raises
    ------
    InputError
        If there is no such sample set, or the folder is not empty.
    MissingPackageError
        If the package with the pictures is not installed.
    """
    if name not in SAMPLES:
        near = difflib.get_close_matches(name, SAMPLES, 1, 0.5)
        raise InputError(
            f"unknown sample set {name!r}",
            f"Did you mean {near[0]}?" if near else f"Choose from {', '.join(SAMPLES)}.",
        )
    folder = LocalFolder.at(path)
    folder.check()
    if folder.exists() and any(folder.path().iterdir()):
        raise InputError(f"{path} is not empty", "Choose an empty or new folder.")
    sample = SAMPLES[name]
    with console.progress(f"writing {name}", sample.count) as advance:
        for file, content in sample.files():
            folder.write(file, content)
            advance(1)
    return folder


def _digits() -> Iterator[tuple[str, bytes]]:
    """Scans of handwritten digits, 8x8 pixels of 17 grey levels, as PNG."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    for number, (pixels, label) in enumerate(zip(digits.images, digits.target, strict=True)):
        buffer = io.BytesIO()
        Image.fromarray((pixels * 255 / 16).round().astype("uint8")).save(buffer, "PNG")
        yield f"{label}/scan{number:04d}.png", buffer.getvalue()


def _elpv() -> Iterator[tuple[str, bytes]]:
    """Photographs of solar cells; defective means a probability of 0.5 or more."""
    package = importlib.util.find_spec("elpv_dataset")
    if package is None or not package.submodule_search_locations:
        raise MissingPackageError(
            "the photographs come from the package elpv-dataset, which is not installed",
            "Install it with: pip install 'headstart[samples]'",
        )
    data = Path(package.submodule_search_locations[0], "data")
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(["path", "label", "probability", "type"])
    for line in (data / "labels.csv").read_text().splitlines():
        path, probability, kind = line.split()
        label = "defective" if float(probability) >= 0.5 else "functional"
        file = f"{label}/{Path(path).name}"
        writer.writerow([file, label, probability, kind])
        yield file, (data / path).read_bytes()
    yield "manifest.csv", table.getvalue().encode()
    yield "LICENCE.txt", f"{SAMPLES['elpv'].about}\n{SAMPLES['elpv'].licence}\n".encode()


# Four English voices of Debian's `flite`: three made of recordings of real speakers, and kal16.
VOICES = ("awb", "kal16", "rms", "slt")
SENTENCES = 100
PARTS = (
    (
        "the old captain",
        "my sister",
        "a young doctor",
        "our neighbour",
        "the farmer",
        "an engineer",
    ),
    ("carried", "found", "painted", "repaired", "sold", "remembered", "borrowed", "watched"),
    (
        *("a wooden boat", "two heavy boxes", "the broken clock", "seven red apples"),
        "a map of the island",
    ),
    ("near the harbour", "behind the station", "in the quiet village", "under the bridge"),
    ("last winter", "before the storm", "on a sunny morning", "at half past nine"),
)


def sentences() -> list[str]:
    """A hundred different ones, the same every time."""
    random, found = np.random.default_rng(0), dict[str, None]()
    while len(found) < SENTENCES:
        found[" ".join(words[random.integers(len(words))] for words in PARTS) + "."] = None
    return list(found)


def _speakers() -> Iterator[tuple[str, bytes]]:
    """All voices say all sentences; a sentence is a group, so that no split divides it."""
    flite = shutil.which("flite")
    if flite is None:
        raise MissingPackageError(
            "the speakers are recorded with flite, which is not installed",
            "Install it with: apt-get install flite",
        )
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(["path", "label", "group"])
    with tempfile.TemporaryDirectory() as folder:
        wav = Path(folder, "spoken.wav")
        for voice in VOICES:
            for number, text in enumerate(sentences()):
                spoken = [flite, "-voice", voice, "-t", text, "-o", str(wav)]
                subprocess.run(spoken, check=True)  # noqa: S603  the arguments are ours
                file = f"{voice}/{number:03d}.wav"
                writer.writerow([file, voice, f"sentence {number}"])
                yield file, wav.read_bytes()
    yield "manifest.csv", table.getvalue().encode()


# As `keras.datasets` downloads them: where from, and the sha256 if Keras checks one.
TORONTO, GOOGLE = (
    "https://www.cs.toronto.edu/~kriz/",
    "https://storage.googleapis.com/tensorflow/tf-keras-datasets/",
)
FASHION = [f"{n}-{w}-ubyte.gz" for n in ("train", "t10k") for w in ("images-idx3", "labels-idx1")]
DOWNLOADS: dict[str, tuple[tuple[str, str | None], ...]] = {
    "cifar10": (
        (
            f"{TORONTO}cifar-10-python.tar.gz",
            "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce",
        ),
    ),
    "cifar100": (
        (
            f"{TORONTO}cifar-100-python.tar.gz",
            "85cd44d02ba6437773c5bbd22e183051d648de2e7d6b014e1ef29b855ba677a7",
        ),
    ),
    "mnist": (
        (
            f"{GOOGLE}mnist.npz",
            "731c5ac602752760c8e48fbffcf8c3b850d9dc2a2aedcf2cc48468fc17b673d1",
        ),
    ),
    "fashion-mnist": tuple((GOOGLE + name, None) for name in FASHION),
}


def _downloaded(name: str) -> Iterator[tuple[str, bytes]]:
    """The files as they are, which are sources; MNIST, which Keras has as `.npz`, becomes IDX."""
    (keras,) = import_packages(["keras"], "the data are downloaded by Keras", "keras")
    for address, sha256 in DOWNLOADS[name]:
        file = address.rpartition("/")[2]
        try:
            kept = Path(
                keras.utils.get_file(
                    *(f"{name}-{file}", address),
                    file_hash=sha256,
                    cache_subdir="datasets",
                    cache_dir=os.environ.get("KERAS_HOME"),
                )
            )
        except Exception as error:  # Keras raises `Exception` itself
            raise InputError(
                f"{address} cannot be downloaded: {error}",
                f"Get {file} elsewhere and give it to headstart as it is.",
            ) from None
        if kept.suffix != ".npz":
            yield file, kept.read_bytes()
            continue
        with np.load(kept, allow_pickle=False) as arrays:
            for part, split in (("train", "train"), ("test", "t10k")):
                yield f"{split}-images-idx3-ubyte", _idx(arrays[f"x_{part}"])
                yield f"{split}-labels-idx1-ubyte", _idx(arrays[f"y_{part}"])


def _idx(array: np.ndarray) -> bytes:
    head = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return head + array.astype(np.uint8).tobytes()


SAMPLES = {
    "digits": Sample(
        "1,797 scans of handwritten digits, 10 classes (Alpaydin and Kaynak, 1998)",
        "CC BY 4.0 (UCI Machine Learning Repository)",
        1797,
        _digits,
    ),
    "elpv": Sample(
        "2,624 photographs of solar cells, functional or defective (Deitsch et al., 2019; "
        "Buerhop et al., 2018)",
        "CC BY-NC-SA 4.0: not for commercial use; share alike",
        2626,
        _elpv,
    ),
    "speakers": Sample(
        "400 recordings: four English voices say 100 sentences each, recorded with flite",
        "as flite (BSD-like)",
        len(VOICES) * SENTENCES + 1,
        _speakers,
    ),
    "cifar10": Sample(
        "CIFAR-10: 60,000 pictures of 32x32 pixels, 10 classes (Krizhevsky, 2009)",
        "not stated",
        1,
        partial(_downloaded, "cifar10"),
    ),
    "cifar100": Sample(
        "CIFAR-100: 60,000 pictures of 32x32 pixels, 100 classes (Krizhevsky, 2009)",
        "not stated",
        1,
        partial(_downloaded, "cifar100"),
    ),
    "mnist": Sample(
        "MNIST: 70,000 scans of handwritten digits (LeCun et al., 1998)",
        "CC BY-SA 3.0",
        4,
        partial(_downloaded, "mnist"),
    ),
    "fashion-mnist": Sample(
        "Fashion-MNIST: 70,000 pictures of clothes, 10 classes (Xiao et al., 2017)",
        "MIT",
        4,
        partial(_downloaded, "fashion-mnist"),
    ),
}
