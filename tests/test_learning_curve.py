"""The learning curve: its training sets, its power law, and its advice."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.neighbors import NearestCentroid

from headstart.classify.diagnosis.learning_curve import (
    FitPredict,
    LearningCurve,
    PowerLaw,
    advise,
    first_share,
    learning_curve,
    round_number,
)
from headstart.data.common.intervals import Interval


class Pretended:
    """A head whose error is as a function of the number of training rows says."""

    def __init__(self, labels: np.ndarray, error: PowerLaw | float) -> None:
        self.labels, self.law = labels, error
        self.calls: list[tuple[np.ndarray, np.ndarray]] = []
        self.luck = np.random.default_rng(0).random(len(labels))

    def __call__(self, train: np.ndarray, test: np.ndarray) -> np.ndarray:
        self.calls.append((train, test))
        error = self.law if isinstance(self.law, float) else self.law.error(np.array(len(train)))
        return np.where(self.luck[test] < error, -1, self.labels[test])


def curve(labels: np.ndarray, head: FitPredict, groups: np.ndarray | None = None) -> LearningCurve:
    found = learning_curve(labels, head, groups)
    assert found is not None
    return found


def test_sets_are_nested_stratified_and_cost_two_fits() -> None:
    labels = np.repeat(np.arange(3), [400, 200, 40])
    head = Pretended(labels, 0.1)
    curve(labels, head)
    assert sum(len(train) for train, _ in head.calls) <= 2 * len(labels)
    tested = np.concatenate([test for _, test in head.calls[::6]])
    assert np.array_equal(np.sort(tested), np.arange(640))
    for fold in (head.calls[:6], head.calls[6:]):
        for (small, test), (large, _) in pairwise(fold):
            assert set(small) < set(large)
            assert not set(large) & set(test)
        for (train, _), share in zip(fold, 0.5 ** np.arange(6)[::-1], strict=True):
            counts = np.bincount(labels[train], minlength=3)
            assert np.abs(counts - np.array([200, 100, 20]) * share).max() <= 1
            assert counts.min() >= 1
    again = Pretended(labels, 0.1)
    curve(labels, again)
    assert all(np.array_equal(a[0], b[0]) for a, b in zip(head.calls, again.calls, strict=True))


def test_groups_are_in_one_fold_and_come_in_whole() -> None:
    groups = np.repeat(np.arange(100), 8)
    labels = np.repeat(np.arange(100) % 2, 8)
    head = Pretended(labels, 0.1)
    found = curve(labels, head, groups)
    for train, test in head.calls:
        assert not set(groups[train]) & set(groups[test])
        counts = np.unique(groups[train], return_counts=True)[1]
        assert (counts < 8).sum() <= 2  # the last group of each of the two classes
    # Examples that are alike say less: the interval is that of groups.
    alike = Pretended(labels, 0.3)
    alike.luck = np.repeat(np.random.default_rng(0).random(100), 8)
    wide, narrow = curve(labels, alike, groups), curve(labels, alike)
    assert ((wide.high - wide.low) > 1.5 * (narrow.high - narrow.low)).all()
    assert (found.low <= found.accuracy).all()
    assert (found.accuracy <= found.high).all()


def test_a_power_law_is_found_and_looked_up() -> None:
    law = PowerLaw(unit=100.0, floor=0.05, fall=0.2, rate=0.7)
    sizes = np.array([25.0, 50, 100, 200, 400, 800])
    found = PowerLaw.fit(sizes, law.error(sizes), np.full(6, 0.01))
    assert found.error(np.array([1600, 3200])) == pytest.approx(
        law.error(np.array([1600, 3200])), abs=1e-4
    )
    labels = np.arange(4000) % 4
    forecast = curve(labels, Pretended(labels, law))
    assert forecast.labels_per_class.tolist() == [16, 31, 62, 125, 250, 500]
    assert forecast.more == 1000
    assert forecast.gain is not None
    expected = law.gain(4000, 8000)
    assert forecast.gain.low <= expected <= forecast.gain.high
    assert forecast.gain.value == pytest.approx(expected, abs=0.004)
    assert forecast.advice == advise(1000, forecast.gain)


def test_a_flat_curve_says_that_labels_hardly_help() -> None:
    labels = np.arange(4000) % 2
    found = curve(labels, Pretended(labels, 0.1))
    assert found.advice.startswith("More labels would hardly help: 2,000 more labels of each class")
    perfect = curve(labels, Pretended(labels, 0.0))
    assert perfect.accuracy.tolist() == [1] * 6
    assert perfect.gain is not None
    assert perfect.gain.high < 0.005


def test_what_allows_no_forecast_has_none() -> None:
    labels = np.arange(4000) % 4
    head = Pretended(labels, 0.1)

    def uneven(train: np.ndarray, test: np.ndarray) -> np.ndarray:
        head.law = 0.5 if len(train) in (250, 1000) else 0.1
        return head(train, test)

    found = curve(labels, uneven)
    assert found.advice == "The curve is too irregular to estimate the effect of more labels."
    assert (found.more, found.gain) == (0, None)
    few = curve(np.arange(20) % 2, Pretended(np.arange(20) % 2, 0.1))
    assert few.labels_per_class.tolist() == [2, 5]
    assert few.advice == "To estimate the effect of more labels, 32 of each class are needed."
    assert learning_curve(np.arange(6) % 2, Pretended(np.arange(6) % 2, 0.1)) is None
    # Each class in a fold of its own: there is nothing to learn.
    apart = np.repeat([0, 1], 40)
    assert learning_curve(apart, Pretended(apart, 0.1), groups=apart) is None


def test_a_class_of_one_example_does_no_harm() -> None:
    labels = np.concatenate([np.arange(200) % 2, [2, 3, 3, 3]])
    head = Pretended(labels, 0.1)
    curve(labels, head)
    assert sum(2 in labels[train] for train, _ in head.calls) in (0, len(head.calls) // 2)


def test_the_first_share_of_every_class() -> None:
    labels = np.array([0, 0, 0, 0, 1, 1, 2])
    assert first_share(np.array([3, 6, 1, 5, 0, 2, 4]), labels, 0.5).tolist() == [1, 3, 5, 6]


def test_ten_thousand_classes() -> None:
    labels = np.arange(80_000) % 10_000
    found = curve(labels, Pretended(labels, 0.2))
    assert found.labels_per_class.tolist() == [2, 4]


def test_advice_in_words() -> None:
    assert advise(100, Interval(0.012, 0.004, 0.02)) == (
        "100 more labels of each class would add about +1.2 points (roughly 0.4 to 2.0)."
    )
    assert advise(1, Interval(0.001, 0.0, 0.003)) == (
        "More labels would hardly help: 1 more label of each class would add about +0.1 points "
        "(roughly 0.0 to 0.3)."
    )
    assert [round_number(there) for there in (1, 1.9, 4, 7, 10, 131, 999, 5000)] == [
        *(1, 1, 2, 5, 10, 100, 500, 5000)
    ]


def test_digits() -> None:
    pixels, labels = load_digits(return_X_y=True)

    def head(train: np.ndarray, test: np.ndarray) -> np.ndarray:
        return NearestCentroid().fit(pixels[train], labels[train]).predict(pixels[test])

    found = curve(labels, head)
    assert found.labels_per_class.tolist() == [3, 6, 11, 22, 45, 90]
    assert found.accuracy[0] < found.accuracy[2] < 0.92
    # A centroid is soon as good as it gets.
    assert found.gain is not None
    assert found.gain.value < 0.01
