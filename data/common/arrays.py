"""Arrow arrays of plain values, made without pandas.

`pyarrow.array`, and what calls it, imports pandas, if it is installed, to check whether its
argument is a pandas series: 0.2 s and 50 MB for each worker.
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


def empty(schema: pa.Schema) -> pa.Table:
    """A table without rows."""
    return pa.Table.from_batches([], schema)


def numbers(values: np.ndarray) -> pa.Array:
    """An array that shares the memory and type of a contiguous NumPy array `[values]`."""
    type_ = pa.from_numpy_dtype(values.dtype)
    return pa.Array.from_buffers(type_, len(values), [None, pa.py_buffer(values)])
