"""The examples of a model found again in a source: the same split, and where their files are."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from headstart.classify.splits.splitting import (
    Labelled,
    Split,
    SplitOptions,
    group_indices,
    hold_back,
    hold_back_groups,
    limit_samples,
)
from headstart.data.common import console
from headstart.data.common.errors import InputError
from headstart.data.contracts.model import Model
from headstart.data.examples.opening import Source, open_source
from headstart.data.modalities.known import MODALITIES
from headstart.data.storage.folder import Folder

TRAIN, TEST = "train", "test"


@dataclass(frozen=True)
class TuningExamples:
    """Examples with their files and roles.

    Parameters
    ----------
    folder
        That the paths are relative to.
    paths, ids
        Of all labelled examples of the model, `[examples]`.
    labels
        Index into `classes`, int64 `[examples]`.
    groups
        Index of each example's group, int64 `[examples]`; none if no example has a group.
    train, validation, test
        Rows, int64. The validation examples are training examples of the model.
    contents
        The hash of each file's bytes when its features were made; another file is not used.
    """

    folder: Folder
    classes: tuple[str, ...]
    paths: tuple[str, ...]
    ids: tuple[str, ...]
    labels: np.ndarray
    groups: np.ndarray | None
    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray
    contents: tuple[str, ...]


def find_examples(
    source: str | Path,
    model: Model,
    validation: float,
    samples_per_class: int | None,
    seed: int,
) -> TuningExamples:
    """The model's training and test examples, with their files in a source.

    Parameters
    ----------
    validation
        Share of the training examples that is held back, by class and without dividing groups.

    Raises
    ------
    InputError
        If the source lacks examples of the model, has them with other labels, or has classes that
        the model lacks.
    """
    opened = open_source(source, True, MODALITIES["image"])
    known = model.examples()
    known = known.filter(pc.is_valid(known["split"]))
    classes = model.card.classes
    _check_classes(opened, classes)
    rows = _rows_of(opened, known, source)
    labels = np.searchsorted(
        np.array(classes, object), np.array(known["label"].to_pylist(), object)
    )
    groups = _groups(known)
    split = np.array(known["split"].to_pylist(), object)
    train, test = np.flatnonzero(split == TRAIN), np.flatnonzero(split == TEST)
    if samples_per_class is not None:
        data = Labelled(known, classes, labels, groups)
        options = SplitOptions(seed=seed, samples_per_class=samples_per_class)
        train = limit_samples(data, Split(train, test, ""), options).train
    held = _held_back(labels, groups, train, validation, seed)
    table = opened.examples.take(rows)
    return TuningExamples(
        folder=opened.folder,
        classes=classes,
        paths=tuple(table["path"].to_pylist()),
        ids=tuple(known["id"].to_pylist()),
        labels=labels,
        groups=groups,
        train=np.setdiff1d(train, held),
        validation=held,
        test=test,
        contents=tuple(known["content"].to_pylist()),
    )


def _check_classes(source: Source, classes: tuple[str, ...]) -> None:
    new = sorted(set(source.classes) - set(classes))
    if new:
        raise InputError(
            f"the source has classes that the model lacks: {console.first_few(new, show=repr)}",
            "Extract the source and train a model on it again; fine-tuning starts from its head.",
        )


def _rows_of(source: Source, known: pa.Table, place: str | Path) -> pa.Array:
    """The rows of the source with the model's examples, in its order."""
    ids = source.examples["id"].combine_chunks()
    rows = pc.index_in(known["id"].combine_chunks(), value_set=ids)
    if rows.null_count:
        lost = known["id"].filter(pc.is_null(rows)).to_pylist()
        raise InputError(
            f"{place} no longer has {console.counted(len(lost), 'example')} that the model was "
            f"trained or tested on: {console.first_few(lost)}",
            "Put them back, or extract again with --prune and train the model again.",
        )
    labels = source.examples["label"].combine_chunks().take(rows)
    other = pc.fill_null(pc.not_equal(labels, known["label"].combine_chunks()), True)
    if count := pc.sum(other).as_py():
        first = known["id"].filter(other)[0].as_py()
        raise InputError(
            f"{console.counted(count, 'example')} of {place} {'has' if count == 1 else 'have'} "
            f"another label than the model was trained on, such as {first!r}",
            "Extract again, which takes over the labels, and train the model again.",
        )
    if more := len(ids) - len(rows):
        console.note(
            f"left out: {console.counted(more, 'example')} of the source that the model does not "
            "have (extract again and train to use them)"
        )
    return rows


def _groups(known: pa.Table) -> np.ndarray | None:
    if "group" not in known.column_names or known["group"].null_count == known.num_rows:
        return None
    return group_indices(known["group"])


def _held_back(
    labels: np.ndarray, groups: np.ndarray | None, train: np.ndarray, share: float, seed: int
) -> np.ndarray:
    """The rows of `train` that are held back for validation, ascending."""
    if not share:
        return train[:0]
    if groups is not None:
        return np.sort(train[hold_back_groups(labels[train], groups[train], share, seed)])
    kept = [train[:0]]
    for label in np.unique(labels[train]):
        rows = train[labels[train] == label]
        kept.append(rows[hold_back(labels[rows], round(share * len(rows)), seed + int(label))])
    return np.sort(np.concatenate(kept))
