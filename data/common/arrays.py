"""Arrow arrays of plain values, made and read without pandas, and files that are in memory.

`pyarrow.array`, `to_numpy` and what calls them import pandas, if it is installed, to check whether
something is a pandas series: 0.2 s and 50 MB for each worker.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pyarrow as pa


def strings(values: Iterable[str | None]) -> pa.Array:
    """An array of strings, some of which may be missing."""
    builder = pa.lib.StringBuilder()
    builder.append_values(values)
    return builder.finish()


def in_memory(content: bytes) -> pa.BufferReader:
    """A copy of a file's bytes, for what reads Parquet with several threads.

    If Arrow's threads hold Python's own bytes for a moment longer than the process lives, it is
    aborted (https://github.com/apache/arrow/issues/34314).
    """
    copied = pa.allocate_buffer(len(content))
    memoryview(copied).cast("B")[:] = content
    return pa.BufferReader(copied)


def empty(schema: pa.Schema) -> pa.Table:
    """A table without rows."""
    return pa.Table.from_batches([], schema)


def numbers(values: np.ndarray, valid: np.ndarray | None = None) -> pa.Array:
    """An array that shares the memory and type of a contiguous NumPy array `[values]`.

    Parameters
    ----------
    valid
        Which are not null, bool `[values]`; by default, all.
    """
    type_ = pa.from_numpy_dtype(values.dtype)
    bits = None if valid is None else _bits(valid)
    return pa.Array.from_buffers(type_, len(values), [bits, pa.py_buffer(values)])


def flags(values: np.ndarray) -> pa.Array:
    """An array of booleans, such as a mask for `filter`, from NumPy's `[values]`."""
    return pa.Array.from_buffers(pa.bool_(), len(values), [None, _bits(values)])


def bools(column: pa.ChunkedArray) -> np.ndarray:
    """A column of booleans without nulls as NumPy's, bool `[values]`."""
    chunks = [np.from_dlpack(chunk) for chunk in column.cast(pa.uint8()).chunks]
    return np.concatenate(chunks).astype(bool) if chunks else np.zeros(0, bool)


def _bits(values: np.ndarray) -> pa.Buffer:
    return pa.py_buffer(np.packbits(values, bitorder="little"))
