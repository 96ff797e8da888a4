"""Would more labels help? Accuracy by number of labels, extrapolated by a power law."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from scipy.optimize import least_squares
from scipy.stats import chi2
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

from headstart.data.common import console
from headstart.data.common.errors import InputError
from headstart.data.common.intervals import Interval, share

FitPredict = Callable[[np.ndarray, np.ndarray], np.ndarray]

FOLDS = 2
MOST_SIZES = 6
LEAST_LABELS = 2  # of each class, on average, at the smallest size
LEAST_SIZES = 4  # for a forecast: one more than the parameters of the power law
RESAMPLES = 200
HARDLY = 0.005  # of accuracy; a smaller gain is not worth the labelling
IRREGULAR = 0.01  # p value below which the power law does not fit
SCATTER = 0.5  # between draws of training examples, a guess, in binomial standard deviations


@dataclass(frozen=True)
class LearningCurve:
    """Accuracy by the number of labels for each class, ascending.

    Parameters
    ----------
    labels_per_class
        On average over the classes, int64 `[sizes]`.
    accuracy, low, high
        Mean over the test examples of all folds, and its 95 % interval for the heads that were
        trained, float64 `[sizes]`.
    advice
        The effect of more labels, as a sentence.
    more
        How many more labels of each class the advice is about; 0 without a forecast.
    gain
        Accuracy gained by them, with a rough range; none without a forecast.
    """

    labels_per_class: np.ndarray
    accuracy: np.ndarray
    low: np.ndarray
    high: np.ndarray
    advice: str
    more: int = 0
    gain: Interval | None = None


def learning_curve(
    labels: np.ndarray,
    fit_predict: FitPredict,
    groups: np.ndarray | None = None,
    seed: int = 0,
) -> LearningCurve | None:
    """Train on a half, quarter, eighth ... of the training set, and test on the other half.

    There are two stratified folds; the smaller training sets are subsets of the larger ones, with
    the same share of every class. For a head of linear cost, all fits together take as long as two
    fits of the whole set. Groups are kept in one fold, and are added to a training set as a whole,
    except the last.

    The error is modelled as a + b n^-c, an inverse power law (Cortes et al. 1993), and evaluated at
    the whole training set and at up to twice as many labels. The range of the gain is a rough one:
    it comes from 200 bootstrap samples of the test examples, or of their groups, and a guess of the
    variance between draws of training examples, and assumes the power law. It does not account for
    new labels that differ in kind from the old ones.

    Parameters
    ----------
    labels
        Of the training set alone, int64 `[examples]`.
    fit_predict
        Takes rows to train on and rows to test on, and returns the classes predicted for the
        latter, int `[test rows]`. A rare class may be missing among the rows to train on. Sizes at
        which it raises `InputError`, having too few rows, are left out.
    groups
        Index of the group, int `[examples]`.

    Returns
    -------
    LearningCurve or None
        None if there are too few labels for two sizes, or a half would have only one class.
    """
    folds = list(_folds(labels, groups, seed))
    classes = len(np.unique(labels))
    smallest = min(len(order) for order, _ in folds) / classes
    sizes = min(MOST_SIZES, 1 + int(np.log2(max(1, smallest / LEAST_LABELS))))
    shares = 0.5 ** np.arange(sizes)[::-1]
    if sizes < 2:
        return None
    right = np.zeros((len(labels), sizes), bool)
    trained, enough = np.zeros(sizes), np.ones(sizes, bool)
    with console.progress("learning curve", FOLDS * sizes) as advance:
        for order, test in folds:
            for column, share in enumerate(shares):
                rows = first_share(order, labels, share)
                if len(np.unique(labels[rows])) < 2:
                    return None
                trained[column] += len(rows) / FOLDS
                advance(1)
                try:
                    right[test, column] = fit_predict(rows, test) == labels[test]
                except InputError:
                    enough[column] = False
    if enough.sum() < 2:
        return None
    return _extrapolate(right[:, enough], trained[enough], classes, groups, seed)


def _folds(
    labels: np.ndarray, groups: np.ndarray | None, seed: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """For each fold, the training rows in the order in which they are added, and the test rows."""
    random = np.random.default_rng(seed)
    # A class with one example cannot be in both folds: it is stratified with the largest class.
    counts = np.bincount(labels)
    strata = np.where(counts[labels] < FOLDS, counts.argmax(), labels)
    if groups is None:
        kfold = StratifiedKFold(FOLDS, shuffle=True, random_state=seed)
        units = np.arange(len(labels))
    else:
        kfold = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=seed)
        units = np.unique(groups, return_inverse=True)[1]
    divided = kfold.split(strata, strata, groups)
    for train, test in divided:
        place = random.permutation(int(units.max()) + 1)
        yield train[np.argsort(place[units[train]], kind="stable")], test


def first_share(order: np.ndarray, labels: np.ndarray, share: float) -> np.ndarray:
    """The first rows of every class in `order`: that share of the class, and at least one."""
    own = labels[order]
    by_class = np.argsort(own, kind="stable")
    _, start, counts = np.unique(own[by_class], return_index=True, return_counts=True)
    rank = np.arange(len(order)) - np.repeat(start, counts)
    wanted = np.repeat(np.maximum(1, np.round(counts * share)), counts)
    return np.sort(order[by_class[rank < wanted]])


def _extrapolate(
    right: np.ndarray,
    trained: np.ndarray,
    classes: int,
    groups: np.ndarray | None,
    seed: int,
) -> LearningCurve:
    """The curve and its forecast, from the correct predictions, bool `[examples, sizes]`."""
    accuracy = right.mean(axis=0)
    samples = _resampled(right, groups, seed)
    # The bootstrap does not include the variance between draws of training examples. With two folds
    # it cannot be measured: a guess of it is added as noise, which makes the range a rough one.
    scatter = SCATTER * np.sqrt(accuracy * (1 - accuracy) / trained)
    samples = samples + np.random.default_rng(seed).normal(0, 1, samples.shape) * scatter
    intervals = [share(column, groups) for column in right.T]
    low = np.array([interval.low for interval in intervals])
    high = np.array([interval.high for interval in intervals])
    sizes, there = trained / classes, len(right) / classes
    more = round_number(there)
    advice, gain = _forecast(sizes, accuracy, samples, (there, there + more))
    labels_per_class = np.round(sizes).astype(np.int64)
    return LearningCurve(
        labels_per_class=labels_per_class,
        accuracy=accuracy,
        low=low,
        high=high,
        advice=advice,
        more=more if gain else 0,
        gain=gain,
    )


def _resampled(right: np.ndarray, groups: np.ndarray | None, seed: int) -> np.ndarray:
    """Accuracies of bootstrap samples, float64 `[200, sizes]`.

    Without groups, the distinct rows of `right` are resampled by their counts: there are at most 64
    of them, whatever the number of examples.
    """
    random = np.random.default_rng(seed)
    if groups is None:
        unit, count = np.unique(right, axis=0, return_counts=True)
        size = np.ones(len(unit))
    else:
        own = np.unique(groups, return_inverse=True)[1]
        unit = np.stack([np.bincount(own, column) for column in right.T], axis=1)
        size = np.bincount(own).astype(np.float64)
        count = np.ones(len(unit), np.int64)
    samples = np.empty((RESAMPLES, right.shape[1]))
    for row in range(RESAMPLES):
        drawn = random.multinomial(count.sum(), count / count.sum())
        samples[row] = drawn @ unit / (drawn @ size)
    return samples


def _forecast(
    sizes: np.ndarray, accuracy: np.ndarray, samples: np.ndarray, ahead: tuple[float, float]
) -> tuple[str, Interval | None]:
    """The advice, and the gain of accuracy from the first size of `ahead` to the second."""
    more = round(ahead[1] - ahead[0])
    if len(sizes) < LEAST_SIZES:
        least = FOLDS * LEAST_LABELS * 2 ** (LEAST_SIZES - 1)
        return f"To estimate the effect of more labels, {least} of each class are needed.", None
    spread = np.maximum(samples.std(axis=0), 1e-3)  # 0 where all were right
    law = PowerLaw.fit(sizes, 1 - accuracy, spread)
    misfit = (((1 - accuracy - law.error(sizes)) / spread) ** 2).sum()
    if chi2.sf(misfit, len(sizes) - 3) < IRREGULAR:
        return "The curve is too irregular to estimate the effect of more labels.", None
    laws = [PowerLaw.fit(sizes, 1 - sample, spread) for sample in samples]
    low, high = np.percentile([one.gain(*ahead) for one in laws], [2.5, 97.5])
    gain = Interval(law.gain(*ahead), float(low), float(high))
    return advise(more, gain), gain


def advise(more: int, gain: Interval) -> str:
    """The effect of more labels, as a sentence."""
    low, high = 100 * gain.low, 100 * gain.high
    points = f"{100 * gain.value:+.1f} points (roughly {low:.1f} to {high:.1f})"
    what = f"{more:,} more {'label' if more == 1 else 'labels'} of each class"
    if gain.high < HARDLY:
        return f"More labels would hardly help: {what} would add about {points}."
    return f"{what} would add about {points}."


def round_number(there: float) -> int:
    """The largest of 1, 2, 5, 10, 20, 50 ... that is at most `there`, which is at least 1."""
    power = 10 ** int(np.floor(np.log10(there)))
    return max(step * power for step in (1, 2, 5) if step * power <= there)


@dataclass(frozen=True)
class PowerLaw:
    """error = floor + fall (n / unit)^-rate."""

    unit: float
    floor: float
    fall: float
    rate: float

    @classmethod
    def fit(cls, sizes: np.ndarray, error: np.ndarray, spread: np.ndarray) -> PowerLaw:
        """Least squares, weighted by the standard deviations `spread`; float64 `[sizes]` each.

        Floor and fall are from 0 to 1, the rate from 0.05 to 2.
        """
        unit = float(sizes[-1])
        logs = np.log(sizes / unit)

        def slopes(law: np.ndarray) -> np.ndarray:
            power = np.exp(-law[2] * logs)
            each = np.stack([np.ones_like(power), power, -law[1] * logs * power], axis=1)
            return each / spread[:, None]

        fitted = least_squares(
            lambda law: (law[0] + law[1] * np.exp(-law[2] * logs) - error) / spread,
            (0.01, 0.1, 0.5),
            slopes,
            bounds=([0, 0, 0.05], [1, 1, 2]),
        )
        return cls(unit, *map(float, fitted.x))

    def error(self, sizes: np.ndarray) -> np.ndarray:
        """The error at sizes."""
        return self.floor + self.fall * (sizes / self.unit) ** -self.rate

    def gain(self, before: float, after: float) -> float:
        """The decrease of the error from one size to another."""
        first, last = self.error(np.array([before, after]))
        return float(first - last)
