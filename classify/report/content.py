"""What a report is made from: plain arrays and facts, whatever trained the head."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from headstart.classify.diagnosis.learning_curve import LearningCurve
from headstart.classify.heads.search import Trial
from headstart.classify.scores.metrics import Scores
from headstart.data.common.intervals import Interval
from headstart.data.storage.folder import Folder

TRAINING, RIGHT, WRONG = "training", "right", "wrong"


@dataclass(frozen=True)
class Examples:
    """Examples by id, and where their files are, relative to `ReportContent.root`."""

    ids: Sequence[str]
    paths: Sequence[str]


@dataclass(frozen=True)
class About:
    """What was trained, on what, and with what.

    Parameters
    ----------
    classes
        In the order of the head's outputs.
    head, parameters
        Name and parameters of the head.
    split
        How the examples were divided, in words.
    fingerprint
        Of the backbone that made the embeddings, in words.
    training, held_out
        Numbers of examples.
    features
        The feature store.
    versions
        Of the packages that trained the head.
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
    """The answers for the examples that training never saw; there is at least one.

    Parameters
    ----------
    labels
        True classes, int64 `[examples]`.
    probabilities
        As the model gives them, float `[examples, classes]`.
    uncalibrated
        Before calibration, of the same shape; none if nothing was calibrated.
    threshold
        Confidence below which the answer is "unknown"; none for never.
    threshold_for
        What the threshold was chosen for, in words, such as `a precision of 99 %`.
    """

    examples: Examples
    labels: np.ndarray
    probabilities: np.ndarray
    uncalibrated: np.ndarray | None = None
    threshold: float | None = None
    threshold_for: str = ""


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
        Accuracy on the held-out examples that are no near-duplicates of training examples.
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
        What they are in order of, float `[suspects]`.
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
    """Pairs of examples that look alike, the most similar first.

    Parameters
    ----------
    similarity
        Of the embeddings' directions (cosine), float `[pairs]`.
    how
        How they were found, as a sentence.
    """

    first: Examples
    second: Examples
    similarity: np.ndarray
    how: str


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
        `training`, or of a held-out example `right` or `wrong`, `[points]`.
    """

    embeddings: np.ndarray
    labels: np.ndarray
    marks: Sequence[str]


@dataclass(frozen=True)
class ReportContent:
    """All that a report shows; what is none is left out.

    Parameters
    ----------
    root
        The folder that the examples' paths are relative to.
    trials
        What the search for a head tried.
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
