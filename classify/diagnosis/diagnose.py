"""Diagnose the data by a finished head: leaks, label errors, and whether more labels would help."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from headstart.classify.diagnosis.copies import Copies, find_copies
from headstart.classify.diagnosis.label_next import LabelNext, Unlabelled, label_next
from headstart.classify.diagnosis.learning_curve import LearningCurve, learning_curve
from headstart.classify.diagnosis.mistakes import Neighbours, neighbours
from headstart.classify.diagnosis.near_duplicates import NearDuplicates, all_near_duplicates
from headstart.classify.diagnosis.suspects import Suspects, suspects
from headstart.classify.features.loading import InMemory, Loaded
from headstart.classify.heads.fitting import Fitted
from headstart.classify.heads.folds import MANY, fit_head
from headstart.classify.splits.held_out import Answers, Training
from headstart.classify.splits.label_checks import named
from headstart.classify.splits.splitting import Labelled, Split
from headstart.data.common.intervals import Interval, share

PRODUCTS = 1e11  # multiplications that a search for near-duplicates may take: a few seconds
SEED = 0


@dataclass(frozen=True)
class Leaks:
    """Test examples that are near-duplicates of training examples, and the accuracy without them.

    Parameters
    ----------
    compared
        Rows of the test examples that were compared, int64; a random sample if there are many.
    pairs
        The near-duplicates; their test rows are indices into `compared`.
    accuracy
        Of the compared examples without a near-duplicate; none if there are none.
    two_labels
        Of each pair, whether its two examples have different labels, bool `[pairs]`.
    example
        Such a pair, in words; empty if there is none.
    """

    compared: np.ndarray
    pairs: NearDuplicates
    accuracy: Interval | None
    two_labels: np.ndarray
    example: str = ""

    @property
    def test_rows(self) -> np.ndarray:
        """Rows of the test examples with a near-duplicate, the most similar first, int64."""
        return self.compared[self.pairs.test]


@dataclass(frozen=True)
class Diagnosis:
    """What was found after the head was finished.

    Parameters
    ----------
    leaks
        None if they were not searched for.
    suspects
        Of the training examples that were scored out of fold; their rows are indices into `rows`.
        Those whose label a person has seen to are no errors.
    rows
        Those training examples, int64.
    curve
        None if there are too few or too many examples.
    copies
        Files with the same bytes.
    inside
        Near-duplicates within the training examples, each pair once; both its sides are indices of
        training examples. None if they were not searched for.
    neighbours
        Of the worst mistakes; none if embeddings are not in memory.
    label_next
        None if every example has a label.
    """

    leaks: Leaks | None
    suspects: Suspects
    rows: np.ndarray
    curve: LearningCurve | None
    copies: Copies
    inside: NearDuplicates | None = None
    neighbours: Neighbours | None = None
    label_next: LabelNext | None = None

    @property
    def suspect_rows(self) -> np.ndarray:
        """The probable label errors, the most suspicious first: indices of training examples."""
        return self.rows[self.suspects.rows[self.suspects.is_error]]

    def to_json(self) -> dict[str, Any]:
        """A summary for `model.json`."""
        leaks, curve = self.leaks, self.curve
        return {
            "near_duplicates": None
            if leaks is None
            else {
                "looked_at": len(leaks.compared),
                "found": len(leaks.test_rows),
                "accuracy_without": asdict(leaks.accuracy) if leaks.accuracy else None,
                "two_labels": int(leaks.two_labels.sum()),
            },
            "suspects": int(self.suspects.is_error.sum()),
            "copies": {"sets": len(self.copies.rows), "two_labels": self.copies.two_labels},
            "learning_curve": curve.advice if curve else None,
            "learning_curve_points": list(
                zip(curve.labels_per_class.tolist(), curve.accuracy.tolist(), strict=True)
            )
            if curve
            else [],
        }


def diagnose(
    loaded: Loaded,
    split: Split,
    fitted: Fitted,
    answers: Answers,
    unlabelled: Unlabelled,
    seed: int,
) -> Diagnosis:
    """Diagnose the data by a finished head; not by neighbours if embeddings are not in memory.

    Parameters
    ----------
    unlabelled
        The head's answers for the examples without a label.
    """
    data, scored = loaded.data, fitted.out_of_fold
    labels = data.labels[split.train]
    found = suspects(labels[scored.rows], fitted.probabilities)
    if loaded.corrections:
        ids = data.examples["id"].take(pa.array(split.train[scored.rows[found.rows]]))
        seen = pc.is_in(ids, value_set=pa.array([each.id for each in loaded.corrections]))
        seen_to = seen.to_numpy(zero_copy_only=False)
        found = replace(found, is_error=found.is_error & ~seen_to)
    result = Diagnosis(
        leaks=None,
        suspects=found,
        rows=scored.rows,
        curve=None,
        copies=find_copies(data),
        label_next=label_next(unlabelled, loaded.others),
    )
    if not isinstance(loaded.embeddings, InMemory):
        return result
    embeddings = loaded.embeddings.take(split.train)
    groups = None if data.groups is None else data.groups[split.train]
    training = Training(data.classes, embeddings, labels, groups)
    test = loaded.embeddings.take(split.test)
    contents = data.examples["content"].combine_chunks().dictionary_encode().indices.to_numpy()
    tested, compared = _some(training, len(test)), _some(training, len(labels))
    searched = [(test[tested], None), (embeddings[compared], compared)]
    across, within = all_near_duplicates(embeddings, searched, labels)
    return replace(
        result,
        leaks=_leaks(tested, across, labels, answers, (data, split)),
        curve=_curve(training, fitted, seed),
        inside=_inside(compared, within, contents[split.train]),
        neighbours=neighbours(answers, embeddings, test),
    )


def _inside(compared: np.ndarray, pairs: NearDuplicates, contents: np.ndarray) -> NearDuplicates:
    """Near-duplicates within the training examples: each pair once, and no copies."""
    both = np.stack([compared[pairs.test], pairs.train])
    _, first = np.unique(np.sort(both, axis=0), axis=1, return_index=True)
    first = np.sort(first)
    first = first[contents[both[0, first]] != contents[both[1, first]]]
    return replace(
        pairs,
        test=both[0, first],
        train=both[1, first],
        similarity=pairs.similarity[first],
    )


def _some(training: Training, count: int) -> np.ndarray:
    """Rows that can be compared with training in reasonable time, ascending, int64."""
    most = max(1, int(PRODUCTS / training.embeddings.size))
    if count <= most:
        return np.arange(count)
    return np.sort(np.random.default_rng(SEED).permutation(count)[:most])


def _leaks(
    compared: np.ndarray,
    pairs: NearDuplicates,
    labels: np.ndarray,
    answers: Answers,
    source: tuple[Labelled, Split],
) -> Leaks:
    others = compared[~pairs.is_duplicate]
    right = answers.probabilities[others].argmax(axis=1) == answers.labels[others]
    groups = None if answers.groups is None else answers.groups[others]
    accuracy = share(right, groups) if len(others) else None
    two_labels = answers.labels[compared[pairs.test]] != labels[pairs.train]
    example = ""
    if two_labels.any():
        data, split = source
        pair = int(np.flatnonzero(two_labels)[0])
        rows = (split.test[compared[pairs.test[pair]]], split.train[pairs.train[pair]])
        example = " and ".join(named(data, int(row)) for row in rows)
    return Leaks(compared, pairs, accuracy, two_labels, example)


def _curve(training: Training, fitted: Fitted, seed: int) -> LearningCurve | None:
    if len(training.labels) > MANY:
        return None

    def fit_predict(rows: np.ndarray, others: np.ndarray) -> np.ndarray:
        estimator, _ = fit_head(fitted.head, training.take(rows), seed)
        return estimator.predict(training.embeddings[others])

    return learning_curve(training.labels, fit_predict, training.groups, seed)
