"""The confusion matrix: which classes are predicted as which."""

from __future__ import annotations

import numpy as np

from headstart.classify.report.content import HeldOut
from headstart.classify.report.parts import (
    MOST_ON_A_PHONE,
    Cell,
    Matrix,
    Section,
    Table,
    count,
    percent,
)

MOST_CLASSES = 20  # up to which a matrix is readable
MOST_PAIRS = 30
DEEPEST = 0.7  # tint up to which the numbers are readable


def confusion(held_out: HeldOut, classes: tuple[str, ...]) -> Section:
    """The confusion matrix, or, of more than 20 classes, the pairs most often confused."""
    labels, predictions = held_out.labels, held_out.probabilities.argmax(axis=1)
    title = "Which classes are confused"
    tables, kinds = _pairs(labels, predictions, classes)
    if len(classes) <= MOST_CLASSES:
        return Section(
            name="confusion",
            title=title,
            text="Each row has the examples of one class, each column those of one prediction. "
            "Correct predictions are on the diagonal (blue); the stronger the orange, the larger "
            "the share of a class that is predicted as another.",
            matrix=_matrix(labels, predictions, classes),
            tables=tables if len(classes) > MOST_ON_A_PHONE else (),
        )
    if not tables:
        return Section(
            name="confusion",
            title=title,
            text="No held-out example was predicted as another class.",
        )
    return Section(
        name="confusion",
        title=title,
        text=f"The {len(tables[0].rows)} most frequent of {count(kinds, 'confusion')}; a matrix of "
        f"{len(classes):,} classes would not be readable.",
        tables=tables,
    )


def _pairs(
    labels: np.ndarray, predictions: np.ndarray, classes: tuple[str, ...]
) -> tuple[tuple[Table, ...], int]:
    """The most frequent confusions as a table, if there are any, and how many kinds there are."""
    wrong = labels != predictions
    keys, counts = np.unique(
        labels[wrong].astype(np.int64) * len(classes) + predictions[wrong], return_counts=True
    )
    if not len(keys):
        return (), 0
    support = np.bincount(labels, minlength=len(classes))
    rows = []
    for pair in np.argsort(-counts, kind="stable")[:MOST_PAIRS]:
        true, predicted = divmod(int(keys[pair]), len(classes))
        share = percent(counts[pair] / support[true])
        rows.append((classes[true], classes[predicted], f"{counts[pair]:,}", share))
    columns = ("true class", "predicted as", "examples", "share of class")
    few = len(classes) <= MOST_CLASSES
    return (Table(columns, tuple(rows), 2, instead=few),), len(keys)


def _matrix(labels: np.ndarray, predictions: np.ndarray, classes: tuple[str, ...]) -> Matrix:
    size = len(classes)
    counts = np.bincount(labels * size + predictions, minlength=size * size).reshape(size, size)
    shares = counts / np.maximum(1, counts.sum(axis=1, keepdims=True))
    # The square root makes a single mistake among hundreds visible.
    tints = DEEPEST * np.where(np.eye(size, dtype=bool), shares, np.sqrt(shares))
    return Matrix(
        classes,
        tuple(
            tuple(
                Cell(int(counts[row, column]), row == column, round(float(tints[row, column]), 2))
                for column in range(size)
            )
            for row in range(size)
        ),
    )
