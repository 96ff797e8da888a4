"""Logistic regression on more embeddings than fit in memory: scikit-learn's optimum, by passes.

The first pass takes mean and variance and a sample of the rows. The weights that are best for the
sample are where the passes over all rows start, so that they are few.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from scipy.optimize import OptimizeResult, minimize
from scipy.special import expit, log_softmax
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from classify.streaming import BATCH_BYTES, Batches, check_classes, check_finite
from data import console

Rows = tuple[np.ndarray, np.ndarray]  # scaled embeddings float32 [rows, dim], labels int64 [rows]

SAMPLE_BYTES = 256 * 2**20
HISTORY_BYTES = 512 * 2**20  # of L-BFGS: two vectors as long as the weights for each step back
HISTORY = 10  # steps back, as scikit-learn's


@dataclass(frozen=True)
class LogisticOptions:
    """The parameters that scikit-learn's `LogisticRegression` has as well.

    Parameters
    ----------
    c
        Inverse strength of the L2 regularization.
    balanced
        Weigh every example by the inverse of its class's share.
    tol
        Stop where no derivative of the mean loss is larger.
    max_iter
        Most steps of L-BFGS; a step is a pass over the rows, seldom two.
    """

    c: float = 0.01
    balanced: bool = False
    tol: float = 1e-4
    max_iter: int = 1000


def fit_logistic(
    batches: Batches,
    labels: np.ndarray,
    classes: tuple[str, ...],
    options: LogisticOptions = LogisticOptions(),
) -> Pipeline:
    """The head of `make_pipeline(StandardScaler(), LogisticRegression(C=c))`, by streaming.

    It minimizes the same function by the same algorithm, L-BFGS (Liu and Nocedal 1989), until the
    same rule stops it: mean log loss + ||w||^2 / (2 c rows), the intercept free. Products are taken
    in float32 and added up in float64.

    Parameters
    ----------
    labels
        Index of the class of every row of the store, int64 `[rows of the store]`; those of rows
        that are not chosen do not matter.

    Raises
    ------
    InputError
        If a class has no chosen row, or an embedding has a NaN or an infinite number.
    """
    counts = check_classes(batches, labels, classes)
    total = int(counts.sum())
    scaler, sample = _look(batches, labels, total)
    weights = total / (len(classes) * counts) if options.balanced else np.ones(len(classes))
    penalty = 1 / (options.c * total)
    passes = 0

    def stream() -> Iterator[Rows]:
        nonlocal passes
        passes += 1
        with console.progress(f"pass {passes} over the features", total) as advance:
            for rows, embeddings in batches:
                yield _scale(embeddings, scaler), labels[rows]
                advance(len(rows))

    outputs = 1 if len(classes) == 2 else len(classes)
    start = np.zeros(outputs * (batches.dim + 1))
    with console.status(f"training on a sample of {len(sample[0]):,}"):
        start = _minimize(_Objective(lambda: iter([sample]), weights, penalty), start, options).x
    whole = len(sample[0]) == total
    rows = (lambda: iter([sample])) if whole else stream
    found = _minimize(_Objective(rows, weights, penalty), start, options)
    if found.status == 1:
        console.note(
            f"the head did not converge in {options.max_iter} iterations; try a smaller --c"
        )
    return make_pipeline(scaler, _fitted(found, classes, batches.dim, options))


def _look(batches: Batches, labels: np.ndarray, total: int) -> tuple[StandardScaler, Rows]:
    """The scaler fitted to all rows, and a scaled random sample of them."""
    size = min(total, max(1, SAMPLE_BYTES // (4 * batches.dim)))
    chosen = np.zeros(len(labels), bool)
    candidates = np.flatnonzero(batches.chosen)
    chosen[np.random.default_rng(0).choice(candidates, size, replace=False)] = True
    scaler, sample, filled = StandardScaler(), np.empty((size, batches.dim), np.float32), 0
    with console.progress("measuring the features", total) as advance:
        for rows, embeddings in batches:
            check_finite(batches.store, embeddings)
            scaler.partial_fit(embeddings)  # Chan, Golub and LeVeque 1983
            taken = embeddings[chosen[rows]]
            sample[filled : filled + len(taken)] = taken
            filled += len(taken)
            advance(len(rows))
    for start in range(0, size, 4096):  # in place, without a copy of the whole
        sample[start : start + 4096] = _scale(sample[start : start + 4096], scaler)
    return scaler, (sample, labels[chosen])


def _scale(embeddings: np.ndarray, scaler: StandardScaler) -> np.ndarray:
    scaled = embeddings - scaler.mean_.astype(np.float32)
    scaled /= scaler.scale_.astype(np.float32)
    return scaled


@dataclass(frozen=True)
class _Objective:
    """Mean weighted log loss and L2 penalty of flat weights `[outputs * (dim + 1)]`, and gradient.

    Parameters
    ----------
    rows
        Gives all rows anew at each call, in pieces.
    weights
        Of the classes, `[classes]`.
    """

    rows: Callable[[], Iterator[Rows]]
    weights: np.ndarray
    penalty: float

    def __call__(self, flat: np.ndarray) -> tuple[float, np.ndarray]:
        outputs = 1 if len(self.weights) == 2 else len(self.weights)
        weights = flat.reshape(outputs, -1)
        coef, intercept = weights[:, :-1].astype(np.float32), weights[:, -1]
        loss, mass, gradient = 0.0, 0.0, np.zeros_like(weights)
        step = max(1, BATCH_BYTES // (8 * outputs))  # of so many rows the logits fit as well
        for embeddings, labels in self.rows():
            step = min(step, max(1, BATCH_BYTES // (4 * embeddings.shape[1])))
            for start in range(0, len(labels), step):
                piece, own = embeddings[start : start + step], labels[start : start + step]
                losses, errors = _errors(piece @ coef.T + intercept, own)
                importance = self.weights[own]
                loss += float(importance @ losses)
                mass += float(importance.sum())
                errors *= importance[:, None]
                gradient[:, :-1] += errors.astype(np.float32).T @ piece
                gradient[:, -1] += errors.sum(axis=0)
        gradient /= mass
        gradient[:, :-1] += self.penalty * weights[:, :-1]
        norm = float((weights[:, :-1] ** 2).sum())
        return loss / mass + 0.5 * self.penalty * norm, gradient.ravel()


def _errors(logits: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Log loss `[rows]`, and its derivative by the logits `[rows, outputs]`."""
    if logits.shape[1] == 1:
        positive = logits[:, 0]
        errors = expit(logits)
        errors[:, 0] -= labels
        return np.logaddexp(0, positive) - labels * positive, errors
    own = np.arange(len(labels)), labels
    logs = log_softmax(logits, axis=1)
    losses = -logs[own]
    errors = np.exp(logs, out=logs)
    errors[own] -= 1
    return losses, errors


def _minimize(objective: _Objective, start: np.ndarray, options: LogisticOptions) -> OptimizeResult:
    history = HISTORY_BYTES // (2 * start.nbytes)
    return minimize(
        objective,
        start,
        method="L-BFGS-B",
        jac=True,
        options={
            "maxiter": options.max_iter,
            "maxcor": min(HISTORY, max(2, history)),
            "maxls": 50,
            "gtol": options.tol,
            "ftol": 64 * np.finfo(float).eps,
        },
    )


def _fitted(
    found: OptimizeResult, classes: tuple[str, ...], dim: int, options: LogisticOptions
) -> LogisticRegression:
    logistic = LogisticRegression(
        C=options.c,
        tol=options.tol,
        max_iter=options.max_iter,
        class_weight="balanced" if options.balanced else None,
    )
    weights = found.x.reshape(-1, dim + 1)
    logistic.coef_, logistic.intercept_ = weights[:, :-1].copy(), weights[:, -1].copy()
    logistic.classes_, logistic.n_features_in_ = np.arange(len(classes)), dim
    logistic.n_iter_ = np.array([found.nit], np.int32)
    return logistic
