"""Train a head on the embeddings of a store, and write the model folder."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import skops.io

from classify import keras_head
from classify.division import Answers, divide
from classify.fitting import FitOptions, Fitted, fit, steps
from classify.heads import AUTO
from classify.keras_head import KerasHead
from classify.metrics import RepeatedScores, Scores, score, summarize
from classify.prediction import answers_in_words, run_head
from classify.reliability import reliability
from classify.splits import (
    Labelled,
    Split,
    SplitOptions,
    choose_split,
    few,
    labelled,
    stratified_splits,
)
from data import console
from data.errors import Checklist, InputError
from data.model import KERAS, SKOPS, Model, ModelCard, ModelFiles, prepare_model_folder, write_model
from data.store import FeatureStore, embeddings_of

EXAMPLE_COLUMNS = ("id", "path", "content", "label")
PACKAGES = ("headstart", "numpy", "onnx", "scikit-learn", "skl2onnx", "skops")


@dataclass(frozen=True)
class Trained:
    """A trained model, its scores on the held-out examples, and over repeated splits.

    Parameters
    ----------
    unlabelled
        Number of examples without a label, which were predicted.
    """

    model: Model
    split: Split
    scores: Scores
    repeated: RepeatedScores | None
    fitted: Fitted
    unlabelled: int


def train(
    features: str | Path,
    output: str | Path,
    options: FitOptions = FitOptions(),
    splits: SplitOptions = SplitOptions(),
    overwrite: bool = False,
) -> Trained:
    """Train a head and write the model folder.

    Everything is chosen on the training split alone; the held-out one is scored once, by the
    finished head. Repeated splits are random ones of all examples with a label, on each of which
    the whole procedure is done anew, a search included; they tell how much the score hangs on the
    split.

    Raises
    ------
    InputError
        If features, labels, splits or output cannot be used; found before training.
    ParityError
        If the head's ONNX form answers otherwise than the estimator.
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
    table = store.read()
    data = labelled(table, splits.group)
    split = few(data, choose_split(data, splits), splits)
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
    repeats = [
        few(data, repeated, splits, repeat + 1)
        for repeat, repeated in enumerate(
            stratified_splits(data, splits, splits.repeats) if splits.repeats else ()
        )
    ]
    total = sum(steps(options, len(each.train)) for each in (*repeats, split))
    with _progress(options, total) as advance:
        over_splits = [
            _fit_and_score(data, embeddings, each, options, advance)[2] for each in repeats
        ]
        fitted, answers, scores = _fit_and_score(data, embeddings, split, options, advance)
    repeated = None
    if over_splits:
        repeated = summarize(over_splits, len(repeats[0].test) / len(repeats[0].train))
    if not fitted.converged:
        console.note(
            "the head did not converge; try a stronger regularization, such as a smaller c"
        )
    card = ModelCard(
        classes=data.classes,
        fingerprint=store.fingerprint,
        features=str(store.folder),
        root=store.manifest.root,
        head=fitted.head.to_json(),
        split=split.how,
        metrics={
            "test": scores.to_json(),
            "repeats": repeated.to_json() if repeated else None,
            "search": [trial.to_json() for trial in fitted.trials],
        },
        versions={package: version(package) for package in PACKAGES},
        threshold=fitted.answering.threshold,
        calibration=fitted.answering.calibration,
    )
    unlabelled = table.filter(pc.is_null(table["label"]))
    examples = pa.concat_tables(
        [_recorded(data, split, answers), _predicted(unlabelled, fitted, data.classes)]
    )
    files = ModelFiles(fitted.written.content, *_saved(fitted), examples)
    model = write_model(folder, card, files)
    return Trained(model, split, scores, repeated, fitted, unlabelled.num_rows)


def _progress(options: FitOptions, total: int) -> AbstractContextManager[Callable[[int], None]]:
    """One bar for all that is trained; a search shows its own."""
    if options.head.name == AUTO:
        return nullcontext(lambda step: None)
    return console.progress("training", total)


def _fit_and_score(
    data: Labelled,
    embeddings: np.ndarray,
    split: Split,
    options: FitOptions,
    advance: Callable[[int], None],
) -> tuple[Fitted, Answers, Scores]:
    training, held_out = divide(data, embeddings, split)
    fitted = fit(training, options, advance)
    answers = held_out.answers(fitted.written.with_scores)
    scores = score(answers.labels, answers.probabilities, data.classes, fitted.answering.threshold)
    before = reliability(answers.labels, answers.uncalibrated).expected_calibration_error
    return fitted, answers, replace(scores, uncalibrated_error=before)


def _saved(fitted: Fitted) -> tuple[str, bytes]:
    """The file of the trained estimator: its name and bytes."""
    estimator = fitted.answering.estimator
    if isinstance(estimator, KerasHead):
        return KERAS, keras_head.save(estimator)
    return SKOPS, skops.io.dumps(estimator)


def _recorded(data: Labelled, split: Split, answers: Answers) -> pa.Table:
    """The examples with a label, the split that each was in, and the answers for the tested."""
    names = np.full(len(data.labels), None, object)
    names[split.train], names[split.test] = "train", "test"
    predictions = np.full(len(data.labels), None, object)
    confidence = np.full(len(data.labels), np.nan, np.float32)
    predictions[split.test], confidence[split.test] = answers_in_words(
        answers.predictions, answers.probabilities, data.classes
    )
    return _examples(data.examples, names, predictions, confidence)


def _predicted(examples: pa.Table, fitted: Fitted, classes: tuple[str, ...]) -> pa.Table:
    """Examples without a label, and the answers for them."""
    labels, probabilities = run_head(fitted.written.content, embeddings_of(examples))
    names, confidence = answers_in_words(labels, probabilities, classes)
    return _examples(examples, np.full(len(names), None, object), names, confidence)


def _examples(
    examples: pa.Table, splits: np.ndarray, predictions: np.ndarray, confidence: np.ndarray
) -> pa.Table:
    table = examples.select(EXAMPLE_COLUMNS)
    return (
        table.append_column("split", pa.array(splits, pa.string()))
        .append_column("prediction", pa.array(predictions, pa.string()))
        .append_column("confidence", pa.array(confidence, pa.float32(), from_pandas=True))
    )
