"""A source with its labels corrected by a person, before it is compared with the store."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pyarrow as pa

from headstart.data.common import console
from headstart.data.contracts.corrections import (
    Corrections,
    correct,
    in_words,
    read_corrections,
)
from headstart.data.contracts.store import read_manifest
from headstart.data.examples.source import Source
from headstart.data.storage.folder import Folder


def corrections_of(store: Folder) -> Corrections:
    """Those that a store was made with."""
    manifest = read_manifest(store)
    return manifest.corrections if manifest else ()


def corrected(
    source: Source, earlier: Corrections, path: str | Path | None
) -> tuple[Source, Corrections]:
    """The source with the corrections of a file; without one, with the `earlier` ones of the store.

    Raises
    ------
    InputError
        If the file cannot be used.
    """
    ids = source.examples["id"]
    found = earlier
    if path is not None:
        found = read_corrections(path, ids, source.classes, earlier)
    if not found:
        return source, found
    result = correct(ids, source.examples["label"], found)
    console.note(f"corrections: {in_words(result)}")
    column = source.examples.schema.get_field_index("label")
    kept = pa.array(result.kept)
    examples = source.examples.set_column(column, "label", result.labels)
    return (
        replace(
            source,
            examples=examples.filter(kept),
            listed=None if source.listed is None else source.listed.filter(kept),
            removed=frozenset(ids.filter(pa.array(~result.kept)).to_pylist()),
        ),
        found,
    )
