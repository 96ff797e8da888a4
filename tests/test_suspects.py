"""Label errors: planted ones come first."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from headstart.classify.diagnosis import suspects as module
from headstart.classify.diagnosis.suspects import suspects


def flipped_digits(seed: int, share: float = 0.05) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """True labels, labels of which a share is flipped, and out-of-fold probabilities."""
    pixels, true = load_digits(return_X_y=True)
    random = np.random.default_rng(seed)
    labels = true.copy()
    rows = random.choice(len(true), round(len(true) * share), replace=False)
    labels[rows] = (true[rows] + random.integers(1, 10, len(rows))) % 10
    head = make_pipeline(StandardScaler(), LogisticRegression(C=0.1))
    return true, labels, cross_val_predict(head, pixels, labels, cv=5, method="predict_proba")


@pytest.mark.parametrize("seed", [0, 1])
def test_flipped_labels_are_among_the_first_suspects(seed: int) -> None:
    true, labels, probabilities = flipped_digits(seed)
    found = suspects(labels, probabilities)
    flipped = (labels != true)[found.rows]
    first = flipped[: len(labels) // 10]
    assert first.sum() >= 0.95 * flipped.sum()
    assert flipped[found.is_error].sum() >= 0.7 * flipped.sum()
    assert flipped[found.is_error].mean() >= 0.7
    assert 0.03 < found.share < 0.09
    named = found.suggested[flipped & found.is_error] == true[found.rows][flipped & found.is_error]
    assert named.mean() >= 0.9


def test_the_papers_rule_on_numbers_by_hand() -> None:
    labels = np.array([0, 0, 0, 1, 1, 2])
    probabilities = np.array(
        [
            [0.9, 0.1, 0.0],
            [0.8, 0.2, 0.0],
            [0.1, 0.7, 0.2],  # 1 is above its threshold 0.55, 0 below its own 0.6: an error
            [0.3, 0.7, 0.0],
            [0.5, 0.4, 0.1],  # more probably 0, but 0.5 is below 0's threshold: no class is sure
            [0.0, 0.3, 0.7],
        ]
    )
    found = suspects(labels, probabilities)
    assert found.rows.tolist() == [2, 4, 3, 5, 1, 0]
    assert found.given.tolist() == [0, 1, 1, 2, 0, 0]
    assert found.suggested.tolist() == [1, 0, 0, 1, 1, 1]
    assert found.is_error.tolist() == [True, False, False, False, False, False]
    assert found.score == pytest.approx([-0.6, -0.1, 0.4, 0.4, 0.6, 0.8])
    # Of class 0's three confident ones, one is wrong; of the others none: 3 x 1/3 of 6 labels.
    assert found.share == pytest.approx(1 / 6)
    assert found.how == (
        "Confident learning on out-of-fold probabilities; it estimates that 16.7% of the labels "
        "are wrong. The score is the label's probability minus the largest of another class."
    )


@settings(max_examples=50, deadline=None)
@given(
    probabilities=arrays.arrays(
        np.float64, st.tuples(st.integers(1, 30), st.integers(2, 6)), elements=st.floats(0, 1)
    ),
    seed=st.integers(0, 100),
)
def test_every_example_is_ranked_once_whatever_the_probabilities(
    probabilities: np.ndarray, seed: int
) -> None:
    examples, classes = probabilities.shape
    labels = np.random.default_rng(seed).integers(0, classes, examples)
    found = suspects(labels, probabilities)
    assert sorted(found.rows) == list(range(examples))
    assert (np.diff(found.score) >= 0).all()
    assert (found.suggested != found.given).all()
    assert np.array_equal(found.given, labels[found.rows])
    assert 0 <= found.share <= 1


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)
    labels, probabilities = random.integers(0, 7, 500), random.dirichlet(np.ones(7), 500)
    whole = suspects(labels, probabilities)
    monkeypatch.setattr(module, "BLOCK", 50)
    parts = suspects(labels, probabilities)
    for name in ("rows", "suggested", "score", "is_error"):
        assert np.array_equal(getattr(whole, name), getattr(parts, name))


def test_ten_thousand_classes() -> None:
    random = np.random.default_rng(0)
    labels = np.arange(12_000) % 10_000
    probabilities = np.full((12_000, 10_000), 1e-5, np.float32)
    probabilities[np.arange(12_000), labels] = 0.9
    wrong = random.choice(np.arange(2_000, 10_000), 100, replace=False)
    labels[wrong] = (labels[wrong] + 1) % 10_000
    found = suspects(labels, probabilities)
    assert set(found.rows[:100]) == set(wrong)
    assert np.array_equal(found.suggested[:100], (found.given[:100] - 1) % 10_000)
