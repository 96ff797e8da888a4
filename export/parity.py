"""The gate before an edge model appears: photographs go through training's path and through it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnxruntime
import pyarrow as pa
import pyarrow.compute as pc
import skops.io

from data import backbone as contract
from data import console
from data.backbone import Backbone
from data.calibration import changed, scores_of
from data.decoding import DecodeError, decode, open_image
from data.errors import ModelError, ParityError
from data.folders import Folder
from data.model import HEAD, INPUT, LABEL, PROBABILITIES, SKOPS, Model
from data.reading import Reader
from export.options import GateOptions

FEWEST = 64  # photographs that are required: of a small model, half of its examples
BATCH = 16
ESTIMATOR = "the trained estimator"
STAND_IN = f"{HEAD}, which training held against the estimator; that one is not loaded"
# Beside what skops trusts by itself: the trees of gradient boosting, which are plain arrays.
TRUSTED = {"sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor"}
SEED = 0


@dataclass(frozen=True)
class Parity:
    """How far an edge model's answers are from training's.

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
        What gave training's answers, in words: the trained estimator, or `head.onnx`.
    """

    examples: int
    held_out: int
    largest_difference: float
    changed: tuple[str, ...]
    farthest: str = ""
    reference: str = ESTIMATOR

    def check(self, gate: GateOptions) -> None:
        """Raise `ParityError` where the edge model must not appear."""
        within = self.largest_difference <= gate.tolerance  # which NaN is not
        if within and len(self.changed) <= gate.most_changed:
            return
        names = f" ({', '.join(self.changed[:5])})" if self.changed else ""
        raise ParityError(
            f"the edge model answers otherwise than training: by up to "
            f"{self.largest_difference:.1e} in a probability, most for {self.farthest} (at most "
            f"{gate.tolerance:.0e} is let through), and in {len(self.changed)} of {self.examples} "
            f"labels{names}",
            "No file was written. Export the backbone again, or choose another head; --tolerance "
            "and --most-changed let more through.",
        )


def compare(edge: bytes, backbone: Backbone, model: Model, gate: GateOptions) -> Parity:
    """Send photographs from their files through both ways, held-out ones first.

    Training's path is: decode, the backbone's graph, the scikit-learn estimator, its calibration.
    An estimator that we do not load (Keras, or the user's own) was held against `head.onnx` when it
    was trained, which then stands in for it.

    An edge model that takes any size is given the photographs as they are, one by one.

    Raises
    ------
    ModelError
        If too few of the photographs can be found, or the estimator is damaged.
    """
    examples, contents = compared_photographs(model, gate)
    ids = examples["id"].to_pylist()
    answer, reference = training_answers(backbone, model)
    classify = _session(edge)
    any_size = not isinstance(classify.get_inputs()[0].shape[1], int)
    worst, farthest, others = 0.0, "", []
    with console.progress("comparing", len(contents)) as advance:
        for start in range(0, len(contents), BATCH):
            batch = contents[start : start + BATCH]
            expected = answer(batch)
            if any_size:
                given = [decode(content, None)[None] for content in batch]
            else:
                rule = backbone.spec.preprocessing
                given = [np.stack([decode(content, rule) for content in batch])]
            parts = [classify.run([LABEL, PROBABILITIES], {contract.INPUT: g}) for g in given]
            labels, got = (np.concatenate(values) for values in zip(*parts, strict=True))
            apart = np.abs(got - expected).max(axis=1)
            if not apart.max() <= worst:
                worst, farthest = float(apart.max()), ids[start + int(apart.argmax())]
            moved = changed(labels, expected, model.card.threshold, gate.tolerance)
            others += [ids[start + int(offset)] for offset in moved]
            advance(len(batch))
    held_out = pc.sum(pc.equal(examples["split"], "test")).as_py() or 0
    return Parity(len(contents), held_out, worst, tuple(others), farthest, reference)


def _session(content: bytes) -> Any:
    return onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])


def compared_photographs(model: Model, gate: GateOptions) -> tuple[pa.Table, list[bytes]]:
    """Examples to compare and their files: held-out ones first, in a random but fixed order."""
    root = Folder.at(gate.source if gate.source is not None else model.card.root)
    known = model.examples()
    order = np.random.default_rng(SEED).permutation(known.num_rows)
    splits = known["split"].to_numpy(zero_copy_only=False)[order]
    known = known.take(pa.array(order[np.argsort(splits != "test", kind="stable")]))
    rows, contents, reader = [], [], Reader(root)
    for row, path in enumerate(known["path"].to_pylist()):
        try:
            content = reader.read(path)
            open_image(content)
        except (OSError, DecodeError):
            continue  # too few of them is an error, below
        rows.append(row)
        contents.append(content)
        if len(contents) == gate.examples:
            break
    needed = min(FEWEST, gate.examples, -(-known.num_rows // 2))
    if len(contents) < needed:
        raise ModelError(
            f"the parity check needs {needed} of the {known.num_rows} photographs that the model "
            f"knows, but only {len(contents)} can be read in {root}",
            "Say where they are now: --source FOLDER",
        )
    return known.take(pa.array(rows)), contents


def training_answers(
    backbone: Backbone, model: Model
) -> tuple[Callable[[list[bytes]], np.ndarray], str]:
    """From photographs' files to training's probabilities, and what gives them, in words."""
    embed = _session(backbone.content)
    estimator = _load_estimator(model) if model.estimator_file == SKOPS else None
    head = None if estimator is not None else _session(model.head)
    calibration = model.card.calibration

    def answer(contents: list[bytes]) -> np.ndarray:
        images = np.stack([decode(content, backbone.spec.preprocessing) for content in contents])
        (embeddings,) = embed.run([contract.OUTPUT], {contract.INPUT: images})
        if head is not None:
            return np.asarray(head.run([PROBABILITIES], {INPUT: embeddings})[0])
        return calibration.probabilities(scores_of(estimator, embeddings, calibration.scores))

    return answer, STAND_IN if head is not None else ESTIMATOR


def _load_estimator(model: Model) -> Any:
    """The estimator of `head.skops`; none if it holds types that we do not load."""
    content = model.estimator
    try:
        unknown = set(skops.io.get_untrusted_types(data=content)) - TRUSTED
    except Exception as error:  # a damaged zip or schema: skops lets anything through
        raise ModelError(
            f"{model.folder.path(SKOPS)} is damaged: {error}", "Train the model again."
        ) from error
    return None if unknown else skops.io.loads(content, trusted=sorted(TRUSTED))
