"""The Keras head: accuracy, early stopping, seeds, weights, its ONNX form, and its file."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.metrics import log_loss
from sklearn.model_selection import ParameterGrid, train_test_split

from headstart.classify.heads.keras_head import GRID, KerasHead, save, to_onnx
from headstart.data.common.errors import InputError, MissingPackageError, ParityError

DIGITS, DIGIT = load_digits(return_X_y=True)
TRAIN, TEST = train_test_split(np.arange(len(DIGIT)), stratify=DIGIT, random_state=0)


@pytest.fixture(scope="module")
def digits() -> KerasHead:
    return KerasHead().fit(DIGITS[TRAIN], DIGIT[TRAIN])


def clouds(classes: int, each: int = 60, apart: float = 0.5) -> tuple[Any, Any]:
    """Overlapping clouds of points, in 20 dimensions of very different scales and means."""
    generator = np.random.default_rng(0)
    labels = np.repeat(np.arange(classes), each)
    centres = generator.normal(size=(classes, 20)) * apart
    points = centres[labels] + generator.normal(size=(len(labels), 20))
    return (points * np.logspace(-2, 2, 20) + 3).astype(np.float32), labels


def test_digits_are_told_apart(digits: KerasHead) -> None:
    assert digits.score(DIGITS[TEST], DIGIT[TEST]) >= 0.95
    probabilities = digits.predict_proba(DIGITS[TEST])
    assert probabilities.dtype == digits.decision_function(DIGITS[TEST]).dtype == np.float32
    assert np.allclose(probabilities.sum(axis=1), 1, atol=1e-6)
    whole = np.asarray(digits.model_(DIGITS[TEST].astype(np.float32)))
    assert np.abs(whole - probabilities).max() <= 1e-6
    assert digits.early_stopping_
    assert 1 <= digits.best_epoch_ <= len(digits.validation_losses_) <= 20


def test_the_weights_of_the_best_epoch_are_kept() -> None:
    """A high rate overfits at once: later epochs are worse on the held-back examples."""
    points, labels = clouds(3)
    rash = {"learning_rate": 0.02, "dropout": 0.0}
    head = KerasHead(**rash).fit(points, labels)
    losses = head.validation_losses_
    assert len(losses) == head.best_epoch_ + 5 < 20
    assert losses[-1] > 1.1 * min(losses) == 1.1 * losses[head.best_epoch_ - 1]
    _, held_back = head._divide(labels)
    assert np.bincount(labels[held_back]).tolist() == [9, 9, 9]
    kept = log_loss(labels[held_back], head.predict_proba(points[held_back]))
    assert kept == pytest.approx(min(losses), rel=1e-4)
    # Also where the epochs run out before the patience does.
    short = KerasHead(**rash, epochs=head.best_epoch_ + 2).fit(points, labels)
    assert short.validation_losses_ == losses[: head.best_epoch_ + 2]
    assert np.array_equal(short.decision_function(points), head.decision_function(points))


def test_too_few_examples_to_hold_any_back() -> None:
    points, labels = clouds(2, each=10)
    head = KerasHead(epochs=3).fit(points[:16], labels[:16])  # 6 of the second class
    assert (head.early_stopping_, head.best_epoch_, head.validation_losses_) == (False, 3, [])
    seven = KerasHead(epochs=3).fit(points[:17], labels[:17])
    assert seven.early_stopping_
    assert set(labels[seven._divide(labels[:17])[1]]) == {0, 1}


def test_validation_never_divides_a_group() -> None:
    """Ten copies of each of 30 points: the loss on their group-mates would go down for ever."""
    random = np.random.default_rng(0)
    groups, labels = np.repeat(np.arange(30), 10), np.repeat(np.arange(30) % 2, 10)
    points = random.normal(size=(30, 20)).astype(np.float32)[groups]
    head = KerasHead(learning_rate=0.02, epochs=8).fit(points, labels, groups=groups)
    rows, held = head._divide(labels, groups)
    assert not set(groups[rows]) & set(groups[held])
    assert set(labels[rows]) == set(labels[held]) == {0, 1}
    assert 0.1 <= len(held) / 300 <= 0.2
    # The labels are random, so no epoch makes other groups' loss better than chance.
    assert min(head.validation_losses_) > 0.5
    leaking = KerasHead(learning_rate=0.02, epochs=8).fit(points, labels)
    assert min(leaking.validation_losses_) < 0.2
    alone = KerasHead(epochs=2).fit(points, labels, groups=labels)  # a class is one group
    assert not alone.early_stopping_


def test_the_same_seed_gives_the_same_weights_and_leaves_other_generators_alone() -> None:
    def state() -> list:
        name, keys, *rest = np.random.get_state()
        return [random.getstate(), name, keys.tolist(), rest]  # type: ignore[union-attr]

    points, labels = clouds(2)
    before = state()
    first = KerasHead(epochs=3).fit(points, labels).decision_function(points)
    assert state() == before
    assert np.array_equal(first, KerasHead(epochs=3).fit(points, labels).decision_function(points))
    other = KerasHead(epochs=3, random_state=1).fit(points, labels)
    assert np.abs(first - other.decision_function(points)).max() > 0.01


def test_weights_of_examples_and_classes() -> None:
    points, labels = clouds(2)
    twice = np.where(labels == 1, 2.0, 1.0)
    by_example, ten_times, by_class, none = (
        KerasHead(epochs=2, class_weight=classes).fit(points, labels, weight)
        for classes, weight in (
            (None, twice),
            (None, 10 * twice),
            ({0: 1, 1: 2}, None),
            (None,) * 2,
        )
    )
    scores = by_example.decision_function(points)
    assert np.abs(scores - ten_times.decision_function(points)).max() <= 1e-4  # ratios matter
    assert np.array_equal(scores, by_class.decision_function(points))
    assert by_example.predict_proba(points)[:, 1].mean() > none.predict_proba(points)[:, 1].mean()
    rare = np.arange(68)  # 60 of the first class, 8 of the second
    plain = KerasHead().fit(points[rare], labels[rare])
    balanced = KerasHead(class_weight="balanced").fit(points[rare], labels[rare])
    assert (balanced.predict(points) == 1).sum() > 1.2 * (plain.predict(points) == 1).sum()


@pytest.mark.parametrize("classes", [2, 3, 10])
def test_the_onnx_form_answers_the_same(classes: int, digits: KerasHead) -> None:
    """On 10,000 random embeddings and on real ones."""
    if classes == 10:
        head, real = digits, DIGITS.astype(np.float32)
    else:
        real, labels = clouds(classes)
        head = KerasHead(epochs=5).fit(real, labels)
    dim = real.shape[1]
    proto = to_onnx(head, dim)
    assert {entry.domain: entry.version for entry in proto.opset_import}[""] == 18
    assert proto.ir_version == 8
    kinds = {node.op_type for node in proto.graph.node}
    assert kinds <= {"Sub", "Mul", "Div", "MatMul", "Add", "Relu", "Gemm"}
    session = onnxruntime.InferenceSession(proto.SerializeToString())
    spread = np.random.default_rng(0).normal(size=(10_000, dim)) * real.std(axis=0) * 2
    for embeddings in (real, (spread + real.mean(axis=0)).astype(np.float32), real[:1]):
        (scores,) = session.run(["scores"], {"embedding": embeddings})
        assert scores.shape == (len(embeddings), classes)
        powers = np.exp(scores - scores.max(axis=1, keepdims=True))
        difference = powers / powers.sum(axis=1, keepdims=True) - head.predict_proba(embeddings)
        assert np.abs(difference).max() <= 1e-4
        assert np.array_equal(head.classes_[scores.argmax(axis=1)], head.predict(embeddings))


def test_a_broken_conversion_is_found(digits: KerasHead, monkeypatch: pytest.MonkeyPatch) -> None:
    import tf2onnx

    convert = tf2onnx.convert.from_keras

    def with_another_input(*arguments: Any, **options: Any) -> Any:
        """As the converter does where it takes constants for variables."""
        proto, other = convert(*arguments, **options)
        value = onnx.helper.make_tensor_value_info("mean", onnx.TensorProto.FLOAT, ["one", 64])
        proto.graph.input.append(value)
        return proto, other

    monkeypatch.setattr(tf2onnx.convert, "from_keras", with_another_input)
    with pytest.raises(ParityError) as caught:
        to_onnx(digits, 64)
    assert str(caught.value) == (
        "the ONNX form of the Keras head is broken: its inputs are [('embedding', "
        "'tensor(float)', ['batch', 64]), ('mean', 'tensor(float)', ['batch', 64])], its outputs "
        "[('scores', 'tensor(float)', ['batch', 10])]\n  Choose another head."
    )


def test_a_dimension_that_never_varied_in_training_does_no_harm() -> None:
    points, labels = clouds(2)
    points[:, 4] = 0
    head = KerasHead(epochs=3).fit(points, labels)
    moved = points.copy()
    moved[:, 4] = 1e-3
    assert np.abs(head.predict_proba(moved) - head.predict_proba(points)).max() <= 1e-3


def test_keras_opens_a_saved_head(digits: KerasHead, tmp_path: Path) -> None:
    import keras

    file = tmp_path / "head.keras"
    file.write_bytes(save(digits))
    model = keras.models.load_model(file, safe_mode=True)
    pixels = DIGITS.astype(np.float32)
    assert np.array_equal(model(pixels), digits.model_(pixels))


def test_labels_that_are_names() -> None:
    points, labels = clouds(2, apart=1.0)
    names = np.array(["moth", "bee"])[labels]
    head = KerasHead().fit(points, names)
    assert head.classes_.tolist() == ["bee", "moth"]
    assert head.score(points, names) > 0.9


def test_one_class_is_refused() -> None:
    points, labels = clouds(2)
    with pytest.raises(InputError) as caught:
        KerasHead().fit(points[:60], labels[:60])
    assert str(caught.value) == (
        "all 60 training examples are of one class, 0\n"
        "  A classifier needs at least two: add examples of another class."
    )


@pytest.mark.parametrize(("each", "epoch"), [(60, 1), (6, 3)])  # with examples held back, without
def test_a_loss_that_is_no_number_is_refused(each: int, epoch: int) -> None:
    with pytest.raises(InputError) as caught:
        KerasHead(learning_rate=1e30, epochs=3).fit(*clouds(2, each))
    assert str(caught.value) == (
        f"the training of the Keras head failed: its loss is nan after epoch {epoch}, "
        "with a learning rate of 1e+30\n"
        "  Give a smaller one with --param learning_rate=...; the default is 0.001."
    )


def test_the_grid_is_of_its_parameters() -> None:
    heads = [clone(KerasHead()).set_params(**choice) for choice in ParameterGrid(GRID)]
    assert len(heads) == 8
    assert {(head.learning_rate, head.dropout) for head in heads} == {
        (rate, dropout) for rate in (0.0005, 0.0007, 0.001, 0.0015) for dropout in (0.25, 0.35)
    }


@pytest.mark.parametrize("package", ["tensorflow", "tf2onnx"])
def test_a_missing_package_is_named_with_its_cure(
    package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingPackageError) as caught:
        KerasHead().fit(*clouds(2))
    assert str(caught.value) == (
        f"the Keras head needs Keras, but {package} is not installed\n"
        "  Install it with: pip install 'headstart[keras]'"
    )


def test_the_module_is_imported_without_tensorflow() -> None:
    script = (
        "import json, sys, headstart.classify.heads.keras_head\n"
        "print(json.dumps(sorted({'keras', 'tensorflow', 'tf2onnx'} & set(sys.modules))))"
    )
    answer = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert json.loads(answer.stdout) == []
