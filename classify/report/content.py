"""What a report shows: plain arrays and facts, taken from the results of training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from headstart.classify.diagnosis.diagnose import Diagnosis
from headstart.classify.diagnosis.learning_curve import LearningCurve
from headstart.classify.heads.fitting import Fitted
from headstart.classify.heads.search import Trial
from headstart.classify.scores.metrics import HEADLINES, RepeatedScores, Scores
from headstart.classify.splits.held_out import Answers
from headstart.classify.splits.splitting import Labelled, Split
from headstart.data.common.intervals import Interval
from headstart.data.contracts.model import ModelCard
from headstart.data.modalities.known import MODALITIES
from headstart.data.modalities.modality import Modality
from headstart.data.storage.folder import Folder
from headstart.data.storage.places import folder_at

TRAINING, RIGHT, WRONG = "training", "right", "wrong"
POINTS = 1000  # on the map, at most, from each side of the split


@dataclass(frozen=True)
class Examples:
    """Examples: ids and paths, relative to `ReportContent.root`."""

    ids: Sequence[str]
    paths: Sequence[str]

    def at(self, row: int) -> tuple[str, str]:
        """Id and path of one example."""
        return self.ids[row], self.paths[row]


@dataclass(frozen=True)
class About:
    """What was trained, on which data, and with which software.

    Parameters
    ----------
    classes
        In the order of the head's outputs.
    head, parameters
        Name and parameters of the head.
    split
        How the examples were divided, as text.
    fingerprint
        Of the backbone that made the embeddings, as text.
    training, held_out
        Numbers of examples.
    features
        The feature store.
    versions
        Versions of the packages that trained the head.
    """

    classes: tuple[str, ...]
    head: str
    parameters: Mapping[str, Any]
    split: str
    fingerprint: str
    training: int
    held_out: int
    features: str
    versions: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class HeldOut:
    """The predictions for the held-out examples; there is at least one.

    Parameters
    ----------
    labels
        True classes, int64 `[examples]`.
    probabilities
        As the model returns them, float `[examples, classes]`.
    uncalibrated
        Before calibration, of the same shape; none if nothing was calibrated.
    threshold
        Confidence below which the answer is "unknown"; none for never.
    threshold_for
        What the threshold was chosen for, such as `a precision of 99 %`.
    groups
        Group of each example, `[examples]`; none if no example has one.
    """

    examples: Examples
    labels: np.ndarray
    probabilities: np.ndarray
    uncalibrated: np.ndarray | None = None
    threshold: float | None = None
    threshold_for: str = ""
    groups: np.ndarray | None = None


@dataclass(frozen=True)
class Repeated:
    """Scores over repeated splits: mean and 95 % interval of headlines of `Scores`, by name."""

    splits: int
    scores: Mapping[str, Interval]


@dataclass(frozen=True)
class Summary:
    """The scores of the held-out examples.

    Parameters
    ----------
    without_duplicates
        Accuracy on the held-out examples that are not near-duplicates of training examples.
    duplicates
        How many held-out examples that leaves out.
    """

    scores: Scores
    accuracy: Interval
    repeated: Repeated | None = None
    without_duplicates: Interval | None = None
    duplicates: int = 0


@dataclass(frozen=True)
class Suspects:
    """Probable label errors, the most suspicious first.

    Parameters
    ----------
    given, suggested
        Classes as indices, int `[suspects]`.
    score
        What they are sorted by, ascending, float `[suspects]`.
    how
        How they were found and what the score is, as a sentence.
    """

    examples: Examples
    given: np.ndarray
    suggested: np.ndarray
    score: np.ndarray
    how: str


@dataclass(frozen=True)
class NearDuplicates:
    """Pairs of similar examples, the most similar first.

    Parameters
    ----------
    similarity
        Cosine similarity of the embeddings, float `[pairs]`.
    how
        How they were found, as a sentence.
    labels
        The labels of both examples of each pair; empty if they are not known.
    """

    first: Examples
    second: Examples
    similarity: np.ndarray
    how: str
    labels: Sequence[tuple[str, str]] = ()


@dataclass(frozen=True)
class Sample:
    """Embeddings to draw as a map.

    Parameters
    ----------
    embeddings
        Float32 `[points, dim]`, finite.
    labels
        True classes, int64 `[points]`.
    marks
        `training`, or `right` or `wrong` for a held-out example, `[points]`.
    """

    embeddings: np.ndarray
    labels: np.ndarray
    marks: Sequence[str]


@dataclass(frozen=True)
class ReportContent:
    """All that a report shows; sections for what is none are left out.

    Parameters
    ----------
    root
        The folder that the examples' paths are relative to.
    trials
        What a search (`--head auto`) tried.
    modality
        Of the examples.
    """

    about: About
    held_out: HeldOut
    summary: Summary
    root: Folder
    trials: Sequence[Trial] = ()
    learning_curve: LearningCurve | None = None
    suspects: Suspects | None = None
    near_duplicates: NearDuplicates | None = None
    sample: Sample | None = None
    modality: Modality = MODALITIES["image"]


@dataclass(frozen=True)
class Results:
    """The results of training; rows are those of `data`."""

    data: Labelled
    split: Split
    fitted: Fitted
    answers: Answers
    scores: Scores
    repeated: RepeatedScores | None
    diagnosis: Diagnosis


def report_content(
    results: Results, card: ModelCard, sample: tuple[np.ndarray, np.ndarray], modality: Modality
) -> ReportContent:
    """What `report.html` shows.

    Parameters
    ----------
    sample
        The rows of `sample_rows`, and their embeddings float32 `[rows, dim]`.
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
        modality=modality,
    )


def sample_rows(split: Split, seed: int = 0) -> np.ndarray:
    """Rows of the data to draw on the map, from both sides of the split, int64."""
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
        answers.groups,
    )


def _suspects(results: Results) -> Suspects:
    """The examples that confident learning counts as label errors."""
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
    leaks, split, data = results.diagnosis.leaks, results.split, results.data
    if leaks is None:
        return None
    rows = split.test[leaks.test_rows], split.train[leaks.pairs.train]
    names = [[data.classes[label] for label in data.labels[some]] for some in rows]
    return NearDuplicates(
        _examples(data, rows[0]),
        _examples(data, rows[1]),
        leaks.pairs.similarity,
        leaks.pairs.how,
        list(zip(*names, strict=True)),
    )


def _sample(results: Results, rows: np.ndarray, embeddings: np.ndarray) -> Sample:
    right = results.answers.probabilities.argmax(axis=1) == results.answers.labels
    place = {row: number for number, row in enumerate(results.split.test.tolist())}
    marks = [
        (RIGHT if right[place[row]] else WRONG) if row in place else TRAINING
        for row in rows.tolist()
    ]
    return Sample(embeddings, results.data.labels[rows], marks)
