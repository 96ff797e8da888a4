"""Keeps test examples out of everything that is chosen in training.

Whatever chooses anything (parameters, heads, calibration, threshold) gets a `Training`, which has
no test examples. The test examples are in a `HeldOut`, which runs one finished `head.onnx` on them,
and only once, so that no choice can depend on them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from headstart.classify.features.loading import Embeddings, InMemory
from headstart.classify.prediction.features import HeadSession
from headstart.classify.splits.splitting import Labelled, Split
from headstart.data.contracts.calibration import softmax
from headstart.data.contracts.model import LABEL, PROBABILITIES, SCORES


@dataclass(frozen=True)
class Training:
    """The training examples.

    Parameters
    ----------
    classes
        Class names, in the order of the labels.
    embeddings
        Float32 `[examples, dim]`.
    labels
        Int64 `[examples]`.
    groups
        Index of each example's group, int64 `[examples]`; none if no example has a group.
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
    """The predictions of a finished head for the held-out examples.

    Parameters
    ----------
    labels
        True classes, int64 `[examples]`.
    predictions
        Int64 `[examples]`, -1 for "unknown".
    probabilities
        Float32 `[examples, classes]`.
    uncalibrated
        Softmax of the scores before calibration, float32 `[examples, classes]`.
    groups
        Of the examples, `[examples]`; none if no example has a group.
    """

    labels: np.ndarray
    predictions: np.ndarray
    probabilities: np.ndarray
    uncalibrated: np.ndarray
    groups: np.ndarray | None = None


class HeldOut:
    """The test examples; they can be used once, by a finished head."""

    def __init__(
        self,
        embeddings: Embeddings,
        rows: np.ndarray,
        labels: np.ndarray,
        groups: np.ndarray | None = None,
    ) -> None:
        self.__sealed: Embeddings | None = embeddings
        self.__rows, self.__labels, self.__groups = rows, labels, groups

    def answers(self, head: bytes) -> Answers:
        """The predictions of a finished head.

        Parameters
        ----------
        head
            Its ONNX form with the additional output `scores`.

        Raises
        ------
        RuntimeError
            At a second call: comparing heads on the test examples would be model selection.
        """
        if self.__sealed is None:
            raise RuntimeError(
                "the test examples are used up: another head would be chosen by them"
            )
        embeddings, self.__sealed = self.__sealed, None
        session = HeadSession(head, (LABEL, PROBABILITIES, SCORES))
        parts = [session.run(batch) for batch in embeddings.batches(self.__rows)]
        predictions, probabilities, scores = map(np.concatenate, zip(*parts, strict=True))
        return Answers(self.__labels, predictions, probabilities, softmax(scores), self.__groups)


def divide(data: Labelled, embeddings: InMemory, split: Split) -> tuple[Training, HeldOut]:
    """The training and the test examples of a split of `data`."""
    everything = Training(data.classes, embeddings.array, data.labels, data.groups)
    return everything.take(split.train), hold_out(data, embeddings, split)


def hold_out(data: Labelled, embeddings: Embeddings, split: Split) -> HeldOut:
    """The test examples of a split of `data`."""
    groups = None if data.groups is None else data.groups[split.test]
    return HeldOut(embeddings, split.test, data.labels[split.test], groups)
