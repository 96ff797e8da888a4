"""Ids that several files have, found by workers, none of which has all ids.

Each hashes the ids of some files, by partition of the hashes; then each partition is looked through
by itself.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from headstart.data.common import console
from headstart.data.common.console import counted
from headstart.data.common.errors import ExtractionError, SourceError
from headstart.data.contracts.store import read_part
from headstart.data.storage.folder import Folder
from headstart.data.workers.tasks import result_of
from headstart.extract.planning.files import Listing

A_PARTITION = 4_000_000  # ids: 100 MB
A_TASK, MOST_TASKS = 100_000, 1_000  # ids that are hashed together, at least; and tasks, at most
# Ray sends a result of less than 100 kB to the driver: of each task it must be more a partition.
LEAST_RESULT = 8_192  # ids: 200 kB
SHOWN = 5
# Two ids have one hash with a probability of 1e-20 among a billion; what is shown is read again.
ENTRY = np.dtype([("one", "<u8"), ("two", "<u8"), ("file", "<i4"), ("row", "<i4")])


@dataclass(frozen=True)
class Owner:
    """A file of the source and parts of the store that have had examples of it.

    Parameters
    ----------
    number
        Of the file; an id of the store alone is of -1.
    name
        None for a file that the source no longer has.
    parts
        Files of parts, whose ids are compared with those of the source.
    """

    number: int
    name: str | None
    parts: tuple[str, ...] = ()


@dataclass(frozen=True)
class Found:
    """Ids that more than one example has: how many, and rows of some, as `(file, row)` pairs.

    Parameters
    ----------
    moved
        How many ids of the store are now in another file.
    """

    doubles: int
    some: list[tuple[tuple[int, int], tuple[int, int]]]
    moved: int


def check_ids(
    listing: Listing, store: Folder, owners: Sequence[Owner], names: Sequence[str], n: int
) -> int:
    """Refuse ids that several examples have; returns how many ids of the store are elsewhere now.

    Parameters
    ----------
    owners
        All files.
    names
        Of the files, by number.
    n
        Number of examples.

    Raises
    ------
    SourceError
        With ids, and both places of each.
    """
    import ray

    tasks = min(max(1, n // A_TASK), MOST_TASKS, len(owners))
    partitions = max(1, min(math.ceil(n / A_PARTITION), n // tasks // LEAST_RESULT))
    task: Any = ray.remote(num_cpus=1, num_returns=partitions)(_hashed)
    given = ray.put((listing, store))
    columns: list[list[Any]] = []
    for group in np.array_split(np.arange(len(owners)), tasks):
        answer = task.remote(given, [owners[at] for at in group], partitions)
        columns.append([answer] if partitions == 1 else answer)
    look: Any = ray.remote(num_cpus=1)(doubles)
    asked = [look.remote(*column) for column in zip(*columns, strict=True)]
    del columns
    found = []
    with console.progress("comparing ids", len(asked)) as advance:
        for answer in asked:
            found.append(result_of(answer, "comparing ids", ExtractionError))
            advance(1)
    count = sum(each.doubles for each in found)
    if count:
        some = [pair for each in found for pair in each.some][:SHOWN]
        raise _refused(listing, names, count, some)
    return sum(each.moved for each in found)


def _hashed(given: tuple[Listing, Folder], owners: list[Owner], partitions: int) -> Any:
    listing, store = given
    found = [np.empty(0, ENTRY)]
    for owner in owners:
        ids = (listing.source(owner.name) if owner.name else listing.nothing()).examples["id"]
        found.append(entries(ids, owner.number))
        for part in owner.parts:
            had = read_part(store, part, ["id"])["id"]
            gone = had.filter(pc.invert(pc.is_in(had, value_set=ids.combine_chunks())))
            found.append(entries(gone, -1))
    return partitioned(np.concatenate(found), partitions)


def entries(ids: pa.ChunkedArray, number: int) -> np.ndarray:
    """An entry for each id of a file, `ENTRY` `[ids]`."""
    found = np.empty(len(ids), ENTRY)
    hashes = b"".join([blake2b(each.encode(), digest_size=16).digest() for each in ids.to_pylist()])
    both = np.frombuffer(hashes, "<u8").reshape(-1, 2)
    found["one"], found["two"] = both[:, 0], both[:, 1]
    found["file"], found["row"] = number, np.arange(len(ids))
    return found


def partitioned(found: np.ndarray, partitions: int) -> Any:
    """The entries by partition of their hashes; those of one partition alone for one."""
    if partitions == 1:
        return found
    which = (found["one"] % np.uint64(partitions)).astype(np.int64)
    order = np.argsort(which, kind="stable")
    ends = np.cumsum(np.bincount(which, minlength=partitions))[:-1]
    return [np.ascontiguousarray(each) for each in np.split(found[order], ends)]


def doubles(*columns: np.ndarray) -> Found:
    """What is double in one partition."""
    found = np.concatenate(columns)
    found = found[np.lexsort((found["row"], found["file"], found["two"], found["one"]))]
    same = (found["one"][1:] == found["one"][:-1]) & (found["two"][1:] == found["two"][:-1])
    first = np.flatnonzero(same)
    of_store = found["file"][first] < 0  # sorted before those of the source
    in_source = first[~of_store]
    # An id that three examples have counts once.
    begins = ~np.isin(in_source - 1, in_source) if len(in_source) else np.empty(0, bool)
    some = [
        (
            (int(found["file"][at]), int(found["row"][at])),
            (int(found["file"][at + 1]), int(found["row"][at + 1])),
        )
        for at in in_source[begins][:SHOWN]
    ]
    moved = first[of_store]
    return Found(int(begins.sum()), some, int((found["file"][moved + 1] >= 0).sum()))


def _refused(
    listing: Listing,
    names: Sequence[str],
    count: int,
    some: list[tuple[tuple[int, int], tuple[int, int]]],
) -> SourceError:
    shown = []
    for (file, row), (other, at) in some:
        one = listing.source(names[file]).examples["id"][row].as_py()
        two = listing.source(names[other]).examples["id"][at].as_py()
        if one == two:
            shown.append(f"{one!r} (row {row} of {names[file]}, row {at} of {names[other]})")
    more = f" and {count - len(shown):,} more" if count > len(shown) else ""
    return SourceError(
        f"{listing.path}: {counted(count, 'id')} {'is' if count == 1 else 'are'} used for more "
        f"than one example: {', '.join(shown)}{more}",
        "Ids must be unique: give them in a column 'id', or remove the repeated rows.",
    )
