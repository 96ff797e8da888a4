"""Train a head on the embeddings of a store, and write the model folder."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
import skops.io

from headstart.classify.diagnosis.diagnose import Diagnosis, diagnose
from headstart.classify.features.embeddings import Streamed
from headstart.classify.features.loading import Loaded, load
from headstart.classify.heads import keras_head
from headstart.classify.heads.estimators import AUTO
from headstart.classify.heads.fitting import FitOptions, Fitted, fit, steps
from headstart.classify.heads.keras_head import KerasHead
from headstart.classify.recording import recorded
from headstart.classify.scores.metrics import RepeatedScores, Scores, score, summarize
from headstart.classify.scores.reliability import reliability
from headstart.classify.splits.held_out import Answers, divide, hold_out
from headstart.classify.splits.label_checks import label_warnings
from headstart.classify.splits.splitting import (
    Labelled,
    Split,
    SplitOptions,
    choose_split,
    few,
    stratified_splits,
)
from headstart.classify.streamed.fitting import check_streamed, fit_streamed
from headstart.data.common import console
from headstart.data.common.errors import Checklist, InputError
from headstart.data.contracts.model import (
    KERAS,
    SKOPS,
    Model,
    ModelCard,
    ModelFiles,
    prepare_model_folder,
    write_model,
)
from headstart.data.contracts.store import FeatureStore

PACKAGES = ("headstart", "numpy", "onnx", "scikit-learn", "skl2onnx", "skops")


@dataclass(frozen=True)
class RunOptions:
    """What training does beside the head.

    Parameters
    ----------
    overwrite
        Replace a model that is there.
    report
        Write `report.html`, with the learning curve and near-duplicates that it shows.
    memory
        Bytes that embeddings may take before they are read from the store pass by pass; none for
        half of the machine's.
    """

    overwrite: bool = False
    report: bool = True
    memory: int | None = None

    def __post_init__(self) -> None:
        if self.memory is not None and self.memory <= 0:
            raise InputError(
                f"--memory {self.memory / 1e9:g} is not possible", "Give gigabytes above 0."
            )


@dataclass(frozen=True)
class Trained:
    """A trained model, its scores on the held-out examples, and over repeated splits.

    Parameters
    ----------
    diagnosis
        None without a report.
    unlabelled
        Number of examples without a label, which were predicted.
    """

    model: Model
    split: Split
    scores: Scores
    repeated: RepeatedScores | None
    fitted: Fitted
    diagnosis: Diagnosis | None
    unlabelled: int


def train(
    features: str | Path,
    output: str | Path,
    options: FitOptions = FitOptions(),
    splits: SplitOptions = SplitOptions(),
    run: RunOptions = RunOptions(),
) -> Trained:
    """Train a head and write the model folder.

    Everything is chosen on the training split alone; the held-out one is scored once, by the
    finished head. Repeated splits are random ones of all examples with a label, on each of which
    the whole procedure is done anew, a search included; they tell how much the score hangs on the
    split. Their calibration is chosen on one fold, which takes a third of the time, but by all
    folds if a threshold is wanted.

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
        folder = prepare_model_folder(output, run.overwrite)
    checks.finish()
    loaded = load(store, splits.group, run.memory)
    data = loaded.data
    if loaded.why_streamed:
        check_streamed(options, loaded.why_streamed)
        console.note(f"the embeddings stay in the store: {loaded.why_streamed}")
    split = few(data, choose_split(data, splits), splits)
    if not len(split.test):
        raise InputError(
            f"all {split.copies:,} test examples are copies of training examples",
            "Remove the copies from the source and extract again.",
        )
    repeats = [
        few(data, each, splits, number)
        for number, each in enumerate(stratified_splits(data, splits, splits.repeats), 1)
    ]
    for warning in label_warnings(data.classes, np.bincount(data.labels)):
        console.note(f"note: {warning}")
    brief = options if options.answers.wanted else replace(options, calibration_folds=1)
    total = steps(options, len(split.train)) + sum(steps(brief, len(e.train)) for e in repeats)
    with _progress(options, loaded, total) as advance:
        over_splits = [_fit_and_score(loaded, each, brief, advance)[2] for each in repeats]
        fitted, answers, scores = _fit_and_score(loaded, split, options, advance)
    repeated = None
    if over_splits:
        repeated = summarize(over_splits, len(repeats[0].test) / len(repeats[0].train))
    if not fitted.converged:
        console.note("the head did not converge; try a stronger regularization, as a smaller c")
    diagnosis = diagnose(loaded, split, fitted, answers, options.seed) if run.report else None
    card = _card(store, data, split, fitted, scores, repeated, diagnosis)
    report = None
    if diagnosis:
        # Not above: to draw takes a second to import.
        from headstart.classify.report.assembly import Results, sample_rows, write_report

        results = Results(data, split, fitted, answers, scores, repeated, diagnosis)
        rows = sample_rows(split)
        report = write_report(results, card, (rows, loaded.embeddings.take(rows)))
    examples = recorded(loaded, split, answers, fitted.written.content)
    files = ModelFiles(fitted.written.content, *_saved(fitted), examples, report)
    model = write_model(folder, card, files)
    return Trained(model, split, scores, repeated, fitted, diagnosis, loaded.unlabelled.num_rows)


def _progress(
    options: FitOptions, loaded: Loaded, total: int
) -> AbstractContextManager[Callable[[int], None]]:
    """One bar for all that is trained; a search, and passes over a store, show their own."""
    if options.head.name == AUTO or loaded.why_streamed:
        return nullcontext(lambda step: None)
    return console.progress("training", total)


def _fit_and_score(
    loaded: Loaded, split: Split, options: FitOptions, advance: Callable[[int], None]
) -> tuple[Fitted, Answers, Scores]:
    data, embeddings = loaded.data, loaded.embeddings
    if isinstance(embeddings, Streamed):
        held_out = hold_out(data, embeddings, split)
        fitted = fit_streamed(embeddings, split.train, data.labels, data.classes, options)
    else:
        training, held_out = divide(data, embeddings, split)
        fitted = fit(training, options, advance)
    answers = held_out.answers(fitted.written.with_scores)
    threshold = fitted.answering.threshold
    scores = score(answers.labels, answers.probabilities, data.classes, threshold)
    before = reliability(answers.labels, answers.uncalibrated).expected_calibration_error
    return fitted, answers, replace(scores, uncalibrated_error=before)


def _card(
    store: FeatureStore,
    data: Labelled,
    split: Split,
    fitted: Fitted,
    scores: Scores,
    repeated: RepeatedScores | None,
    diagnosis: Diagnosis | None,
) -> ModelCard:
    metrics = {
        "test": scores.to_json(),
        "repeats": repeated.to_json() if repeated else None,
        "search": [trial.to_json() for trial in fitted.trials],
    }
    if diagnosis:
        metrics["diagnosis"] = diagnosis.to_json()
    return ModelCard(
        classes=data.classes,
        fingerprint=store.fingerprint,
        features=str(store.folder),
        root=store.manifest.root,
        head=fitted.head.to_json(),
        split=split.how,
        metrics=metrics,
        versions={package: version(package) for package in PACKAGES},
        threshold=fitted.answering.threshold,
        calibration=fitted.answering.calibration,
    )


def _saved(fitted: Fitted) -> tuple[str, bytes]:
    """The file of the trained estimator: its name and bytes."""
    estimator = fitted.answering.estimator
    if isinstance(estimator, KerasHead):
        return KERAS, keras_head.save(estimator)
    return SKOPS, skops.io.dumps(estimator)
