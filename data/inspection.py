"""What is in a source: counts, classes, splits, sizes, and broken files."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from headstart.data.common import console
from headstart.data.examples.opening import Source, open_source
from headstart.data.examples.reading import Reader, in_order, why_unread
from headstart.data.modalities.modality import DecodeError
from headstart.data.storage.files import digest

CHUNK = 32  # examples that a thread reads in one go


@dataclass(frozen=True)
class Copies:
    """Files with the same bytes.

    Parameters
    ----------
    ids
        Of the examples, in their order.
    labels
        The label of each; the empty string stands for none.
    """

    ids: list[str]
    labels: list[str]

    @property
    def disagree(self) -> bool:
        """Whether they have several labels."""
        return len(set(filter(None, self.labels))) > 1


@dataclass(frozen=True)
class Inspection:
    """What was found in a source.

    Parameters
    ----------
    classes
        Number of examples by class and split; the empty string stands for none.
    sizes
        Number of examples by size, such as `640x480`, most frequent first.
    broken
        Examples that cannot be read: id and `stage/reason: message`, as in extraction's errors.
    duplicates
        Files with the same bytes, those with several labels first.
    """

    source: str
    examples: int
    bytes: int
    classes: dict[str, dict[str, int]]
    sizes: dict[str, int]
    broken: dict[str, str]
    duplicates: list[Copies]
    left_out: dict[str, int]


def inspect(path: str | Path) -> Inspection:
    """Read and decode every example of a source.

    Raises
    ------
    SourceError
        As `open_source`.
    """
    source = open_source(path, allow_unlabelled=True)
    paths = source.examples["path"].to_pylist()
    chunks = list(_chunks(paths))
    looked: list[_Look] = []
    with (
        ThreadPoolExecutor(os.cpu_count()) as pool,
        console.progress("reading", len(source)) as advance,
    ):
        for looks in pool.map(lambda chunk: _look_at(source, chunk), chunks):
            looked.extend(looks)
            advance(len(looks))
    ids = source.examples["id"].to_pylist()
    sizes = Counter(look.size for look in looked if look.size)
    return Inspection(
        source=source.path,
        examples=len(source),
        bytes=sum(look.bytes for look in looked),
        classes=_count_classes(source),
        sizes=dict(sizes.most_common()),
        broken={id_: look.problem for id_, look in zip(ids, looked, strict=True) if look.problem},
        duplicates=_copies(source, [look.content for look in looked]),
        left_out=source.left_out,
    )


@dataclass(frozen=True)
class _Look:
    bytes: int = 0
    content: str = ""
    size: str = ""
    problem: str = ""


def _chunks(paths: list[str]) -> Iterator[list[str]]:
    """Pieces for the threads; the rows of a table stay together, to be read once."""
    for table, group in groupby(paths, in_order):
        run = list(group)
        size = len(run) if table else CHUNK
        yield from (run[start : start + size] for start in range(0, len(run), size))


def _look_at(source: Source, paths: list[str]) -> list[_Look]:
    reader = Reader(source.folder)
    return [_look(source, reader, path) for path in paths]


def _look(source: Source, reader: Reader, path: str) -> _Look:
    try:
        content = reader.read(path)
    except OSError as error:
        reason, message = why_unread(error)
        return _Look(problem=f"read/{reason}: {message}")
    try:
        size = source.modality.size_of(content)
    except DecodeError as error:
        return _Look(
            len(content), digest(content), problem=f"decode/{error.reason}: {error.message}"
        )
    return _Look(len(content), digest(content), size)


def _copies(source: Source, contents: list[str]) -> list[Copies]:
    """Examples with the same bytes; stretches of one recording are not copies of each other."""
    found: dict[str, list[int]] = {}
    for row, content in enumerate(contents):
        if content:
            found.setdefault(content, []).append(row)
    columns = (source.examples[name].to_pylist() for name in ("id", "path", "label"))
    ids, paths, labels = columns
    groups = [
        Copies([ids[row] for row in rows], [labels[row] or "" for row in rows])
        for rows in found.values()
        if len(rows) > 1 and not (source.modality.divided and len({paths[r] for r in rows}) == 1)
    ]
    return sorted(groups, key=lambda each: not each.disagree)


def _count_classes(source: Source) -> dict[str, dict[str, int]]:
    pairs = zip(
        source.examples["label"].to_pylist(), source.examples["split"].to_pylist(), strict=True
    )
    counts = Counter((label or "", split or "") for label, split in pairs)
    table: dict[str, dict[str, int]] = {}
    for (label, split), count in sorted(counts.items()):
        table.setdefault(label, {})[split] = count
    return table
