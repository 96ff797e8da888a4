"""From the results of training to the content of its report."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from headstart.classify.diagnosis.diagnose import Diagnosis
from headstart.classify.heads.fitting import Fitted
from headstart.classify.report.content import (
    RIGHT,
    TRAINING,
    WRONG,
    About,
    Examples,
    HeldOut,
    NearDuplicates,
    Repeated,
    ReportContent,
    Sample,
    Summary,
    Suspects,
)
from headstart.classify.report.page import render
from headstart.classify.scores.metrics import HEADLINES, RepeatedScores, Scores
from headstart.classify.splits.held_out import Answers
from headstart.classify.splits.splitting import Labelled, Split
from headstart.data.contracts.model import ModelCard
from headstart.data.storage.places import folder_at

POINTS = 1000  # of the map, at most, from each side of the split


@dataclass(frozen=True)
class Results:
    """All that training brought, in the rows of `data`."""

    data: Labelled
    split: Split
    fitted: Fitted
    answers: Answers
    scores: Scores
    repeated: RepeatedScores | None
    diagnosis: Diagnosis


def write_report(results: Results, card: ModelCard, sample: tuple[np.ndarray, np.ndarray]) -> bytes:
    """The bytes of `report.html`.

    Parameters
    ----------
    sample
        Of `sample_rows`: rows of the data, and their embeddings float32 `[rows, dim]`.
    """
    diagnosis, split, leaks = results.diagnosis, results.split, results.diagnosis.leaks
    repeated = results.repeated
    content = ReportContent(
        About(
            card.classes,
            results.fitted.head.name,
            results.fitted.head.all_parameters,
            split.how,
            str(card.fingerprint),
            len(split.train),
            len(split.test),
            card.features,
            card.versions,
        ),
        _held_out(results),
        Summary(
            results.scores,
            results.scores.accuracy_interval,
            Repeated(repeated.repeats, {name: repeated.intervals[name] for name in HEADLINES})
            if repeated
            else None,
            leaks.accuracy if leaks and len(leaks.test_rows) else None,
            len(leaks.test_rows) if leaks else 0,
        ),
        folder_at(card.root),
        results.fitted.trials,
        diagnosis.curve,
        _suspects(results),
        _near_duplicates(results),
        _sample(results, *sample),
    )
    return render(content).encode()


def sample_rows(split: Split, seed: int = 0) -> np.ndarray:
    """Rows of the data to draw on the map, of both sides of the split, int64."""
    random = np.random.default_rng(seed)
    return np.concatenate([random.permutation(side)[:POINTS] for side in (split.train, split.test)])


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
    )


def _suspects(results: Results) -> Suspects:
    """Those that confident learning counts as errors."""
    found, train = results.diagnosis.suspects, results.split.train
    wrong = found.is_error
    rows = train[results.diagnosis.rows[found.rows[wrong]]]
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
    return NearDuplicates(
        _examples(results.data, split.test[leaks.test_rows]),
        _examples(results.data, split.train[leaks.pairs.train]),
        leaks.pairs.similarity,
        leaks.pairs.how,
    )


def _sample(results: Results, rows: np.ndarray, embeddings: np.ndarray) -> Sample:
    right = results.answers.probabilities.argmax(axis=1) == results.answers.labels
    place = {row: number for number, row in enumerate(results.split.test.tolist())}
    marks = [
        (RIGHT if right[place[row]] else WRONG) if row in place else TRAINING
        for row in rows.tolist()
    ]
    return Sample(embeddings, results.data.labels[rows], marks)
