"""Train a head on more examples than fit in memory."""

from __future__ import annotations

from typing import Any

import numpy as np

from headstart.classify.features.batches import Batches
from headstart.classify.features.loading import Streamed
from headstart.classify.heads.estimators import HeadOptions
from headstart.classify.heads.fitting import COMPARED, FitOptions, Fitted, HeldBack, finish
from headstart.classify.heads.folds import OutOfFold
from headstart.classify.splits.splitting import hold_back, hold_back_groups
from headstart.classify.streamed.logistic import LogisticOptions, fit_logistic
from headstart.classify.streamed.moments import fit_lda, fit_ridge
from headstart.data.common.errors import InputError
from headstart.data.contracts.calibration import DECISION, scores_of

STREAMED = ("logistic", "ridge", "lda")
HELD = 20_000  # examples held out for calibration, at most; and at most a tenth of all


def check_streamed(options: FitOptions, why: str) -> None:
    """Reject options that need all embeddings in memory.

    Raises
    ------
    InputError
        Its message includes `why` they are not in memory.
    """
    head = options.head
    if head.name not in STREAMED:
        raise InputError(
            f"the head {head.name} needs all embeddings in memory, but {why}",
            f"Choose one of {', '.join(STREAMED)}, or raise --memory.",
        )
    if head.name == "lda" and head.all_parameters["shrinkage"] == "auto":
        raise InputError(
            f"the head lda needs all embeddings in memory to choose its shrinkage, but {why}",
            "Give --param shrinkage=0.1, or raise --memory.",
        )
    if head.name == "ridge" and head.class_weight:
        raise InputError(
            f"the head ridge needs all embeddings in memory for class weights, but {why}",
            "Choose logistic, leave --class-weight out, or raise --memory.",
        )


def fit_streamed(
    embeddings: Streamed,
    rows: np.ndarray,
    labels: np.ndarray,
    classes: tuple[str, ...],
    options: FitOptions,
    groups: np.ndarray | None = None,
) -> Fitted:
    """As `heads.fitting.fit`, but by passes over the store.

    About a tenth of the examples, at most 20,000, is held out for calibration, whole groups where
    there are groups; the head is not trained on those.

    Parameters
    ----------
    rows
        Rows of the training examples, ascending, int64 `[rows]`.
    labels
        Labels of all labelled examples, int64 `[examples]`.
    groups
        Their groups, `[examples]`; none if no example has one.
    """
    count = min(HELD, len(rows) // 10)
    if groups is None:
        held_places = np.sort(hold_back(labels[rows], count, options.seed))
    else:
        share = count / len(rows)
        held_places = hold_back_groups(labels[rows], groups[rows], share, options.seed)
    held = rows[held_places]
    rest = np.delete(rows, held_places)
    store_labels = np.zeros(embeddings.store.manifest.rows, np.int64)
    store_labels[embeddings.rows] = labels
    estimator = _fit(options.head, embeddings.chosen(rest), store_labels, classes)
    scores = [scores_of(estimator, batch, DECISION) for batch in embeddings.batches(held)]
    nothing = np.zeros((0, len(classes)), np.float32)
    out_of_fold = OutOfFold(held_places, np.concatenate([nothing, *scores], dtype=np.float32))
    held_back = HeldBack(out_of_fold, labels[held], None if groups is None else groups[held])
    sample = embeddings.take(np.sort(np.random.default_rng(0).permutation(rest)[:COMPARED]))
    return finish(options, options.head, estimator, held_back, sample)


def _fit(head: HeadOptions, batches: Batches, labels: np.ndarray, classes: tuple[str, ...]) -> Any:
    given = head.all_parameters
    if head.name == "logistic":
        balanced = head.class_weight == "balanced"
        options = LogisticOptions(given["c"], balanced, max_iter=int(given["max_iter"]))
        return fit_logistic(batches, labels, classes, options)
    if head.name == "ridge":
        return fit_ridge(batches, labels, classes, given["alpha"])
    return fit_lda(batches, labels, classes, given["shrinkage"])
