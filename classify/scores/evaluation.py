"""Score a model folder on examples that were not used to train it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from headstart.classify.prediction.features import open_pair, run_head
from headstart.classify.scores.metrics import Scores, score, score_wholes
from headstart.classify.splits.splitting import group_indices
from headstart.data.common.errors import InputError
from headstart.data.contracts.corrections import correct
from headstart.data.contracts.model import Model
from headstart.data.contracts.store import embeddings_of

SHOWN = 20  # class names in a message


@dataclass(frozen=True)
class Evaluation:
    """Scores, and how many labelled examples were left out.

    Parameters
    ----------
    left_out
        Examples whose bytes were used in training, or of a declared validation split.
    unknown
        Number of the other examples of each label that is not a class of the model.
    """

    scores: Scores
    left_out: int
    unknown: dict[str, int]


def evaluate(model: str | Path, features: str | Path) -> Evaluation:
    """Score a model on the held-out examples of its store, or on all examples of another store.

    The labels of the model's own features are corrected as they were for its training.

    Training examples are recognized by the hash of their bytes, so a copy of a training photograph
    under another name is left out as well.

    Raises
    ------
    InputError
        If model and features do not belong together, or no example of the model's classes is
        left.
    """
    opened, store = open_pair(model, features)
    table = store.read(["id", "content", "label", "group", "embedding"])
    if opened.card.features == str(store.folder):  # ids of other features mean other examples
        corrected = correct(table["id"], table["label"], opened.corrections())
        column = table.schema.get_field_index("label")
        table = table.set_column(column, "label", corrected.labels).filter(pa.array(corrected.kept))
    table = table.filter(pc.is_valid(table["label"]))
    fresh = held_out(opened, table)
    if not fresh.num_rows:
        raise InputError(
            f"{features} has no labelled example that was not used to train {model}",
            "Evaluate on other features.",
        )
    classes = opened.card.classes
    position = pc.index_in(fresh["label"], value_set=pa.array(classes, pa.string()))
    unknown = Counter(fresh["label"].filter(pc.is_null(position)).to_pylist())
    left_out = table.num_rows - fresh.num_rows
    if position.null_count == fresh.num_rows:
        raise InputError(
            f"{features} has no labels that are classes of the model, but "
            f"{', '.join(map(repr, sorted(unknown)[:SHOWN]))}",
            f"The model's classes are {', '.join(map(repr, classes[:SHOWN]))}"
            f"{', ...' if len(classes) > SHOWN else ''}.",
        )
    fresh = fresh.filter(pc.is_valid(position))
    _, probabilities = run_head(opened.head, embeddings_of(fresh))
    labels = position.drop_null().to_numpy().astype(np.int64)
    groups = _groups(opened, fresh)
    scores = score(labels, probabilities, classes, opened.card.threshold, groups)
    wholes = score_wholes(fresh["id"].to_pylist(), labels, probabilities, groups)
    scores = replace(scores, wholes=wholes)
    return Evaluation(scores, left_out, dict(sorted(unknown.items())))


def _groups(model: Model, table: pa.Table) -> np.ndarray | None:
    """Index of each example's group: of the training's column, or else of the store's `group`."""
    examples, column = model.examples(), table["group"]
    if "group" in examples.column_names:
        place = pc.index_in(table["content"], value_set=examples["content"].combine_chunks())
        recorded = examples["group"].take(place)
        column = pc.coalesce(recorded, column.cast(pa.string()))
    return None if column.null_count == table.num_rows else group_indices(column)


def held_out(model: Model, table: pa.Table) -> pa.Table:
    """The rows of a table with a column `content` whose bytes were not used in training."""
    examples = model.examples()
    labelled = examples.filter(pc.is_valid(examples["label"]))
    used = labelled.filter(pc.not_equal(labelled["split"].fill_null(""), "test"))
    seen = pc.is_in(table["content"], value_set=used["content"].combine_chunks())
    return table.filter(pc.invert(seen))
