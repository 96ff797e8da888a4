"""Examples that are embedded in several parts: a recording becomes a row for each of its windows.

A part has the path and the id of its example with `#t=START+LENGTH` behind them, and its columns;
parts of one recording are one group, so that no split divides it. A recording that is one window
keeps its name. The numeric columns `start` and `end` of a manifest, in seconds, say which stretch
of a recording an example is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from io import BytesIO
from itertools import groupby
from typing import BinaryIO, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from headstart.data.common import console
from headstart.data.common.arrays import strings
from headstart.data.common.console import counted, first_few
from headstart.data.common.errors import SourceError
from headstart.data.examples.reading import Reader, container_of, in_order
from headstart.data.examples.source import Source
from headstart.data.modalities.modality import DecodeError, InputSpec
from headstart.data.modalities.stretches import named, stretch
from headstart.data.storage.folder import Folder

READERS = 16
ROWS = 8
START, END = "start", "end"


@dataclass(frozen=True)
class Divided:
    """A source of parts, and the row of each part's example before, int64 `[parts]`."""

    source: Source
    rows: np.ndarray


def in_parts(source: Source, spec: InputSpec) -> Divided:
    """Divide the examples of a source as a backbone embeds them; of files, headers are read.

    Recordings in archives and tables are read whole, those of a table in their order. An example
    that cannot be read stays whole: a worker reports why.

    Raises
    ------
    SourceError
        If `start` or `end` are not numbers in order, or the rows of one recording have several
        groups.
    StorageError
        If the storage does not answer.
    """
    if not source.modality.divided:
        return Divided(source, np.arange(len(source)))
    paths = source.examples["path"].to_pylist()
    starts, ends = _stretches(source)
    reading = _Headers(source.folder, spec)
    with (
        ThreadPoolExecutor(READERS) as pool,
        console.progress(f"reading headers of {source.modality.plural}", len(paths)) as advance,
    ):
        found = []
        for some in pool.map(lambda rows: reading.run(rows, paths, starts, ends), _runs(paths)):
            found.extend(some)
            advance(len(some))
    rows = np.repeat(np.arange(len(paths)), [len(names) for names in found])
    names = [name for each in found for name in each]
    examples = source.examples.take(pa.array(rows))
    for column in ("id", "path"):
        values = map(named, examples[column].to_pylist(), names)
        place = examples.column_names.index(column)
        examples = examples.set_column(place, column, pa.chunked_array([strings(values)]))
    groups = _groups(source, [paths[row] for row in rows], examples["group"].to_pylist())
    place = examples.column_names.index("group")
    examples = examples.set_column(place, "group", pa.chunked_array([strings(groups)]))
    listed = None if source.listed is None else source.listed.take(pa.array(rows))
    return Divided(replace(source, examples=examples, listed=listed), rows)


def _runs(paths: list[str]) -> Iterator[list[int]]:
    """Rows that one reader goes through: all of a table, read in their order, or a few."""
    for table, group in groupby(range(len(paths)), lambda row: in_order(paths[row])):
        rows = list(group)
        size = len(rows) if table else ROWS
        yield from (rows[start : start + size] for start in range(0, len(rows), size))


class _Headers:
    """Reads the headers of recordings, wherever they are."""

    def __init__(self, folder: Folder, spec: InputSpec) -> None:
        self.folder, self.spec = folder, spec

    def run(
        self, rows: list[int], paths: list[str], starts: list[float], ends: list[float | None]
    ) -> list[list[str]]:
        reader = Reader(self.folder)
        return [self._parts(reader, paths[row], starts[row], ends[row]) for row in rows]

    def _parts(self, reader: Reader, path: str, start: float, end: float | None) -> list[str]:
        try:
            if container_of(path) == path:
                return self.folder.attempt(lambda: self._of_file(path, start, end))
            return self.spec.parts(BytesIO(reader.read(path)), start, end)
        except (DecodeError, OSError):  # reading the example reports it
            return [stretch(start, (start + 1 if end is None else end) - start)] if start else [""]

    def _of_file(self, path: str, start: float, end: float | None) -> list[str]:
        with self.folder.open(path) as file:
            return self.spec.parts(cast(BinaryIO, file), start, end)


def _stretches(source: Source) -> tuple[list[float], list[float | None]]:
    examples, wrong = source.examples, ""
    columns: list[np.ndarray] = []
    for name, empty in ((START, 0.0), (END, np.inf)):
        if name not in examples.column_names:
            columns.append(np.full(len(source), empty))
            continue
        try:
            column = pc.fill_null(pc.cast(examples[name], pa.float64()), empty)
        except pa.ArrowException as error:
            raise SourceError(
                f"{source.path}: column {name!r} is not of numbers: {error}",
                "Give the seconds from the beginning of the recording.",
            ) from None
        columns.append(column.to_numpy())
    starts, ends = columns
    bad = np.flatnonzero(~((starts >= 0) & (ends > starts) & np.isfinite(starts)))
    if len(bad):
        wrong = first_few(examples["id"].take(pa.array(bad)).to_pylist(), show=repr)
        raise SourceError(
            f"{source.path}: {counted(len(bad), 'row')} with a 'start' below 0 or an 'end' that is "
            f"not after it: {wrong}",
            "Give the seconds from the beginning of the recording.",
        )
    return starts.tolist(), [None if np.isinf(end) else end for end in ends.tolist()]


def _groups(source: Source, paths: list[str], groups: list[str | None]) -> list[str | None]:
    """The given groups; a recording of several rows without one is a group by itself."""
    count = Counter(paths)
    own: dict[str, str | None] = {}
    for path, group in zip(paths, groups, strict=True):
        if own.setdefault(path, group) != group:
            raise SourceError(
                f"{source.path}: the rows of {path!r} have several groups, {own[path]!r} and "
                f"{group!r}: a split could divide the {source.modality.noun}",
                "Give all rows of one file the same group.",
            )
    return [
        path if group is None and count[path] > 1 else group
        for path, group in zip(paths, groups, strict=True)
    ]
