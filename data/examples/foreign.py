"""Converts text and tables of other programs to what the rest of the project expects."""

from __future__ import annotations

import codecs
from io import BytesIO

import pyarrow as pa
import pyarrow.parquet as pq

from headstart.data.common.arrays import in_memory
from headstart.data.common.errors import Checklist, SourceError

# Byte order marks (Unicode standard, 23.8); that of UTF-32 begins like that of UTF-16.
MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
LOOKED_AT = 4096  # bytes at the start of a text file that say how it is encoded
VIEWS = {pa.string_view(): pa.string(), pa.binary_view(): pa.binary()}


def encoding_of(head: bytes) -> str | None:
    """The encoding of a text file that is not plain UTF-8, by its first bytes; else None.

    UTF-16 has a byte order mark, or is recognized by its zeros: Latin letters, digits and
    separators have one in each pair of bytes, always in the same place.
    """
    for mark, encoding in MARKS:
        if head.startswith(mark):
            return "utf-8-sig" if encoding == "utf-8" else encoding
    start = head[:LOOKED_AT]
    first, second = start[::2].count(0), start[1::2].count(0)
    if len(start) > 3 and not min(first, second) and 4 * max(first, second) > len(start):
        return "utf-16-be" if first else "utf-16-le"
    return None


def as_utf8(path: object, content: bytes) -> bytes:
    """A text file's bytes in UTF-8, without a byte order mark.

    Raises
    ------
    SourceError
        If it is not valid, or in another encoding than Unicode's.
    """
    if encoding := encoding_of(content):
        try:
            return content.decode(encoding).encode()
        except UnicodeError as error:
            raise SourceError(
                f"{path} is not valid {encoding.removesuffix('-sig').upper()}: {error}",
                "Save it as UTF-8.",
            ) from None
    try:
        content.decode()
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise SourceError(
            f"{path} is not UTF-8 text: byte 0x{content[error.start]:02x} in line {line:,}",
            "Its encoding may be Windows-1252, as spreadsheets save it. Save it as UTF-8.",
        ) from None
    return content


def storable(path: object, table: pa.Table) -> pa.Table:
    """A table's columns as Parquet returns them, so that stored and new ones can be compared.

    Parquet has no seconds, for example: a time in seconds comes back in milliseconds.

    Raises
    ------
    SourceError
        For columns of types that cannot be stored, and text that is not UTF-8; all at once.
    """
    checks = Checklist()
    columns: dict[str, pa.ChunkedArray] = {}
    for name in table.column_names:
        with checks.item():
            columns[name] = _storable(path, name, table[name])
    checks.finish()
    return pa.table(columns) if columns else table


def plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """A column without dictionaries and views (Polars), of which Arrow cannot take rows."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        values = VIEWS.get(kind.value_type, kind.value_type)
        column = column.cast(pa.dictionary(kind.index_type, values)).cast(values)
    return column.cast(VIEWS[column.type]) if column.type in VIEWS else column


def _storable(path: object, name: str, column: pa.ChunkedArray) -> pa.ChunkedArray:
    try:
        if isinstance(column.type, pa.BaseExtensionType):
            column = pa.chunked_array(
                [each.storage for each in column.chunks], column.type.storage_type
            )
        column = plain(column)
        column.validate(full=True)  # text of other programs may not be UTF-8
        if _comes_back(column.type):
            return column
        sink = BytesIO()
        pq.write_table(pa.table({name: column}), sink)
        return pq.read_table(in_memory(sink.getvalue()))[name]
    except (pa.ArrowException, NotImplementedError) as error:
        raise SourceError(
            f"{path}: column {name!r} ({column.type}) cannot be stored: {error}",
            "Convert it to text or numbers, or leave it out.",
        ) from None


def _comes_back(type_: pa.DataType) -> bool:
    kinds = (pa.types.is_string, pa.types.is_boolean, pa.types.is_integer)
    return any(is_one(type_) for is_one in kinds) or type_ in (pa.float32(), pa.float64())
