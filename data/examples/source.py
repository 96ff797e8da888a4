"""The table of examples that every source becomes, and the checks that it must pass."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from headstart.data.common.arrays import numbers, strings
from headstart.data.common.console import counted, first_few
from headstart.data.common.errors import Checklist, SourceError
from headstart.data.examples.foreign import plain
from headstart.data.examples.layout import SPLIT_NAMES, SPLITS
from headstart.data.examples.reading import container_of
from headstart.data.modalities.modality import Modality
from headstart.data.modalities.stretches import whole_of
from headstart.data.source_options import SourceOptions
from headstart.data.storage.folder import HIDDEN, Folder


class NoExamplesError(SourceError):
    """A source has no examples, though nothing is wrong with its files."""


NOT_UTF8, LOOSE = "names that are not UTF-8", "files beside the class folders"
ONE = {  # reasons to leave something out, of one file
    HIDDEN: "hidden or system file",
    NOT_UTF8: "name that is not UTF-8",
    LOOSE: "file beside the class folders",
    "files of feature stores": "file of a feature store",
    "pictures of another example": "picture of another example",
}
COLUMNS = ("id", "path", "label", "split", "group")
RESERVED = ("content", "stamp", "embedding")
NEIGHBOURS = 500_000  # strings compared at once


@dataclass(frozen=True)
class Source:
    """Examples and where their files are.

    Parameters
    ----------
    path
        The folder, manifest or archive that the user named, with its options: an address.
    folder
        The folder that the examples' paths are relative to.
    examples
        Columns `id`, `path`, `label`, `split`, `group` (strings; all but the first two may be
        null), then the source's further columns.
    left_out
        How many files of the source are not examples, by extension or reason.
    modality
        What the examples are.
    listed
        The stamps of the examples' files, if listing them returned stamps.
    labels_by_folder
        Whether labels or splits are from folders inside archives, which all archives decide on.
    removed
        Ids of examples that a person removed; a store drops them.
    """

    path: str
    folder: Folder
    examples: pa.Table
    left_out: dict[str, int]
    modality: Modality
    listed: pa.ChunkedArray | None = None
    labels_by_folder: bool = False
    removed: frozenset[str] = frozenset()

    @property
    def columns(self) -> pa.Schema:
        """Of the examples."""
        return self.examples.schema

    @property
    def classes(self) -> list[str]:
        """The distinct labels, sorted."""
        return sorted(pc.unique(self.examples["label"].drop_null()).to_pylist())

    @cached_property
    def wholes(self) -> frozenset[str]:
        """The ids of the examples, without the names of parts; empty if none is divided."""
        if not self.modality.divided:
            return frozenset()
        return frozenset(map(whole_of, self.examples["id"].to_pylist()))

    def stamps(self, rows: np.ndarray) -> pa.ChunkedArray:
        """The current stamps of the files of some rows, null for missing files: `[rows]`.

        Parameters
        ----------
        rows
            Indices into `examples`, int64; -1 for none.
        """
        taken = numbers(rows, rows >= 0)
        if self.listed is not None:
            return self.listed.take(taken)
        paths = self.examples["path"].take(taken).to_pylist()
        files = [path and container_of(path) for path in paths]
        distinct = list(dict.fromkeys(filter(None, files)))
        stamps = dict(zip(distinct, self.folder.stamps(distinct), strict=True))
        return pa.chunked_array([strings([stamps.get(file) for file in files])])

    def __len__(self) -> int:
        return self.examples.num_rows


def quoted(value: pa.Scalar) -> str:
    """An element of an Arrow array in quotes, for a message."""
    return repr(value.as_py())


def text_column(path: object, table: pa.Table, name: str) -> pa.ChunkedArray:
    """A column as text, empty cells as null; all null if there is no such column.

    Raises
    ------
    SourceError
        If it cannot be converted.
    """
    if name not in table.column_names:
        return pa.chunked_array([pa.nulls(table.num_rows, pa.string())])
    column = table[name]
    if pa.types.is_floating(column.type):  # what pandas writes for a missing value
        column = pc.if_else(pc.is_nan(column), pa.scalar(None, column.type), column)
    try:
        column = plain(column).cast(pa.string())
        column.validate(full=True)  # text of other programs may not be UTF-8
    except pa.ArrowException as error:
        raise SourceError(
            f"{path}: column {name!r} cannot be read as text ({table[name].type}): {error}",
            "Make it a column of text.",
        ) from None
    empty = pc.equal(column, "")
    if not pc.any(empty).as_py():
        return column
    return pc.if_else(empty, pa.scalar(None, pa.string()), column)


def describe_left_out(left_out: dict[str, int]) -> str:
    """What was left out of a source, such as `3 .txt, 1 hidden or system files`."""
    return ", ".join(
        f"{count:,} {ONE.get(reason, reason) if count == 1 else reason}"
        for reason, count in sorted(left_out.items())
    )


def usual_names(path: object, names: Sequence[str], options: SourceOptions) -> list[str]:
    """The names of columns, with `path` and `label` for those that options name.

    A column that had one of these names before is `original_path` or `original_label`.

    Raises
    ------
    SourceError
        If there is no such column.
    """
    new = list(names)
    for usual, given in (("path", options.path_column), ("label", options.label_column)):
        if given is None or given == usual:
            continue
        if given not in names:
            raise no_column(path, names, given, f"--{usual}-column")
        new = [
            usual if old == given else f"original_{usual}" if each == usual else each
            for old, each in zip(names, new, strict=True)
        ]
    return new


def no_column(path: object, names: Sequence[str], wanted: str, flag: str) -> SourceError:
    """What to say of a table that has no column of a name that was given by an option."""
    near = difflib.get_close_matches(wanted, names, 1, 0.5)
    return SourceError(
        f"{path} has no column {wanted!r}; its columns are {', '.join(names)}",
        f"Did you mean {flag} {near[0]}?" if near else f"Name one: {flag} NAME",
    )


def is_utf8(name: str) -> bool:
    """Whether a file's name can be written as text; Python keeps other bytes as surrogates."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def check_names(path: object, names: Sequence[str]) -> None:
    """Refuse column names that are reserved, repeated or have spaces around them."""
    spaced = [name for name in names if name != name.strip()]
    taken = [name for name in names if name in RESERVED]
    twice = sorted({name for name in names if list(names).count(name) > 1})
    for wrong, what in (
        (taken, "uses reserved column names"),
        (twice, "names columns twice"),
        (spaced, "has column names with spaces around them"),
    ):
        if wrong:
            raise SourceError(f"{path} {what}: {', '.join(map(repr, wrong))}", "Rename them.")


def check_columns(path: object, columns: dict[str, pa.ChunkedArray]) -> None:
    """Check ids and paths, and normalize the names of splits; reports all mistakes at once.

    Parameters
    ----------
    path
        The source, as the user named it.
    columns
        The columns of `COLUMNS`; `split` is replaced.

    Raises
    ------
    SourceError
        For rows without id or path, repeated ids, and unknown splits.
    """
    checks = Checklist()
    for name in ("id", "path"):
        with checks.item():
            _check_present(path, name, columns[name])
    with checks.item():
        _check_unique(path, columns["id"])
    with checks.item():
        columns["split"] = _known_splits(path, columns["split"])
    checks.finish()


def _check_present(path: object, name: str, column: pa.ChunkedArray) -> None:
    if column.null_count:
        first = pc.index(pc.is_null(column), True).as_py() + 1
        raise SourceError(
            f"{path}: {counted(column.null_count, 'row')} without {name!r}, the first is row "
            f"{first} (not counting the header)",
            "Fill in the column, or remove the rows.",
        )


def has_repeats(values: pa.ChunkedArray) -> bool:
    """Whether a value is repeated; by sorting, which takes a third of a hash table's memory."""
    order = pc.sort_indices(values)
    for start in range(0, len(values), NEIGHBOURS):
        sorted_ = values.take(order.slice(start, NEIGHBOURS + 1)).combine_chunks()
        if pc.any(pc.equal(sorted_.slice(1), sorted_.slice(0, len(sorted_) - 1))).as_py():
            return True
    return False


def _check_unique(path: object, ids: pa.ChunkedArray) -> None:
    if not has_repeats(ids):
        return
    counts = pa.table({"id": ids}).group_by("id").aggregate([([], "count_all")])
    twice = counts.filter(pc.greater(counts["count_all"], 1)).sort_by("id")["id"]
    raise SourceError(
        f"{path}: {counted(len(twice), 'id')} "
        f"{'is' if len(twice) == 1 else 'are'} used for more than one example: "
        f"{first_few(twice, show=quoted)}",
        "Ids must be unique: give them in a column 'id', or remove the repeated rows.",
    )


def _known_splits(path: object, splits: pa.ChunkedArray) -> pa.ChunkedArray:
    lowered = pc.utf8_lower(splits)
    given = pc.unique(lowered.drop_null()).to_pylist()
    unknown = sorted(set(given) - set(SPLIT_NAMES))
    if unknown:
        raise SourceError(
            f"{path}: unknown splits {', '.join(map(repr, unknown[:5]))}",
            f"Choose from {', '.join(SPLITS)}; leave the cell empty for none.",
        )
    known = pa.array(list(SPLIT_NAMES))
    names = pa.array(list(SPLIT_NAMES.values()))
    return names.take(pc.index_in(lowered, value_set=known).combine_chunks())


def split_of(file: str) -> str | None:
    """The split that the name of a file of many examples gives, such as `train-00000.tar`."""
    *folders, name = file.split("/")
    words = [*folders, name.replace("_", "-").replace(".", "-").split("-")[0]]
    return next((SPLIT_NAMES[w.lower()] for w in words if w.lower() in SPLIT_NAMES), None)
