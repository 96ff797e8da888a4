"""Reads an example out of a packed file, by a path that the modules beside this one write.

`FILE#FORMAT=ROW`, where FILE may be `ARCHIVE#MEMBER`: `cifar-10-binary.tar.gz#cifar-10-batches-bin/
data_batch_1.bin#cifar10=17`, `train-images-idx3-ubyte.gz#idx=17`; and `photos.zip#file=cats/1.jpg`.
"""

from __future__ import annotations

import gzip
import io
import re
import tarfile
import zipfile
import zlib
from threading import Lock
from typing import Any, cast

import numpy as np

from headstart.data.examples.packed.formats import FormatError, parse
from headstart.data.storage.folder import Folder

IN_ARRAYS = re.compile(r"(.+)#(cifar10|cifar100|cifar-python|idx)=(\d+)", re.DOTALL)
IN_ARCHIVE = re.compile(r"(.+?\.(?i:tar|tar\.gz|tgz))#(.+)", re.DOTALL)
IN_ZIP = re.compile(r"(.+?\.(?i:zip))#file=(.+)", re.DOTALL)
LARGEST = 1 << 30  # bytes of a file of arrays, unpacked
LARGEST_EXAMPLE = 1 << 28
BUFFER = 1 << 20
# What a damaged or truncated archive raises, by its layer.
DAMAGED = (tarfile.TarError, zipfile.BadZipFile, EOFError, zlib.error, gzip.BadGzipFile)


def packed_in(path: str) -> str | None:
    """The file that holds an example; None if the path is not one of ours."""
    found = IN_ZIP.fullmatch(path)
    return found[1] if found else arrays_of(path)


def arrays_of(path: str) -> str | None:
    """The same, only for examples in arrays of pixels, which are read one after the other."""
    if (found := IN_ARRAYS.fullmatch(path)) is None:
        return None
    archive = IN_ARCHIVE.fullmatch(found[1])
    return archive[1] if archive else found[1]


def open_archive(folder: Folder, name: str) -> tarfile.TarFile:
    """A tar archive to be read from its beginning to its end, gzipped or not."""
    return tarfile.open(fileobj=io.BufferedReader(cast(Any, folder.open(name)), BUFFER), mode="r|*")


def unpacked(folder: Folder, file: str) -> bytes:
    """The bytes of a file, or of `ARCHIVE#MEMBER`, without the gzip around them.

    Raises
    ------
    OSError
        If it cannot be read, is damaged, or is larger than `LARGEST`.
    """
    return folder.attempt(lambda: _unpacked(folder, file))


def _unpacked(folder: Folder, file: str) -> bytes:
    archive = IN_ARCHIVE.fullmatch(file)
    try:
        if archive is None:
            raw = cast(Any, io.BufferedReader(cast(Any, folder.open(file)), BUFFER))
            with raw, gzip.open(raw) if file.lower().endswith(".gz") else raw as stream:
                return checked(stream.read(LARGEST + 1), file)
        with open_archive(folder, archive[1]) as tar:
            for member in tar:
                if member.name == archive[2] and (stream := tar.extractfile(member)) is not None:
                    return checked(stream.read(LARGEST + 1), file)
    except DAMAGED as error:
        raise OSError(f"{file} is damaged or truncated: {error}") from None
    raise OSError(f"{archive[1]} has no file {archive[2]}")


def checked(content: bytes, file: str) -> bytes:
    """The content, if it is not larger than a file of arrays may be."""
    if len(content) > LARGEST:
        raise OSError(f"{file} has more than {LARGEST >> 30} GiB when it is unpacked")
    return content


class PackedReader:
    """Reads examples of packed files; fastest in their order: the last file is kept in memory."""

    def __init__(self, folder: Folder) -> None:
        self.folder = folder
        self._at = ("", "")
        self._pixels = np.empty((0, 0, 0), np.uint8)
        self._zips: dict[str, zipfile.ZipFile] = {}
        self._lock = Lock()  # several threads read from object storage

    def read(self, path: str) -> bytes:
        """The bytes of an example: a file of a zip archive as it is, an array of pixels as PPM.

        Raises
        ------
        OSError
            If there is no such file or part of it, or it cannot be read.
        """
        if found := IN_ZIP.fullmatch(path):
            return self._of_zip(found[1], found[2])
        if (found := IN_ARRAYS.fullmatch(path)) is None:
            raise OSError(f"{path!r} does not name a part of a file")
        file, kind, row = found[1], found[2], int(found[3])
        if self._at != (file, kind):
            try:
                self._pixels = parse(kind, unpacked(self.folder, file)).pixels
            except FormatError as error:
                raise OSError(f"{file} {error}") from None
            self._at = (file, kind)
        if row >= len(self._pixels):
            raise OSError(f"{file} has {len(self._pixels):,} examples, and none at {row:,}")
        return as_ppm(self._pixels[row])

    def _of_zip(self, name: str, member: str) -> bytes:
        try:
            content = self.folder.attempt(lambda: self._member(name, member))
        except (*DAMAGED, KeyError, NotImplementedError, RuntimeError) as error:
            self._zips.pop(name, None)
            raise OSError(f"{member} in {name} cannot be read: {error}") from None
        if len(content) > LARGEST_EXAMPLE:
            raise OSError(f"{member} in {name} has more than {LARGEST_EXAMPLE >> 20} MiB")
        return content

    def _member(self, name: str, member: str) -> bytes:
        with self._lock:
            if name not in self._zips:
                self._zips[name] = zipfile.ZipFile(cast(Any, self.folder.open(name)))
        with self._zips[name].open(member) as stream:
            return stream.read(LARGEST_EXAMPLE + 1)


def as_ppm(pixels: np.ndarray) -> bytes:
    """A picture as a file for any decoder: uint8 `[height, width, 3]` or `[height, width]`.

    PPM and PGM are the pixels behind a line of text, so the same bytes for ever.
    """
    height, width = pixels.shape[:2]
    kind = "P5" if pixels.ndim == 2 else "P6"
    return f"{kind}\n{width} {height}\n255\n".encode() + np.ascontiguousarray(pixels).tobytes()
