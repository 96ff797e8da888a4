"""`--head auto`: choose a head and its parameters by cross-validation on training examples."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from headstart.classify.heads.estimators import HEADS, HeadOptions, variants
from headstart.classify.heads.folds import Fold, OutOfFold, join_folds, score_fold
from headstart.classify.splits.held_out import Training
from headstart.data.common import console
from headstart.data.common.errors import InputError, TrainingError, first_line
from headstart.data.common.ray_session import ray_session
from headstart.data.workers.tasks import result_of

FEW = 10_000  # training examples up to which heads of more than linear cost are tried
FINALISTS = 2  # kinds of head whose parameters are varied


@dataclass(frozen=True)
class Trial:
    """A head that the search tried.

    Parameters
    ----------
    mean, std
        Of the accuracy over the folds.
    seconds
        Training time of all folds, each on one CPU.
    """

    head: str
    parameters: Mapping[str, Any]
    mean: float
    std: float
    seconds: float
    chosen: bool = False

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return asdict(self)


@dataclass(frozen=True)
class Found:
    """The best head, its out-of-fold scores, and all trials, the best first."""

    head: HeadOptions
    scores: OutOfFold
    trials: tuple[Trial, ...]


def search(options: HeadOptions, training: Training, folds: list[Fold], seed: int) -> Found:
    """Try every kind of head with default parameters, then vary those of the two best kinds.

    Each fold of each head is a Ray task; the embeddings are put into the object store once. The
    best head has the highest mean accuracy over the folds; among equals, the first tried. A head
    that cannot be trained on the examples of a fold is left out, with a note.

    Raises
    ------
    InputError
        If there are no folds to compare heads on, or no head can be trained on them.
    TrainingError
        If a worker fails in another way, or is lost.
    """
    if not folds:
        raise InputError(
            "--head auto cannot compare heads: there are too few examples or groups of each class",
            "Name a head with --head, or add examples.",
        )
    kinds = candidates(options, len(training.labels))
    with ray_session(None, None):
        first = [HeadOptions(name, {}, options.class_weight) for name in kinds]
        tried = _try(first, training, folds, seed, "trying heads")
        if not tried:
            raise InputError(
                "--head auto cannot compare heads: none can be trained on a part of the examples",
                "Add examples.",
            )
        names = [trial.head for trial, *_ in sorted(tried, key=_rank)]
        more = [
            variant
            for name in names[:FINALISTS]
            for variant in variants(HeadOptions(name, {}, options.class_weight))
            if variant.all_parameters != HEADS[name].defaults
        ]
        tried += _try(more, training, folds, seed, "trying parameters")
    tried.sort(key=_rank)
    _, head, scores = tried[0]
    trials = [trial for trial, *_ in tried]
    best = Trial(**trials[0].to_json() | {"chosen": True})
    return Found(head, join_folds(folds, scores, len(training.classes)), (best, *trials[1:]))


Tried = tuple[Trial, HeadOptions, list[np.ndarray]]


def _rank(tried: Tried) -> float:
    return -tried[0].mean


def candidates(options: HeadOptions, examples: int) -> list[str]:
    """The names of the kinds of head that a search tries."""
    names = [name for name, kind in HEADS.items() if kind.cheap or examples <= FEW]
    if options.class_weight:
        names = [name for name in names if HEADS[name].weights]
    if "keras" in names and importlib.util.find_spec("keras") is None:
        console.note("the keras head is skipped: Keras is not installed")
        names.remove("keras")
    return names


def _try(
    heads: list[HeadOptions], training: Training, folds: list[Fold], seed: int, what: str
) -> list[Tried]:
    import ray

    task = ray.remote(num_cpus=1)(_timed)
    shared = ray.put(training)
    # Slow heads first, so that the search does not end with waiting for one.
    order = sorted(range(len(heads)), key=lambda number: HEADS[heads[number].name].cheap)
    pending = {
        task.remote(heads[number], shared, fold, seed): (number, place)
        for number in order
        for place, fold in enumerate(folds)
    }
    results: dict[tuple[int, int], tuple[np.ndarray, float] | str] = {}
    with console.progress(what, len(pending)) as advance:
        while pending:
            (ready,), _ = ray.wait(list(pending), num_returns=1)
            number, place = pending.pop(ready)
            name = f"training the head {heads[number].name}"
            results[number, place] = result_of(ready, name, TrainingError)
            advance(1)
    tried = []
    for number, head in enumerate(heads):
        answers = []
        for place in range(len(folds)):
            if isinstance(result := results[number, place], str):
                console.note(f"left out: {result}")
                break
            answers.append(result)
        if len(answers) < len(folds):
            continue
        scores = [found for found, _ in answers]
        shares = [
            float((found.argmax(axis=1) == training.labels[fold.held]).mean())
            for found, fold in zip(scores, folds, strict=True)
        ]
        trial = Trial(
            head.name,
            head.all_parameters,
            float(np.mean(shares)),
            float(np.std(shares, ddof=1)) if len(shares) > 1 else 0.0,
            sum(seconds for _, seconds in answers),
        )
        tried.append((trial, head, scores))
    return tried


def _timed(
    head: HeadOptions, training: Training, fold: Fold, seed: int
) -> tuple[np.ndarray, float] | str:
    """Scores and seconds; or why the head cannot be trained."""
    start = time.monotonic()
    try:
        return score_fold(head, training, fold, seed), time.monotonic() - start
    except InputError as error:
        return first_line(error)
