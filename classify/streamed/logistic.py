"""Logistic regression on more embeddings than fit in memory, with scikit-learn's optimum.

The first pass computes mean, variance, and the covariance of a sample of rows. The covariance gives
a preconditioner (Nocedal and Wright 2006, section 5.1): coordinates in which the loss is about as
steep in all directions. L-BFGS then needs about 15 passes instead of hundreds for correlated
features. The second pass writes the scaled rows into a temporary file, which the others read.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import IO

import numpy as np
from scipy import linalg
from scipy.optimize import OptimizeResult, minimize
from scipy.special import expit, log_softmax
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from headstart.classify.features.batches import (
    BATCH_BYTES,
    Batches,
    ahead,
    check_classes,
    check_finite,
)
from headstart.classify.streamed.moments import Moments, provisional_mean
from headstart.data.common import console

Rows = tuple[np.ndarray, np.ndarray]  # scaled embeddings float32 [rows, dim], labels int64 [rows]

SAMPLE = 20  # rows per dimension of an embedding, enough to estimate the covariance
HISTORY_BYTES = 512 * 2**20  # of L-BFGS: two vectors of the weights' size for each past step
HISTORY = 10  # past steps, as in scikit-learn
ROOM = 1.2  # times the size of the scaled rows that a disk has to have free


@dataclass(frozen=True)
class LogisticOptions:
    """The parameters, as in scikit-learn's `LogisticRegression`.

    Parameters
    ----------
    c
        Inverse strength of the L2 regularization.
    balanced
        Weight every example by the inverse of its class's share.
    tol
        Stop when no partial derivative of the mean loss is larger.
    max_iter
        Maximum number of L-BFGS steps; a step is one pass over the rows, rarely two.
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

    It minimizes the same function, mean log loss + ||w||^2 / (2 c rows) without a penalty on the
    intercept, by the same algorithm, L-BFGS (Liu and Nocedal 1989), with the same stopping rule.
    Products are computed in float32 and summed in float64.

    Parameters
    ----------
    labels
        Class index of every row of the store, int64 `[rows of the store]`; rows that are not chosen
        are ignored.

    Raises
    ------
    InputError
        If a class has no chosen row, or an embedding has a NaN or an infinite number.
    """
    counts = check_classes(batches, labels, classes)
    total = int(counts.sum())
    scaler, covariance = _first_pass(batches, total)
    spectrum = linalg.eigh(covariance)
    place = _disk()
    with tempfile.TemporaryFile(prefix="headstart-", dir=place) as file:
        room = shutil.disk_usage(place).free > ROOM * total * batches.dim * 4
        kept = _Kept(file, room)

        def stream() -> Iterator[Rows]:
            kept.passes += 1
            with console.progress(f"pass {kept.passes} over the features", total) as advance:
                for rows, scaled in kept.rows(batches, scaler):
                    yield scaled, labels[rows]
                    advance(len(rows))

        logistic, converged = solve(stream, counts, spectrum, options)
    if not converged:
        steps = int(logistic.n_iter_[0])
        console.note(f"the head did not converge in {steps} iterations; try a smaller c")
    return make_pipeline(scaler, logistic)


def _disk() -> str:
    """Where a large file may be: `/tmp` may be memory, `/var/tmp` is not."""
    if "TMPDIR" in os.environ or not os.access("/var/tmp", os.W_OK):  # noqa: S108 - unnamed files
        return tempfile.gettempdir()
    return "/var/tmp"  # noqa: S108 - as above


class _Kept:
    """Scaled rows, in a file after the first pass: a store takes several times as long to read.

    Parameters
    ----------
    file
        Empty, and open for reading and writing.
    room
        Whether the disk has room for them; otherwise every pass reads the store.
    """

    def __init__(self, file: IO[bytes], room: bool) -> None:
        self._file, self._room, self.passes = file, room, 0
        self._numbers: list[np.ndarray] = []

    def rows(
        self, batches: Batches, scaler: StandardScaler
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Row numbers of the store, and scaled embeddings float32 `[batch, dim]`."""
        self._file.seek(0)
        if self._numbers:
            yield from ahead(self._again(batches.dim))
            return
        numbers = []
        for rows, embeddings in batches:
            scaled = _scale(embeddings, scaler)
            if self._room:
                try:
                    self._file.write(scaled.data)
                except OSError:  # the disk is full after all
                    self._room = False
                numbers.append(rows)
            yield rows, scaled
        if self._room:
            self._numbers = numbers

    def _again(self, dim: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for rows in self._numbers:
            scaled = np.empty((len(rows), dim), np.float32)
            self._file.readinto(scaled.data)  # type: ignore[attr-defined]
            yield rows, scaled


def solve(
    stream: Callable[[], Iterator[Rows]],
    counts: np.ndarray,
    spectrum: tuple[np.ndarray, np.ndarray],
    options: LogisticOptions,
    start: LogisticRegression | None = None,
) -> tuple[LogisticRegression, bool]:
    """The optimum for scaled rows, and whether it was reached.

    Parameters
    ----------
    stream
        Iterates over all rows; called once per step, rarely twice.
    counts
        How many rows each class has, int64 `[classes]`, none of them 0.
    spectrum
        Eigenvalues and eigenvectors of the covariance of the scaled rows or a sample of them.
    start
        Where to start from; zero without it.
    """
    total, dim = int(counts.sum()), len(spectrum[0])
    weights = total / (len(counts) * counts) if options.balanced else np.ones(len(counts))
    penalty = 1 / (options.c * total)
    shares = counts * weights / total
    steepness = float((shares * (1 - shares)).mean())  # of the loss by a logit, at the start
    preconditioner = _Preconditioner.of(spectrum, steepness, penalty)
    first = np.zeros((1 if len(counts) == 2 else len(counts), dim + 1))
    if start is not None:
        first = preconditioner.point(np.column_stack([start.coef_, start.intercept_]))
    found = _minimize(_Objective(stream, weights, penalty), preconditioner, options, first)
    coefficients = preconditioner.weights(found.x.reshape(-1, dim + 1))
    logistic = LogisticRegression(
        C=options.c,
        tol=options.tol,
        max_iter=options.max_iter,
        class_weight="balanced" if options.balanced else None,
    )
    logistic.coef_, logistic.intercept_ = coefficients[:, :-1], coefficients[:, -1]
    logistic.classes_, logistic.n_features_in_ = np.arange(len(counts)), dim
    logistic.n_iter_ = np.array([found.nit], np.int32)
    return logistic, found.status not in (1, 2)  # out of steps, or no step reduces the loss


def _first_pass(batches: Batches, total: int) -> tuple[StandardScaler, np.ndarray]:
    """The scaler fitted to all rows, and the scaled covariance `[dim, dim]` of a sample of them."""
    size = min(total, SAMPLE * batches.dim)
    sample = np.zeros(len(batches.chosen), bool)
    candidates = np.flatnonzero(batches.chosen)
    sample[np.random.default_rng(0).choice(candidates, size, replace=False)] = True
    scaler, moments = StandardScaler(), Moments.zero(provisional_mean(batches), 1)
    with console.progress("measuring the features", total) as advance:
        for rows, embeddings in batches:
            check_finite(batches.store, embeddings)
            scaler.partial_fit(embeddings)  # Chan, Golub and LeVeque 1983
            taken = embeddings[sample[rows]]
            moments.add(taken, np.zeros(len(taken), np.int64))
            advance(len(rows))
    return scaler, moments.scaled(scaler)[1] / size


@dataclass(frozen=True)
class _Preconditioner:
    """Coordinates in which the loss is about as steep in all directions.

    Parameters
    ----------
    matrix, inverse
        Map coordinates to coefficients and back, symmetric `[dim, dim]`.
    intercept_scale
        Factor from the coordinate of an intercept to the intercept.
    """

    matrix: np.ndarray
    inverse: np.ndarray
    intercept_scale: float

    @classmethod
    def of(
        cls, spectrum: tuple[np.ndarray, np.ndarray], steepness: float, penalty: float
    ) -> _Preconditioner:
        """From the inverse square root of the Hessian at the start."""
        values, vectors = spectrum
        curvature = np.maximum(values, 0) * steepness + penalty
        roots = np.sqrt(curvature)
        matrix, inverse = (vectors / roots) @ vectors.T, (vectors * roots) @ vectors.T
        return cls(matrix, inverse, steepness**-0.5)

    def weights(self, point: np.ndarray) -> np.ndarray:
        """The weights at a point; or the gradient at a point, given the gradient by weights.

        All are `[outputs, dim + 1]`, intercepts last.
        """
        return np.column_stack([point[:, :-1] @ self.matrix, point[:, -1] * self.intercept_scale])

    def point(self, weights: np.ndarray) -> np.ndarray:
        """The point with these weights, of the same shape."""
        return np.column_stack(
            [weights[:, :-1] @ self.inverse, weights[:, -1] / self.intercept_scale]
        )


def _scale(embeddings: np.ndarray, scaler: StandardScaler) -> np.ndarray:
    scaled = embeddings - scaler.mean_.astype(np.float32)
    scaled /= scaler.scale_.astype(np.float32)
    return scaled


@dataclass(frozen=True)
class _Objective:
    """Mean weighted log loss and L2 penalty of weights `[outputs, dim + 1]`, and the gradient.

    Parameters
    ----------
    rows
        Iterates over all rows in batches; called once per evaluation.
    weights
        Class weights, `[classes]`.
    """

    rows: Callable[[], Iterator[Rows]]
    weights: np.ndarray
    penalty: float

    def __call__(self, weights: np.ndarray) -> tuple[float, np.ndarray]:
        coef, intercept = weights[:, :-1].astype(np.float32), weights[:, -1]
        loss, mass, gradient = 0.0, 0.0, np.zeros_like(weights)
        step = max(1, BATCH_BYTES // (8 * len(weights)))  # the logits of a piece fit too
        for embeddings, labels in self.rows():
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
        return loss / mass + 0.5 * self.penalty * norm, gradient


def _errors(logits: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Log loss `[rows]`, and its derivative with respect to the logits `[rows, outputs]`."""
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


def _minimize(
    objective: _Objective,
    preconditioner: _Preconditioner,
    options: LogisticOptions,
    start: np.ndarray,
) -> OptimizeResult:
    """L-BFGS in preconditioned coordinates, from a point; stops by the gradient of the weights."""
    outputs = len(start)
    steepest = np.inf

    def preconditioned(point: np.ndarray) -> tuple[float, np.ndarray]:
        nonlocal steepest
        loss, gradient = objective(preconditioner.weights(point.reshape(outputs, -1)))
        steepest = float(np.abs(gradient).max())
        return loss, preconditioner.weights(gradient).ravel()

    def stop_where_flat(intermediate_result: OptimizeResult) -> None:
        if steepest <= options.tol:
            raise StopIteration

    return minimize(
        preconditioned,
        start.ravel(),
        method="L-BFGS-B",
        jac=True,
        callback=stop_where_flat,
        options={
            "maxiter": options.max_iter,
            "maxcor": min(HISTORY, max(2, HISTORY_BYTES // (2 * start.nbytes))),
            "maxls": 50,
            "gtol": 0,
            "ftol": 64 * np.finfo(float).eps,
        },
    )
