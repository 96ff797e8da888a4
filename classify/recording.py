"""Who was in which split, and what was answered: the examples of the model folder."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from headstart.classify.features.loading import Loaded
from headstart.classify.prediction.answers import answers_in_words
from headstart.classify.prediction.features import HeadSession
from headstart.classify.splits.held_out import Answers
from headstart.classify.splits.splitting import Split

COLUMNS = ("id", "path", "content", "label")


def recorded(loaded: Loaded, split: Split, answers: Answers, head: bytes) -> pa.Table:
    """Every example: its split, and the answer of those that were tested or have no label.

    Returns
    -------
    pa.Table
        `id`, `path`, `content`, `label`, `split` (`train`, `test` or none), `prediction` (none for
        "unknown"), `confidence`, and `probability` of the true class.
    """
    data = loaded.data
    count = len(data.labels)
    splits, predictions = np.full(count, None, object), np.full(count, None, object)
    confidence, probability = np.full((2, count), np.nan, np.float32)
    splits[split.train], splits[split.test] = "train", "test"
    predictions[split.test], confidence[split.test] = answers_in_words(
        answers.predictions, answers.probabilities, data.classes
    )
    own = answers.probabilities[np.arange(len(answers.labels)), answers.labels]
    probability[split.test] = own
    known = _table(data.examples, splits, predictions, (confidence, probability))
    return pa.concat_tables([known, _predicted(loaded, head)])


def _predicted(loaded: Loaded, head: bytes) -> pa.Table:
    """The examples without a label, and the answers for them."""
    examples, session = loaded.unlabelled, HeadSession(head)
    nothing = np.full(examples.num_rows, None, object)
    missing = np.full(examples.num_rows, np.nan, np.float32)
    names, confidence = [nothing[:0]], [missing[:0]]
    for batch in loaded.others.batches(np.arange(examples.num_rows)):
        labels, probabilities = session.run(batch)
        words, sure = answers_in_words(labels, probabilities, loaded.data.classes)
        names.append(words)
        confidence.append(sure)
    return _table(examples, nothing, np.concatenate(names), (np.concatenate(confidence), missing))


def _table(
    examples: pa.Table,
    splits: np.ndarray,
    predictions: np.ndarray,
    numbers: tuple[np.ndarray, np.ndarray],
) -> pa.Table:
    table = examples.select(COLUMNS)
    for name, values in (("split", splits), ("prediction", predictions)):
        table = table.append_column(name, pa.array(values, pa.string()))
    for name, values in zip(("confidence", "probability"), numbers, strict=True):
        table = table.append_column(name, pa.array(values, pa.float32(), from_pandas=True))
    return table
