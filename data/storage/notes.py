"""Files that stand in a folder of Parquet files, and that every reader of it passes over.

Spark, pandas and pyarrow leave out names that begin with `_`. Polars reads every file that is not
empty, and DuckDB every one that ends in `.parquet`, whatever its name and folder. So a note is a
Parquet file with the columns of the others and no rows; its content stands behind the first four
bytes, where no reader looks, and `headstart.note` in its metadata says how many bytes there are.
"""

from __future__ import annotations

from io import BytesIO

import pyarrow as pa
import pyarrow.parquet as pq

MAGIC = b"PAR1"  # how a Parquet file begins
KEY = "headstart.note"


def to_note(content: bytes | memoryview, columns: pa.Schema) -> bytes:
    """A Parquet file without rows that holds `content`.

    Parameters
    ----------
    columns
        Of the folder's other files: Polars and DuckDB want the same in all of them.
    """
    sink = BytesIO()
    pq.ParquetWriter(sink, columns.with_metadata({KEY: str(len(content))})).close()
    return b"".join((MAGIC, content, sink.getbuffer()[len(MAGIC) :]))


def from_note(file: bytes) -> bytes:
    """The content of a note; the file itself if it is none.

    Raises
    ------
    ValueError
        If it begins as a Parquet file, and is damaged.
    """
    if not file.startswith(MAGIC):
        return file
    written = (pq.read_metadata(pa.BufferReader(file)).metadata or {}).get(KEY.encode())
    if written is None:
        return file
    if not written.isdigit() or int(written) > len(file):
        raise ValueError(f"its {KEY} is {written[:20]!r}")
    return file[len(MAGIC) :][: int(written)]


def columns_of(file: bytes) -> pa.Schema:
    """The columns of a Parquet file, without metadata; raises `pa.ArrowException` if damaged."""
    return pq.read_schema(pa.BufferReader(file)).remove_metadata()
