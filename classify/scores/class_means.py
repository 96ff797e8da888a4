"""95 % intervals of the scores that are not shares: balanced accuracy, macro F1 and log loss."""

from __future__ import annotations

import numpy as np
from scipy.sparse import csr_array
from scipy.stats import beta, t

from headstart.data.common.intervals import OUTSIDE, Interval, design_effect

DRAWS = 2000
FEW_UNITS = 2000  # above which a mean is as good as normally distributed
SEED = 0


def class_means(
    labels: np.ndarray, predictions: np.ndarray, groups: np.ndarray | None = None
) -> dict[str, Interval]:
    """Balanced accuracy and macro F1 with their intervals, from those of the classes' recalls.

    The distances to the limits of the recalls (Clopper and Pearson 1934), times the slope of the
    score, are added as squares (Zou and Donner 2008, Statistics in Medicine 27:1693). Unlike a
    bootstrap, this is also right where every example of a class is classified correctly.

    Parameters
    ----------
    labels, predictions
        Classes as indices, int `[examples]`; there is at least one example.
    groups
        Group of each example, `[examples]`; see `design_effect`.
    """
    present, own = np.unique(labels, return_inverse=True)
    hits = predictions == labels
    counts = np.bincount(own).astype(np.float64)
    right = np.bincount(own, hits)
    recall = right / counts
    effect = design_effect((hits - recall[own]) / counts[own], groups, len(present))
    x, n = right / effect, counts / effect
    low = np.where(x > 0, beta.ppf(OUTSIDE / 2, x, n - x + 1), 0)
    high = np.where(x < n, beta.ppf(1 - OUTSIDE / 2, x + 1, n - x), 1)
    macro_f1, slopes = _macro_f1(present, own, predictions)
    scores = {
        "balanced_accuracy": (float(recall.mean()), np.full(len(present), 1 / len(present))),
        "macro_f1": (macro_f1, slopes),
    }
    return {
        name: Interval(
            value,
            max(0.0, value - float(np.linalg.norm(slope * (recall - low)))),
            min(1.0, value + float(np.linalg.norm(slope * (high - recall)))),
        )
        for name, (value, slope) in scores.items()
    }


def _macro_f1(
    present: np.ndarray, own: np.ndarray, predictions: np.ndarray
) -> tuple[float, np.ndarray]:
    """Macro F1, and its slope by the recall of each class, where errors go to the same classes."""
    classes, place = len(present), np.searchsorted(present, predictions)
    place[place == len(present)] = 0
    known = present[place] == predictions  # an absent class's F1 is not averaged
    wrong = known & (place != own)
    counts = np.bincount(own).astype(np.float64)
    right = np.bincount(own[known & (place == own)], minlength=classes)
    false = np.bincount(place[wrong], minlength=classes)
    errors = csr_array(
        (np.ones(int(wrong.sum())), (own[wrong], place[wrong])), shape=(classes, classes)
    )
    total = right + counts + false
    taken = 2 * right / total**2  # what a false prediction of a class costs
    missed = counts - right
    mean = np.divide(errors @ taken, missed, out=np.zeros(classes), where=missed > 0)
    # Errors of a class that made none yet go to all others alike.
    mean[missed == 0] = ((taken.sum() - taken) / max(1, classes - 1))[missed == 0]
    slopes = counts * (2 * (counts + false) / total**2 + mean) / classes
    return float((2 * right / total).mean()), slopes


def mean_loss(losses: np.ndarray, groups: np.ndarray | None = None) -> Interval:
    """The mean of losses, and its interval: Student's, and by the studentized bootstrap (Efron and
    Tibshirani 1993, chapter 12), which follows the skewness of losses; the wider one at each side.
    Groups are resampled as a whole.

    Parameters
    ----------
    losses
        Of at least one example, float `[examples]`.
    """
    own = np.arange(len(losses)) if groups is None else np.unique(groups, return_inverse=True)[1]
    sizes, sums = np.bincount(own).astype(np.float64), np.bincount(own, losses)
    mean, error = _ratio(sums, sizes)
    count = len(sizes)
    if count < 2:
        return Interval(float(mean), 0.0, np.inf)
    low, high = t.ppf([OUTSIDE / 2, 1 - OUTSIDE / 2], count - 1)
    if count <= FEW_UNITS:
        rows = np.random.default_rng(SEED).integers(0, count, (DRAWS, count))
        means, errors = _ratio(sums[rows], sizes[rows])
        usable = errors > 0
        if not usable.any():
            return Interval(float(mean), float(mean), float(mean))
        scaled = (means - mean)[usable] / errors[usable]
        drawn = np.quantile(scaled, [OUTSIDE / 2, 1 - OUTSIDE / 2])
        low, high = min(low, drawn[0]), max(high, drawn[1])
    return Interval(float(mean), max(0.0, float(mean - high * error)), float(mean - low * error))


def _ratio(sums: np.ndarray, sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The mean loss of an example and its standard error, over the last axis of units."""
    total, count = sizes.sum(axis=-1), sizes.shape[-1]
    mean = sums.sum(axis=-1) / total
    deviations = sums - mean[..., None] * sizes
    return mean, np.sqrt((deviations**2).sum(axis=-1) * count / max(1, count - 1)) / total
