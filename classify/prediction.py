"""Classes for embeddings, by onnxruntime alone: no scikit-learn, no TensorFlow."""

from __future__ import annotations

import json
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from data.errors import Checklist, InputError, ModelError
from data.files import check_output, local_path, write_whole
from data.model import HEAD, INPUT, LABEL, PROBABILITIES, TRAIN_COMMAND, Model
from data.store import FeatureStore, embeddings_of

FORMATS = (".parquet", ".csv")
ROWS = 4096  # embeddings in one go: a head of neighbours holds distances to all of its own


class HeadSession:
    """`head.onnx`, loaded; raises `ModelError` if that is not possible."""

    def __init__(self, content: bytes, outputs: Sequence[str] = (LABEL, PROBABILITIES)) -> None:
        import onnxruntime

        try:
            self._session = onnxruntime.InferenceSession(
                content, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # onnxruntime has no one class for files that it cannot load
            raise ModelError(f"{HEAD} cannot be loaded: {error}", TRAIN_COMMAND) from error
        self._outputs = list(outputs)

    def run(self, embeddings: np.ndarray) -> list[np.ndarray]:
        """The outputs for embeddings float32 `[n, dim]`, a few thousand at a time."""
        starts = range(0, max(1, len(embeddings)), ROWS)
        pieces = (embeddings[start : start + ROWS] for start in starts)
        parts = [self._session.run(self._outputs, {INPUT: piece}) for piece in pieces]
        return [np.concatenate(values) for values in zip(*parts, strict=True)]


def run_head(content: bytes, embeddings: np.ndarray) -> list[np.ndarray]:
    """Run `head.onnx` on embeddings, float32 `[n, dim]`.

    Returns labels int64 `[n]` (-1 for "unknown") and probabilities float32 `[n, classes]`.
    """
    return HeadSession(content).run(embeddings)


def open_pair(model: str | Path, features: str | Path) -> tuple[Model, FeatureStore]:
    """Open a model and the features that it is to be used on.

    Raises
    ------
    InputError
        If either is not there, or they come from different backbones.
    """
    checks = Checklist()
    with checks.item():
        opened = Model.open(model)
    with checks.item():
        store = FeatureStore.open(features)
    checks.finish()
    opened.require(
        store.fingerprint,
        f"the features {features}",
        f"Train on these features: python -m classify train {features} -o MODEL",
    )
    return opened, store


def predict(
    model: str | Path, features: str | Path, output: str | Path, overwrite: bool
) -> pa.Table:
    """Predict a class for every embedding of a store and write it to a `.parquet` or `.csv` file.

    Returns the table: `id`, `prediction` (none below the model's threshold), `confidence`,
    `probabilities` (in the order of the model's classes; in a CSV a JSON object by class), `label`.

    Raises
    ------
    InputError
        If model, features and output do not fit.
    """
    path = local_path(output)
    checks = Checklist()
    with checks.item():
        if path.suffix.lower() not in FORMATS:
            raise InputError(
                f"predictions cannot be written to {output}",
                f"Name a file that ends in {' or '.join(FORMATS)}.",
            )
        check_output(path, overwrite)
    with checks.item():
        opened, store = open_pair(model, features)
    checks.finish()
    table = predictions(opened, store.read(["id", "label", "embedding"]))
    write_whole(
        path, _to_csv(table, opened) if path.suffix.lower() == ".csv" else _to_parquet(table)
    )
    return table


def predictions(model: Model, features: pa.Table) -> pa.Table:
    """The predictions table for rows of features."""
    classes = model.card.classes
    labels, probabilities = run_head(model.head, embeddings_of(features))
    names, confidence = answers_in_words(labels, probabilities, classes)
    flat = pa.array(probabilities.ravel())
    return pa.table(
        {
            "id": features["id"],
            "prediction": pa.array(names, pa.string()),
            "confidence": pa.array(confidence),
            "probabilities": pa.FixedSizeListArray.from_arrays(flat, len(classes)),
            "label": features["label"],
        }
    )


def answers_in_words(
    labels: np.ndarray, probabilities: np.ndarray, classes: tuple[str, ...]
) -> tuple[np.ndarray, np.ndarray]:
    """Names of the predicted classes, none for "unknown", and the confidence in them."""
    names = np.array(classes, object)[labels]
    names[labels < 0] = None
    return names, probabilities.max(axis=1, initial=0)


def _to_parquet(table: pa.Table) -> bytes:
    sink = BytesIO()
    pq.write_table(table, sink, compression="zstd")
    return sink.getvalue()


def _to_csv(table: pa.Table, model: Model) -> bytes:
    rows = table["probabilities"].to_pylist()
    texts = [
        json.dumps(
            {
                name: float(f"{value:.6g}")
                for name, value in zip(model.card.classes, row, strict=True)
            },
            ensure_ascii=False,
        )
        for row in rows
    ]
    position = table.column_names.index("probabilities")
    flat = table.set_column(position, "probabilities", pa.array(texts, pa.string()))
    sink = BytesIO()
    pa.csv.write_csv(flat, sink)
    return sink.getvalue()
