"""Any Keras model, nested or subclassed: its layers are tapped while it runs, then converted."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from data.errors import BackboneError
from export.keras_stack import plain_operators
from export.original import Layer, Original, Weights
from export.scaling import Scaling

OPSET = 18


class KerasNetwork(Original):
    """A Keras model from scaled pixels to anything.

    Layers of a model inside the model are named `model/layer`.
    """

    def __init__(
        self,
        keras: Any,
        model: Any,
        name: str,
        size: tuple[int, int],
        scaling: Scaling,
        weights: Weights,
        default_layers: tuple[str, ...] = (),
    ) -> None:
        self.keras, self.model, self.name = keras, model, name
        self.height, self.width = size
        self.scaling, self.weights = scaling, weights
        self._inside = dict(_layers_inside(model))
        self._layers: list[Layer] | None = None
        self.default_layers = default_layers

    def layers(self) -> list[Layer]:
        """In the order in which they are called."""
        if self._layers is None:
            import tensorflow as tf

            # Traced, not computed: only the shapes are asked for.
            shape = (1, self.height, self.width, 3)
            found: dict[str, Any] = {}

            def trace(pixels: Any) -> Any:
                with _tapped(self._inside, list(self._inside)) as seen:
                    answer = self.model(pixels, training=False)
                found.update({name: tuple(value.shape) for name, value in seen.items()})
                return answer

            with plain_operators():
                tf.function(trace).get_concrete_function(tf.TensorSpec(shape, self._dtype))
            self._layers = [
                Layer(name, shape[1:], type(self._inside[name]).__name__)
                for name, shape in found.items()
                if len(shape) in (2, 3, 4) and None not in shape[1:]
            ]
        return self._layers

    @property
    def _dtype(self) -> str:
        return str(self.model.inputs[0].dtype) if self.model.inputs else "float32"

    def _tapping(self, names: Sequence[str]) -> Any:
        """A Keras model that answers with the outputs of the named layers."""
        model, inside = self.model, self._inside

        class Taps(self.keras.layers.Layer):  # type: ignore[name-defined,misc]
            def call(self, pixels: Any) -> list:
                with _tapped(inside, names) as seen:
                    model(pixels, training=False)
                return [seen[name] for name in names]

        pixels = self.keras.Input((self.height, self.width, 3), dtype=self._dtype, name="pixels")
        taps = Taps(name=self.name.replace("/", "_"))
        return self.keras.Model(pixels, taps(pixels))

    def to_onnx(self, layers: Sequence[str]) -> Any:
        """By tf2onnx, which cuts off what no named layer needs."""
        import tensorflow as tf
        import tf2onnx

        spec = tf.TensorSpec((None, self.height, self.width, 3), self._dtype, name="pixels")
        try:
            with plain_operators(), _tidy():
                proto, _ = tf2onnx.convert.from_keras(
                    self._tapping(layers), input_signature=(spec,), opset=OPSET
                )
        except Exception as error:  # tf2onnx raises whatever broke inside of it
            raise BackboneError(
                f"{self.name} cannot be converted to ONNX: {error}",
                "Choose shallower layers (`python -m export layers` lists them), another network, "
                "or export it to ONNX with its own tools.",
            ) from error
        return proto

    def run(self, pixels: np.ndarray, layers: Sequence[str]) -> list[np.ndarray]:
        """Keras's own answer."""
        with _tapped(self._inside, layers) as seen:
            self.model(self.keras.ops.cast(pixels, self._dtype), training=False)
        return [np.asarray(seen[name]) for name in layers]


@contextmanager
def _tidy() -> Iterator[None]:
    """Collect garbage often: tf2onnx leaves cycles behind that hold copies of all weights.

    Python counts objects, not bytes; InceptionResNetV2's 0.2 GB grew to 14 GB.
    """
    before = gc.get_threshold()
    gc.collect()
    gc.freeze()  # what was there before is not looked through each time
    gc.set_threshold(before[0], 2, 1)
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()
        gc.collect()


def _layers_inside(model: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for layer in model.layers:
        if type(layer).__name__ == "InputLayer":
            continue
        yield prefix + layer.name, layer
        if hasattr(layer, "layers"):
            yield from _layers_inside(layer, f"{prefix}{layer.name}/")


@contextmanager
def _tapped(inside: dict[str, Any], names: Sequence[str]) -> Iterator[dict[str, Any]]:
    """While this is on, what the named layers answer is kept: their first call's tensor."""
    seen: dict[str, Any] = {}

    def tap(name: str, layer: Any) -> Any:
        call = layer.call

        def tapped(*args: Any, **kwargs: Any) -> Any:
            answer = call(*args, **kwargs)
            if hasattr(answer, "shape"):
                seen.setdefault(name, answer)
            return answer

        return tapped

    try:
        for name in names:
            inside[name].call = tap(name, inside[name])
        yield seen
    finally:
        for name in names:
            inside[name].__dict__.pop("call", None)
