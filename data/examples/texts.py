"""Tables with a column of text: CSV, TSV, JSON lines, Parquet."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from headstart.data.common import console
from headstart.data.common.errors import Checklist, SourceError
from headstart.data.examples.foreign import storable
from headstart.data.examples.parquet import holds_examples, named_labels
from headstart.data.examples.source import (
    COLUMNS,
    NoExamplesError,
    Source,
    check_columns,
    check_names,
    no_column,
    split_of,
    text_column,
    usual_names,
)
from headstart.data.examples.tables import JSON_LINES, column_names, columns_without, suffix_of
from headstart.data.modalities.modality import Modality
from headstart.data.source_options import SourceOptions
from headstart.data.storage.folder import Folder

# Columns of text, by the names that data sets use.
FAMILIAR = ("text", "sentence", "document", "review", "content", "body", "message", "comment")


def means_texts(folder: Folder, name: str, column: str | None, modality: Modality | None) -> bool:
    """Whether a table holds texts, rather than being a manifest or holding other examples.

    Parameters
    ----------
    column
        Of the texts, if it is named.
    modality
        Of the examples, if it is known: one whose examples may be in tables.
    """
    if column is not None:
        return True
    untold = modality is None and suffix_of(name) == ".parquet"
    if untold and holds_examples(folder, name, None):
        return False
    try:
        names = column_names(folder, name)
    except SourceError:  # whoever reads it whole says what is wrong
        return modality is not None
    familiar = any(names.get(each) for each in FAMILIAR)
    if "path" in names:
        return suffix_of(name) in JSON_LINES
    return modality is not None or familiar or suffix_of(name) in JSON_LINES


def open_texts(
    path: object, folder: Folder, names: list[str], options: SourceOptions, modality: Modality
) -> Source:
    """List the texts of some tables; the texts themselves are read by workers.

    A text's id is its value in the column `id`, or its file and row; `label`, `split` and `group`
    are as in a manifest, the split otherwise by the file's name. A column `path` is kept as
    `original_path`.

    Parameters
    ----------
    path
        The file or the folder of files, as the user named it.
    names
        The files in `folder`.
    options
        The columns of text and labels; by default, that of text is a familiar one, or the only one
        that may be it.

    Raises
    ------
    SourceError
        If a file cannot be read or has no such column, or the files differ in columns.
    """
    checks = Checklist()
    tables: list[pa.Table] = []
    with console.progress("listing tables", len(names)) as advance:
        for name in names:
            with checks.item():
                tables.append(_examples(folder, name, options))
            advance(1)
    checks.finish()
    try:
        examples = pa.concat_tables(tables, promote_options="permissive")
    except pa.ArrowException as error:
        raise SourceError(
            f"the tables in {path} do not have the same columns: {error}",
            "Put files with the same columns into one folder.",
        ) from None
    if not examples.num_rows:
        raise NoExamplesError(f"{path} lists no examples", "Give it a row for each example.")
    columns = {name: examples[name] for name in COLUMNS}
    check_columns(path, columns)
    columns |= {name: examples[name] for name in examples.column_names if name not in COLUMNS}
    root = str(folder) if len(names) > 1 else folder.where(names[0])
    return Source(root, folder, pa.table(columns), {}, modality)


def _examples(folder: Folder, name: str, options: SourceOptions) -> pa.Table:
    where = folder.where(name)
    label_column = options.label_column or "label"
    chosen = _text_column(where, column_names(folder, name), options.text_column, label_column)
    table = columns_without(folder, name, chosen, (*COLUMNS, label_column))
    table = table.rename_columns(usual_names(where, table.column_names, options))
    others = [each for each in table.column_names if each]
    check_names(where, others)
    rows = pa.array(np.arange(table.num_rows)).cast(pa.string())
    label = text_column(where, table, "label")
    if suffix_of(name) == ".parquet":
        schema = folder.attempt(lambda: pq.read_schema(folder.open(name)))
        label = named_labels(schema, label, label_column)
    split = pa.chunked_array([pa.repeat(pa.scalar(split_of(name), pa.string()), table.num_rows)])
    columns = {
        "id": text_column(where, table, "id") if "id" in others else _joined(f"{name}#", rows),
        "path": _joined(f"{name}#{chosen}=", rows),
        "label": label,
        "split": text_column(where, table, "split") if "split" in others else split,
        "group": text_column(where, table, "group"),
    }
    for each in others:
        if each == "path":
            columns["original_path"] = table[each]
        elif each not in COLUMNS:
            columns[each] = table[each]
    return storable(where, pa.table(columns))


def _joined(prefix: str, rows: pa.Array) -> pa.ChunkedArray:
    return pa.chunked_array([pc.binary_join_element_wise(prefix, rows, "")])


def _text_column(where: str, names: dict[str, bool], column: str | None, label_column: str) -> str:
    if column is not None:
        if column in names:
            return column
        raise no_column(where, list(names), column, "--text-column")
    taken = (*COLUMNS, label_column)
    possible = [name for name, is_text in names.items() if is_text and name not in taken]
    found = [name for name in FAMILIAR if name in possible][:1] or possible
    if len(found) == 1:
        return found[0]
    what = f"several columns of text ({', '.join(found)})" if found else "no column of text"
    raise SourceError(
        f"{where} has {what}; its columns are {', '.join(names)}",
        "Say which one holds the texts: --text-column NAME",
    )
