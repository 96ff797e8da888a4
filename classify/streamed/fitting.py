"""From more training examples than fit in memory to a finished head."""

from __future__ import annotations

from typing import Any

import numpy as np

from headstart.classify.features.batches import Batches
from headstart.classify.features.embeddings import Streamed
from headstart.classify.heads.estimators import HeadOptions
from headstart.classify.heads.fitting import COMPARED, FitOptions, Fitted, finish
from headstart.classify.heads.folds import OutOfFold
from headstart.classify.splits.splitting import hold_back
from headstart.classify.streamed.logistic import LogisticOptions, fit_logistic
from headstart.classify.streamed.moments import fit_lda, fit_ridge
from headstart.data.common.errors import InputError
from headstart.data.contracts.calibration import DECISION, scores_of

STREAMED = ("logistic", "ridge", "lda")
HELD = 20_000  # examples kept back to calibrate on, at most, and a tenth


def check_streamed(options: FitOptions, why: str) -> None:
    """Refuse what needs all embeddings in memory.

    Raises
    ------
    InputError
        Saying `why` they are not in memory.
    """
    head = options.head
    if head.name not in STREAMED:
        raise InputError(
            f"the head {head.name} needs all embeddings in memory, but {why}",
            f"Choose one of {', '.join(STREAMED)}, or raise --memory.",
        )
    if head.name == "lda" and head.all_parameters["shrinkage"] == "auto":
        raise InputError(
            f"the head lda chooses its shrinkage by all embeddings in memory, but {why}",
            "Say --param shrinkage=0.1, or raise --memory.",
        )
    if head.name == "ridge" and head.class_weight:
        raise InputError(
            f"the head ridge has class weights only with all embeddings in memory, but {why}",
            "Choose logistic, leave --class-weight out, or raise --memory.",
        )


def fit_streamed(
    embeddings: Streamed,
    rows: np.ndarray,
    labels: np.ndarray,
    classes: tuple[str, ...],
    options: FitOptions,
) -> Fitted:
    """As `fitting.fit`, but by passes over the store.

    At most a tenth of the examples is kept back: the head is calibrated on those, and they do not
    train.

    Parameters
    ----------
    rows
        The training examples, ascending, int64 `[rows]`.
    labels
        Of all labelled examples, int64 `[examples]`.
    """
    where = np.sort(hold_back(labels[rows], min(HELD, len(rows) // 10), options.seed))
    held = rows[where]
    rest = np.delete(rows, where)
    of_store = np.zeros(embeddings.store.manifest.rows, np.int64)
    of_store[embeddings.rows] = labels
    estimator = _fit(options.head, embeddings.chosen(rest), of_store, classes)
    scores = [scores_of(estimator, batch, DECISION) for batch in embeddings.batches(held)]
    out_of_fold = OutOfFold(where, np.concatenate(scores).astype(np.float32))
    sample = embeddings.take(np.sort(np.random.default_rng(0).permutation(rest)[:COMPARED]))
    return finish(options, options.head, estimator, out_of_fold, labels[held], sample)


def _fit(head: HeadOptions, batches: Batches, labels: np.ndarray, classes: tuple[str, ...]) -> Any:
    given = head.all_parameters
    if head.name == "logistic":
        balanced = head.class_weight == "balanced"
        options = LogisticOptions(given["c"], balanced, max_iter=int(given["max_iter"]))
        return fit_logistic(batches, labels, classes, options)
    if head.name == "ridge":
        return fit_ridge(batches, labels, classes, given["alpha"])
    return fit_lda(batches, labels, classes, given["shrinkage"])
