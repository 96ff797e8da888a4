"""The table of predictions, and the file that it is written to."""

from __future__ import annotations

import json
from io import BytesIO
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from headstart.data.common.errors import InputError
from headstart.data.storage.files import check_output, local_path, write_whole

FORMATS = (".parquet", ".csv")
# How formulas begin, also in the wide characters of East Asian input (OWASP, "CSV Injection").
_FORMULA = "^([=+\\-@\t\r\n\uff1d\uff0b\uff0d\uff20])"
PREDICTION, PROBABILITIES = "prediction", "probabilities"


def check_predictions_file(
    output: str | Path, overwrite: bool, spreadsheet_safe: bool = False
) -> Path:
    """Check the name of a predictions file to write; returns its local path.

    Raises
    ------
    InputError
        If its suffix is not supported, or something exists there already; if a file is to be safe
        for spreadsheets that is not a CSV.
    """
    path = local_path(output)
    if path.suffix.lower() not in FORMATS:
        raise InputError(
            f"predictions cannot be written to {output}",
            f"Name a file that ends in {' or '.join(FORMATS)}.",
        )
    if spreadsheet_safe and path.suffix.lower() != ".csv":
        raise InputError(
            f"--spreadsheet-safe has no effect on {output}", "Name a file that ends in .csv."
        )
    check_output(path, overwrite)
    return path


def answers_in_words(
    labels: np.ndarray, probabilities: np.ndarray, classes: tuple[str, ...]
) -> tuple[np.ndarray, np.ndarray]:
    """Names of the predicted classes, none for "unknown", and their confidence."""
    names = np.array(classes, object)[labels]
    names[labels < 0] = None
    return names, probabilities.max(axis=1, initial=0)


def answers_table(
    examples: pa.Table,
    labels: np.ndarray,
    probabilities: np.ndarray,
    classes: tuple[str, ...],
    failed: np.ndarray | None = None,
) -> pa.Table:
    """The predictions table.

    `probabilities` is a struct with a float32 field for each class, by its name, in the model's
    order: `pl.col("probabilities").struct.field("cat")`, `probabilities.cat` in SQL.

    Parameters
    ----------
    examples
        With the columns `id` and `label`.
    labels
        int64 `[n]`, -1 for "unknown".
    probabilities
        float32 `[n, classes]`.
    failed
        bool `[n]`: rows without an answer, whose prediction, confidence and probabilities are none.
    """
    names, confidence = answers_in_words(labels, probabilities, classes)
    if failed is not None:
        names[failed] = None
    mask = None if failed is None else pa.array(failed)
    each = [pa.array(column) for column in np.ascontiguousarray(probabilities.T)]
    return pa.table(
        {
            "id": examples["id"],
            PREDICTION: pa.array(names, pa.string()),
            "confidence": pa.array(confidence, mask=failed),
            PROBABILITIES: pa.StructArray.from_arrays(each, list(classes), mask=mask),
            "label": examples["label"],
        }
    )


def write_answers(path: Path, table: pa.Table, spreadsheet_safe: bool = False) -> None:
    """Write a predictions table at once; in a CSV, probabilities are a JSON object by class.

    Parameters
    ----------
    spreadsheet_safe
        Whether cells of a CSV that a spreadsheet would run as a formula get a `'` in front.
    """
    csv = path.suffix.lower() == ".csv"
    write_whole(path, _to_csv(table, spreadsheet_safe) if csv else _to_parquet(table))


def _to_parquet(table: pa.Table) -> bytes:
    sink = BytesIO()
    pq.write_table(table, sink, compression="zstd")
    return sink.getvalue()


def _to_csv(table: pa.Table, spreadsheet_safe: bool) -> bytes:
    texts = [_in_json(row) for row in table[PROBABILITIES].to_pylist()]
    position = table.column_names.index(PROBABILITIES)
    flat = table.set_column(position, PROBABILITIES, pa.array(texts, pa.string()))
    if spreadsheet_safe:
        columns = [
            pc.replace_substring_regex(each, _FORMULA, r"'\1")
            if pa.types.is_string(each.type) or pa.types.is_large_string(each.type)
            else each
            for each in flat.columns
        ]
        flat = pa.table(columns, names=flat.column_names)
    sink = BytesIO()
    pa.csv.write_csv(flat, sink)
    return sink.getvalue()


def _in_json(row: dict[str, float] | None) -> str | None:
    if row is None:
        return None
    values = {name: float(f"{value:.6g}") for name, value in row.items()}
    return json.dumps(values, ensure_ascii=False)
