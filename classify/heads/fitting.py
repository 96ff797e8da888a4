"""From training examples to a finished head: chosen, calibrated, and written as ONNX."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from headstart.classify.heads.calibration import (
    AnswerOptions,
    NotPromisedError,
    Threshold,
    choose_threshold,
    fit_calibration,
)
from headstart.classify.heads.estimators import AUTO, HeadOptions, make_head, score_method
from headstart.classify.heads.folds import FOLDS, MANY, OutOfFold, fit_head, make_folds, score_folds
from headstart.classify.heads.many import fit_many, is_many
from headstart.classify.heads.search import Trial, search
from headstart.classify.heads.to_onnx import Answering, Written, check_converts, head_to_onnx
from headstart.classify.splits.held_out import Training
from headstart.classify.splits.splitting import hold_back
from headstart.data.contracts.calibration import Calibration

TRIAL = 200  # training examples on which the conversion of a custom head is tried
COMPARED = 500  # training examples on which the ONNX form is compared, at most


@dataclass(frozen=True)
class FitOptions:
    """Which head, how it is calibrated, and the random seed.

    Parameters
    ----------
    calibration_folds
        Number of folds that the calibration is fitted on, at most 5; each costs one more training.
        A search always uses all folds.
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
        With the parameters that a search chose, if there was one.
    written
        Its ONNX form.
    out_of_fold
        Scores of training examples by estimators that were not trained on them.
    probabilities
        The calibrated probabilities of those examples, float `[examples, classes]`.
    trials
        What a search tried; empty without a search.
    converged
        Whether training converged.
    refused
        Why there is no threshold although one was wanted; empty otherwise.
    """

    head: HeadOptions
    answering: Answering
    written: Written
    out_of_fold: OutOfFold
    threshold: Threshold | None
    probabilities: np.ndarray
    trials: tuple[Trial, ...] = ()
    converged: bool = True
    refused: str = ""


def fit(training: Training, options: FitOptions, advance: Callable[[int], None]) -> Fitted:
    """Train a head, calibrate it, choose its threshold, and write it as ONNX.

    Parameters
    ----------
    advance
        Called with the number of steps done, `steps` in total.

    Raises
    ------
    InputError
        If a search, the threshold or the conversion is not possible. The conversion of a custom
        head is tried on a few examples first.
    ParityError
        If the ONNX form differs from the estimator.
    """
    head, seed = options.head, options.seed
    if head.is_custom:
        _check_converts(head, training, seed)
    folds = make_folds(training, seed)
    trials: tuple[Trial, ...] = ()
    scores = None
    if head.name == AUTO:
        found = search(head, training, folds, seed)
        head, scores, trials = found.head, found.scores, found.trials
    if scores is None and folds and is_many(head, training):
        estimator, converged, scores = fit_many(head, training, folds[0], seed, advance)
    else:
        estimator, converged = fit_head(head, training, seed)
        advance(1)
    if scores is None:
        some = folds[: options.calibration_folds]
        scores = score_folds(head, training, some, seed, advance)
        advance(steps(options, len(training.labels)) - 1 - len(some))
    labels, groups = training.labels[scores.rows], training.groups
    held = HeldBack(scores, labels, None if groups is None else groups[scores.rows])
    chosen = np.random.default_rng(seed).permutation(len(training.labels))[:COMPARED]
    sample = training.embeddings[chosen]
    fitted = finish(options, head, estimator, held, sample)
    return replace(fitted, trials=trials, converged=converged)


def _check_converts(head: HeadOptions, training: Training, seed: int) -> None:
    """Convert a custom estimator, trained on a few examples, before the long work."""
    left_out = hold_back(training.labels, max(0, len(training.labels) - TRIAL), seed)
    some = training.take(np.delete(np.arange(len(training.labels)), left_out))
    estimator = make_head(head, seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            estimator.fit(some.embeddings, some.labels)
        except Exception:  # it may need more examples; otherwise training reports the error
            return
    trial = Answering(estimator, Calibration(score_method(head, estimator)))
    check_converts(trial, some.embeddings.shape[1], len(some.classes), _named(head))


def _named(head: HeadOptions) -> str:
    return f"the head {head.name}"


@dataclass(frozen=True)
class HeldBack:
    """Out-of-fold scores, and the true classes and groups of the same examples, `[examples]`."""

    scores: OutOfFold
    labels: np.ndarray
    groups: np.ndarray | None


def finish(
    options: FitOptions, head: HeadOptions, estimator: Any, held: HeldBack, sample: np.ndarray
) -> Fitted:
    """Calibrate a trained estimator, choose its threshold, and write it as ONNX.

    Parameters
    ----------
    sample
        Embeddings to compare the ONNX form on, float32 `[examples, dim]`.
    """
    source = score_method(head, estimator)
    scores, labels = held.scores.scores, held.labels
    calibration = fit_calibration(options.answers.calibration, scores, labels, source)
    probabilities = calibration.probabilities(scores)
    threshold, refused = None, ""
    try:
        threshold = choose_threshold(options.answers, probabilities, labels, held.groups)
    except NotPromisedError as error:
        refused = str(error)
    answering = Answering(estimator, calibration, threshold.value if threshold else None)
    written = head_to_onnx(answering, sample, _named(head))
    return Fitted(
        head=head,
        answering=answering,
        written=written,
        out_of_fold=held.scores,
        threshold=threshold,
        probabilities=probabilities,
        refused=refused,
    )


def steps(options: FitOptions, examples: int) -> int:
    """How many steps `fit` takes; a search shows its own progress."""
    if options.head.name == AUTO:
        return 1
    return 1 + (1 if examples > MANY else options.calibration_folds)
