"""Predictions for embeddings with onnxruntime alone, without scikit-learn or TensorFlow."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np
import pyarrow as pa

from headstart.classify.prediction.answers import (
    answers_table,
    check_predictions_file,
    write_answers,
)
from headstart.classify.prediction.wholes import Wholes, labels_of
from headstart.data.common.errors import Checklist, ModelError, StoreError
from headstart.data.common.onnx_runtime import open_session
from headstart.data.contracts.model import HEAD, INPUT, LABEL, PROBABILITIES, TRAIN_COMMAND, Model
from headstart.data.contracts.store import FeatureStore, embeddings_of, is_store
from headstart.data.examples.opening import FILES
from headstart.data.modalities.known import known_extensions
from headstart.data.storage.places import folder_at, folder_holding

ROWS = 4096  # embeddings in one call: a k-nearest-neighbours head holds distances to all its rows


class HeadSession:
    """`head.onnx`, loaded; raises `ModelError` if it cannot be loaded."""

    def __init__(self, content: bytes, outputs: Sequence[str] = (LABEL, PROBABILITIES)) -> None:
        try:
            self._session = open_session(content)
        except Exception as error:  # onnxruntime has no one class for files that it cannot load
            raise ModelError(f"{HEAD} cannot be loaded: {error}", TRAIN_COMMAND) from error
        self._outputs = list(outputs)

    def run(self, embeddings: np.ndarray) -> list[np.ndarray]:
        """The outputs for embeddings float32 `[n, dim]`, a few thousand at a time."""
        if not len(embeddings):  # not every operator of a converted head accepts no rows
            one = self.run(np.zeros((1, embeddings.shape[1]), np.float32))
            return [values[:0] for values in one]
        starts = range(0, len(embeddings), ROWS)
        pieces = (embeddings[start : start + ROWS] for start in starts)
        parts = [self._session.run(self._outputs, {INPUT: piece}) for piece in pieces]
        return [np.concatenate(values) for values in zip(*parts, strict=True)]


def run_head(content: bytes, embeddings: np.ndarray) -> list[np.ndarray]:
    """Run `head.onnx` on embeddings, float32 `[n, dim]`.

    Returns labels int64 `[n]` (-1 for "unknown") and probabilities float32 `[n, classes]`.
    """
    return HeadSession(content).run(embeddings)


def is_edge_model(model: str | Path) -> bool:
    """Whether a path names an edge model rather than a model folder."""
    if "://" in str(model) and not str(model).startswith("file://"):
        return str(model).lower().endswith(".onnx")
    folder, name = folder_holding(model)
    ends = name.lower().endswith(".onnx")
    return folder.is_file(name) or (ends and not folder.exists(name))


def open_pair(model: str | Path, features: str | Path) -> tuple[Model, FeatureStore]:
    """Open a model and the features to use it on.

    Raises
    ------
    InputError
        If either does not exist, they come from different backbones, or photographs were given
        instead of features.
    """
    checks = Checklist()
    with checks.item():
        opened = Model.open(model)
    with checks.item():
        store = _open_features(features)
    checks.finish()
    opened.require(
        store.fingerprint,
        f"the features {features}",
        f"Train on these features: python -m classify train {features} -o MODEL",
    )
    return opened, store


def _open_features(features: str | Path) -> FeatureStore:
    try:
        return FeatureStore.open(features)
    except StoreError:
        if not _holds_photographs(features):
            raise
    raise StoreError(
        f"{features} is a source of files; a model folder needs features",
        f"Extract them: python -m extract {features} --backbone backbone.onnx -o FEATURES\n"
        "  Or use the files with an edge model, which `python -m export classifier` writes.",
    )


def _holds_photographs(path: str | Path) -> bool:
    parent, name = folder_holding(path)
    if name and parent.is_file(name):
        return PurePosixPath(name).suffix.lower() in FILES
    folder = folder_at(path)
    if is_store(folder):
        return False
    wanted = known_extensions() | {".tar"}
    return any(PurePosixPath(name).suffix.lower() in wanted for name, _ in folder.files())


def predict(
    model: str | Path,
    features: str | Path,
    output: str | Path,
    overwrite: bool,
    spreadsheet_safe: bool = False,
) -> pa.Table:
    """Predict a class for every embedding of a store and write it to a `.parquet` or `.csv` file.

    Parts of an example are one row: the mean of their probabilities.

    Parameters
    ----------
    spreadsheet_safe
        As in `answers.write_answers`.

    Returns the table: `id`, `prediction` (none below the model's threshold), `confidence`,
    `probabilities` (a struct with a field for each class; in a CSV a JSON object), `label`.

    Raises
    ------
    InputError
        If model, features or output cannot be used, or model and features do not match.
    """
    checks = Checklist()
    with checks.item():
        path = check_predictions_file(output, overwrite, spreadsheet_safe)
    with checks.item():
        opened, store = open_pair(model, features)
    checks.finish()
    table = answer_store(opened, store)
    write_answers(path, table, spreadsheet_safe)
    return table


def answer_store(opened: Model, store: FeatureStore) -> pa.Table:
    """The predictions for every embedding of a store that belongs to the model: see `predict`."""
    return answer_rows(opened, store.read(["id", "label", "embedding"]))


def answer_rows(opened: Model, rows: pa.Table) -> pa.Table:
    """The predictions for rows with the columns `id`, `label` and `embedding`.

    Raises
    ------
    ModelError
        If the model's `head.onnx` is not its own.
    """
    classes = opened.card.classes
    labels, probabilities = run_head(opened.head, embeddings_of(rows))
    if probabilities.shape[1] != len(classes):
        raise ModelError(
            f"{opened.folder} has {len(classes)} classes, but its {HEAD} has "
            f"{probabilities.shape[1]}",
            TRAIN_COMMAND,
        )
    if wholes := Wholes.of(rows["id"].to_pylist()):
        probabilities = wholes.mean(probabilities)
        labels = labels_of(probabilities, opened.card.threshold)
        names = pa.array(wholes.ids, pa.string())
        rows = rows.select(["id", "label"]).take(pa.array(wholes.first)).set_column(0, "id", names)
    return answers_table(rows, labels, probabilities, classes)
