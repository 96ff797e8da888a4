"""Corrections: what a person decided about examples whose labels are in doubt, as a CSV file.

Its columns are `id`, `action` (`keep`, `change` or `remove`) and `change_to` (the class, for
`change` alone; it may also label an example that has no label). Other columns, and rows without an
action, are passed over: `suspects.csv` of a model folder is such a file as soon as a person fills
in its column `action`.
"""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from headstart.data.common.console import counted, first_few
from headstart.data.common.errors import InputError
from headstart.data.contracts.backbone import read_content

KEEP, CHANGE, REMOVE = ACTIONS = ("keep", "change", "remove")
ID, ACTION, CHANGE_TO = COLUMNS = ("id", "action", "change_to")
DELIMITERS = ",;\t"
MOST_MISTAKES = 20  # named in a message
COMMAND = "Save one from report.html, or fill in the column 'action' of the model's suspects.csv."


@dataclass(frozen=True)
class Correction:
    """What is to become of one example.

    Parameters
    ----------
    action
        `keep`: the label is right; `change`: to the class `change_to`; `remove`: leave it out.
    """

    id: str
    action: str
    change_to: str = ""


Corrections = tuple[Correction, ...]
Rows = list[tuple[int, dict[str, str]]]  # the line at which each ends, and its cells by name


def read_corrections(
    path: str | Path, ids: pa.ChunkedArray, classes: Iterable[str], earlier: Corrections = ()
) -> Corrections:
    """Read a file of corrections and check it against the examples that it is for.

    Parameters
    ----------
    ids
        Of the examples, strings.
    classes
        That a label may be changed to.
    earlier
        Corrections that the examples have already; those that they removed may be named again.

    Raises
    ------
    InputError
        If it cannot be read as CSV; or for rows with an unknown id, class or action, all at once.
    """
    known = frozenset(classes)
    rows = _rows(path)
    found = _corrections(rows)
    removed = {each.id for each in earlier}
    there = pc.is_in(pa.array([each.id for each in found], pa.string()), value_set=ids.unique())
    times = Counter(each.id for each in found)
    mistakes = []
    for (line, _), each, is_there in zip(rows, found, there.to_pylist(), strict=True):
        wrong = _wrong(each, known)
        if not is_there and each.id not in removed:
            wrong.insert(0, f"there is no example {each.id!r}")
        elif times[each.id] > 1:
            wrong.insert(0, f"{each.id!r} is there {times[each.id]} times")
        mistakes += [f"line {line}: {what}" for what in wrong]
    if mistakes:
        raise InputError(
            f"{path} has {counted(len(mistakes), 'mistake')}:\n  "
            + first_few(mistakes, MOST_MISTAKES, separator="\n  "),
            f"The classes are {first_few(sorted(known), 10, repr)}. {COMMAND}",
        )
    return found


def trusted(path: str | Path) -> Corrections:
    """Read a file that this program wrote; raises `InputError` if it is not valid CSV."""
    return _corrections(_rows(path))


def _corrections(rows: Rows) -> Corrections:
    return tuple(Correction(*(row[name] for name in COLUMNS)) for _, row in rows)


def _wrong(each: Correction, classes: frozenset[str]) -> list[str]:
    if each.action not in ACTIONS:
        return [f"the action {each.action!r} is none of {', '.join(ACTIONS)}"]
    if each.action == CHANGE and each.change_to not in classes:
        what = f"{each.change_to!r} is not a class" if each.change_to else "it says no class"
        return [f"{what} to change {each.id!r} to" if each.change_to else f"{what} in {CHANGE_TO}"]
    if each.action != CHANGE and each.change_to:
        return [f"{each.action!r} takes no class, and {CHANGE_TO} is {each.change_to!r}"]
    return []


def _rows(path: str | Path) -> Rows:
    """The rows with an action."""
    _, content = read_content(path, "file of corrections", COMMAND, InputError)
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise InputError(f"{path} is not text in UTF-8", "Save it as CSV in UTF-8.") from None
    header = text.partition("\n")[0]
    delimiter = max(DELIMITERS, key=header.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        names = [name.strip() for name in next(reader, [])]
        missing = [name for name in (ID, ACTION) if name not in names]
        if missing:
            raise InputError(
                f"{path} has no column {' and no column '.join(map(repr, missing))}", COMMAND
            )
        found = []
        for cells in reader:
            row = dict.fromkeys(COLUMNS, "") | dict(zip(names, cells, strict=False))
            if row[ACTION].strip():
                row[ACTION] = row[ACTION].strip().lower()
                found.append((reader.line_num, row))
    except csv.Error as error:
        raise InputError(
            f"{path} is not valid CSV at line {reader.line_num}: {error}", COMMAND
        ) from None
    return found


def merged(earlier: Corrections, later: Corrections) -> Corrections:
    """Both; of two for one example, the later one."""
    return tuple(({each.id: each for each in earlier} | {each.id: each for each in later}).values())


def to_csv(corrections: Sequence[Correction]) -> bytes:
    """As a file that `read_corrections` reads."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows((each.id, each.action, each.change_to) for each in corrections)
    return text.getvalue().encode()


@dataclass(frozen=True)
class Corrected:
    """Examples after corrections.

    Parameters
    ----------
    labels
        The new labels, strings `[examples]`, also of those removed.
    kept
        Which examples stay, bool `[examples]`.
    changed
        How many labels are other ones now.
    """

    labels: pa.ChunkedArray
    kept: np.ndarray
    changed: int

    @property
    def removed(self) -> int:
        """How many examples are left out."""
        return int((~self.kept).sum())


def correct(ids: pa.ChunkedArray, labels: pa.ChunkedArray, corrections: Corrections) -> Corrected:
    """Apply corrections to examples; those for other examples have no effect.

    Parameters
    ----------
    ids, labels
        Strings `[examples]`; labels may be null.
    """
    if not corrections:
        return Corrected(labels, np.ones(len(ids), bool), 0)
    place = pc.index_in(ids, value_set=pa.array([each.id for each in corrections], pa.string()))
    rows = pc.fill_null(place, len(corrections)).to_numpy()
    actions = np.array([*(each.action for each in corrections), ""])[rows]
    new = pa.array([*(each.change_to for each in corrections), ""]).take(pa.array(rows))
    changes = pc.and_(
        pa.array(actions == CHANGE), pc.fill_null(pc.not_equal(labels, new), True).combine_chunks()
    )
    after = pc.if_else(changes, new, labels.combine_chunks())
    count = pc.sum(changes).as_py() or 0
    return Corrected(pa.chunked_array([after]), actions != REMOVE, count)


def in_words(corrected: Corrected) -> str:
    """What corrections did, such as `2 labels changed, 1 example removed`."""
    changed, removed = counted(corrected.changed, "label"), counted(corrected.removed, "example")
    return f"{changed} changed, {removed} removed"
