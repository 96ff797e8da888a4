"""Any PyTorch module: hooks record the outputs of its layers, and PyTorch exports them to ONNX."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np
from PIL import Image

from headstart.data.common.errors import BackboneError, first_line
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
from headstart.export.networks.network import (
    Layer,
    Original,
    Weights,
    axes_that_grow,
    layout_of,
    prefix_of,
)
from headstart.export.networks.scaling import Scaling
from headstart.export.networks.torch.conversion import module_to_onnx
from headstart.export.networks.torch.recipe import Own
from headstart.export.networks.torch.stack import import_torch

WHOLE = "output"  # the name for the output of the module itself


LARGER = 128  # pixels more of height and width, for which a map of any stride grows
# Modules that have the channels of a map on the last axis, and on the second.
LAST_AXIS = ("Linear", "LayerNorm")
SECOND_AXIS = ("Conv2d", "BatchNorm2d", "BatchNormAct2d", "LayerNorm2d", "GroupNorm", "MaxPool2d")
# What autograd's records are on the way back from the outputs (`networks.features`).
KINDS = {
    **dict.fromkeys(("Addmm", "Mm", "Linear"), DENSE),
    "Convolution": CONV,
    **dict.fromkeys(("Softmax", "LogSoftmax", "Sigmoid", "Max"), SCORES),
    **dict.fromkeys(("Add", "Sub", "Mul", "Div", "Tanh"), ENDING),
    **dict.fromkeys(("View", "UnsafeView", "ReshapeAlias", "Squeeze", "Unsqueeze"), RESHAPE),
    **dict.fromkeys(("Clone", "ToCopy", "Alias", "NativeDropout"), RESHAPE),
    **dict.fromkeys(("Mean", "AvgPool2D", "AdaptiveAvgPool2D"), POOL),
    **dict.fromkeys(("Relu", "LeakyRelu", "Elu", "Hardswish", "Gelu", "Silu"), ACTIVATION),
}


class TorchNetwork(Original):
    """A `torch.nn.Module` from scaled pixels `[batch, 3, height, width]` to anything.

    Layers have the names of `named_modules`; `output` is the module's own output (for timm and
    Hugging Face, that before pooling and classifier).

    Parameters
    ----------
    forward
        The function to call, if it is not the module itself.
    own
        The checkpoint's own preprocessing of an image of the right size, which the export is
        compared with: from a photograph to `[3, height, width]`.
    """

    def __init__(
        self,
        module: Any,
        name: str,
        size: tuple[int, int],
        scaling: Scaling,
        weights: Weights,
        forward: Any = None,
        default_layers: tuple[str, ...] = (),
        default_pools: tuple[str, ...] = ("avg",),
        own: Own | None = None,
    ) -> None:
        (self.torch,) = import_torch()
        self.module, self.name = module.eval(), name
        self.forward = forward or module
        self.height, self.width = size
        self.scaling, self.weights = scaling, weights
        self.default_pools = default_pools
        self.own = own
        self._layers: list[Layer] | None = None
        if default_layers:
            self.default_layers = default_layers

    def layers(self) -> list[Layer]:
        """In the order in which they are computed."""
        if self._layers is None:
            inside = dict(self.module.named_modules())
            try:
                shapes = self._shapes(self.height, self.width)
            except Exception as error:  # modules raise errors of many classes for a wrong size
                raise BackboneError(
                    f"{self.name} does not run on images of {self.height}x{self.width}: "
                    f"{first_line(error)}",
                    "Choose another --size.",
                ) from error
            grown: dict[str, tuple[int, ...]] = {}
            # Only a look at the layouts: what takes one size alone states them by its classes.
            with suppress(Exception):
                self._shapes(self.height + LARGER, self.width + LARGER, grown)
            self._layers = []
            for name, shape in shapes.items():
                kind = type(self.module if name == WHOLE else inside[name]).__name__
                first = axes_that_grow(shape[1:], grown.get(name, ())[1:])
                if first is None:
                    first = kind not in LAST_AXIS and (kind in SECOND_AXIS or not self._last)
                layout = layout_of(shape[1:], first)
                self._layers.append(Layer(name, shape[1:], layout, kind, self._prefix(shape[1:])))
        return self._layers

    def _prefix(self, shape: tuple[int, ...]) -> int:
        """Where there are tokens before the patches, timm's networks state how many."""
        counted = prefix_of(shape, self.height, self.width)
        stated = getattr(self.module, "num_prefix_tokens", counted)
        return int(stated) if counted and isinstance(stated, int) else counted

    @property
    def _last(self) -> bool:
        """Whether maps have their channels last, as timm's networks state it."""
        return str(getattr(self.module, "output_fmt", "")).endswith("NHWC")

    def _shapes(
        self, height: int, width: int, found: dict[str, tuple[int, ...]] | None = None
    ) -> dict[str, tuple[int, ...]]:
        """The shapes of all outputs of rank 2 to 4 for one image, also of a run that fails."""
        found = {} if found is None else found
        names = [name for name, _ in self.module.named_modules() if name]
        with self.torch.no_grad(), self._recorded_outputs(names) as seen:
            try:
                whole = _first(self.forward(self.torch.zeros(1, 3, height, width)))
                if hasattr(whole, "ndim"):
                    seen[WHOLE] = whole
            finally:
                found |= {
                    name: tuple(value.shape)
                    for name, value in seen.items()
                    if value.ndim in (2, 3, 4) and value.shape[0] == 1
                }
        return found

    def embedding(self) -> str:
        """The layer that all classifiers see, before average pooling if there is any."""
        layers = {layer.name: layer for layer in self.layers()}
        image = self.torch.zeros(1, 3, self.height, self.width, requires_grad=True)
        makers: dict[str, Any] = {}
        with self.torch.enable_grad(), self._recorded_outputs(list(layers), makers):
            answer = self.forward(image * 1)  # an operation in place may not change the image
        outputs = [each.grad_fn for each in _tensors(answer) if each.grad_fn is not None]
        steps = _steps(outputs, image)
        named = {maker: name for name, maker in makers.items() if maker in steps}
        if (whole := getattr(_first(answer), "grad_fn", None)) in steps:
            named.setdefault(whole, WHOLE)
        maps = {
            maker
            for maker, name in named.items()
            if len(layers[name].shape) == 3 and min(layers[name].shape) > 1
        }
        value = find_features(self.name, steps, outputs, maps)
        return nearest_layer(steps, value, named) or super().embedding()

    @contextmanager
    def _recorded_outputs(
        self, names: Sequence[str], makers: dict[str, Any] | None = None
    ) -> Iterator[dict[str, Any]]:
        """Record the output of the first call of each named module, and what autograd made it."""
        seen: dict[str, Any] = {}

        def hook(name: str) -> Any:
            def keep(_module: Any, _inputs: Any, answer: Any) -> None:
                tensor = _first(answer)
                if hasattr(tensor, "ndim"):
                    seen.setdefault(name, tensor)
                    if makers is not None:
                        makers.setdefault(name, tensor.grad_fn)

            return keep

        hooks = [
            self.module.get_submodule(name).register_forward_hook(hook(name))
            for name in names
            if name != WHOLE
        ]
        try:
            yield seen
        finally:
            for handle in hooks:
                handle.remove()

    def _outputs(self, pixels: Any, names: Sequence[str]) -> tuple[Any, ...]:
        with self._recorded_outputs(names) as seen:
            whole = _first(self.forward(pixels))
        return tuple(whole if name == WHOLE else seen[name] for name in names)

    def to_onnx(self, layers: Sequence[str]) -> Any:
        """By PyTorch's own exporter."""
        torch, network, names = self.torch, self, list(layers)

        class LayerOutputs(torch.nn.Module):  # type: ignore[name-defined,misc]
            def __init__(self) -> None:
                super().__init__()
                self.module = network.module

            def forward(self, pixels: Any) -> tuple[Any, ...]:
                return network._outputs(pixels, names)

        return module_to_onnx(
            LayerOutputs(),
            (torch.randn(2, 3, self.height, self.width),),
            ({0: torch.export.Dim("batch")},),
            self.name,
            "Choose shallower layers (`python -m export layers` lists them), another network, "
            "or export it to ONNX with its own tools.",
        )

    def preprocess(self, images: np.ndarray) -> np.ndarray:
        """By the checkpoint's own preprocessing, if it has one."""
        if self.own is None:
            return super().preprocess(images)
        seen = [np.asarray(self.own(Image.fromarray(image)), np.float32) for image in images]
        return np.stack(seen).transpose(0, 2, 3, 1)

    def run(self, pixels: np.ndarray, layers: Sequence[str]) -> list[np.ndarray]:
        """PyTorch's own outputs."""
        turned = np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))
        with self.torch.no_grad():
            return [a.numpy() for a in self._outputs(self.torch.from_numpy(turned), layers)]


def _steps(outputs: Sequence[Any], image: Any) -> dict[Any, Step]:
    """What autograd recorded between the image and the outputs."""
    ordered: dict[Any, Step] = {}
    begun: set[Any] = set()
    pending = [(output, False) for output in outputs]
    while pending:  # no recursion: networks are deep
        maker, ready = pending.pop()
        before = [each for each, _ in maker.next_functions if each is not None]
        if not ready:
            if maker not in begun:
                begun.add(maker)
                pending += [(maker, True), *((each, False) for each in before)]
        elif getattr(maker, "variable", None) is image:
            ordered[maker] = Step(OTHER, ())
        elif inputs := tuple(each for each in before if each in ordered):
            kind = KINDS.get(maker.name().rstrip("0123456789").removesuffix("Backward"), OTHER)
            if kind == CONV and getattr(maker, "_saved_input", image).shape[2:] == (1, 1):
                kind = DENSE
            ordered[maker] = Step(kind, inputs)
    return ordered


def _tensors(answer: Any) -> list[Any]:
    """All tensors of an output."""
    if hasattr(answer, "grad_fn"):
        return [answer]
    values = answer.values() if hasattr(answer, "values") else answer
    return [each for value in values or () for each in _tensors(value)]


def _first(answer: Any) -> Any:
    """The tensor of an output: itself, the first of several, or the last hidden state."""
    if hasattr(answer, "last_hidden_state"):
        return answer.last_hidden_state
    if isinstance(answer, (tuple, list)):
        return _first(answer[0]) if answer else None
    return answer
