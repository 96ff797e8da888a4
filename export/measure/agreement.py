"""Compares the predictions of edge models on labelled photographs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from headstart.data.common import console
from headstart.data.common.console import counted
from headstart.data.common.errors import ModelError, SourceError
from headstart.data.common.intervals import Interval, proportion
from headstart.data.common.onnx_runtime import open_session
from headstart.data.contracts.calibration import UNKNOWN
from headstart.data.contracts.edge import Edge
from headstart.data.contracts.model import LABEL, Model
from headstart.data.examples.opening import open_source
from headstart.data.examples.parts import in_parts
from headstart.data.examples.reading import Reader, why_unread
from headstart.data.modalities.known import MODALITIES
from headstart.data.modalities.modality import DecodeError, InputSpec
from headstart.data.storage.folder import Folder
from headstart.data.storage.places import folder_at

BATCH = 16
HELD_OUT = ("test", "validation")


@dataclass(frozen=True)
class Photographs:
    """Labelled photographs to classify.

    Parameters
    ----------
    place, folder
        What the user named, and the folder that the paths are relative to.
    examples
        `id` and `path`.
    labels
        Index into the classes of the first model, int64 `[examples]`.
    split
        The split that they are, if the source declares a held-out one; none for all of it.
    unlabelled
        How many were left out because they have no label.
    """

    place: str
    folder: Folder
    examples: pa.Table
    labels: np.ndarray
    split: str | None
    unlabelled: int


@dataclass(frozen=True)
class EdgeScores:
    """How one edge model performs.

    Parameters
    ----------
    accuracy
        Share of all photographs that is classified correctly; "unknown" counts as wrong.
    answered
        Share with another prediction than "unknown".
    right_of_answers
        Share of those that is correct; none if there are none.
    agreement
        Share with the same prediction as the first model, including "unknown".
    """

    accuracy: Interval
    answered: Interval
    right_of_answers: Interval | None
    agreement: Interval


@dataclass(frozen=True)
class Agreement:
    """Edge models on the same photographs.

    Parameters
    ----------
    scores
        Of each model.
    support
        Photographs of each class, int64 `[classes]`.
    recall
        Share of each class's photographs that is classified correctly, float64 `[models, classes]`;
        NaN for a class without photographs.
    unread
        Ids of the photographs that were left out because they cannot be read, and why.
    """

    photographs: int
    split: str | None
    unlabelled: int
    classes: tuple[str, ...]
    scores: tuple[EdgeScores, ...]
    support: np.ndarray
    recall: np.ndarray
    unread: tuple[tuple[str, str], ...]


def labelled_photographs(
    path: str | Path, classes: Sequence[str], spec: InputSpec | None = None
) -> Photographs:
    """The labelled photographs of a source: its held-out split, if it declares one, or else all.

    Parameters
    ----------
    spec
        Of the first model, by which examples are divided; photographs by default.

    Raises
    ------
    SourceError
        If there is no such source, or it has no labels, or some that are not among the classes.
    """
    source = open_source(path, True, MODALITIES[spec.modality] if spec else None)
    examples = (in_parts(source, spec).source if spec else source).examples
    split = next((s for s in HELD_OUT if pc.any(pc.equal(examples["split"], s)).as_py()), None)
    if split is not None:
        examples = examples.filter(pc.equal(examples["split"], split))
    known = examples.filter(pc.is_valid(examples["label"]))
    if not known.num_rows:
        where = f"the split {split!r} of {path}" if split else str(path)
        raise SourceError(
            f"{where} has no labels, so accuracy cannot be measured",
            "Sort the files into one folder per class, or give a manifest with a column 'label'.",
        )
    position = pc.index_in(known["label"], value_set=pa.array(classes, pa.string()))
    if position.null_count:
        unknown = pc.unique(known["label"].filter(pc.is_null(position))).sort()
        raise SourceError(
            f"{path} has labels that are not classes of the models: "
            f"{console.first_few(unknown.to_pylist(), show=repr)}",
            f"Their classes are {console.first_few(classes, show=repr)}.",
        )
    labels = position.to_numpy().astype(np.int64)
    left_out = examples.num_rows - known.num_rows
    return Photographs(
        str(source.path), source.folder, known.select(["id", "path"]), labels, split, left_out
    )


def held_out_photographs(
    model: str | Path, source: str | Path | None, classes: Sequence[str]
) -> Photographs:
    """The photographs that a model's training held out.

    Parameters
    ----------
    source
        The folder with the photographs, if it is not the one recorded in the features.

    Raises
    ------
    ModelError
        If there is no such model, it has other classes, or it held nothing out.
    """
    trained = Model.open(model)
    if set(trained.card.classes) != set(classes):
        raise ModelError(
            f"the model {model} has other classes than the edge models",
            "Name the model that they were exported from.",
        )
    known = trained.examples()
    known = known.filter(pc.and_(pc.equal(known["split"], "test"), pc.is_valid(known["label"])))
    if not known.num_rows:
        raise ModelError(
            f"the model {model} held out no labelled examples", "Name some with --source."
        )
    position = pc.index_in(known["label"], value_set=pa.array(classes, pa.string()))
    folder = folder_at(source if source is not None else trained.card.root)
    labels = position.to_numpy().astype(np.int64)
    return Photographs(str(folder), folder, known.select(["id", "path"]), labels, "test", 0)


def agree(edges: Sequence[Edge], photographs: Photographs) -> Agreement:
    """Classify the photographs with every model; the others are compared with the first.

    Parameters
    ----------
    edges
        Models of the same classes, in any order of these.

    Raises
    ------
    SourceError
        If none of the photographs can be read.
    """
    answers, read, unread = _answer(edges, photographs)
    if not len(read):
        name, why = unread[0]
        raise SourceError(
            f"none of the {counted(len(unread), 'example')} of {photographs.place} can be read; "
            f"{name!r}: {why}",
            f"See what is broken: python -m data inspect {photographs.place}",
        )
    labels, classes = photographs.labels[read], edges[0].classes
    right = answers == labels
    support = np.bincount(labels, minlength=len(classes))
    hits = np.stack([np.bincount(labels, row, len(classes)) for row in right])
    scores = [_scores(own, answer, answers[0]) for own, answer in zip(right, answers, strict=True)]
    return Agreement(
        photographs=len(labels),
        split=photographs.split,
        unlabelled=photographs.unlabelled,
        classes=classes,
        scores=tuple(scores),
        support=support,
        recall=np.where(support > 0, hits / np.maximum(support, 1), np.nan),
        unread=tuple(unread),
    )


def _scores(right: np.ndarray, answer: np.ndarray, first: np.ndarray) -> EdgeScores:
    total, count, hits = len(right), int((answer != UNKNOWN).sum()), int(right.sum())
    return EdgeScores(
        proportion(hits, total),
        proportion(count, total),
        proportion(hits, count) if count else None,
        proportion(int((answer == first).sum()), total),
    )


def _answer(
    edges: Sequence[Edge], photographs: Photographs
) -> tuple[np.ndarray, np.ndarray, list[tuple[str, str]]]:
    """Labels by the first model's classes, int64 `[models, read]`; the rows that were read; the
    photographs that were not, and why."""
    sessions = [open_session(edge.content) for edge in edges]
    order = edges[0].classes
    # The last one is for -1, "unknown".
    places = [np.array([*map(order.index, edge.classes), UNKNOWN]) for edge in edges]
    rules = list(dict.fromkeys(edge.input_spec for edge in edges))
    reader = Reader(photographs.folder)
    answers: list[list[np.ndarray]] = [[] for _ in edges]
    read: list[int] = []
    unread: list[tuple[str, str]] = []
    examples = photographs.examples
    with console.progress("classifying", examples.num_rows) as advance:
        for start in range(0, examples.num_rows, BATCH):
            rows = examples.slice(start, BATCH).to_pylist()
            decoded = []
            for offset, row in enumerate(rows):
                try:
                    decoded.append(_decode(reader.read(row["path"]), row["path"], rules))
                except OSError as error:
                    unread.append((row["id"], why_unread(error)[1]))
                except DecodeError as error:
                    unread.append((row["id"], error.message))
                else:
                    read.append(start + offset)
            for edge, session, place, found in zip(edges, sessions, places, answers, strict=True):
                images = [each[edge.input_spec] for each in decoded]
                if edge.any_size:
                    given = [image[None] for image in images]
                else:
                    given = [edge.input_spec.stack(images)] if images else []
                for inputs in given:
                    (labels,) = session.run([LABEL], edge.input_spec.feed(inputs))
                    found.append(place[labels])
            advance(len(rows))
    nothing = np.empty(0, np.int64)
    table = np.stack([np.concatenate([nothing, *found]) for found in answers])
    return table, np.array(read, np.int64), unread


def _decode(content: bytes, path: str, rules: Sequence[InputSpec]) -> dict[InputSpec, np.ndarray]:
    """A row of the input by each rule."""
    return {rule: rule.at(path).decode(content) for rule in rules}
