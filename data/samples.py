"""Ready-made sample sets, written as one folder per class, from packages with the pictures."""

from __future__ import annotations

import csv
import difflib
import importlib.util
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from headstart.data.common import console
from headstart.data.common.errors import InputError, MissingPackageError
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
}
