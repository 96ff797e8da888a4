"""The Keras head: a small dense network on the embeddings, as a scikit-learn estimator."""

from __future__ import annotations

import math
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler
from sklearn.utils import compute_sample_weight
from sklearn.utils.validation import check_is_fitted, validate_data

from headstart.classify.splits.splitting import hold_back_groups
from headstart.data.common.errors import InputError, ParityError
from headstart.data.common.onnx_graphs import IR_VERSION, OPSET, name_batch_axis, rename_values
from headstart.data.common.onnx_runtime import open_session
from headstart.data.common.packages import import_keras

PURPOSE = "the Keras head needs Keras"
INPUT, SCORES = "embedding", "scores"
VALIDATION = 0.15  # of the training examples, held out for early stopping
FEWEST = math.ceil(1 / VALIDATION)  # examples of a class, so that one of them is held out
ROWS = 8192  # embeddings in one call

# From five published descriptions of transfer learning with such a head.
GRID: dict[str, list[float]] = {
    "learning_rate": [0.0005, 0.0007, 0.001, 0.0015],
    "dropout": [0.25, 0.35],
}


class KerasHead(ClassifierMixin, BaseEstimator):
    """Normalization, dropout, a dense layer with ReLU, and softmax; trained by Adam.

    Adam is by Kingma and Ba (arXiv:1412.6980), dropout by Srivastava et al. (JMLR 2014). 15 % of
    the training examples of every class are held out for validation; training stops when their loss
    has not decreased for 5 epochs, and the weights of the best epoch are kept. If a class has fewer
    than 7 examples, or is in too few groups, none are held out, and all epochs are trained.

    The same seed gives the same weights, bit for bit, on the CPU of one machine; on GPUs TensorFlow
    sums in any order.

    Parameters
    ----------
    hidden
        Width of the dense layer.
    dropout
        Share of the embedding's dimensions that are dropped in each step; raise it if the
        validation loss rises early.
    learning_rate
        Of Adam.
    epochs
        Maximum number of epochs.
    batch_size
        Examples per step. Larger is faster, but leaves few steps for a small data set.
    early_stop
        Epochs without a lower validation loss after which training stops; 0 for never, without any
        validation examples.
    class_weight
        As in scikit-learn: a weight for each class, "balanced", or none.
    random_state
        Seed of the initial weights, the dropout, the order, and the validation examples.

    Attributes
    ----------
    classes_
        Sorted labels, `[classes]`.
    model_
        The Keras model: float32 `[batch, dim]` to probabilities.
    early_stopping_
        Whether examples were held out.
    best_epoch_
        The epoch, from 1, whose weights were kept.
    validation_losses_
        Cross-entropy of the validation examples after each epoch; empty without them.
    """

    def __init__(
        self,
        hidden: int = 256,
        dropout: float = 0.25,
        learning_rate: float = 0.001,
        epochs: int = 20,
        batch_size: int = 32,
        early_stop: int = 5,
        class_weight: dict | str | None = None,
        random_state: int = 0,
    ) -> None:
        self.hidden, self.dropout, self.learning_rate = hidden, dropout, learning_rate
        self.epochs, self.batch_size, self.early_stop = epochs, batch_size, early_stop
        self.class_weight, self.random_state = class_weight, random_state

    def fit(self, X: Any, y: Any, sample_weight: Any = None, groups: Any = None) -> KerasHead:
        """Train on embeddings, float32 `[examples, dim]`, and labels, `[examples]`.

        Parameters
        ----------
        sample_weight
            Weight of each example, `[examples]`; only ratios matter.
        groups
            Group of each example, `[examples]`; validation never divides one.

        Raises
        ------
        MissingPackageError
            If Keras is not installed.
        InputError
            If all examples are of one class, or the loss becomes NaN or infinite.
        """
        keras = import_keras(PURPOSE)
        X, y = validate_data(self, X, y, dtype=np.float32)
        self.classes_, labels = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise InputError(
                f"all {len(y):,} training examples are of one class, {self.classes_.tolist()[0]!r}",
                "A classifier needs at least two: add examples of another class.",
            )
        weights = compute_sample_weight(self.class_weight, y)
        if sample_weight is not None:
            weights = weights * np.asarray(sample_weight)
        weights = (weights / weights.mean()).astype(np.float32)
        rows, held_out = self._divide(labels, groups)
        self.early_stopping_ = bool(len(held_out))
        self.model_ = self._build(keras, StandardScaler().fit(X))
        self._train(keras, (X, labels, weights), rows, held_out)
        return self

    def decision_function(self, X: Any) -> np.ndarray:
        """Logits, float32 `[examples, classes]`; two columns for two classes as well."""
        check_is_fitted(self)
        return _run(scores_of(self.model_), validate_data(self, X, dtype=np.float32, reset=False))

    def predict_proba(self, X: Any) -> np.ndarray:
        """Probabilities, float32 `[examples, classes]`, in the order of `classes_`."""
        scores = self.decision_function(X)
        powers = np.exp(scores - scores.max(axis=1, keepdims=True))
        return powers / powers.sum(axis=1, keepdims=True)

    def predict(self, X: Any) -> np.ndarray:
        """The most probable of `classes_`, `[examples]`."""
        return self.classes_[self.decision_function(X).argmax(axis=1)]

    def _divide(self, labels: np.ndarray, groups: Any = None) -> tuple[np.ndarray, np.ndarray]:
        """The rows to train on, and those held out."""
        rows = np.arange(len(labels))
        if not self.early_stop or np.bincount(labels).min() < FEWEST:
            return rows, rows[:0]
        if groups is not None:
            held = hold_back_groups(labels, groups, VALIDATION, self.random_state)
            return np.setdiff1d(rows, held), held
        parts = train_test_split(
            rows, test_size=VALIDATION, stratify=labels, random_state=self.random_state
        )
        return parts[0], parts[1]

    def _build(self, keras: ModuleType, scaler: StandardScaler) -> Any:
        layers, seed = keras.layers, self.random_state
        # A constant dimension has scale 1 here; Keras's own `adapt` would divide by almost zero.
        normalization = layers.Normalization(
            mean=scaler.mean_.astype(np.float32), variance=(scaler.scale_**2).astype(np.float32)
        )
        first, second = (keras.initializers.GlorotUniform(seed=seed + step) for step in (0, 1))
        embedding = keras.Input((self.n_features_in_,), name=INPUT)
        value = layers.Dropout(self.dropout, seed=seed)(normalization(embedding))
        value = layers.Dense(self.hidden, "relu", kernel_initializer=first, name="hidden")(value)
        scores = layers.Dense(len(self.classes_), kernel_initializer=second, name=SCORES)(value)
        return keras.Model(embedding, layers.Softmax(name="probabilities")(scores))

    def _train(
        self, keras: ModuleType, data: tuple, rows: np.ndarray, held_out: np.ndarray
    ) -> None:
        """Adam over `rows`, an epoch in one compiled call; Keras's own `fit` takes much longer."""
        import tensorflow as tf

        network = scores_of(self.model_)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        variables, adam = network.trainable_variables, keras.optimizers.Adam(self.learning_rate)
        adam.build(variables)
        features, labels, weights = (tf.constant(values[rows]) for values in data)
        kept_features, kept_labels, kept_weights = (values[held_out] for values in data)

        @tf.function
        def train_epoch(epoch: Any) -> None:
            seed = (self.random_state, epoch)
            order = tf.random.experimental.stateless_shuffle(tf.range(len(rows)), seed)
            for start in tf.range(0, len(rows), self.batch_size):
                batch = order[start : start + self.batch_size]
                with tf.GradientTape() as tape:
                    scores = network(tf.gather(features, batch), training=True)
                    error = loss(tf.gather(labels, batch), scores, tf.gather(weights, batch))
                adam.apply(tape.gradient(error, variables), variables)

        losses: list[float] = []
        best, self.best_epoch_ = None, self.epochs
        for epoch in range(self.epochs):
            train_epoch(tf.constant(epoch))
            if not self.early_stopping_:
                continue
            losses.append(float(loss(kept_labels, _run(network, kept_features), kept_weights)))
            self._check_loss(losses[-1], epoch + 1)
            if best is None or losses[-1] < min(losses[:-1]):
                best, self.best_epoch_ = network.get_weights(), epoch + 1
            elif epoch + 1 - self.best_epoch_ >= self.early_stop:
                break
        if best is not None:
            network.set_weights(best)
        else:
            self._check_loss(float(loss(labels, _run(network, features), weights)), self.epochs)
        self.validation_losses_ = losses

    def _check_loss(self, loss: float, epoch: int) -> None:
        if not math.isfinite(loss):
            raise InputError(
                f"the training of the Keras head failed: its loss is {loss} after epoch {epoch}, "
                f"with a learning rate of {self.learning_rate:g}",
                "Give a smaller one with --param learning_rate=...; the default is 0.001.",
            )


def _run(network: Any, features: np.ndarray) -> np.ndarray:
    """The outputs of a Keras model, computed a few thousand rows at a time."""
    parts = [network(features[start : start + ROWS]) for start in range(0, len(features), ROWS)]
    return np.concatenate([part.numpy() for part in parts])


def scores_of(model: Any) -> Any:
    """The same Keras model without its softmax: float32 `[batch, dim]` to logits."""
    keras = import_keras(PURPOSE)
    return keras.Model(model.input, model.get_layer(SCORES).output)


def to_onnx(head: KerasHead, dim: int) -> Any:
    """Convert a trained head to ONNX, with the normalization, without dropout and softmax.

    Parameters
    ----------
    dim
        Width of the embeddings.

    Returns
    -------
    onnx.ModelProto
        Input `embedding` float32 `[batch, dim]`, output `scores` float32 `[batch, classes]`, the
        logits. Opset 18, IR version 8.

    Raises
    ------
    ParityError
        If the converted model's inputs or outputs are wrong.
    """
    import_keras(PURPOSE)
    import onnx
    import tensorflow as tf
    import tf2onnx

    spec = tf.TensorSpec((None, dim), tf.float32, name=INPUT)
    proto, _ = tf2onnx.convert.from_keras(scores_of(head.model_), (spec,), opset=OPSET)
    rename_values(proto, {proto.graph.output[0].name: SCORES})
    name_batch_axis(proto)
    proto.ir_version, proto.producer_name, proto.doc_string = IR_VERSION, "headstart", ""
    onnx.checker.check_model(proto, full_check=True)
    session = open_session(proto.SerializeToString())
    found = [
        [(value.name, value.type, value.shape) for value in values]
        for values in (session.get_inputs(), session.get_outputs())
    ]
    expected = [(INPUT, dim), (SCORES, len(head.classes_))]
    if found != [[(name, "tensor(float)", ["batch", width])] for name, width in expected]:
        raise ParityError(
            f"the ONNX form of the Keras head is broken: its inputs are {found[0]}, its outputs "
            f"{found[1]}",
            "Choose another head.",
        )
    return proto


def save(head: KerasHead) -> bytes:
    """A trained head's model as the bytes of a `.keras` file: open it with Keras's `load_model`."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "head.keras")
        head.model_.save(path)
        return path.read_bytes()
