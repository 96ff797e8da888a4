"""From training examples to a finished head: chosen, calibrated, and written as ONNX."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from headstart.classify.heads.calibrate import (
    AnswerOptions,
    Threshold,
    choose_threshold,
    fit_calibration,
)
from headstart.classify.heads.estimators import AUTO, HeadOptions, make_head, score_method
from headstart.classify.heads.folds import FOLDS, MANY, OutOfFold, fit_head, make_folds, score_folds
from headstart.classify.heads.search import Trial, search
from headstart.classify.heads.to_onnx import Answering, Written, check_converts, head_to_onnx
from headstart.classify.splits.held_out import Training
from headstart.classify.splits.splitting import hold_back
from headstart.data.contracts.calibration import Calibration, scores_of

TRIAL = 200  # training examples that the conversion of a user's own head is tried on
COMPARED = 500  # training examples that the ONNX form is compared on, at most


@dataclass(frozen=True)
class FitOptions:
    """Which head, how it answers, and the seed of all that is drawn.

    Parameters
    ----------
    calibration_folds
        Folds whose examples the calibration is chosen on, at most 5: each costs one more training.
        A search is by all folds in any case.
    """

    head: HeadOptions = HeadOptions()
    answers: AnswerOptions = AnswerOptions()
    seed: int = 0
    calibration_folds: int = FOLDS


@dataclass(frozen=True)
class Fitted:
    """A finished head.

    Parameters
    ----------
    head
        With the parameters that a search chose.
    written
        Its ONNX form.
    out_of_fold
        Scores of training examples by estimators that did not see them.
    trials
        What the search tried; empty without one.
    converged
        Whether training came to its end.
    """

    head: HeadOptions
    answering: Answering
    written: Written
    out_of_fold: OutOfFold
    threshold: Threshold | None
    trials: tuple[Trial, ...] = ()
    converged: bool = True


def fit(training: Training, options: FitOptions, advance: Callable[[int], None]) -> Fitted:
    """Train a head, calibrate it, choose its threshold, and write it as ONNX.

    Parameters
    ----------
    advance
        Is called with the number of steps done, `steps` in all.

    Raises
    ------
    InputError
        If a search, the threshold or the conversion is not possible; of the user's own head, the
        conversion is tried on few examples before anything else.
    ParityError
        If the ONNX form answers otherwise than the estimator.
    """
    head, seed = options.head, options.seed
    if head.own:
        _check_converts(head, training, seed)
    folds = make_folds(training, seed)
    trials: tuple[Trial, ...] = ()
    scores = None
    if head.name == AUTO:
        found = search(head, training, folds, seed)
        head, scores, trials = found.head, found.scores, found.trials
    one_part = len(training.labels) > MANY and bool(folds)
    estimator, converged = fit_head(
        head, training.take(folds[0].train) if one_part else training, seed
    )
    advance(1)
    source = score_method(head, estimator)
    if scores is None and one_part:
        held = training.embeddings[folds[0].held]
        scores = OutOfFold(folds[0].held, scores_of(estimator, held, source))
    elif scores is None:
        some = folds[: options.calibration_folds]
        scores = score_folds(head, training, some, seed, advance)
        advance(options.calibration_folds - len(some))
    labels = training.labels[scores.rows]
    chosen = np.random.default_rng(seed).permutation(len(training.labels))[:COMPARED]
    sample = training.embeddings[chosen]
    fitted = finish(options, head, estimator, scores, labels, sample)
    return replace(fitted, trials=trials, converged=converged)


def _check_converts(head: HeadOptions, training: Training, seed: int) -> None:
    """Convert the user's own estimator, trained on few examples, before the long work."""
    spared = hold_back(training.labels, max(0, len(training.labels) - TRIAL), seed)
    some = training.take(np.delete(np.arange(len(training.labels)), spared))
    estimator = make_head(head, seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            estimator.fit(some.embeddings, some.labels)
        except Exception:  # it may need more examples; else training itself says what is wrong
            return
    trial = Answering(estimator, Calibration(score_method(head, estimator)))
    check_converts(trial, some.embeddings.shape[1], len(some.classes), _named(head))


def _named(head: HeadOptions) -> str:
    return f"the head {head.name}"


def finish(
    options: FitOptions,
    head: HeadOptions,
    estimator: Any,
    scores: OutOfFold,
    labels: np.ndarray,
    sample: np.ndarray,
) -> Fitted:
    """Calibrate a trained estimator, choose its threshold, and write it as ONNX.

    Parameters
    ----------
    scores, labels
        Out-of-fold scores and the true classes of the same examples, int64 `[examples]`.
    sample
        Embeddings to compare the ONNX form on, float32 `[examples, dim]`.
    """
    source = score_method(head, estimator)
    calibration = fit_calibration(options.answers.calibration, scores.scores, labels, source)
    threshold = choose_threshold(options.answers, calibration.probabilities(scores.scores), labels)
    answering = Answering(estimator, calibration, threshold.value if threshold else None)
    written = head_to_onnx(answering, sample, _named(head))
    return Fitted(head, answering, written, scores, threshold)


def steps(options: FitOptions, examples: int) -> int:
    """How many steps `fit` takes; a search shows its own progress."""
    one = options.head.name == AUTO or examples > MANY
    return 1 if one else 1 + options.calibration_folds
