"""Train a head on the embeddings of a store, and write the model folder."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pyarrow as pa
import skops.io

from headstart.classify.diagnosis.diagnose import Diagnosis, diagnose
from headstart.classify.features.loading import Loaded, Streamed, load
from headstart.classify.heads import keras_head
from headstart.classify.heads.estimators import AUTO
from headstart.classify.heads.fitting import FitOptions, Fitted, fit, steps
from headstart.classify.heads.keras_head import KerasHead
from headstart.classify.prediction.answers import answers_in_words
from headstart.classify.prediction.features import HeadSession
from headstart.classify.scores.metrics import (
    RepeatedScores,
    Scores,
    reliability,
    score,
    score_wholes,
    summarize,
)
from headstart.classify.splits.held_out import Answers, divide, hold_out
from headstart.classify.splits.label_checks import copies_with_two_labels, label_warnings
from headstart.classify.splits.of_model import split_of
from headstart.classify.splits.splitting import (
    Labelled,
    Split,
    SplitOptions,
    choose_split,
    limit_samples,
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
from headstart.data.modalities.known import MODALITIES

COLUMNS = ("id", "path", "content", "label")
PACKAGES = ("headstart", "numpy", "onnx", "scikit-learn", "skl2onnx", "skops")


@dataclass(frozen=True)
class RunOptions:
    """What training does besides fitting the head.

    Parameters
    ----------
    overwrite
        Replace an existing model.
    report
        Write `report.html`; this includes computing the learning curve and near-duplicates.
    memory
        Bytes that embeddings may take in memory; larger stores are streamed in several passes. None
        for half of the machine's memory.
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

    Everything is chosen on the training split alone; the held-out split is scored once, with the
    finished head. Repeated splits are random splits of all labelled examples; the whole procedure,
    including a search, is repeated on each. They show how much the score depends on the split.
    Their calibration is fitted on one fold, which takes a third of the time, or on all folds if a
    threshold is wanted.

    Raises
    ------
    InputError
        If features, labels, splits or output cannot be used; found before training.
    ParityError
        If the head's ONNX form differs from the estimator.
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
    chosen = split_of(data, splits.split_of) if splits.split_of else choose_split(data, splits)
    split = limit_samples(data, chosen, splits)
    if not len(split.test):
        raise InputError(
            f"all {split.copies:,} test examples are copies of training examples",
            "Remove the copies from the source and extract again.",
        )
    repeats = [
        limit_samples(data, each, splits, number)
        for number, each in enumerate(stratified_splits(data, splits, splits.repeats), 1)
    ]
    warnings = label_warnings(data.classes, np.bincount(data.labels))
    for warning in [*warnings, *copies_with_two_labels(data)]:
        console.note(f"note: {warning}")
    quick = options if options.answers.wanted else replace(options, calibration_folds=1)
    total = steps(options, len(split.train)) + sum(steps(quick, len(e.train)) for e in repeats)
    with _progress(options, loaded, total) as advance:
        over_splits = [_fit_and_score(loaded, each, quick, advance)[2] for each in repeats]
        fitted, answers, scores = _fit_and_score(loaded, split, options, advance)
    repeated = None
    if over_splits:
        repeated = summarize(over_splits, len(repeats[0].test) / len(repeats[0].train))
    if not fitted.converged:
        console.note("the head did not converge; try stronger regularization, such as a smaller c")
    if fitted.refused:
        console.note(f"no threshold was written: {fitted.refused}")
    diagnosis = diagnose(loaded, split, fitted, answers, options.seed) if run.report else None
    card = _card(store, data, split, fitted, scores, repeated, diagnosis)
    report = None
    if diagnosis:
        # Imported here: matplotlib takes a second to import.
        from headstart.classify.report.content import Results, report_content, sample_rows
        from headstart.classify.report.page import render

        results = Results(
            data=data,
            split=split,
            fitted=fitted,
            answers=answers,
            scores=scores,
            repeated=repeated,
            diagnosis=diagnosis,
        )
        rows = sample_rows(split)
        sample = (rows, loaded.embeddings.take(rows))
        content = report_content(results, card, sample, MODALITIES[store.manifest.modality])
        report = render(content).encode()
    examples = _examples_table(loaded, split, answers, fitted.written.content)
    files = ModelFiles(fitted.written.content, *_saved(fitted), examples, report)
    model = write_model(folder, card, files)
    return Trained(
        model=model,
        split=split,
        scores=scores,
        repeated=repeated,
        fitted=fitted,
        diagnosis=diagnosis,
        unlabelled=loaded.unlabelled.num_rows,
    )


def _progress(
    options: FitOptions, loaded: Loaded, total: int
) -> AbstractContextManager[Callable[[int], None]]:
    """One progress bar for all training; a search and passes over a store show their own."""
    if options.head.name == AUTO or loaded.why_streamed:
        return nullcontext(lambda step: None)
    return console.progress("training", total)


def _fit_and_score(
    loaded: Loaded, split: Split, options: FitOptions, advance: Callable[[int], None]
) -> tuple[Fitted, Answers, Scores]:
    data, embeddings = loaded.data, loaded.embeddings
    if isinstance(embeddings, Streamed):
        held_out = hold_out(data, embeddings, split)
        fitted = fit_streamed(
            embeddings, split.train, data.labels, data.classes, options, data.groups
        )
    else:
        training, held_out = divide(data, embeddings, split)
        fitted = fit(training, options, advance)
    answers = held_out.answers(fitted.written.with_scores)
    threshold = fitted.answering.threshold
    scores = score(answers.labels, answers.probabilities, data.classes, threshold, answers.groups)
    before = reliability(answers.labels, answers.uncalibrated).expected_calibration_error
    ids = data.examples["id"].take(pa.array(split.test)).to_pylist()
    wholes = score_wholes(ids, answers.labels, answers.probabilities, answers.groups)
    return fitted, answers, replace(scores, uncalibrated_error=before, wholes=wholes)


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
        "threshold": asdict(fitted.threshold) if fitted.threshold else None,
        "threshold_refused": fitted.refused or None,
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
    """The trained estimator as a file: name and bytes."""
    estimator = fitted.answering.estimator
    if isinstance(estimator, KerasHead):
        return KERAS, keras_head.save(estimator)
    return SKOPS, skops.io.dumps(estimator)


def _examples_table(loaded: Loaded, split: Split, answers: Answers, head: bytes) -> pa.Table:
    """All examples with their split, and predictions for those held out or without a label.

    Returns
    -------
    pa.Table
        `id`, `path`, `content`, `label`, `split` (`train`, `test` or none), `prediction` (none for
        "unknown"), `confidence`, `probability` of the true class, and `group`.
    """
    data = loaded.data
    count = len(data.labels)
    splits, predictions = np.full(count, None, object), np.full(count, None, object)
    confidence, probability = np.full((2, count), np.nan, np.float32)
    splits[split.train], splits[split.test] = "train", "test"
    predictions[split.test], confidence[split.test] = answers_in_words(
        answers.predictions, answers.probabilities, data.classes
    )
    own = answers.probabilities[np.arange(len(answers.labels)), answers.labels]
    probability[split.test] = own
    labelled = _table(data.examples, splits, predictions, (confidence, probability))
    table = pa.concat_tables([labelled, _predict_unlabelled(loaded, head)])
    groups = [some[data.group].cast(pa.string()) for some in (data.examples, loaded.unlabelled)]
    return table.append_column(
        "group", pa.chunked_array([c for g in groups for c in g.chunks], pa.string())
    )


def _predict_unlabelled(loaded: Loaded, head: bytes) -> pa.Table:
    """The examples without a label, with their predictions."""
    examples, session = loaded.unlabelled, HeadSession(head)
    nothing = np.full(examples.num_rows, None, object)
    missing = np.full(examples.num_rows, np.nan, np.float32)
    names, confidence = [nothing[:0]], [missing[:0]]
    for batch in loaded.others.batches(np.arange(examples.num_rows)):
        labels, probabilities = session.run(batch)
        words, sure = answers_in_words(labels, probabilities, loaded.data.classes)
        names.append(words)
        confidence.append(sure)
    return _table(examples, nothing, np.concatenate(names), (np.concatenate(confidence), missing))


def _table(
    examples: pa.Table,
    splits: np.ndarray,
    predictions: np.ndarray,
    numbers: tuple[np.ndarray, np.ndarray],
) -> pa.Table:
    table = examples.select(COLUMNS)
    for name, values in (("split", splits), ("prediction", predictions)):
        table = table.append_column(name, pa.array(values, pa.string()))
    for name, values in zip(("confidence", "probability"), numbers, strict=True):
        table = table.append_column(name, pa.array(values, pa.float32(), from_pandas=True))
    return table
