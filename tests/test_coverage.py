"""Intervals hold the truth, and thresholds what they promise, as often as they say."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.coverage import (
    accuracies,
    differences,
    losses,
    means_of_classes,
    promises,
)
from headstart.classify.scores.comparison import mcnemar, mcnemar_of_groups
from headstart.data.common.intervals import design_effect, proportion, share

GROUPED = pytest.mark.parametrize("grouped", [False, True])
RUNS = 500


@GROUPED
@pytest.mark.parametrize(("count", "rate"), [(60, 0.98), (150, 0.9), (600, 0.99)])
def test_accuracies(count: int, rate: float, grouped: bool) -> None:
    assert accuracies(RUNS, count, rate, grouped).is_kept


@GROUPED
@pytest.mark.parametrize("rates", [(0.99, 0.98), (0.95, 0.8, 0.6)])
def test_balanced_accuracies_and_macro_f1(rates: tuple[float, ...], grouped: bool) -> None:
    for found in means_of_classes(RUNS, 600, rates, grouped):
        assert found.is_kept, found


@GROUPED
def test_losses(grouped: bool) -> None:
    assert losses(RUNS, 200, grouped).is_kept


@GROUPED
@pytest.mark.parametrize("gain", [0.0, 0.06])
def test_differences_of_models(gain: float, grouped: bool) -> None:
    for found in differences(RUNS, 400, gain, grouped):
        assert found.is_kept, found


@GROUPED
def test_promised_precisions(grouped: bool) -> None:
    found, given = promises(200, 1000, 0.9, grouped)
    assert found.is_kept
    assert given > 0.8  # not by promising nothing


def test_groups_of_one_are_independent_examples() -> None:
    right = np.arange(50) % 7 > 0
    assert share(right, np.arange(50)) == share(right) == proportion(42, 50)
    assert design_effect(right - right.mean(), np.arange(50)) == 1
    for only_a, only_b in ((2, 10), (10, 2), (0, 0), (5, 5), (1, 0)):
        gains = np.repeat([-1, 1, 0], [only_a, only_b, 9])
        assert mcnemar_of_groups(gains) == pytest.approx(mcnemar(only_a, only_b))


def test_examples_that_are_all_alike_count_once() -> None:
    groups = np.repeat(np.arange(40), 10)
    alike = np.repeat(np.arange(40) % 4 > 0, 10)
    found = share(alike, groups)
    assert found.value == 0.75
    assert found.low < proportion(30, 40).low
    assert found.high > proportion(30, 40).high
    assert share(np.ones(400, bool), groups).low == pytest.approx(proportion(40, 40).low, abs=0.01)
    one = share(alike, np.zeros(400))  # a single group says nothing
    assert (one.low, one.high) == (0, 1)
    # Ten copies of one discordant pair are no ten pairs.
    assert mcnemar_of_groups(np.array([10])) == 1
    assert mcnemar(0, 10) < 0.01
