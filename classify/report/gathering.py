"""The results of training go in; what a report shows comes out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import PurePosixPath

import numpy as np

from headstart.classify.diagnosis.diagnose import Diagnosis
from headstart.classify.diagnosis.near_duplicates import NearDuplicates as Pairs
from headstart.classify.diagnosis.occlusion import Look
from headstart.classify.features.loading import Loaded
from headstart.classify.heads.fitting import Fitted
from headstart.classify.report.content import (
    RIGHT,
    TRAINING,
    WRONG,
    About,
    Copies,
    Copy,
    Examples,
    Failed,
    HeldOut,
    LabelNext,
    NearDuplicates,
    Repeated,
    ReportContent,
    Sample,
    Similar,
    Summary,
    Suspects,
)
from headstart.classify.scores.metrics import HEADLINES, RepeatedScores, Scores
from headstart.classify.splits.held_out import Answers
from headstart.classify.splits.splitting import Labelled, Split
from headstart.data.contracts.model import ModelCard
from headstart.data.contracts.store import FeatureStore
from headstart.data.modalities.known import MODALITIES
from headstart.data.storage.places import folder_at

MOST_SETS, MOST_FAILED = 100, 100  # sets of copies and failed files that are named


@dataclass(frozen=True)
class Results:
    """The results of training; rows are those of `loaded.data`.

    Parameters
    ----------
    looks
        By path: where the head looked.
    precision
        That a threshold was asked for.
    places
        Of the sample on the map, as in `Sample`.
    """

    loaded: Loaded
    split: Split
    fitted: Fitted
    answers: Answers
    scores: Scores
    repeated: RepeatedScores | None
    diagnosis: Diagnosis
    looks: Mapping[str, Look] = field(default_factory=dict)
    precision: float | None = None
    places: Callable[[], tuple[np.ndarray, str]] | None = None

    @property
    def data(self) -> Labelled:
        """The examples with a label."""
        return self.loaded.data


def report_content(
    results: Results,
    card: ModelCard,
    sample: tuple[np.ndarray, np.ndarray],
    store: FeatureStore,
) -> ReportContent:
    """What `report.html` shows.

    Parameters
    ----------
    sample
        The rows on the map, and their embeddings float32 `[rows, dim]`.
    store
        The features.
    """
    diagnosis, split, leaks = results.diagnosis, results.split, results.diagnosis.leaks
    repeated = results.repeated
    return ReportContent(
        about=About(
            classes=card.classes,
            head=results.fitted.head.name,
            parameters=results.fitted.head.all_parameters,
            split=split.how,
            fingerprint=str(card.fingerprint),
            training=len(split.train),
            held_out=len(split.test),
            features=card.features,
            versions=card.versions,
            data=PurePosixPath(store.manifest.source.rstrip("/")).name,
            date=f"{datetime.now():%d %B %Y}".lstrip("0"),
        ),
        held_out=_held_out(results),
        summary=Summary(
            results.scores,
            results.scores.accuracy_interval,
            Repeated(repeated.repeats, {name: repeated.intervals[name] for name in HEADLINES})
            if repeated
            else None,
            leaks.accuracy if leaks and len(leaks.test_rows) else None,
            len(leaks.test_rows) if leaks else 0,
        ),
        root=folder_at(card.root),
        trials=results.fitted.trials,
        learning_curve=diagnosis.curve,
        suspects=_suspects(results),
        near_duplicates=_near_duplicates(results),
        sample=_sample(results, *sample),
        modality=MODALITIES[store.manifest.modality],
        inside=_inside(results),
        copies=_copies(results),
        similar=_similar(results),
        looks=results.looks,
        can_look=not results.looks and store.manifest.modality == "image",
        label_next=_label_next(results),
        failed=_failed(store),
        corrections=results.loaded.corrections,
    )


def _examples(data: Labelled, rows: np.ndarray) -> Examples:
    table = data.examples.select(["id", "path"]).take(rows)
    return Examples(table["id"].to_pylist(), table["path"].to_pylist())


def _held_out(results: Results) -> HeldOut:
    answers, threshold = results.answers, results.fitted.threshold
    calibrated = results.fitted.answering.calibration.method != "none"
    return HeldOut(
        _examples(results.data, results.split.test),
        answers.labels,
        answers.probabilities,
        answers.uncalibrated if calibrated else None,
        threshold.value if threshold else None,
        threshold.chosen_for if threshold else "",
        answers.groups,
        results.precision if threshold else None,
    )


def _suspects(results: Results) -> Suspects:
    """The examples that confident learning counts as label errors."""
    found, train = results.diagnosis.suspects, results.split.train
    wrong = found.is_error
    rows = train[results.diagnosis.suspect_rows]
    return Suspects(
        _examples(results.data, rows),
        found.given[wrong],
        found.suggested[wrong],
        found.score[wrong],
        found.how,
    )


def _near_duplicates(results: Results) -> NearDuplicates | None:
    leaks, split = results.diagnosis.leaks, results.split
    if leaks is None:
        return None
    rows = split.test[leaks.test_rows], split.train[leaks.pairs.train]
    return _pairs(results.data, rows, leaks.pairs)


def _inside(results: Results) -> NearDuplicates | None:
    pairs, train = results.diagnosis.inside, results.split.train
    if pairs is None:
        return None
    return _pairs(results.data, (train[pairs.test], train[pairs.train]), pairs)


def _pairs(data: Labelled, rows: tuple[np.ndarray, np.ndarray], pairs: Pairs) -> NearDuplicates:
    names = [[data.classes[label] for label in data.labels[some]] for some in rows]
    first, second = (_examples(data, some) for some in rows)
    labels = list(zip(*names, strict=True))
    return NearDuplicates(first, second, pairs.similarity, pairs.how, labels)


def _copies(results: Results) -> Copies:
    found, data = results.diagnosis.copies, results.data
    sides = np.full(len(data.labels), "left out", object)
    sides[results.split.train], sides[results.split.test] = "training", "held out"

    def named(rows: np.ndarray) -> list[Copy]:
        examples = _examples(data, rows)
        return [
            Copy(*examples.at(at), data.classes[data.labels[row]], sides[row])
            for at, row in enumerate(rows.tolist())
        ]

    sets = [named(rows) for rows in found.rows[:MOST_SETS]]
    return Copies(sets, len(found.rows), found.two_labels)


def _similar(results: Results) -> dict[int, list[Similar]]:
    found, data = results.diagnosis.neighbours, results.data
    if found is None:
        return {}
    similar = {}
    for mistake, near, cosine in zip(found.test, found.train, found.similarity, strict=True):
        rows = results.split.train[near]
        examples = _examples(data, rows)
        similar[int(mistake)] = [
            Similar(*examples.at(at), data.classes[data.labels[row]], float(cosine[at]))
            for at, row in enumerate(rows.tolist())
        ]
    return similar


def _label_next(results: Results) -> LabelNext | None:
    found = results.diagnosis.label_next
    if found is None:
        return None
    table = results.loaded.unlabelled.select(["id", "path"]).take(found.rows)
    examples = Examples(table["id"].to_pylist(), table["path"].to_pylist())
    return LabelNext(examples, found.best, found.second, found.margin, found.of)


def _failed(store: FeatureStore) -> Failed | None:
    if not store.manifest.errors:
        return None
    table = store.read_errors().sort_by([("reason", "ascending"), ("id", "ascending")])
    rows = table.slice(0, MOST_FAILED).select(["id", "reason", "message"]).to_pylist()
    return Failed([(row["id"], row["reason"], row["message"] or "") for row in rows], len(table))


def _sample(results: Results, rows: np.ndarray, embeddings: np.ndarray) -> Sample:
    right = results.answers.probabilities.argmax(axis=1) == results.answers.labels
    place = {row: number for number, row in enumerate(results.split.test.tolist())}
    marks = [
        (RIGHT if right[place[row]] else WRONG) if row in place else TRAINING
        for row in rows.tolist()
    ]
    predicted = results.answers.probabilities.argmax(axis=1)
    answers = [predicted[place[row]] if row in place else -1 for row in rows.tolist()]
    suspects = results.split.train[results.diagnosis.suspect_rows]
    return Sample(
        embeddings,
        results.data.labels[rows],
        marks,
        _examples(results.data, rows),
        np.array(answers, np.int64),
        np.isin(rows, suspects),
        results.places,
    )
