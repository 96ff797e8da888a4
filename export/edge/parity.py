"""Compares an edge model with training on photographs, before it is written."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa
import skops.io

from headstart.data.common import console
from headstart.data.common.console import counted
from headstart.data.common.errors import ModelError, ParityError
from headstart.data.common.onnx_runtime import open_session
from headstart.data.contracts import backbone as contract
from headstart.data.contracts.backbone import Backbone
from headstart.data.contracts.calibration import changed, scores_of
from headstart.data.contracts.model import HEAD, INPUT, LABEL, PROBABILITIES, SKOPS, Model
from headstart.data.examples.reading import Reader
from headstart.data.modalities.modality import DecodeError
from headstart.data.storage.places import folder_at
from headstart.export.options import GateOptions

FEWEST = 64  # photographs that are required; for a small model, half of its examples
BATCH = 16
ESTIMATOR = "the trained estimator"
HEAD_GRAPH = f"{HEAD}, which training compared with the estimator; that is not loaded"
# In addition to what skops itself trusts: the trees of gradient boosting, which are plain arrays.
TRUSTED = {"sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor"}
SEED = 0


@dataclass(frozen=True)
class Parity:
    """How far an edge model's predictions are from training's.

    Parameters
    ----------
    examples
        Photographs compared; `held_out` of them were not trained on.
    largest_difference
        Of a probability.
    changed
        Ids of the photographs whose label changed.
    farthest
        Id of the photograph with the largest difference.
    reference
        What training's predictions came from, in words: the trained estimator, or `head.onnx`.
    """

    examples: int
    held_out: int
    largest_difference: float
    changed: tuple[str, ...]
    farthest: str = ""
    reference: str = ESTIMATOR

    def check(self, gate: GateOptions) -> None:
        """Raise `ParityError` if the edge model must not be written."""
        within = self.largest_difference <= gate.tolerance  # which NaN is not
        if within and len(self.changed) <= gate.most_changed:
            return
        names = f" ({', '.join(self.changed[:5])})" if self.changed else ""
        raise ParityError(
            f"the edge model differs from training: by up to "
            f"{self.largest_difference:.1e} in a probability, most for {self.farthest} (at most "
            f"{gate.tolerance:.0e} is accepted), and in {len(self.changed)} of {self.examples} "
            f"labels{names}",
            "No file was written. Export the backbone again, or choose another head; --tolerance "
            "and --most-changed accept more.",
        )


def compare(edge: bytes, backbone: Backbone, model: Model, gate: GateOptions) -> Parity:
    """Classify photographs from their files as training did and with the edge model.

    Held-out photographs come first. Training's path is: decoding, the backbone's graph, the
    scikit-learn estimator, its calibration. If the estimator is one that we do not load (Keras, or
    the user's own), `head.onnx` replaces it, which was compared with it when it was trained.

    An edge model that accepts any size gets the photographs unresized, one by one. Both paths then
    begin with the same pixels, none of them decoded at a reduced size.

    Raises
    ------
    ModelError
        If too few of the photographs can be found, or the estimator is damaged.
    """
    answer, reference = training_answers(backbone, model)
    classify = open_session(edge)
    ids: list[str] = []
    differences: list[float] = []
    held_out, others = 0, []
    known, spec = _in_order(model), backbone.spec.preprocessing
    any_size = not spec.ragged and not isinstance(classify.get_inputs()[0].shape[1], int)
    with console.progress("comparing", min(gate.examples, known.num_rows)) as advance:
        for batch in _batches(_photographs(known, model, backbone, gate, any_size)):
            images = spec.stack([photograph.image for photograph in batch])
            expected = answer(images)
            given = [images]
            if any_size:
                given = [spec.unsized().decode(each.content)[None] for each in batch]
            parts = [classify.run([LABEL, PROBABILITIES], spec.feed(each)) for each in given]
            labels, got = (np.concatenate(values) for values in zip(*parts, strict=True))
            ids += [photograph.id for photograph in batch]
            differences += np.abs(got - expected).max(axis=1).tolist()
            moved = changed(labels, expected, model.card.threshold, gate.tolerance)
            others += [batch[int(offset)].id for offset in moved]
            held_out += sum(photograph.held_out for photograph in batch)
            advance(len(batch))
    farthest = int(np.argmax(differences))  # NaN counts as more than any number
    return Parity(
        len(ids), held_out, differences[farthest], tuple(others), ids[farthest], reference
    )


@dataclass(frozen=True)
class _Photograph:
    """One to compare: its file, and its pixels as in training, uint8 `[height, width, 3]`."""

    id: str
    held_out: bool
    content: bytes
    image: np.ndarray


def _in_order(model: Model) -> pa.Table:
    """All examples, held-out ones first, in a random but fixed order."""
    known = model.examples()
    order = np.random.default_rng(SEED).permutation(known.num_rows)
    splits = known["split"].to_numpy(zero_copy_only=False)[order]
    return known.take(pa.array(order[np.argsort(splits != "test", kind="stable")]))


def _photographs(
    known: pa.Table, model: Model, backbone: Backbone, gate: GateOptions, whole: bool
) -> Iterator[_Photograph]:
    """Up to `gate.examples` that can be read, one at a time: files may be large."""
    root = folder_at(gate.source if gate.source is not None else model.card.root)
    reader, found = Reader(root), 0
    for row in known.select(["id", "path", "split"]).to_pylist():
        try:
            content = reader.read(row["path"])
            image = backbone.spec.preprocessing.at(row["path"]).decode(content, fast=not whole)
        except (OSError, DecodeError):
            continue  # an error below, if too few are left
        yield _Photograph(row["id"], row["split"] == "test", content, image)
        found += 1
        if found == gate.examples:
            return
    needed = min(FEWEST, gate.examples, -(-known.num_rows // 2))
    if found < needed:
        raise ModelError(
            f"the parity check needs {needed} of the model's "
            f"{counted(known.num_rows, 'example')}, but only {found} can be read in {root}",
            "Name the folder where they are now: --source FOLDER",
        )


def _batches(photographs: Iterator[_Photograph]) -> Iterator[list[_Photograph]]:
    while batch := list(islice(photographs, BATCH)):
        yield batch


def training_answers(
    backbone: Backbone, model: Model
) -> tuple[Callable[[np.ndarray], np.ndarray], str]:
    """What computes training's probabilities from the backbone's input, and its name in words."""
    embed = open_session(backbone.content)
    estimator = _load_estimator(model) if model.estimator_file == SKOPS else None
    head = None if estimator is not None else open_session(model.head)
    calibration = model.card.calibration

    def answer(images: np.ndarray) -> np.ndarray:
        (embeddings,) = embed.run([contract.OUTPUT], backbone.spec.preprocessing.feed(images))
        if head is not None:
            return np.asarray(head.run([PROBABILITIES], {INPUT: embeddings})[0])
        return calibration.probabilities(scores_of(estimator, embeddings, calibration.scores))

    return answer, HEAD_GRAPH if head is not None else ESTIMATOR


def _load_estimator(model: Model) -> Any:
    """The estimator of `head.skops`; none if it contains types that we do not load."""
    content = model.estimator
    try:
        unknown = set(skops.io.get_untrusted_types(data=content)) - TRUSTED
    except Exception as error:  # a damaged zip or schema: skops wraps no errors
        raise ModelError(
            f"{model.folder.path(SKOPS)} is damaged: {error}", "Train the model again."
        ) from error
    return None if unknown else skops.io.loads(content, trusted=sorted(TRUSTED))
