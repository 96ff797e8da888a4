"""Which examples of a feature store failed, and why: as a table, and as a file."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from headstart.data.common.errors import InputError
from headstart.data.contracts.store import FeatureStore
from headstart.data.storage.files import check_output, local_path, write_whole

WRITERS = {".csv": pa.csv.write_csv, ".parquet": pq.write_table}


def read_failures(store: str | Path) -> pa.Table:
    """The failed examples: `id`, `stage`, `reason`, `message`, `stamp`, `path`.

    Raises
    ------
    StoreError
        If it is not a finished feature store.
    """
    return FeatureStore.open(store).read_errors()


def write_failures(failures: pa.Table, output: str | Path, overwrite: bool = False) -> Path:
    """Write them to a `.csv` or `.parquet` file; returns its path.

    Raises
    ------
    InputError
        If its suffix is not known, or it exists already.
    """
    path = local_path(output)
    if path.suffix.lower() not in WRITERS:
        raise InputError(
            f"errors cannot be written to {output}",
            f"Name a file that ends in {' or '.join(WRITERS)}.",
        )
    check_output(path, overwrite)
    sink = BytesIO()
    WRITERS[path.suffix.lower()](failures, sink)
    write_whole(path, sink.getvalue())
    return path
