"""Heads: every kind as ONNX, its parameters, the user's own, and the words for bad ones."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from sklearn.datasets import load_digits

from headstart.classify.heads.calibration import METHODS, fit_calibration
from headstart.classify.heads.estimators import (
    HEADS,
    HeadOptions,
    make_head,
    parse_parameters,
    score_method,
    variants,
)
from headstart.classify.heads.fitting import FitOptions, fit
from headstart.classify.heads.folds import fit_head
from headstart.classify.heads.to_onnx import Answering, compare, head_to_onnx
from headstart.classify.prediction.features import HeadSession, run_head
from headstart.classify.splits.held_out import Training
from headstart.data.common.errors import InputError, ManyInputErrors, ParityError
from headstart.data.contracts.calibration import UNKNOWN, Calibration, changed, scores_of

QUICK = {"boosting": {"max_iter": 10}, "keras": {"epochs": 3}}


def digits(classes: int, count: int = 400) -> Training:
    """Real pixels as embeddings, some of them always 0, and labels."""
    pixels, labels = load_digits(return_X_y=True)
    rows = np.flatnonzero(labels < classes)[:count]
    names = tuple(map(str, range(classes)))
    return Training(names, pixels[rows].astype(np.float32), labels[rows].astype(np.int64))


def finished(options: HeadOptions, training: Training, method: str = "none") -> Answering:
    estimator, _ = fit_head(options, training, 0)
    source = score_method(options, estimator)
    scores = scores_of(estimator, training.embeddings, source)
    calibration = fit_calibration(method, scores, training.labels, source)
    return Answering(estimator, calibration, middle(calibration.probabilities(scores)))


def middle(probabilities: np.ndarray) -> float:
    """A threshold in the widest gap of the middle half of the confidences."""
    confidence = np.sort(probabilities.max(axis=1))
    confidence = confidence[len(confidence) // 4 : 3 * len(confidence) // 4]
    gap = np.diff(confidence).argmax()
    return float(confidence[gap : gap + 2].mean())


def wild(dim: int, count: int = 10_000) -> np.ndarray:
    return np.random.default_rng(0).normal(8, 12, (count, dim)).astype(np.float32)


@pytest.mark.parametrize("classes", [2, 10])
@pytest.mark.parametrize("name", HEADS)
def test_every_head_is_the_same_in_onnx(name: str, classes: int) -> None:
    training = digits(classes)
    head = finished(HeadOptions(name, QUICK.get(name, {})), training)
    content = head_to_onnx(head, training.embeddings).content
    embeddings = np.concatenate([training.embeddings, wild(64)])
    labels, probabilities = run_head(content, embeddings)
    expected = head.probabilities(embeddings)
    assert np.abs(probabilities - expected).max() <= 1e-4
    assert not len(changed(labels, expected, head.threshold, 1e-4))
    assert (labels.dtype, probabilities.dtype) == (np.int64, np.float32)
    assert UNKNOWN in labels
    # What is not refused is what the estimator itself would say.
    right = (head.estimator.predict(training.embeddings) == training.labels).mean()
    best = probabilities[: len(training.labels)].argmax(axis=1)
    assert (best == training.labels).mean() >= right - 0.02
    assert right > 0.9
    model = onnx.load_model_from_string(content)
    assert [value.name for value in model.graph.input] == ["embedding"]
    assert [value.name for value in model.graph.output] == ["label", "probabilities"]
    assert "ZipMap" not in {node.op_type for node in model.graph.node}


@pytest.mark.parametrize("classes", [2, 10])
def test_a_linear_head_is_float32_throughout(classes: int) -> None:
    """Many devices lack float64; the scaling is in the weights, and as exact as before."""
    training = digits(classes)
    far = Training(training.classes, training.embeddings / 1000 + 50, training.labels)
    for each in (training, far):
        head = finished(HeadOptions(), each)
        content = head_to_onnx(head, each.embeddings).content
        graph = onnx.load_model_from_string(content).graph
        inferred = onnx.shape_inference.infer_shapes(onnx.load_model_from_string(content)).graph
        types = {tensor.data_type for tensor in graph.initializer}
        types |= {value.type.tensor_type.elem_type for value in inferred.value_info}
        assert onnx.TensorProto.DOUBLE not in types
        assert [node.op_type for node in graph.node][:2] == ["Sub", "Gemm"]
        _, probabilities = run_head(content, each.embeddings)
        assert np.abs(probabilities - head.probabilities(each.embeddings)).max() <= 1e-4


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("classes", [2, 10])
def test_calibration_and_scores_are_in_the_graph(method: str, classes: int) -> None:
    training = digits(classes)
    head = finished(HeadOptions(), training, method)
    written = head_to_onnx(head, training.embeddings)
    embeddings = wild(64, 500)
    _, probabilities = run_head(written.content, embeddings)
    assert np.abs(probabilities - head.probabilities(embeddings)).max() <= 1e-4
    (scores,) = HeadSession(written.with_scores, ["scores"]).run(embeddings)
    expected = scores_of(head.estimator, embeddings, "decision_function")
    assert np.allclose(scores, expected, atol=1e-3)


def test_a_logistic_heads_probabilities_are_scikit_learns() -> None:
    for classes in (2, 10):
        training = digits(classes)
        head = finished(HeadOptions(), training)
        expected = head.estimator.predict_proba(training.embeddings)
        assert np.allclose(head.probabilities(training.embeddings), expected, atol=1e-5)


def test_an_onnx_form_that_differs_is_refused() -> None:
    training = digits(3)
    head = finished(HeadOptions(), training)
    content = head_to_onnx(head, training.embeddings).content
    other = Answering(head.estimator, Calibration(temperature=1.1), head.threshold)
    with pytest.raises(ParityError, match="the ONNX form of head differs from the estimator: by"):
        compare(other, content, training.embeddings)


def test_a_second_row_of_neighbours_is_not_exchanged() -> None:
    """Two distances that float32 cannot tell apart."""
    rows = np.array([[1000.0, 0], [1000.0, 0.01], [0, 0], [1, 1]], np.float32)
    training = Training(("a", "b"), np.repeat(rows, 3, axis=0), np.repeat([0, 1, 0, 1], 3))
    head = finished(HeadOptions("knn", {"neighbours": 3}), training)
    content = head_to_onnx(head, training.embeddings).content
    near = np.array([[1000, 0.004], [1000, 0.006]], np.float32)
    labels, _ = run_head(content, near)
    assert labels.tolist() == [0, 1]


OWN = """
import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.decomposition import PCA
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LinearRegression, Perceptron
from sklearn.neighbors import NearestCentroid
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler
from sklearn.svm import LinearSVC

def forest(trees=10):
    return RandomForestClassifier(trees, random_state=0)

def perceptron():
    return make_pipeline(MinMaxScaler(), Perceptron(random_state=0))

def svm():
    return make_pipeline(MinMaxScaler(), LinearSVC(random_state=0))

def regression():
    return LinearRegression()

class Centres(ClassifierMixin, BaseEstimator):
    '''Scores are nearness to a class's mean; no converter knows it.'''
    seen = []

    def fit(self, X, y):
        self.seen.append(len(y))
        self.classes_ = np.unique(y)
        self.centres_ = np.stack([X[y == label].mean(axis=0) for label in self.classes_])
        return self

    def decision_function(self, X):
        return -((X[:, None] - self.centres_) ** 2).sum(axis=2)

    def predict(self, X):
        return self.classes_[self.decision_function(X).argmax(axis=1)]

def wide():
    return make_pipeline(PCA(220), Perceptron(random_state=0))
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module of the user's in the folder that the command runs in."""
    (tmp_path / "my_heads.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return "my_heads"


@pytest.mark.parametrize("classes", [2, 3])
def test_estimators_of_the_users(classes: int, own: str) -> None:
    for name, parameters in (("forest", {"trees": 20}), ("perceptron", {}), ("svm", {})):
        training = digits(classes)
        head = finished(HeadOptions(f"{own}:{name}", parameters), training, "temperature")
        content = head_to_onnx(head, training.embeddings).content
        assert compare(head, content, wild(64)) <= 1e-4


def test_an_estimator_without_a_converter_is_refused_before_training(own: str) -> None:
    options = FitOptions(HeadOptions(f"{own}:Centres"))
    training = digits(10, 1500)
    assert words(lambda: fit(training, options, lambda step: None)) == (
        "the head my_heads:Centres cannot be converted to ONNX: Unable to find a shape calculator "
        "for type '<class 'my_heads.Centres'>'.\n"
        "  Use estimators that skl2onnx supports: https://onnx.ai/sklearn-onnx/supported.html"
    )
    assert importlib.import_module(own).Centres.seen == [200]


def test_an_estimator_that_needs_many_examples_is_tried_on_all(own: str) -> None:
    random = np.random.default_rng(0)
    labels = np.arange(400) % 2
    embeddings = random.normal(labels[:, None], 1, (400, 256)).astype(np.float32)
    options = FitOptions(HeadOptions(f"{own}:wide"))
    fitted = fit(Training(("a", "b"), embeddings, labels), options, lambda step: None)
    assert fitted.answering.estimator[0].n_components_ == 220


def words(call: Callable[[], object]) -> str:
    with pytest.raises((InputError, ManyInputErrors)) as caught:
        call()
    return str(caught.value)


def test_what_is_no_estimator_of_the_users(own: str) -> None:
    def said(name: str, **parameters: int) -> str:
        return words(lambda: make_head(HeadOptions(name, parameters)))

    assert said("nowhere:head") == (
        "--head nowhere:head: No module named 'nowhere'\n"
        "  Give package.module:factory; Python must find the module from this folder."
    )
    assert said(f"{own}:gone") == (
        "--head my_heads:gone: module 'my_heads' has no attribute 'gone'\n"
        "  Give package.module:factory; Python must find the module from this folder."
    )
    assert said(f"{own}:forest", leaves=3) == (
        "--head my_heads:forest cannot be called with these parameters: forest() got an unexpected "
        "keyword argument 'leaves'\n"
        "  The factory is called with the parameters of --param, by name."
    )
    assert said(f"{own}:regression") == (
        "--head my_heads:regression returned LinearRegression, which is not a classifier\n"
        "  Return an untrained scikit-learn classifier."
    )


def test_options_that_are_not_possible() -> None:
    assert words(lambda: HeadOptions("logistics")) == (
        "unknown head 'logistics'\n  Did you mean logistic? Choose from logistic, linear-svm, "
        "rbf-svm, knn, ridge, lda, boosting, keras, auto, or package.module:factory for a custom "
        "head."
    )
    assert words(lambda: HeadOptions("knn", {"neighbours": 2.5, "c": 1}, "balanced")) == (
        "1. the head knn does not support class weights\n"
        "  Leave --class-weight out, or choose one of logistic, linear-svm, rbf-svm, ridge, "
        "boosting, keras.\n"
        "2. --param neighbours=2.5 is not possible\n  Give a whole number above 0.\n"
        "3. the head knn has no parameter 'c'\n  It has neighbours."
    )
    assert words(lambda: HeadOptions("lda", {"shrinkage": 1.5})) == (
        "--param shrinkage=1.5 is not possible\n  Give a number from 0 to 1, or auto."
    )
    assert words(lambda: HeadOptions("logistic", {"c": 0})) == (
        "--param c=0 is not possible\n  Give a number above 0."
    )
    assert words(lambda: HeadOptions("auto", {"c": 1})) == (
        "--param c is not possible with --head auto: the search chooses\n"
        "  Name a head, or leave --param out."
    )
    assert words(lambda: HeadOptions("logistic", {}, "equal")) == (
        "--class-weight equal is not possible\n  Give balanced, or none."
    )
    assert words(lambda: HeadOptions("my_heads:forest", {}, "balanced")) == (
        "--class-weight is not passed to a custom head\n"
        "  Set it in the factory, and leave --class-weight out."
    )
    assert parse_parameters(["c=0.1", "gamma=scale", "epochs=3"]) == {
        "c": 0.1,
        "gamma": "scale",
        "epochs": 3,
    }
    assert words(lambda: parse_parameters(["c"])) == (
        "--param c is not possible\n  Give NAME=VALUE, such as c=0.1."
    )


def test_class_weights_are_used() -> None:
    random = np.random.default_rng(0)
    labels = (random.random(300) < 0.1).astype(np.int64)
    embeddings = random.normal(labels[:, None], 2, (300, 64)).astype(np.float32)
    unequal = Training(("a", "b"), embeddings, labels)
    for name, kind in HEADS.items():
        if kind.weights and name != "keras":
            quick = {**QUICK, "rbf-svm": {"c": 0.1}}.get(name, {})
            plain, weighted = (
                finished(HeadOptions(name, quick, weight), unequal) for weight in (None, "balanced")
            )
            differ = plain.probabilities(embeddings) - weighted.probabilities(embeddings)
            assert np.abs(differ).max() > 1e-6, name


def test_a_search_tries_the_settings_that_are_published() -> None:
    tried = [head.all_parameters for head in variants(HeadOptions("keras"))]
    assert len(tried) == 8
    assert {found["learning_rate"] for found in tried} == {0.0005, 0.0007, 0.001, 0.0015}
    assert {found["dropout"] for found in tried} == {0.25, 0.35}
    assert all(found["epochs"] == 20 for found in tried)
    assert importlib.util.find_spec("keras") is not None
