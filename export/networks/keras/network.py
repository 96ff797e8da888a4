"""Any Keras model, nested or subclassed: records the outputs of its layers, and converts them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from headstart.data.common import console
from headstart.data.common.errors import BackboneError
from headstart.data.common.memory import machine_memory
from headstart.export.networks.features import (
    ACTIVATION,
    CONV,
    DENSE,
    ENDING,
    OTHER,
    POOL,
    RESHAPE,
    SCORES,
    Step,
    find_features,
    nearest_layer,
)
from headstart.export.networks.keras.conversion import convert
from headstart.export.networks.keras.stack import plain_operators
from headstart.export.networks.network import Layer, Original, Weights, layout_of, prefix_of
from headstart.export.networks.onnx.surgery import make_constants
from headstart.export.networks.scaling import Scaling

# Memory that a conversion takes: bytes, plus multiples of the weights of fully connected and of
# other layers. The peaks of nine networks of 9 to 1,400 MB were below that, but for the smallest,
# MobileNetV2: 5 % above.
MEMORY, DENSE_COPIES, COPIES = 1_000_000_000, 9, 20


# What TensorFlow's operators are on the way back from the outputs (`networks.features`).
KINDS = {
    **dict.fromkeys(("MatMul", "BatchMatMulV2"), DENSE),
    "Conv2D": CONV,
    **dict.fromkeys(("Softmax", "LogSoftmax", "Sigmoid", "ArgMax", "TopKV2"), SCORES),
    **dict.fromkeys(("BiasAdd", "AddV2", "Add", "Sub", "Mul", "RealDiv", "Tanh"), ENDING),
    **dict.fromkeys(("Identity", "Cast", "Reshape", "Squeeze", "ExpandDims"), RESHAPE),
    **dict.fromkeys(("Mean", "AvgPool"), POOL),
    **dict.fromkeys(("Relu", "Relu6", "LeakyRelu", "Elu"), ACTIVATION),
}


class KerasNetwork(Original):
    """A Keras model from scaled pixels to anything.

    Layers of a nested model are named `model/layer`.
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
        self._graphs: dict[tuple[str, ...], Any] = {}
        self._steps: dict[str, Step] = {}
        self._outputs: list[str] = []
        self._named: dict[str, str] = {}  # layers by the operation that computes their output
        if default_layers:
            self.default_layers = default_layers

    def layers(self) -> list[Layer]:
        """In the order in which they are called."""
        if self._layers is None:
            import tensorflow as tf

            # Traced, not computed: only shapes and connections are needed.
            shape = (1, self.height, self.width, 3)
            found: dict[str, tuple[int, ...]] = {}

            def trace(pixels: Any) -> Any:
                with _recorded_outputs(self._inside, list(self._inside)) as seen:
                    answer = self.model(pixels, training=False)
                found.update({name: tuple(value.shape) for name, value in seen.items()})
                self._steps = _steps(pixels.graph, pixels.op.name)
                self._outputs = [each.op.name for each in tf.nest.flatten(answer)]
                self._named = {value.op.name: name for name, value in seen.items()}
                return answer

            with plain_operators():
                tf.function(trace).get_concrete_function(tf.TensorSpec(shape, self._dtype))
            self._layers = [
                Layer(
                    name,
                    shape[1:],
                    layout_of(shape[1:], self._channels_first(self._inside[name])),
                    type(self._inside[name]).__name__,
                    prefix_of(shape[1:], self.height, self.width),
                )
                for name, shape in found.items()
                if len(shape) in (2, 3, 4) and None not in shape[1:]
            ]
        return self._layers

    def _channels_first(self, layer: Any) -> bool:
        own = getattr(layer, "data_format", None) or self.keras.config.image_data_format()
        return bool(own == "channels_first")

    def embedding(self) -> str:
        """The layer that all classifiers see, before average pooling if there is any."""
        layers = {layer.name: layer for layer in self.layers()}
        named = {value: name for value, name in self._named.items() if name in layers}
        maps = {
            value
            for value, name in named.items()
            if len(layers[name].shape) == 3 and min(layers[name].shape) > 1
        }
        value = find_features(self.name, self._steps, self._outputs, maps)
        return nearest_layer(self._steps, value, named) or super().embedding()

    @property
    def _dtype(self) -> str:
        inputs = getattr(self.model, "inputs", None)  # a subclassed model has none
        return str(inputs[0].dtype) if inputs else "float32"

    def _dense_kernels(self) -> dict[str, Any]:
        """The weights of fully connected layers, each under a name for the graph."""
        dense = (
            each
            for each in self._inside.values()
            if isinstance(each, self.keras.layers.Dense) and each.built
        )
        kernels = {id(each.kernel): each.kernel for each in dense}  # a layer may be used twice
        variables = (each for each in kernels.values() if isinstance(each, self.keras.Variable))
        return {f"dense_kernel_{number}": each for number, each in enumerate(variables)}

    def _outputs_by_kernels(self, names: Sequence[str], kernels: dict[str, Any]) -> Any:
        """A function of pixels and these kernels that gives the outputs of the named layers."""

        def outputs(pixels: Any, *values: Any) -> list[Any]:
            instead = list(zip(kernels.values(), values, strict=True))
            with (
                self.keras.StatelessScope(instead),
                _recorded_outputs(self._inside, names) as seen,
            ):
                self.model(pixels, training=False)
            return [seen[name] for name in names]

        return outputs

    def to_onnx(self, layers: Sequence[str]) -> Any:
        """By tf2onnx, which removes what no named layer needs.

        TensorFlow and tf2onnx copy every constant a dozen times. Kernels of fully connected layers,
        nearly all of ConvNeXt, need no conversion, so they are inputs until the graph is complete:
        ConvNeXtXLarge (1.4 GB) took more than 25 GB of memory to export, and now takes 13.
        """
        import tensorflow as tf

        kernels = self._dense_kernels()
        self._warn_of_memory(kernels)
        shape = (None, self.height, self.width, 3)
        signature = [tf.TensorSpec(shape, self._dtype, name="pixels")]
        signature += [tf.TensorSpec(k.shape, k.dtype, name=name) for name, k in kernels.items()]
        try:
            with plain_operators():
                outputs = tf.function(
                    self._outputs_by_kernels(layers, kernels), input_signature=signature
                )
                proto = convert(outputs, signature)
        except Exception as error:  # tf2onnx raises errors of many classes
            raise BackboneError(
                f"{self.name} cannot be converted to ONNX: {error}",
                "Choose shallower layers (`python -m export layers` lists them), another network, "
                "or export it to ONNX with its own tools.",
            ) from error
        make_constants(proto, kernels)
        return proto

    def _warn_of_memory(self, kernels: dict[str, Any]) -> None:
        """Warn if memory is short: a process that is killed for it cannot say why."""
        dense, everything = (
            sum(4 * math.prod(each.shape) for each in weights)  # float32
            for weights in (kernels.values(), self.model.variables)
        )
        need = MEMORY + DENSE_COPIES * dense + COPIES * (everything - dense)
        if need > (there := machine_memory()):
            console.note(
                f"warning: converting {self.name} may take {console.human_bytes(need)} of "
                f"memory, and this machine has {console.human_bytes(there)}: if it is killed, use "
                "a larger machine, or choose shallower layers (`python -m export layers`)"
            )

    def run(self, pixels: np.ndarray, layers: Sequence[str]) -> list[np.ndarray]:
        """Keras's own outputs, computed as a graph.

        Eager execution keeps every layer's output until the last is computed: 13 GB for three
        images of 600x600 and EfficientNetB7.
        """
        import tensorflow as tf

        key = tuple(layers)
        if key not in self._graphs:

            def forward(pixels: Any) -> list[Any]:
                with _recorded_outputs(self._inside, key) as seen:
                    self.model(pixels, training=False)
                return [seen[name] for name in key]

            shape = (None, self.height, self.width, 3)
            self._graphs[key] = tf.function(forward, [tf.TensorSpec(shape, self._dtype)])
        answer = self._graphs[key](tf.cast(pixels, self._dtype))
        return [np.asarray(each) for each in answer]


def _steps(graph: Any, image: str) -> dict[str, Step]:
    """The operations of a TensorFlow graph that see the image, by name."""
    steps = {image: Step(OTHER, ())}
    for each in graph.get_operations():
        names = (tensor.op.name for tensor in each.inputs)
        inputs = tuple(name for name in names if name in steps)
        if not inputs:
            continue
        kind = KINDS.get(each.type, OTHER)
        if kind == CONV and tuple(each.inputs[0].shape[1:3]) == (1, 1):
            kind = DENSE
        steps[each.name] = Step(kind, inputs)
    return steps


def _layers_inside(model: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for layer in model.layers:
        if type(layer).__name__ == "InputLayer":
            continue
        yield prefix + layer.name, layer
        if hasattr(layer, "layers"):
            yield from _layers_inside(layer, f"{prefix}{layer.name}/")


@contextmanager
def _recorded_outputs(inside: dict[str, Any], names: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Record the output of the first call of each of the named layers."""
    seen: dict[str, Any] = {}

    def recording(name: str, layer: Any) -> Any:
        call = layer.call

        def record(*args: Any, **kwargs: Any) -> Any:
            answer = call(*args, **kwargs)
            if hasattr(answer, "shape"):
                seen.setdefault(name, answer)
            return answer

        return record

    try:
        for name in names:
            inside[name].call = recording(name, inside[name])
        yield seen
    finally:
        for name in names:
            inside[name].__dict__.pop("call", None)
