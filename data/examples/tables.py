"""Tables of any format: the names of their columns, some columns, or one column row by row."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from headstart.data.common.arrays import strings
from headstart.data.common.errors import SourceError
from headstart.data.examples.foreign import LOOKED_AT, as_utf8, encoding_of
from headstart.data.storage.folder import Folder

SEPARATED = {".csv": ",", ".tsv": "\t"}
JSON_LINES = (".jsonl", ".ndjson")
TABLES = (*SEPARATED, *JSON_LINES, ".parquet")
ROWS_AT_ONCE = 16  # rows of a column of bytes that are decoded together: photographs are large
TEXTS_AT_ONCE = 1024
BLOCK = 1 << 24  # bytes of a CSV that are parsed together; no row may be longer
HEAD = 1 << 16  # bytes at the start of a CSV that say what separates its columns


def suffix_of(name: str) -> str:
    """The end of a file's name, in lower case, with the dot."""
    base = name.rpartition("/")[2]  # `PurePosixPath` takes a second for 100,000 names
    dot = base.rfind(".")
    return base[dot:].lower() if 0 < dot < len(base) - 1 else ""


def separator(name: str, head: bytes) -> str:
    """What separates the columns of a CSV or TSV file: comma, semicolon or tab, by its content.

    It divides the header into at least two columns, and most rows into as many. The usual one of
    the file's extension is tried first, and taken if none does.

    Parameters
    ----------
    head
        The first `HEAD` bytes of the file, in UTF-8.
    """
    usual = SEPARATED[suffix_of(name)]
    text = head.decode("utf-8", "replace")
    for each in dict.fromkeys((usual, ";", ",", "\t")):
        try:
            rows = [row for row in csv.reader(io.StringIO(text, newline=""), delimiter=each) if row]
        except csv.Error:
            continue
        if len(head) == HEAD:
            del rows[-1:]  # it may be cut
        width = len(rows[0]) if rows else 0
        if width > 1 and 2 * sum(len(row) == width for row in rows) > len(rows):
            return each
    return usual


def parse_options(name: str, head: bytes) -> pa.csv.ParseOptions:
    """How a CSV or TSV file is separated, see `separator`."""
    return pa.csv.ParseOptions(delimiter=separator(name, head[:HEAD]), newlines_in_values=True)


def convert_options(texts: Sequence[str], **others: Any) -> pa.csv.ConvertOptions:
    """Text stays text ("007" is not a number, "NA" may be a class); only an empty cell is null."""
    return pa.csv.ConvertOptions(
        column_types={name: pa.string() for name in texts},
        strings_can_be_null=True,
        null_values=[""],
        **others,
    )


def column_names(folder: Folder, name: str) -> dict[str, bool]:
    """The names of a table's columns, and whether one may hold texts.

    Raises
    ------
    SourceError
        If the file cannot be read.
    """
    suffix = suffix_of(name)
    try:
        if suffix == ".parquet":
            schema = folder.attempt(lambda: pq.read_schema(folder.open(name)))
            return {field.name: _is_text(field.type) for field in schema}
        if suffix in JSON_LINES:
            lines = folder.attempt(lambda: [tuple(each) for _, each in _json_lines(folder, name)])
            return dict.fromkeys((key for keys in lines for key in keys), True)
        reader = folder.attempt(lambda: _csv_reader(folder, name, None))
        return dict.fromkeys(reader.schema.names, True)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise SourceError(
            f"{folder.where(name)} cannot be read: {error}", "Write the file again."
        ) from None


def _is_text(type_: pa.DataType) -> bool:
    if pa.types.is_dictionary(type_):
        type_ = type_.value_type
    return pa.types.is_string(type_) or pa.types.is_large_string(type_) or type_ == pa.string_view()


def columns_without(folder: Folder, name: str, column: str, texts: Sequence[str]) -> pa.Table:
    """All columns of a table but one; without others, a column of nulls with an empty name.

    Parameters
    ----------
    texts
        Columns of a CSV that are text, whatever they look like.

    Raises
    ------
    SourceError
        If the file cannot be read.
    """
    suffix = suffix_of(name)
    try:
        if suffix == ".parquet":
            others = [each for each in column_names(folder, name) if each != column]
            if others:
                return folder.table(name, others)
            count = folder.attempt(lambda: pq.read_metadata(folder.open(name)).num_rows)
            return pa.table({"": pa.nulls(count)})
        if suffix in JSON_LINES:
            return _json_table(folder, name, (column,))
        content = as_utf8(folder.where(name), folder.attempt(lambda: folder.read(name)))
        table = pa.csv.read_csv(
            pa.BufferReader(content),
            pa.csv.ReadOptions(block_size=min(len(content) + 1, 1 << 30)),
            parse_options(name, content),
            convert_options([*texts, column]),
        )
        return table.drop_columns([column]) if table.num_columns > 1 else _nothing(table.num_rows)
    except (pa.ArrowException, OSError) as error:
        raise SourceError(
            f"{folder.where(name)} cannot be read: {error}", "Write the file again."
        ) from None


def _nothing(rows: int) -> pa.Table:
    return pa.table({"": pa.nulls(rows)})


def cells(folder: Folder, name: str, column: str, row: int) -> tuple[int, int, Iterator[Any]]:
    """A column's values from a row on or some before it: bytes, or none for an empty cell.

    Returns
    -------
    tuple
        The row that the first value is of, the first row that there is no value of, and the values.

    Raises
    ------
    pa.ArrowException
        If the file is damaged, or has fewer rows; also while it is read.
    """
    suffix = suffix_of(name)
    if suffix == ".parquet":
        return _parquet_cells(folder, name, column, row)
    rows = _json_cells(folder, name, column) if suffix in JSON_LINES else None
    return 0, 1 << 62, rows or _csv_cells(folder, name, column)


def _parquet_cells(
    folder: Folder, name: str, column: str, row: int
) -> tuple[int, int, Iterator[bytes | None]]:
    file = pq.ParquetFile(folder.open(name), pre_buffer=False)
    start = 0
    for group in range(file.num_row_groups):
        length = file.metadata.row_group(group).num_rows
        if row < start + length:
            return start, start + length, _values(file, group, column)
        start += length
    raise pa.ArrowInvalid(f"it has {start} rows")


def _values(file: pq.ParquetFile, group: int, column: str) -> Iterator[bytes | None]:
    text = _is_text(file.schema_arrow.field(column).type)
    at_once = TEXTS_AT_ONCE if text else ROWS_AT_ONCE
    for batch in file.iter_batches(at_once, [group], [column]):
        values = batch.column(0)
        if pa.types.is_struct(values.type):
            values = pc.struct_field(values, "bytes")
        if text:  # text of other programs may not be UTF-8, which Arrow does not check
            values = values.cast(pa.string()).cast(pa.binary())
        for value in values:
            found = value.as_py()
            yield b"" if text and found is None else found


def _csv_reader(folder: Folder, name: str, column: str | None) -> pa.csv.CSVStreamingReader:
    head = folder.open(name).read(HEAD)
    if encoding_of(head):
        content = as_utf8(folder.where(name), folder.read(name))
        file, head = pa.BufferReader(content), content
    else:
        file = folder.open(name)
    # Column types are found in the first block alone; without threads, nothing is read ahead.
    read = pa.csv.ReadOptions(use_threads=False, block_size=BLOCK)
    others: dict[str, Any] = {} if column is None else {"include_columns": [column]}
    convert = convert_options([column] if column else [], **others)
    if column:  # bytes that are not UTF-8 are one row's error
        convert.column_types = {column: pa.binary()}
    return pa.csv.open_csv(file, read, parse_options(name, head), convert)


def _csv_cells(folder: Folder, name: str, column: str) -> Iterator[bytes]:
    for batch in _csv_reader(folder, name, column):
        for value in batch.column(0):
            yield value.as_py() or b""


def _json_lines(folder: Folder, name: str) -> Iterator[tuple[int, Any]]:
    """The objects of a file and the numbers of their lines.

    Raises
    ------
    SourceError
        If a line is not a JSON object.
    """
    with folder.open(name) as file:
        head = file.read(LOOKED_AT)
    if encoding_of(head):
        lines: Any = io.BytesIO(as_utf8(folder.where(name), folder.read(name)))
    else:
        lines = io.BufferedReader(folder.open(name), BLOCK)
    with lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                value = json.loads(line.decode("utf-8", "surrogateescape"))
            except (ValueError, RecursionError) as error:
                value = error
            if not isinstance(value, dict):
                why = f": {value}" if isinstance(value, Exception) else ""
                raise SourceError(
                    f"{folder.where(name)}: line {number:,} is not a JSON object{why}",
                    "Write one object with the text and its label a line.",
                )
            yield number, value


def _json_table(folder: Folder, name: str, without: Sequence[str]) -> pa.Table:
    """The objects of a file as a table of text, null where one has no such key."""
    columns: dict[str, list[str | None]] = {}
    rows = 0
    for _, value in folder.attempt(lambda: list(_json_lines(folder, name))):
        for key in value.keys() - columns.keys() - set(without):
            columns[key] = [None] * rows
        for key, found in columns.items():
            found.append(_as_text(value.get(key)))
        rows += 1
    try:
        return pa.table({key: strings(found) for key, found in columns.items()} or _nothing(rows))
    except (UnicodeError, pa.ArrowException) as error:
        raise SourceError(
            f"{folder.where(name)} has labels or other columns that are not valid Unicode: {error}",
            "Write them in UTF-8, without lone surrogates.",
        ) from None


def _json_cells(folder: Folder, name: str, column: str) -> Iterator[bytes]:
    for _, value in _json_lines(folder, name):
        text = _as_text(value.get(column)) or ""
        # Bytes that were not UTF-8, and lone surrogates, become what cannot be decoded.
        yield text.encode("utf-8", "surrogatepass")


def _as_text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value or None
    return json.dumps(value, ensure_ascii=False)
