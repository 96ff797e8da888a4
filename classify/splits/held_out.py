"""The wall between training and testing.

Whatever chooses anything (parameters, heads, calibration, threshold) gets a `Training`, which holds
no test example. The test examples are in a `HeldOut`, which takes a finished `head.onnx` and gives
answers once: nothing can be chosen by them, since what answers is finished by then.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from headstart.classify.features.embeddings import Embeddings, InMemory
from headstart.classify.prediction.features import HeadSession
from headstart.classify.splits.splitting import Labelled, Split
from headstart.data.contracts.calibration import softmax
from headstart.data.contracts.model import LABEL, PROBABILITIES, SCORES


@dataclass(frozen=True)
class Training:
    """The examples to learn from.

    Parameters
    ----------
    classes
        Names, in the order of the labels.
    embeddings
        Float32 `[examples, dim]`.
    labels
        Int64 `[examples]`.
    groups
        Index of the group, `[examples]`; none if no example has one.
    """

    classes: tuple[str, ...]
    embeddings: np.ndarray
    labels: np.ndarray
    groups: np.ndarray | None = None

    def take(self, rows: np.ndarray) -> Training:
        """Some of the examples."""
        groups = None if self.groups is None else self.groups[rows]
        return Training(self.classes, self.embeddings[rows], self.labels[rows], groups)


@dataclass(frozen=True)
class Answers:
    """What a finished head answered for the held-out examples.

    Parameters
    ----------
    labels
        True classes, int64 `[examples]`.
    predictions
        Int64 `[examples]`, -1 for "unknown".
    probabilities
        Float32 `[examples, classes]`.
    uncalibrated
        Softmax of the scores before calibration, of the same shape.
    """

    labels: np.ndarray
    predictions: np.ndarray
    probabilities: np.ndarray
    uncalibrated: np.ndarray


class HeldOut:
    """The test examples, sealed until a head is finished."""

    def __init__(self, embeddings: Embeddings, rows: np.ndarray, labels: np.ndarray) -> None:
        self.__sealed: Embeddings | None = embeddings
        self.__rows, self.__labels = rows, labels

    def answers(self, head: bytes) -> Answers:
        """The answers of a finished head, an ONNX form that gives its scores as well.

        A second call is an error of the program.
        """
        if self.__sealed is None:
            raise RuntimeError("the test examples have answered: a second head would be a choice")
        embeddings, self.__sealed = self.__sealed, None
        session = HeadSession(head, (LABEL, PROBABILITIES, SCORES))
        parts = [session.run(batch) for batch in embeddings.batches(self.__rows)]
        predictions, probabilities, scores = map(np.concatenate, zip(*parts, strict=True))
        return Answers(self.__labels, predictions, probabilities, softmax(scores))


def divide(data: Labelled, embeddings: InMemory, split: Split) -> tuple[Training, HeldOut]:
    """The two sides of a split of `data`."""
    everything = Training(data.classes, embeddings.array, data.labels, data.groups)
    return everything.take(split.train), hold_out(data, embeddings, split)


def hold_out(data: Labelled, embeddings: Embeddings, split: Split) -> HeldOut:
    """The test side of a split of `data`."""
    return HeldOut(embeddings, split.test, data.labels[split.test])
