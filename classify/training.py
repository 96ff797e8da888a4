"""Train a head on the embeddings of a store, and write the model folder."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from io import BytesIO
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import skops.io

from headstart.classify.diagnosis.diagnose import Diagnosis, diagnose
from headstart.classify.diagnosis.label_next import Unlabelled, margin_of
from headstart.classify.diagnosis.mistakes import worst_mistakes
from headstart.classify.diagnosis.occlusion import MOST as LOOKED_AT
from headstart.classify.diagnosis.occlusion import backbone_for_looking, looks
from headstart.classify.features.loading import Loaded, Streamed, load
from headstart.classify.heads import keras_head
from headstart.classify.heads.estimators import AUTO
from headstart.classify.heads.fitting import FitOptions, Fitted, fit, steps
from headstart.classify.heads.keras_head import KerasHead
from headstart.classify.prediction.answers import answers_in_words, in_class_names
from headstart.classify.prediction.features import HeadSession
from headstart.classify.report.projection import sample_rows, start_projecting
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
from headstart.data.contracts.corrections import ACTION, CHANGE_TO, in_words, to_csv
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
from headstart.data.storage.places import folder_at

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
    corrections
        A CSV file of corrected labels, see `headstart.data.contracts.corrections`.
    backbone
        The backbone file that made the features of photographs, to show in the report where the
        head looked; this takes up to half a minute.
    """

    overwrite: bool = False
    report: bool = True
    memory: int | None = None
    corrections: str | Path | None = None
    backbone: str | Path | None = None

    def __post_init__(self) -> None:
        if self.memory is not None and self.memory <= 0:
            raise InputError(
                f"--memory {self.memory / 1e9:g} is not possible", "Give gigabytes above 0."
            )
        if self.backbone is not None and not self.report:
            raise InputError(
                "--backbone is for the report, and --no-report leaves it out",
                "Give one of the two.",
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
    backbone = backbone_for_looking(run.backbone, store.fingerprint) if run.backbone else None
    loaded = load(store, splits.group, run.memory, run.corrections)
    data = loaded.data
    if loaded.corrected:
        console.note(f"corrections: {in_words(loaded.corrected)}")
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
    if run.report:
        rows = sample_rows(split)
        sample = rows, loaded.embeddings.take(rows)
        places = start_projecting(sample[1])
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
    unlabelled = _predict_unlabelled(loaded, fitted.written.content)
    diagnosis = None
    if run.report:
        diagnosis = diagnose(loaded, split, fitted, answers, unlabelled, options.seed)
    card = _card(store, data, split, fitted, scores, repeated, diagnosis)
    if loaded.corrected:
        counts = {"changed": loaded.corrected.changed, "removed": loaded.corrected.removed}
        card = replace(card, corrections=counts)
    report = suspects = None
    if diagnosis:
        # Imported here: matplotlib takes a second to import.
        from headstart.classify.report.gathering import Results, report_content
        from headstart.classify.report.page import render

        seen = {}
        if backbone:
            worst = worst_mistakes(answers.labels, answers.probabilities)
            paths = data.examples["path"].take(pa.array(split.test[worst[:LOOKED_AT]])).to_pylist()
            root = folder_at(store.manifest.root)
            seen = looks(backbone, fitted.written.content, root, paths)
        results = Results(
            loaded=loaded,
            split=split,
            fitted=fitted,
            answers=answers,
            scores=scores,
            repeated=repeated,
            diagnosis=diagnosis,
            looks=seen,
            precision=options.answers.precision,
            places=places,
        )
        report = render(report_content(results, card, sample, store)).encode()
        suspects = suspects_csv(data, split, diagnosis)
    examples = _examples_table(loaded, split, answers, unlabelled)
    files = ModelFiles(
        fitted.written.content,
        *_saved(fitted),
        examples=examples,
        report=report,
        suspects=suspects,
        corrections=to_csv(loaded.corrections) if loaded.corrections else None,
    )
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


def suspects_csv(data: Labelled, split: Split, diagnosis: Diagnosis) -> bytes:
    """All probable label errors, the most suspicious first, as a CSV file.

    Its columns are `id`, `path`, `label`, `suggestion`, `score`, and, for a person to fill in,
    `action` and `change_to`: then it is a file of corrections.
    """
    found = diagnosis.suspects
    wrong = found.is_error
    rows = split.train[diagnosis.suspect_rows]
    table = data.examples.select(["id", "path"]).take(pa.array(rows))
    names = np.array(data.classes, object)
    for name, values in (
        ("label", pa.array(names[found.given[wrong]], pa.string())),
        ("suggestion", pa.array(names[found.suggested[wrong]], pa.string())),
        ("score", pa.array(found.score[wrong].round(4))),
        (ACTION, pa.repeat("", len(rows))),
        (CHANGE_TO, pa.repeat("", len(rows))),
    ):
        table = table.append_column(name, values)
    sink = BytesIO()
    pyarrow.csv.write_csv(table, sink)
    return sink.getvalue()


def _examples_table(
    loaded: Loaded, split: Split, answers: Answers, unlabelled: Unlabelled
) -> pa.Table:
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
    others = loaded.unlabelled
    nothing = np.full(others.num_rows, None, object)
    missing = np.full(others.num_rows, np.nan, np.float32)
    names = in_class_names(unlabelled.labels, data.classes)
    predicted = _table(others, nothing, names, (unlabelled.confidence, missing))
    table = pa.concat_tables([labelled, predicted])
    groups = [some[data.group].cast(pa.string()) for some in (data.examples, loaded.unlabelled)]
    return table.append_column(
        "group", pa.chunked_array([c for g in groups for c in g.chunks], pa.string())
    )


def _predict_unlabelled(loaded: Loaded, head: bytes) -> Unlabelled:
    """The answers for the examples without a label, in batches."""
    session = HeadSession(head)
    labels, sure, margins = [np.zeros(0, np.int64)], [], []
    for batch in loaded.others.batches(np.arange(loaded.unlabelled.num_rows)):
        found, probabilities = session.run(batch)
        labels.append(found)
        sure.append(probabilities.max(axis=1, initial=0))
        margins.append(margin_of(probabilities))
    none = np.zeros(0, np.float32)
    return Unlabelled(
        np.concatenate(labels),
        np.concatenate([none, *sure]),
        np.concatenate([none, *margins]),
        lambda embeddings: session.run(embeddings)[1],
    )


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
