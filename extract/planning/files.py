"""A source in so many files of examples that it is listed file by file, by workers.

The driver knows names and stamps of the files, and how many examples each has; what is in a file is
listed where it is needed. Small sources are listed whole, see `MANY`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from headstart.data.common.errors import SourceError
from headstart.data.contracts.store import FilePart
from headstart.data.examples.folder import Containers
from headstart.data.examples.parts import in_parts
from headstart.data.examples.source import COLUMNS, NoExamplesError, Source
from headstart.data.modalities.known import MODALITIES
from headstart.data.modalities.modality import InputSpec, Modality
from headstart.data.storage.folder import Folder
from headstart.data.workers.shards import Shard

MANY = 1_000  # files: with a few thousand examples each, a plan in memory takes a gigabyte


@dataclass(frozen=True)
class Listing:
    """How a file of the source is listed; it is sent to workers, and has nothing of each file.

    Parameters
    ----------
    path
        The source, as the store has it.
    columns
        The columns that the examples are to have; by default, those of the file.
    """

    path: str
    containers: Containers
    spec: InputSpec
    columns: pa.Schema | None = None

    @property
    def folder(self) -> Folder:
        """Of the files."""
        return self.containers.folder

    @property
    def modality(self) -> Modality:
        """Of the examples."""
        return MODALITIES[self.spec.modality]

    def source(self, name: str) -> Source:
        """The examples of one file with `columns`, as a source; raises as `as_it_is`."""
        return self.with_columns(self.as_it_is(name))

    def with_columns(self, source: Source) -> Source:
        """The same examples with `columns`."""
        if self.columns is None:
            return source
        return replace(source, examples=_with(source.examples, self.columns))

    def as_it_is(self, name: str) -> Source:
        """The examples of one file with its own columns; it may have none.

        Raises
        ------
        SourceError
            If the file cannot be read, or its examples are not valid.
        """
        try:
            found = self.containers.open(self.folder.where(name), [name])
        except NoExamplesError:
            return self.nothing()
        return replace(in_parts(found, self.spec).source, path=self.path)

    def nothing(self) -> Source:
        """A source without examples."""
        columns = self.columns or pa.schema([(name, pa.string()) for name in COLUMNS])
        empty = pa.table([pa.array([], each.type) for each in columns], schema=columns)
        return Source(self.path, self.folder, empty, {}, self.modality)

    def bound(self, source: Source, name: str) -> bool:
        """Whether all ids begin with the file's name, so that no other file has them."""
        ids = source.examples["id"]
        in_table, in_tar = (pc.starts_with(ids, f"{name}{mark}") for mark in "#/")
        return bool(pc.all(pc.or_(in_table, in_tar)).as_py() is not False)


def _with(examples: pa.Table, columns: pa.Schema) -> pa.Table:
    found = [
        examples[each.name].cast(each.type)
        if each.name in examples.column_names
        else pa.chunked_array([pa.nulls(examples.num_rows, each.type)])
        for each in columns
    ]
    return pa.table(found, schema=columns)


@dataclass(frozen=True)
class Files:
    """A source in many files: their names and stamps, and how one is listed."""

    listing: Listing
    stamps: Mapping[str, str]


def files_of(found: Containers, spec: InputSpec) -> Files:
    """The files of a folder, which are listed one by one."""
    path = str(found.options.address(str(found.folder)))
    listing = Listing(path, replace(found, stamps={}), spec)
    return Files(listing, found.stamps)


@dataclass(frozen=True)
class FileShard(Shard):
    """Examples of one file, by their rows: whoever works on them lists the file.

    Parameters
    ----------
    runs
        Rows of the file as pairs of start and end, in their order.
    """

    examples: pa.Table = field(default=None, compare=False)
    listing: Listing = field(kw_only=True)
    runs: tuple[tuple[int, int], ...] = field(kw_only=True)

    def __len__(self) -> int:
        return sum(end - start for start, end in self.runs)

    def __reduce__(self) -> tuple:
        """As it is: it has no examples."""
        return _shard, (self.number, self.file, self.listing, self.runs)

    def piece(self, number: int, start: int, length: int) -> FileShard:
        """Some of the examples, as another shard."""
        runs = cut_runs(self.runs, start, length)
        return shard_of(number, self.file, self.listing, runs)

    def name_of(self, row: int) -> str:
        """What a person is told of an example: its row, since its id is not known here."""
        name = self.file.name if self.file else ""
        ((at, _),) = cut_runs(self.runs, min(row, len(self) - 1), 1)
        return f"row {at} of {name}"

    def where(self) -> str:
        """What a person is told of the shard."""
        return f"{len(self)} examples, {self.name_of(0)} to {self.name_of(len(self) - 1)}"

    def loaded(self) -> Shard:
        """With its examples.

        Raises
        ------
        SourceError
            If the file has changed since it was planned.
        """
        if self.file is None:
            raise ValueError("a shard of a file has one")
        name = self.file.name
        source = self.listing.source(name)
        (stamp,) = self.listing.folder.stamps([name])
        if stamp != self.file.stamp or len(source) != self.file.examples:
            raise SourceError(
                f"{self.listing.folder.where(name)} has changed since the work was planned",
                "Run the same command again.",
            )
        rows = np.concatenate([np.arange(start, end) for start, end in self.runs])
        return Shard(self.number, source.examples.take(pa.array(rows)), self.file)


def shard_of(
    number: int, file: FilePart | None, listing: Listing, runs: tuple[tuple[int, int], ...]
) -> FileShard:
    """A shard of a file, whose record says how many examples it has."""
    count = sum(end - start for start, end in runs)
    here = replace(file, here=count) if file else None
    return FileShard(number, file=here, listing=listing, runs=runs)


_shard = shard_of


def runs_of(rows: np.ndarray) -> tuple[tuple[int, int], ...]:
    """Sorted row numbers as pairs of start and end."""
    if not len(rows):
        return ()
    breaks = np.flatnonzero(np.diff(rows) > 1)
    starts = rows[np.concatenate([[0], breaks + 1])]
    ends = rows[np.concatenate([breaks, [len(rows) - 1]])] + 1
    return tuple(zip(starts.tolist(), ends.tolist(), strict=True))


def cut_runs(
    runs: Sequence[tuple[int, int]], start: int, length: int
) -> tuple[tuple[int, int], ...]:
    """The runs of some of the rows: `length` of them from the `start`-th on."""
    found = []
    for first, end in runs:
        size = end - first
        low, high = max(start, 0), min(start + length, size)
        if low < high:
            found.append((first + low, first + high))
        start -= size
    return tuple(found)
