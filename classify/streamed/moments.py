"""Ridge and linear discriminant analysis of more embeddings than fit in memory, in one pass.

Both need only the sums of each class and the products of all pairs of features, so these can be
computed separately for each part: in Ray tasks if Ray is running; otherwise in this process, where
the products use all cores while a thread reads ahead.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import linalg
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import RidgeClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import LabelBinarizer, StandardScaler

from headstart.classify.features.batches import Batches, check_classes, check_finite
from headstart.data.common import console
from headstart.data.common.errors import TrainingError
from headstart.data.workers.tasks import result_of


@dataclass
class Moments:
    """Sums over rows that both heads are computed from, in float64.

    Parameters
    ----------
    offset
        A value near the mean, `[dim]`, subtracted from every row: otherwise small variances would
        lose precision beside large means.
    counts
        Number of rows of each class, int64 `[classes]`.
    sums
        Sum of the rows of each class, `[classes, dim]`.
    products
        Sum of the outer products of the rows, `[dim, dim]`.
    """

    offset: np.ndarray
    counts: np.ndarray
    sums: np.ndarray
    products: np.ndarray

    @classmethod
    def zero(cls, offset: np.ndarray, classes: int) -> Moments:
        """The moments of no rows."""
        dim = len(offset)
        counts = np.zeros(classes, np.int64)
        return cls(offset, counts, np.zeros((classes, dim)), np.zeros((dim, dim)))

    def add(self, embeddings: np.ndarray, labels: np.ndarray) -> None:
        """Add rows: float32 `[rows, dim]` and int64 `[rows]`."""
        rows = embeddings - self.offset
        self.products += rows.T @ rows
        present, position = np.unique(labels, return_inverse=True)
        own = np.zeros((len(present), len(rows)))
        own[position, np.arange(len(rows))] = 1
        self.sums[present] += own @ rows
        self.counts += np.bincount(labels, minlength=len(self.counts))

    def merge(self, other: Moments) -> None:
        """Add the rows of other moments with the same offset."""
        self.counts += other.counts
        self.sums += other.sums
        self.products += other.products

    @property
    def rows(self) -> int:
        """Number of rows added."""
        return int(self.counts.sum())

    def scaler(self) -> StandardScaler:
        """A fitted `StandardScaler`; constant features, by scikit-learn's rule, have scale 1."""
        drift = self.sums.sum(axis=0) / self.rows
        scaler = StandardScaler()
        scaler.mean_ = self.offset + drift
        scaler.var_ = np.maximum(np.diag(self.products) / self.rows - drift**2, 0)
        error = self.rows * np.finfo(np.float64).eps
        constant = scaler.var_ <= error * scaler.var_ + (error * scaler.mean_) ** 2
        scaler.scale_ = np.where(constant, 1, np.sqrt(scaler.var_))
        scaler.n_samples_seen_, scaler.n_features_in_ = np.float64(self.rows), len(self.offset)
        return scaler

    def scaled(self, scaler: StandardScaler) -> tuple[np.ndarray, np.ndarray]:
        """Sums `[classes, dim]` and products `[dim, dim]` of the rows after scaling."""
        drift = scaler.mean_ - self.offset
        sums = (self.sums - self.counts[:, None] * drift) / scaler.scale_
        products = self.products - self.rows * np.outer(drift, drift)
        return sums, products / np.outer(scaler.scale_, scaler.scale_)


def fit_ridge(
    batches: Batches, labels: np.ndarray, classes: tuple[str, ...], alpha: float = 1.0
) -> Pipeline:
    """The head of `make_pipeline(StandardScaler(), RidgeClassifier(alpha))`, in one pass.

    Parameters
    ----------
    labels
        Class index of every row of the store, int64 `[rows of the store]`; rows that are not chosen
        are ignored.
    alpha
        As in scikit-learn: the weight of the squared coefficients against the sum (not the mean) of
        squared errors, so its effect decreases with the number of rows.

    Raises
    ------
    InputError
        If a class has no chosen row, or an embedding has a NaN or an infinite number.
    """
    moments = collect(batches, labels, classes)
    scaler = moments.scaler()
    sums, products = moments.scaled(scaler)
    # Targets are 1 for the row's class and -1 for the others. Scaled features have mean zero, so
    # X'y is twice the sum of the class's rows, and the intercept is the mean target.
    products[np.diag_indices_from(products)] += alpha
    targets = sums if len(classes) > 2 else sums[1]
    ridge = RidgeClassifier(alpha=alpha)
    ridge.coef_ = linalg.solve(products, 2 * targets.T, assume_a="pos").T
    share = moments.counts / moments.rows
    ridge.intercept_ = 2 * (share if len(classes) > 2 else share[1:]) - 1
    ridge.classes_ = np.arange(len(classes))
    ridge._label_binarizer = LabelBinarizer(neg_label=-1).fit(ridge.classes_)
    ridge.n_features_in_, ridge.n_iter_, ridge.solver_ = batches.dim, None, "cholesky"
    return make_pipeline(scaler, ridge)


def fit_lda(
    batches: Batches, labels: np.ndarray, classes: tuple[str, ...], shrinkage: float = 0.1
) -> Pipeline:
    """The head of `make_pipeline(StandardScaler(), LinearDiscriminantAnalysis("lsqr", shrinkage))`.

    It is fitted in one pass. `shrinkage` is from 0 to 1; `auto` (Ledoit and Wolf 2004) is not
    possible, since it needs fourth moments.

    Parameters
    ----------
    labels
        As for `fit_ridge`.

    Raises
    ------
    InputError
        If a class has no chosen row, or an embedding has a NaN or an infinite number.
    """
    moments = collect(batches, labels, classes)
    scaler = moments.scaler()
    sums, products = moments.scaled(scaler)
    lda = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=shrinkage)
    lda.priors_ = moments.counts / moments.rows
    lda.means_ = sums / moments.counts[:, None]
    # Shrinking every class's covariance and averaging by priors equals shrinking the average.
    within = (products - lda.means_.T @ sums) / moments.rows
    variance = np.trace(within) / batches.dim
    within *= 1 - shrinkage
    within[np.diag_indices_from(within)] += shrinkage * variance
    lda.covariance_ = within
    coef = linalg.lstsq(within, lda.means_.T)[0].T
    intercept = np.log(lda.priors_) - 0.5 * (lda.means_ * coef).sum(axis=1)
    if len(classes) == 2:
        coef, intercept = coef[1:] - coef[:1], intercept[1:] - intercept[:1]
    lda.coef_, lda.intercept_ = coef, intercept
    lda.classes_, lda.n_features_in_ = np.arange(len(classes)), batches.dim
    lda._max_components = lda._n_features_out = min(len(classes) - 1, batches.dim)
    return make_pipeline(scaler, lda)


def provisional_mean(batches: Batches) -> np.ndarray:
    """The mean of the first batch, float64 `[dim]`: close enough for an offset."""
    _, embeddings = next(iter(batches))
    return embeddings.mean(axis=0, dtype=np.float64)


def collect(batches: Batches, labels: np.ndarray, classes: tuple[str, ...]) -> Moments:
    """The moments of the chosen rows, computed in this process or by Ray, with progress."""
    check_classes(batches, labels, classes)
    offset = provisional_mean(batches)
    with console.progress("adding up the features", batches.rows) as advance:
        if "ray" in sys.modules and sys.modules["ray"].is_initialized():
            return _by_ray(batches, labels, offset, len(classes), advance)
        return _moments(batches, labels, offset, len(classes), advance)


def _moments(
    batches: Batches,
    labels: np.ndarray,
    offset: np.ndarray,
    classes: int,
    advance: Callable[[int], None] = lambda rows: None,
) -> Moments:
    moments = Moments.zero(offset, classes)
    for rows, embeddings in batches:
        check_finite(batches.store, embeddings)
        moments.add(embeddings, labels[rows])
        advance(len(rows))
    return moments


def _by_ray(
    batches: Batches,
    labels: np.ndarray,
    offset: np.ndarray,
    classes: int,
    advance: Callable[[int], None],
) -> Moments:
    """One task per CPU; merged in the order of the parts, so that a run is reproducible."""
    import ray

    task = ray.remote(_moments)
    shared = ray.put(labels)
    pieces = batches.divided(max(1, int(ray.cluster_resources().get("CPU", 1))))
    pending = [task.remote(piece, shared, offset, classes) for piece in pieces]
    moments = Moments.zero(offset, classes)
    for piece, answer in zip(pieces, pending, strict=True):
        moments.merge(result_of(answer, "a pass over the embeddings", TrainingError))
        advance(piece.rows)
    return moments
