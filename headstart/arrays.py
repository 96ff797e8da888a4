"""Arrays of the user's as a feature store in the cache, so that one training serves both."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from headstart.cache import cache_folder, key_of
from headstart.data.common.arrays import strings
from headstart.data.common.errors import InputError, StoreError
from headstart.data.contracts.fingerprint import Fingerprint
from headstart.data.contracts.records import PartContent, begin, finish, write_part
from headstart.data.contracts.store import FeatureStore, StoreManifest
from headstart.data.storage.files import digest
from headstart.data.storage.local import LocalFolder
from headstart.data.workers.inputs import Example
from headstart.extract.part import Part

FROM = "arrays"  # the source of such a store


def array_store(X: Any, y: Any, groups: Any = None) -> FeatureStore:
    """A feature store of arrays, written once for the same contents.

    Parameters
    ----------
    X
        Numbers `[examples, dim]`.
    y
        Labels `[examples]`; None for none.
    groups
        Groups `[examples]`, if there are any.

    Raises
    ------
    InputError
        If the shapes do not fit, or a number is not finite.
    """
    embeddings = _numbers("X", X)
    labels = _names("y", y, len(embeddings))
    named = [None] * len(embeddings) if groups is None else _names("groups", groups, len(labels))
    key = key_of(digest(embeddings.data), labels, named)
    folder = LocalFolder(str(cache_folder("arrays", key)))
    try:
        return FeatureStore.open(folder.path())
    except StoreError:  # there is none, or it was not finished
        folder.remove_all("")
    count, dim = embeddings.shape
    ids = _ids(count)
    columns = (ids, ids, labels, [None] * count, named)
    names = ["id", "path", "label", "split", "group"]
    part = Part(pa.table([pa.array(each, pa.string()) for each in columns], names), dim)
    part.add([Example(row, "", digest(x.data)) for row, x in enumerate(embeddings)], embeddings)
    fingerprint = fingerprint_of_arrays(dim)
    begin(folder, fingerprint, FROM)
    content = PartContent(fingerprint, part.rows(), part.errors())
    record = write_part(folder, f"part-00000-{key[:12]}", content)
    classes = tuple(sorted({label for label in labels if label is not None}))
    finish(folder, StoreManifest(fingerprint, FROM, folder.root, classes, (record,)))
    return FeatureStore.open(folder.path())


def fingerprint_of_arrays(dim: int) -> Fingerprint:
    """What arrays are marked with: nobody knows what made them."""
    return Fingerprint("arrays", "0" * 64, f"rows of {dim} numbers", "fp32", dim)


def rows_of(X: Any, dim: int) -> pa.Table:
    """Embeddings `[examples, dim]` as rows to predict: `id`, `label`, `embedding`.

    Raises
    ------
    InputError
        If they have another width, or a number is not finite.
    """
    embeddings = _numbers("source", X)
    if embeddings.shape[1] != dim:
        raise InputError(
            f"source has rows of {embeddings.shape[1]} numbers; the model takes {dim}",
            "Give embeddings as it was trained on.",
        )
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(embeddings.ravel()), dim)
    columns = [strings(_ids(len(embeddings))), pa.nulls(len(embeddings), pa.string()), vectors]
    return pa.table(columns, ["id", "label", "embedding"])


def _ids(count: int) -> list[str]:
    return [f"{row:0{len(str(max(0, count - 1)))}}" for row in range(count)]


def _numbers(name: str, X: Any) -> np.ndarray:
    try:
        array = np.ascontiguousarray(X, np.float32)
    except (TypeError, ValueError) as error:
        raise InputError(f"{name} is not an array of numbers: {error}", "Give floats.") from None
    if array.ndim != 2 or not array.shape[1]:
        raise InputError(
            f"{name} has the shape {array.shape}", "Give an array [examples, dim] of numbers."
        )
    if not np.isfinite(array).all():
        raise InputError(f"{name} has NaN or infinite numbers", "Remove or replace these rows.")
    return array


def _names(name: str, values: Any, count: int) -> list[str | None]:
    array = np.asarray(values, object)
    if array.shape != (count,):
        raise InputError(
            f"{name} has the shape {array.shape}, and X has {count:,} rows",
            f"Give {name} as [examples].",
        )
    return [None if each is None or each != each else str(each) for each in array.tolist()]
