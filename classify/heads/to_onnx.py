"""`head.onnx`: estimator, calibration and threshold as one ONNX graph, compared with the original.

Scaling, linear heads, the RBF SVM and nearest neighbours are written here: their formulas are
short, and the converters' versions round differently or are wrong. Trees and custom estimators are
converted by skl2onnx, the Keras head by tf2onnx.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx import TensorProto
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.multiclass import OneVsRestClassifier
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, LinearSVC

from headstart.classify.heads import keras_head
from headstart.classify.heads.keras_head import KerasHead
from headstart.classify.prediction.features import run_head
from headstart.data.common.errors import InputError, ParityError, first_line
from headstart.data.common.onnx_builder import GraphBuilder
from headstart.data.common.onnx_graphs import BATCH, OPSETS, name_batch_axis, rename_values
from headstart.data.contracts.calibration import (
    DECISION,
    PROBABILITY,
    SMOOTHING,
    STEPS,
    UNKNOWN,
    Calibration,
    changed,
    scores_of,
)
from headstart.data.contracts.model import INPUT, LABEL, PROBABILITIES, SCORES

TOLERANCE = 1e-4  # largest difference of a probability between ONNX and the estimator
RANDOM = 500  # random embeddings that it is compared on, in addition to the real ones
CONVERTED = "estimator/"  # what the names in a converter's graph begin with
LINEAR = (LogisticRegression, LinearSVC, RidgeClassifier, LinearDiscriminantAnalysis)


@dataclass(frozen=True)
class Written:
    """A head's ONNX form.

    Parameters
    ----------
    content
        The bytes of `head.onnx`.
    with_scores
        The same graph with a third output `scores`, float32 `[batch, classes]`: the scores before
        calibration.
    """

    content: bytes
    with_scores: bytes


@dataclass(frozen=True)
class Answering:
    """A trained estimator with its calibration and threshold."""

    estimator: Any
    calibration: Calibration
    threshold: float | None = None

    def probabilities(self, embeddings: np.ndarray) -> np.ndarray:
        """Float64 `[examples, classes]`."""
        scores = scores_of(self.estimator, embeddings, self.calibration.scores)
        return self.calibration.probabilities(scores)


def head_to_onnx(head: Answering, sample: np.ndarray, name: str = "head") -> Written:
    """Write a trained head as ONNX, and compare the result with it.

    Parameters
    ----------
    sample
        Embeddings to compare on, float32 `[examples, dim]`; 500 random ones are added.
    name
        Name of the head, for messages.

    Raises
    ------
    InputError
        If the estimator is custom, and no converter supports it.
    ParityError
        If a probability differs by more than 1e-4, or a label (see `compare`).
    """
    classes = len(head.probabilities(sample[:1])[0])
    graph = GraphBuilder()
    scores = _scores(graph, head, sample.shape[1], classes, name)
    probabilities = _calibrate(graph, head.calibration, scores)
    label = graph.add("ArgMax", probabilities, axis=1, keepdims=0)
    if head.threshold is not None:
        axes = graph.integers(1)
        confidence = graph.add("ReduceMax", probabilities, axes, keepdims=0)
        unsure = graph.add("Less", confidence, graph.constant(head.threshold))
        label = graph.add("Where", unsure, graph.constant(UNKNOWN, np.int64), label)
    graph.output(label, LABEL, TensorProto.INT64, [BATCH])
    graph.output(probabilities, PROBABILITIES, TensorProto.FLOAT, [BATCH, classes])
    content = graph.to_bytes("head")
    compare(head, content, _with_random(sample), name)
    graph.output(scores, SCORES, TensorProto.FLOAT, [BATCH, classes])
    return Written(content, graph.to_bytes("head"))


def check_converts(head: Answering, dim: int, classes: int, name: str = "head") -> None:
    """Convert a trained head and discard the result, to check that a converter supports it.

    Raises
    ------
    InputError
        If none supports it.
    """
    _scores(GraphBuilder(), head, dim, classes, name)


def compare(head: Answering, content: bytes, embeddings: np.ndarray, name: str = "head") -> float:
    """The largest difference of a probability between a head and its ONNX form.

    Raises
    ------
    ParityError
        If it is above 1e-4, or a label differs. At the threshold, both labels are accepted.
    """
    labels, got = run_head(content, embeddings)
    expected = head.probabilities(embeddings)
    difference = float(np.abs(got - expected).max())
    wrong = changed(labels, expected, head.threshold, TOLERANCE)
    if not difference <= TOLERANCE or len(wrong):
        raise ParityError(
            f"the ONNX form of {name} differs from the estimator: by up to "
            f"{difference:.1e} in a probability, and in {len(wrong)} of {len(labels)} labels",
            "Choose another head.",
        )
    return difference


def _with_random(sample: np.ndarray) -> np.ndarray:
    """The sample, and random embeddings with its mean and twice its spread in each dimension."""
    random = np.random.default_rng(0)
    mean, std = sample.mean(axis=0), sample.std(axis=0)
    wild = random.normal(mean, 2 * std, (RANDOM, sample.shape[1]))
    return np.concatenate([sample, wild.astype(np.float32)])


def _scores(graph: GraphBuilder, head: Answering, dim: int, classes: int, name: str) -> str:
    estimator = head.estimator
    if isinstance(estimator, KerasHead):
        return _converted(graph, keras_head.to_onnx(estimator, dim))
    written = _writer(estimator, head.calibration.scores)
    if written is None:
        return _by_skl2onnx(graph, head, dim, classes, name)
    return written(graph, graph.input(INPUT, TensorProto.FLOAT, [BATCH, dim]), *estimator)


def _writer(estimator: Any, scores: str) -> Any:
    """The function that writes what follows scaling in a pipeline of two; none if unknown."""
    if not (isinstance(estimator, Pipeline) and len(estimator) == 2):
        return None
    scaler, last = estimator[0], estimator[1]
    if type(scaler) is not StandardScaler or not (scaler.with_mean and scaler.with_std):
        return None
    if scores == PROBABILITY:
        plain = type(last) is KNeighborsClassifier and last.weights == "uniform"
        return _neighbours if plain and last.effective_metric_ == "euclidean" else None
    if type(last) in LINEAR:
        return _linear
    svms = last.estimators_ if type(last) is OneVsRestClassifier else ()
    return _rbf if svms and all(type(one) is SVC and one.kernel == "rbf" for one in svms) else None


def _scale(graph: GraphBuilder, value: str, scaler: StandardScaler) -> str:
    """As scikit-learn does on float32: each step in float64, and rounded.

    For distances, which are computed in float64 anyway.
    """
    for operator, numbers in (("Sub", scaler.mean_), ("Div", scaler.scale_)):
        wide = graph.add("Cast", value, to=TensorProto.DOUBLE)
        wide = graph.add(operator, wide, graph.constant(numbers, np.float64))
        value = graph.add("Cast", wide, to=TensorProto.FLOAT)
    return value


def _linear(graph: GraphBuilder, value: str, scaler: StandardScaler, model: Any) -> str:
    """One product in float32, which every device has; the scaling is in its weights.

    The mean is subtracted before: where a feature varies little around a large value, the product
    of that value and of its weight would round away what matters.
    """
    coefficients, intercept = np.atleast_2d(model.coef_), np.atleast_1d(model.intercept_)
    if len(coefficients) == 1:  # one decision for two classes
        coefficients, intercept = _both_sides(coefficients.T, intercept)
        coefficients = coefficients.T
    weights = coefficients / scaler.scale_
    mean = scaler.mean_.astype(np.float32)
    # What rounding the mean changes: nothing where scikit-learn rounds it too (from 1.9 on).
    intercept = intercept + coefficients @ scaler.transform(mean[None])[0]
    centred = graph.add("Sub", value, graph.constant(mean))
    return graph.add("Gemm", centred, graph.constant(weights), graph.constant(intercept), transB=1)


def _both_sides(columns: np.ndarray, intercept: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """One decision `d` as the scores of two classes, `-d/2` and `d/2`."""
    sides = np.array([[-0.5, 0.5]])
    return columns @ sides, (intercept[:, None] @ sides)[0]


def _rbf(
    graph: GraphBuilder, value: str, scaler: StandardScaler, model: OneVsRestClassifier
) -> str:
    """Kernels with all support vectors, then a weighted sum for each class.

    In float64, as libsvm computes: the weights of hundreds of vectors nearly cancel out.
    """
    value = _scale(graph, value, scaler)
    rows = np.concatenate([one.support_ for one in model.estimators_])
    vectors = np.concatenate([one.support_vectors_ for one in model.estimators_])
    unique, first, position = np.unique(rows, return_index=True, return_inverse=True)
    vectors = vectors[first]
    weights = np.zeros((len(unique), len(model.estimators_)))
    start = 0
    for column, one in enumerate(model.estimators_):
        stop = start + len(one.support_)
        weights[position[start:stop], column] = one.dual_coef_[0]
        start = stop
    intercept = np.array([one.intercept_[0] for one in model.estimators_])
    gamma = model.estimators_[0]._gamma
    if len(model.estimators_) == 1:
        weights, intercept = _both_sides(weights, intercept)
    nearness = graph.add(
        "Mul", _distances(graph, value, vectors), graph.constant(-gamma, np.float64)
    )
    kernel = graph.add("Exp", nearness)
    scores = graph.add("MatMul", kernel, graph.constant(weights, np.float64))
    scores = graph.add("Add", scores, graph.constant(intercept, np.float64))
    return graph.add("Cast", scores, to=TensorProto.FLOAT)


def _distances(graph: GraphBuilder, value: str, rows: np.ndarray) -> str:
    """Squared Euclidean distances `[batch, rows]`, computed in float64.

    The rows are embeddings, float32 in fact, and kept so: half the size.
    """
    value = graph.add("Cast", value, to=TensorProto.DOUBLE)
    rows = np.asarray(rows, np.float64)
    squares = graph.add("ReduceSumSquare", value, graph.integers(1), keepdims=1)
    narrow = graph.constant(-2 * rows.T)
    product = graph.add("MatMul", value, graph.add("Cast", narrow, to=TensorProto.DOUBLE))
    lengths = graph.constant((rows**2).sum(axis=1), np.float64)
    total = graph.add("Add", graph.add("Add", product, squares), lengths)
    return graph.add("Max", total, graph.constant(0, np.float64))


def _neighbours(
    graph: GraphBuilder, value: str, scaler: StandardScaler, model: KNeighborsClassifier
) -> str:
    """In float64, as scikit-learn measures: a float32 distance would exchange near neighbours."""
    distances = _distances(graph, _scale(graph, value, scaler), model._fit_X)
    count = graph.integers(model.n_neighbors)
    _, nearest = graph.add_multiple("TopK", 2, distances, count, axis=1, largest=0)
    labels = graph.add("Gather", graph.constant(model._y, np.int64), nearest)
    classes = graph.constant(len(model.classes_), np.int64)
    hits = graph.add("OneHot", labels, classes, graph.constant([0, 1]), axis=-1)
    share = graph.add("ReduceMean", hits, graph.integers(1), keepdims=0)
    return _logarithm(graph, share, len(model.classes_))


def _logarithm(graph: GraphBuilder, probabilities: str, classes: int) -> str:
    return graph.add("Log", graph.add("Add", probabilities, graph.constant(SMOOTHING / classes)))


def _by_skl2onnx(graph: GraphBuilder, head: Answering, dim: int, classes: int, name: str) -> str:
    from skl2onnx import to_onnx
    from skl2onnx.common.data_types import FloatTensorType

    estimator, decision = head.estimator, head.calibration.scores == DECISION
    last = estimator[-1] if isinstance(estimator, Pipeline) else estimator
    # Its converter of linear SVMs never adds a ZipMap and has no option to leave it out.
    options: dict[str, bool] = {} if isinstance(last, LinearSVC) else {"zipmap": False}
    if decision:
        options["raw_scores"] = True
    try:
        proto = to_onnx(
            estimator,
            initial_types=[(INPUT, FloatTensorType([None, dim]))],
            options={id(last): options},
            target_opset=OPSETS,
        )
    except Exception as error:  # converters raise many classes of errors
        raise InputError(
            f"{name} cannot be converted to ONNX: {first_line(error)}",
            "Use estimators that skl2onnx supports: https://onnx.ai/sklearn-onnx/supported.html",
        ) from error
    name_batch_axis(proto)
    scores = _converted(graph, proto)
    if not decision:
        return _logarithm(graph, scores, classes)
    if classes == 2:
        return graph.add("Mul", scores, graph.constant(0.5))  # skl2onnx returns -d and d
    return scores


def _converted(graph: GraphBuilder, proto: Any) -> str:
    """Copy a converter's graph; its last output is the scores."""
    rename_values(proto, {proto.graph.input[0].name: INPUT})
    return graph.add_model(proto, CONVERTED)[-1]


def _calibrate(graph: GraphBuilder, calibration: Calibration, scores: str) -> str:
    if calibration.temperature != 1:
        scores = graph.add("Div", scores, graph.constant(calibration.temperature))
    probabilities = graph.add("Softmax", scores, axis=1)
    if not calibration.curves:
        return probabilities
    curves = np.array(calibration.curves).T  # [steps + 1, classes]
    place = graph.add("Mul", probabilities, graph.constant(STEPS))
    low = graph.add("Min", graph.add("Floor", place), graph.constant(STEPS - 1))
    share = graph.add("Sub", place, low)
    index = graph.add("Cast", low, to=TensorProto.INT64)
    start = graph.add("GatherElements", graph.constant(curves[:-1]), index, axis=0)
    rise = graph.add("GatherElements", graph.constant(np.diff(curves, axis=0)), index, axis=0)
    curved = graph.add("Add", start, graph.add("Mul", share, rise))
    total = graph.add("ReduceSum", curved, graph.integers(1), keepdims=1)
    return graph.add("Div", curved, total)
