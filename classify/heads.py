"""Heads: what stands on the embeddings, and its ONNX form."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from classify.prediction import run_head
from data.errors import InputError, ParityError
from data.graph import name_batch_axis, rename_values
from data.model import INPUT, LABEL, PROBABILITIES

HEADS = ("logistic",)
OPSET = {"": 18, "ai.onnx.ml": 3}
TOLERANCE = 1e-4  # largest difference of a probability between ONNX and scikit-learn


@dataclass(frozen=True)
class HeadOptions:
    """Which head, and its parameters.

    Parameters
    ----------
    name
        `logistic`: standard scaling and multinomial logistic regression.
    c
        Inverse strength of the L2 regularization. Embeddings have as many dimensions as a small
        data set has examples: weaker regularization than 0.01 soon learns them by heart.
    """

    name: str = "logistic"
    c: float = 0.01
    max_iter: int = 1000

    def __post_init__(self) -> None:
        if self.name not in HEADS:
            near = difflib.get_close_matches(self.name, HEADS, 1, 0.5)
            raise InputError(
                f"unknown head {self.name!r}",
                f"Did you mean {near[0]}?" if near else f"Known are {', '.join(HEADS)}.",
            )
        if not self.c > 0:
            raise InputError(f"--c {self.c} is not possible", "Give a number above 0.")


def make_head(options: HeadOptions) -> BaseEstimator:
    """An untrained scikit-learn estimator from embeddings to class probabilities."""
    logistic = LogisticRegression(C=options.c, max_iter=options.max_iter)
    return make_pipeline(StandardScaler(), logistic)


def head_to_onnx(head: Any, sample: np.ndarray) -> bytes:
    """Convert a trained head, and hold the result against it.

    Parameters
    ----------
    head
        An estimator trained on labels 0 .. classes - 1.
    sample
        Embeddings to compare on, float32 `[examples, dim]`.

    Raises
    ------
    ParityError
        If a probability differs by more than 1e-4, or a label at all.
    """
    from skl2onnx import to_onnx
    from skl2onnx.common.data_types import FloatTensorType

    proto = to_onnx(
        head,
        initial_types=[(INPUT, FloatTensorType([None, sample.shape[1]]))],
        options={id(head): {"zipmap": False}},
        target_opset=OPSET,
    )
    outputs = (value.name for value in proto.graph.output)
    rename_values(proto, dict(zip(outputs, (LABEL, PROBABILITIES), strict=True)))
    name_batch_axis(proto)
    proto.producer_name, proto.doc_string = "headstart", ""
    content = proto.SerializeToString()
    labels, probabilities = run_head(content, sample)
    expected = head.predict_proba(sample)
    difference = float(np.abs(probabilities - expected).max())
    changed = int((labels != head.predict(sample)).sum())
    if not difference <= TOLERANCE or changed:
        raise ParityError(
            f"the head's ONNX form differs from scikit-learn's: by up to {difference:.1e} in a "
            f"probability, and in {changed} of {len(labels)} labels",
            "Choose another head.",
        )
    return content
