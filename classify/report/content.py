"""What a report shows: plain arrays and facts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from headstart.classify.diagnosis.learning_curve import LearningCurve
from headstart.classify.diagnosis.occlusion import Look
from headstart.classify.heads.search import Trial
from headstart.classify.scores.metrics import Scores
from headstart.data.common.intervals import Interval
from headstart.data.contracts.corrections import Correction
from headstart.data.modalities.known import MODALITIES
from headstart.data.modalities.modality import Modality
from headstart.data.storage.folder import Folder

TRAINING, RIGHT, WRONG = "training", "right", "wrong"


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
    data, date
        Name of the data set, and the day, as text.
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
    data: str = ""
    date: str = ""


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
    precision
        That precision, 0 to 1; none if the threshold was chosen for something else.
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
    precision: float | None = None


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
    examples
        Of the points; without them, a point says no more than its class.
    answers
        The predicted class, or -1, of each point, int64 `[points]`; -1 in training.
    suspects
        Whether its label is in doubt, bool `[points]`.
    places
        Returns the places of the points and the method, if they are being computed already.
    """

    embeddings: np.ndarray
    labels: np.ndarray
    marks: Sequence[str]
    examples: Examples | None = None
    answers: np.ndarray | None = None
    suspects: np.ndarray | None = None
    places: Callable[[], tuple[np.ndarray, str]] | None = None


@dataclass(frozen=True)
class Similar:
    """A training example that is similar to a mistake."""

    id: str
    path: str
    label: str
    similarity: float


@dataclass(frozen=True)
class Copy:
    """A file with the same bytes as others; `side` is the part of the split that it is in."""

    id: str
    path: str
    label: str
    side: str


@dataclass(frozen=True)
class Copies:
    """Sets of files with the same bytes, those with two labels first.

    Parameters
    ----------
    sets
        The first of them.
    total, two_labels
        How many there are, and how many with more than one label.
    """

    sets: Sequence[Sequence[Copy]]
    total: int
    two_labels: int


@dataclass(frozen=True)
class LabelNext:
    """Examples without a label, those that would teach most first.

    Parameters
    ----------
    best, second
        The most probable classes, as indices, int `[examples]`.
    margin
        The difference of their probabilities, float `[examples]`.
    of
        How many examples have no label.
    """

    examples: Examples
    best: np.ndarray
    second: np.ndarray
    margin: np.ndarray
    of: int


@dataclass(frozen=True)
class Failed:
    """Files that could not be embedded: id, reason and message of the first, and how many."""

    rows: Sequence[tuple[str, str, str]]
    total: int


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
    inside
        Near-duplicates within the training examples.
    similar
        By the index of a mistake among the held-out examples.
    looks
        By path: where the head looked.
    can_look
        Whether a backbone file would have shown that.
    corrections
        That the labels have already.
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
    inside: NearDuplicates | None = None
    copies: Copies | None = None
    similar: Mapping[int, Sequence[Similar]] = field(default_factory=dict)
    looks: Mapping[str, Look] = field(default_factory=dict)
    can_look: bool = False
    label_next: LabelNext | None = None
    failed: Failed | None = None
    corrections: Sequence[Correction] = ()
