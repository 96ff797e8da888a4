"""Train a head on the embeddings of a store, and write the model folder."""

from __future__ import annotations

import warnings
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import skops.io
from sklearn.exceptions import ConvergenceWarning

from classify.heads import HeadOptions, head_to_onnx, make_head
from classify.metrics import RepeatedScores, Scores, score, summarize
from classify.splits import (
    Labelled,
    Split,
    SplitOptions,
    choose_split,
    labelled,
    stratified_splits,
)
from data import console
from data.errors import Checklist, InputError
from data.model import Model, ModelCard, prepare_model_folder, write_model
from data.store import FeatureStore, embeddings_of

EXAMPLE_COLUMNS = ("id", "path", "content", "label")
PACKAGES = ("headstart", "numpy", "onnx", "scikit-learn", "skl2onnx", "skops")


@dataclass(frozen=True)
class Trained:
    """A trained model, its scores on the held-out examples, and over repeated splits."""

    model: Model
    split: Split
    scores: Scores
    repeated: RepeatedScores | None


def train(
    features: str | Path,
    output: str | Path,
    head: HeadOptions = HeadOptions(),
    splits: SplitOptions = SplitOptions(),
    overwrite: bool = False,
) -> Trained:
    """Train a head and write the model folder.

    The head is trained on the training split alone and scored on the held-out one. Repeated splits
    are random ones of all examples with a label; they tell how much the score hangs on the split.

    Raises
    ------
    InputError
        If features, labels, splits or output cannot be used; found before training.
    ParityError
        If the head's ONNX form answers otherwise than scikit-learn.
    """
    checks = Checklist()
    with checks.item():
        store = FeatureStore.open(features)
    with checks.item():
        folder = prepare_model_folder(output, overwrite)
    checks.finish()
    if not store.manifest.rows:
        raise InputError(
            f"{features} holds no embeddings: all {store.manifest.errors:,} examples failed",
            f"The reasons are in {features}/_errors.",
        )
    data = labelled(store.read())
    split = choose_split(data, splits)
    if not len(split.test):
        raise InputError(
            f"all {split.copies:,} test examples are copies of training examples",
            "Remove the copies from the source and extract again.",
        )
    embeddings = embeddings_of(data.examples)
    if not np.isfinite(embeddings).all():
        raise InputError(
            f"{features} holds embeddings with NaN or infinite numbers", "Extract them again."
        )
    repeats = list(stratified_splits(data, splits, splits.repeats)) if splits.repeats else []
    with console.progress("training", len(repeats) + 1) as advance:
        repeated = []
        for part in repeats:
            repeated.append(_fit_and_score(head, data, embeddings, part)[1])
            advance(1)
        estimator, scores = _fit_and_score(head, data, embeddings, split)
        advance(1)
    over_splits = summarize(repeated) if repeated else None
    card = ModelCard(
        classes=data.classes,
        fingerprint=store.fingerprint,
        features=str(store.folder),
        root=store.manifest.root,
        head=asdict(head),
        split=split.how,
        metrics={
            "test": scores.to_json(),
            "repeats": over_splits.to_json() if over_splits else None,
        },
        versions={package: version(package) for package in PACKAGES},
    )
    model = write_model(
        folder,
        card,
        head_to_onnx(estimator, embeddings),
        skops.io.dumps(estimator),
        _recorded(data, split),
    )
    return Trained(model, split, scores, over_splits)


def _fit_and_score(
    options: HeadOptions, data: Labelled, embeddings: np.ndarray, split: Split
) -> tuple[Any, Scores]:
    head = make_head(options)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ConvergenceWarning)
        head.fit(embeddings[split.train], data.labels[split.train])
    if any(issubclass(entry.category, ConvergenceWarning) for entry in caught):
        console.note(
            f"the head did not converge in {options.max_iter} iterations; try a smaller --c"
        )
    probabilities = head.predict_proba(embeddings[split.test])
    return head, score(data.labels[split.test], probabilities, data.classes)


def _recorded(data: Labelled, split: Split) -> pa.Table:
    """The examples and the split that each was in, for the model folder."""
    names = np.full(len(data.labels), None, object)
    names[split.train], names[split.test] = "train", "test"
    table = data.examples.select(EXAMPLE_COLUMNS)
    return table.append_column("split", pa.array(names, pa.string()))
