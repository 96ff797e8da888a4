"""Calibrated probabilities, thresholds that hold, and the separation of test examples."""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from headstart.classify.features.loading import InMemory
from headstart.classify.heads.calibration import (
    AnswerOptions,
    NotPromisedError,
    choose_threshold,
    fit_calibration,
)
from headstart.classify.heads.estimators import HeadOptions
from headstart.classify.heads.fitting import FitOptions, Fitted, fit
from headstart.classify.heads.folds import MANY, make_folds
from headstart.classify.heads.many import fit_many
from headstart.classify.scores.metrics import reliability
from headstart.classify.splits.held_out import HeldOut, Training
from headstart.classify.splits.splitting import hold_back_groups
from headstart.data.common.errors import InputError, ManyInputErrors
from headstart.data.common.intervals import lower_bound, proportion
from headstart.data.contracts.calibration import Calibration, changed, labels_of, scores_of, softmax
from headstart.data.contracts.json_reader import as_kind


def words(call: Callable[[], object]) -> str:
    with pytest.raises((InputError, ManyInputErrors)) as caught:
        call()
    return str(caught.value)


def drawn(count: int, sharpness: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Scores whose softmax is the truth, given `sharpness` times too large, and labels."""
    random = np.random.default_rng(seed)
    scores = random.normal(0, 2, (count, 4))
    truth = softmax(scores)
    labels = (truth.cumsum(axis=1) < random.random((count, 1))).sum(axis=1)
    return scores * sharpness, labels.clip(0, 3)


@pytest.mark.parametrize("sharpness", [0.2, 1.0, 5.0])
def test_the_temperature_is_found(sharpness: float) -> None:
    scores, labels = drawn(20_000, sharpness)
    found = fit_calibration("temperature", scores, labels, "decision_function")
    assert found.temperature == pytest.approx(sharpness, rel=0.05)


@pytest.mark.parametrize("method", ["temperature", "isotonic"])
def test_calibration_holds_on_other_examples(method: str) -> None:
    scores, labels = drawn(4000, 5.0)
    others, theirs = drawn(20_000, 5.0, seed=1)
    found = fit_calibration(method, scores, labels, "decision_function")
    before = reliability(theirs, softmax(others)).expected_calibration_error
    after = reliability(theirs, found.probabilities(others)).expected_calibration_error
    assert before > 0.2
    assert after < 0.03
    assert as_kind(json.loads(json.dumps(found.to_json())), Calibration) == found


def test_examples_that_are_all_right_do_not_make_every_answer_certain() -> None:
    labels = np.arange(60) % 3
    scores = np.eye(3)[labels]
    found = fit_calibration("temperature", scores, labels, "decision_function")
    assert 0.95 < found.probabilities(scores).max() < 0.999


@pytest.mark.parametrize("method", ["temperature", "isotonic"])
def test_a_few_enormous_scores_do_not_decide_the_temperature(method: str) -> None:
    """As of held-out examples in a dimension that hardly varied in the fold (issue of digits)."""
    scores, labels = drawn(1300, 5.0)
    others, theirs = drawn(20_000, 5.0, seed=1)
    wild = np.arange(6)
    scores[wild] = 300 * np.eye(4)[(labels[wild] + 1) % 4]  # certain, and wrong
    found = fit_calibration(method, scores, labels, "decision_function")
    error = reliability(theirs, found.probabilities(others)).expected_calibration_error
    assert error < 0.03
    assert found.temperature == pytest.approx(5, rel=0.15)


def test_a_class_that_calibration_never_saw_stays_possible() -> None:
    scores, labels = drawn(500, 1.0)
    found = fit_calibration("isotonic", scores, np.minimum(labels, 2), "decision_function")
    assert (found.probabilities(scores) > 0).all()


def test_none_is_the_softmax_of_the_scores() -> None:
    scores, labels = drawn(50, 1.0)
    found = fit_calibration("none", scores, labels, "decision_function")
    assert np.allclose(found.probabilities(scores), softmax(scores))


def test_two_classes_have_a_score_each() -> None:
    pixels, labels = load_digits(n_class=2, return_X_y=True)
    head = LogisticRegression().fit(pixels, labels)
    for method in ("decision_function", "predict_proba"):
        probabilities = softmax(scores_of(head, pixels, method))
        assert np.allclose(probabilities, head.predict_proba(pixels), atol=0.01)


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 10), st.booleans()), min_size=20, max_size=200),
    st.floats(0.3, 1),
)
def test_a_threshold_gives_what_it_was_chosen_for(
    answers: list[tuple[int, bool]], wanted: float
) -> None:
    confidence = np.array([0.5 + step / 20 for step, _ in answers])
    probabilities = np.stack([confidence, 1 - confidence], axis=1)
    labels = np.array([0 if right else 1 for _, right in answers])
    found = choose_threshold(AnswerOptions(coverage=wanted), probabilities, labels)
    assert found is not None
    sure = confidence >= found.value
    assert sure.mean() == pytest.approx(found.coverage)
    assert found.coverage >= wanted - 1e-9
    options = AnswerOptions(precision=wanted)
    everything = lower_bound(int((labels == 0).sum()), len(labels), 0.05 / 4)
    try:
        found = choose_threshold(options, probabilities, labels)
    except NotPromisedError as error:
        assert everything < wanted
        assert str(error).startswith(
            f"a precision of {wanted:.4g} cannot be promised with 95% confidence: of the "
        )
        return
    assert found is not None
    sure = confidence >= found.value
    assert sure.mean() == pytest.approx(found.coverage)
    assert (labels[sure] == 0).mean() == pytest.approx(found.precision)
    assert lower_bound(int((labels[sure] == 0).sum()), int(sure.sum()), 0.05 / 4) >= wanted
    if everything >= wanted:
        assert sure.all()


def test_a_label_at_the_threshold_may_be_either() -> None:
    probabilities = np.array([[0.9, 0.1], [0.6, 0.4], [0.6, 0.4]])
    assert labels_of(probabilities, 0.7).tolist() == [0, -1, -1]
    assert changed(np.array([0, -1, 0]), probabilities, 0.60001, 1e-4).tolist() == []
    assert changed(np.array([0, -1, 1]), probabilities, 0.60001, 1e-4).tolist() == [2]
    assert changed(np.array([-1, -1, 0]), probabilities, 0.7, 1e-4).tolist() == [0, 2]
    ties = np.array([[0.4, 0.4 - 1e-7, 0.2], [0.4, 0.3, 0.3]])
    assert changed(np.array([1, 1]), ties, None, 1e-4).tolist() == [1]
    assert changed(np.array([1, -1]), ties, 0.3, 1e-4).tolist() == [1]
    assert changed(np.array([-1, 0]), ties, None, 1e-4).tolist() == [0]


def test_what_cannot_be_chosen() -> None:
    assert words(lambda: AnswerOptions("platt", 0, 2)) == (
        "1. unknown --calibration 'platt'\n  Choose from temperature, isotonic, none.\n"
        "2. --precision 0 is not possible\n  Give a share above 0, at most 1.\n"
        "3. --coverage 2 is not possible\n  Give a share above 0, at most 1.\n"
        "4. --precision and --coverage choose the same threshold\n  Give one of the two."
    )
    nothing = np.zeros((0, 2))
    assert words(
        lambda: choose_threshold(AnswerOptions(coverage=0.9), nothing, np.zeros(0, int))
    ) == (
        "no threshold can be chosen for a coverage of 0.9: there are too few training examples of "
        "each class to hold some out\n"
        "  Add examples, or leave --precision and --coverage out."
    )


# Folds, and test examples


def held_out_of(embeddings: np.ndarray, labels: np.ndarray) -> HeldOut:
    return HeldOut(InMemory(embeddings), np.arange(len(labels)), labels)


def some(labels: np.ndarray, groups: np.ndarray | None = None) -> Training:
    random = np.random.default_rng(0)
    embeddings = random.normal(size=(len(labels), 4)) + labels[:, None]
    names = tuple(map(str, range(int(labels.max()) + 1)))
    return Training(names, embeddings.astype(np.float32), labels, groups)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 6), min_size=2, max_size=120), st.integers(0, 5))
def test_every_class_trains_in_every_fold(values: list[int], seed: int) -> None:
    labels = np.unique(values, return_inverse=True)[1]
    folds = make_folds(some(labels), seed)
    for fold in folds:
        assert not np.intersect1d(fold.train, fold.held).size
        assert len(fold.train) + len(fold.held) == len(labels)
        assert set(labels[fold.train]) == set(labels)
    counts = np.bincount(labels)
    held = np.concatenate([fold.held for fold in folds]) if folds else np.zeros(0, int)
    assert len(held) == len(np.unique(held))
    if counts.max() > 1:
        assert set(held) == set(np.flatnonzero(counts[labels] > 1))


def test_groups_stay_together_in_folds() -> None:
    labels = np.arange(200) % 2
    groups = np.arange(200) // 10
    folds = make_folds(some(labels, groups), 0)
    assert len(folds) == 5
    for fold in folds:
        assert not set(groups[fold.train]) & set(groups[fold.held])
    assert make_folds(some(labels, labels), 0) == []  # each class in one group only
    assert make_folds(some(labels, np.zeros(200, int)), 0) == []


def test_of_many_examples_one_in_twenty_is_held_back() -> None:
    labels = np.arange(MANY + 1000) % 3
    labels[:2] = 3, 4  # classes of one example
    (fold,) = make_folds(some(labels), 0)
    assert len(fold.held) == round(0.05 * len(labels))
    assert not set(labels[fold.held]) & {3, 4}
    fitted = fit(some(labels), FitOptions(), lambda step: None)
    assert np.array_equal(fitted.out_of_fold.rows, fold.held)
    assert fitted.answering.estimator[-1].coef_.shape == (5, 4)


def test_the_head_of_many_examples_is_scikit_learns_and_its_scores_are_of_others() -> None:
    random = np.random.default_rng(0)
    labels = random.integers(3, size=MANY + 1000)
    embeddings = (random.normal(size=(len(labels), 6)) + labels[:, None]).astype(np.float32)
    embeddings = embeddings * np.geomspace(0.01, 100, 6, dtype=np.float32) + 5
    training = Training(("a", "b", "c"), embeddings, labels)
    fitted = fit(training, FitOptions(), lambda step: None)
    exact = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, tol=1e-8))
    exact.fit(embeddings, labels)
    ours = fitted.answering.estimator
    assert np.abs(ours[-1].coef_ - exact[-1].coef_).max() < 5e-3
    assert np.allclose(ours[0].mean_, exact[0].mean_)
    assert np.allclose(ours[0].scale_, exact[0].scale_)
    assert (ours.predict(embeddings) == exact.predict(embeddings)).mean() > 0.998
    # What is held back has no part in the head that scores it; and twice gives the same bits.
    (fold,) = make_folds(training, 0)
    changed = labels.copy()
    changed[fold.held] = (changed[fold.held] + 1) % 3
    for those in (labels, changed):
        again = fit_many(
            HeadOptions(), Training(("a", "b", "c"), embeddings, those), fold, 0, lambda step: None
        )
        assert np.array_equal(again[2].scores, fitted.out_of_fold.scores)
        assert np.array_equal(again[0][-1].coef_, ours[-1].coef_) == (those is labels)


def test_of_many_grouped_examples_whole_groups_are_held_back_and_all_are_trained_on() -> None:
    labels = np.arange(MANY + 1000) // 10 % 3
    groups = np.arange(len(labels)) // 5
    training = some(labels, groups)
    (fold,) = make_folds(training, 0)
    assert len(fold.held) / len(labels) == pytest.approx(0.05, abs=0.005)
    assert not set(groups[fold.train]) & set(groups[fold.held])
    fitted = fit(training, FitOptions(), lambda step: None)
    assert np.array_equal(fitted.out_of_fold.rows, fold.held)
    # The scaler counts what the head was trained on.
    assert fitted.answering.estimator[0].n_samples_seen_ == len(labels)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 4), st.integers(0, 12)), min_size=2, max_size=100),
    st.sampled_from([0.05, 0.15, 0.3]),
)
def test_whole_groups_are_held_back_and_every_class_is_left(
    examples: list[tuple[int, int]], share: float
) -> None:
    labels, groups = np.array(examples).T
    held = hold_back_groups(labels, groups, share, 0)
    left = np.setdiff1d(np.arange(len(labels)), held)
    assert not set(groups[held]) & set(groups[left])
    assert set(labels[left]) == set(labels)


def test_the_test_examples_can_be_used_once() -> None:
    training = some(np.arange(40) % 2)
    fitted = fit(training, FitOptions(), lambda step: None)
    held_out = held_out_of(training.embeddings, training.labels)
    answers = held_out.answers(fitted.written.with_scores)
    assert np.array_equal(answers.labels, training.labels)
    with pytest.raises(RuntimeError, match="another head would be chosen by them"):
        held_out.answers(fitted.written.with_scores)


def fitted_digits(options: FitOptions, seed: int) -> tuple[Fitted, np.ndarray, np.ndarray]:
    pixels, labels = load_digits(return_X_y=True)
    noise = np.random.default_rng(seed).normal(0, 6, pixels.shape)
    embeddings = (pixels + noise).astype(np.float32)
    parts = train_test_split(
        embeddings, labels.astype(np.int64), test_size=0.5, stratify=labels, random_state=seed
    )
    training = Training(tuple(map(str, range(10))), parts[0], parts[2])
    fitted = fit(training, options, lambda step: None)
    answers = held_out_of(parts[1], parts[3]).answers(fitted.written.with_scores)
    right = answers.probabilities.argmax(axis=1) == answers.labels
    before = reliability(answers.labels, answers.uncalibrated).expected_calibration_error
    after = reliability(answers.labels, answers.probabilities).expected_calibration_error
    return fitted, right[answers.predictions >= 0], np.array([before, after])


def test_an_svms_calibration_error_is_at_most_halved_and_its_precision_kept() -> None:
    options = FitOptions(HeadOptions("rbf-svm"), AnswerOptions(precision=0.95))
    for seed in range(2):
        fitted, right, errors = fitted_digits(options, seed)
        assert errors[1] <= errors[0] / 2
        assert 0.5 < len(right) / 899 < 1
        interval = proportion(int(right.sum()), len(right))
        assert interval.low <= 0.95 <= interval.high or interval.low > 0.95
        assert fitted.threshold is not None
        assert fitted.threshold.precision >= 0.95
