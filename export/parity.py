"""The gate before an edge model appears: photographs go through training's path and through it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pyarrow as pa
import pyarrow.compute as pc
import skops.io

from data import backbone as contract
from data.backbone import Backbone
from data.calibration import changed, scores_of
from data.decoding import DecodeError, decode
from data.errors import ModelError, ParityError
from data.folders import Folder
from data.model import HEAD, INPUT, LABEL, PROBABILITIES, SKOPS, Model
from data.reading import Reader

EXAMPLES, FEWEST = 128, 64  # compared, and required: of a small model, half of its examples
TOLERANCE = 1e-3  # largest difference of a probability
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
    reference
        What gave training's answers, in words: the trained estimator, or `head.onnx`.
    """

    examples: int
    held_out: int
    largest_difference: float
    changed: tuple[str, ...]
    reference: str = ESTIMATOR

    def check(self) -> None:
        """Raise `ParityError` where the edge model must not appear."""
        if not self.largest_difference <= TOLERANCE or self.changed:
            names = f" ({', '.join(self.changed[:5])})" if self.changed else ""
            raise ParityError(
                f"the edge model answers otherwise than training: by up to "
                f"{self.largest_difference:.1e} in a probability (at most {TOLERANCE:.0e} is let "
                f"through), and in {len(self.changed)} of {self.examples} labels{names}",
                "No file was written. Export the backbone again, or choose another head.",
            )


def compare(edge: bytes, backbone: Backbone, model: Model, source: str | Path | None) -> Parity:
    """Send photographs from their files through both ways, held-out ones first.

    Training's path is: decode, the backbone's graph, the scikit-learn estimator, its calibration.
    An estimator that we do not load (Keras, or the user's own) was held against `head.onnx` when it
    was trained, which then stands in for it.

    Parameters
    ----------
    source
        The folder that the examples' paths are relative to, where it is not the recorded one.

    Raises
    ------
    ModelError
        If too few of the photographs can be found, or the estimator is damaged.
    """
    root = Folder.at(source if source is not None else model.card.root)
    examples, images = _photographs(model, root, backbone)
    answer, reference = _training_answers(model)
    embed, classify = _session(backbone.content), _session(edge)
    worst, others = 0.0, []
    for start in range(0, len(images), BATCH):
        batch = np.stack(images[start : start + BATCH])
        (embeddings,) = embed.run([contract.OUTPUT], {contract.INPUT: batch})
        expected = answer(embeddings)
        labels, got = classify.run([LABEL, PROBABILITIES], {contract.INPUT: batch})
        worst = max(worst, float(np.abs(got - expected).max()))
        for offset in changed(labels, expected, model.card.threshold, TOLERANCE):
            others.append(examples["id"][start + int(offset)].as_py())
    held_out = pc.sum(pc.equal(examples["split"], "test")).as_py() or 0
    return Parity(len(images), held_out, worst, tuple(others), reference)


def _session(content: bytes) -> Any:
    return onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])


def _photographs(model: Model, root: Folder, backbone: Backbone) -> tuple[pa.Table, list]:
    """Photographs to compare, decoded: held-out ones first, in a random but fixed order."""
    known = model.examples()
    order = np.random.default_rng(SEED).permutation(known.num_rows)
    splits = known["split"].to_numpy(zero_copy_only=False)[order]
    known = known.take(pa.array(order[np.argsort(splits != "test", kind="stable")]))
    rows, images, reader = [], [], Reader(root)
    for row, path in enumerate(known["path"].to_pylist()):
        try:
            images.append(decode(reader.read(path), backbone.spec.preprocessing))
        except (OSError, DecodeError):
            continue  # too few of them is an error, below
        rows.append(row)
        if len(images) == EXAMPLES:
            break
    needed = min(FEWEST, -(-known.num_rows // 2))
    if len(images) < needed:
        raise ModelError(
            f"the parity check needs {needed} of the {known.num_rows} photographs that the model "
            f"knows, but only {len(images)} can be read in {root}",
            "Say where they are now: --source FOLDER",
        )
    return known.take(pa.array(rows)), images


def _training_answers(model: Model) -> tuple[Callable[[np.ndarray], np.ndarray], str]:
    """From embeddings to training's probabilities, and what gives them."""
    estimator = _load_estimator(model) if model.estimator_file == SKOPS else None
    if estimator is None:
        head = _session(model.head)
        return lambda found: head.run([PROBABILITIES], {INPUT: found})[0], STAND_IN
    calibration = model.card.calibration

    def answer(embeddings: np.ndarray) -> np.ndarray:
        return calibration.probabilities(scores_of(estimator, embeddings, calibration.scores))

    return answer, ESTIMATOR


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
