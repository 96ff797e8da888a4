"""Score a model folder on examples that were not used to train it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from headstart.classify.prediction.features import open_pair, run_head
from headstart.classify.scores.metrics import Scores, score
from headstart.data.common.errors import InputError
from headstart.data.contracts.model import Model
from headstart.data.contracts.store import embeddings_of


@dataclass(frozen=True)
class Evaluation:
    """Scores, and how many labelled examples were left out.

    Those are examples whose bytes were used in training, or of a declared validation split.
    """

    scores: Scores
    left_out: int


def evaluate(model: str | Path, features: str | Path) -> Evaluation:
    """Score a model on the held-out examples of its store, or on all examples of another store.

    Training examples are recognized by the hash of their bytes, so a copy of a training photograph
    under another name is left out as well.

    Raises
    ------
    InputError
        If model and features do not belong together, no example is left, or a label is unknown.
    """
    opened, store = open_pair(model, features)
    table = store.read(["content", "label", "embedding"])
    table = table.filter(pc.is_valid(table["label"]))
    fresh = held_out(opened, table)
    if not fresh.num_rows:
        raise InputError(
            f"{features} has no labelled example that was not used to train {model}",
            "Evaluate on other features.",
        )
    classes = opened.card.classes
    position = pc.index_in(fresh["label"], value_set=pa.array(classes, pa.string()))
    if position.null_count:
        unknown = pc.unique(fresh["label"].filter(pc.is_null(position))).to_pylist()
        raise InputError(
            f"{features} has labels that are not classes of the model: "
            f"{', '.join(map(repr, unknown))}",
            f"The model's classes are {', '.join(map(repr, classes))}.",
        )
    _, probabilities = run_head(opened.head, embeddings_of(fresh))
    labels = position.to_numpy().astype(np.int64)
    scores = score(labels, probabilities, classes, opened.card.threshold)
    return Evaluation(scores, table.num_rows - fresh.num_rows)


def held_out(model: Model, table: pa.Table) -> pa.Table:
    """The rows of a table with a column `content` whose bytes were not used in training."""
    examples = model.examples()
    labelled = examples.filter(pc.is_valid(examples["label"]))
    used = labelled.filter(pc.not_equal(labelled["split"].fill_null(""), "test"))
    seen = pc.is_in(table["content"], value_set=used["content"].combine_chunks())
    return table.filter(pc.invert(seen))
