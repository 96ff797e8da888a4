"""Finds which of the files that may have changed have other bytes than were embedded."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa

from headstart.data.common import console
from headstart.data.contracts.store import read_part
from headstart.data.examples.opening import Source
from headstart.data.examples.reading import Reader
from headstart.data.modalities.stretches import whole_of
from headstart.data.storage.files import digest
from headstart.data.storage.folder import Folder
from headstart.extract.planning.known import Known

READERS = 16


def changed_files(known: Known, source: Source, store: Folder, rehash: bool) -> np.ndarray:
    """Whether the bytes of a file differ from those that were embedded, bool `[examples]`.

    Only files with another path or stamp are read. A failed example with another path or
    stamp counts as changed, since it has no hash to compare with.

    Parameters
    ----------
    known
        The examples of the store, compared with the source.
    store
        Has the hashes of the embedded files.
    rehash
        Read every file: a file replaced by one of equal size and time has the same stamp.
    """
    changed = (known.touched | known.moved) & known.failed
    suspects = np.flatnonzero(
        (known.touched | known.moved | (rehash & known.there)) & ~known.failed
    )
    if not len(suspects):
        return changed
    hashes = _hashes(known, suspects, store)
    paths = source.examples["path"].take(pa.array(known.source_rows[suspects])).to_pylist()

    def now(path: str) -> str | None:
        try:
            return digest(Reader(source.folder).read(path))
        except OSError:  # it will be an error of the example
            return None

    wholes = [whole_of(path) for path in paths]
    files = dict.fromkeys(wholes)
    with (
        ThreadPoolExecutor(READERS) as pool,
        console.progress("comparing files with their hashes", len(files)) as advance,
    ):
        for path, found in zip(files, pool.map(now, files), strict=True):
            files[path] = found
            advance(1)
    changed[suspects] = [files[w] != before for w, before in zip(wholes, hashes, strict=True)]
    return changed


def _hashes(known: Known, suspects: np.ndarray, store: Folder) -> list[str]:
    hashes: list[str] = []
    for number in np.unique(known.part[suspects]):  # in the order of `suspects`: part by part
        positions = known.position[suspects[known.part[suspects] == number]]
        column = read_part(store, known.parts[number].rows_file or "", ["content"])["content"]
        hashes.extend(column.take(pa.array(positions)).to_pylist())
    return hashes
