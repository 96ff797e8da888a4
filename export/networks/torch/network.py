"""Any PyTorch module: hooks record the outputs of its layers, and PyTorch exports them to ONNX."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from headstart.data.common.errors import BackboneError, first_line
from headstart.data.common.onnx_graphs import OPSET
from headstart.export.networks.network import Layer, Original, Weights, last_features
from headstart.export.networks.scaling import Scaling
from headstart.export.networks.torch.stack import import_torch

WHOLE = "output"  # the name for the output of the module itself


class TorchNetwork(Original):
    """A `torch.nn.Module` from scaled pixels `[batch, 3, height, width]` to anything.

    Layers have the names of `named_modules`; `output` is the module's own output (for timm and
    Hugging Face, that before pooling and classifier).

    Parameters
    ----------
    forward
        The function to call, if it is not the module itself.
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
    ) -> None:
        (self.torch,) = import_torch()
        self.module, self.name = module.eval(), name
        self.forward = forward or module
        self.height, self.width = size
        self.scaling, self.weights = scaling, weights
        self.default_pools = default_pools
        self._layers: list[Layer] | None = None
        self.default_layers = default_layers or (last_features(self.layers()),)

    def layers(self) -> list[Layer]:
        """In the order in which they are computed."""
        if self._layers is None:
            inside = dict(self.module.named_modules())
            names = [name for name in inside if name]
            pixels = self.torch.zeros(1, 3, self.height, self.width)
            try:
                with self.torch.no_grad(), self._recorded_outputs(names) as seen:
                    answer = _first(self.forward(pixels))
            except Exception as error:  # modules raise errors of many classes for a wrong size
                raise BackboneError(
                    f"{self.name} does not run on images of {self.height}x{self.width}: "
                    f"{first_line(error)}",
                    "Choose another --size.",
                ) from error
            self._layers = [
                Layer(name, tuple(value.shape[1:]), type(inside[name]).__name__)
                for name, value in seen.items()
                if value.ndim in (2, 3, 4) and value.shape[0] == 1
            ]
            if hasattr(answer, "ndim") and answer.ndim in (2, 3, 4):
                kind = type(self.module).__name__
                self._layers.append(Layer(WHOLE, tuple(answer.shape[1:]), kind))
        return self._layers

    @contextmanager
    def _recorded_outputs(self, names: Sequence[str]) -> Iterator[dict[str, Any]]:
        """Record the output of the first call of each of the named modules."""
        seen: dict[str, Any] = {}

        def hook(name: str) -> Any:
            def keep(_module: Any, _inputs: Any, answer: Any) -> None:
                tensor = _first(answer)
                if hasattr(tensor, "ndim"):
                    seen.setdefault(name, tensor)

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

        pixels = torch.randn(2, 3, self.height, self.width)
        try:
            with warnings.catch_warnings(), torch.no_grad():
                warnings.simplefilter("ignore")
                program = torch.onnx.export(
                    LayerOutputs().eval(),
                    (pixels,),
                    dynamo=True,
                    opset_version=OPSET,
                    dynamic_shapes=({0: torch.export.Dim("batch")},),
                    verbose=False,
                )
        except Exception as error:  # the exporter raises errors of many classes
            cause: BaseException = error
            while cause.__cause__ is not None:  # the first cause names the operator
                cause = cause.__cause__
            why = first_line(cause)
            raise BackboneError(
                f"{self.name} cannot be converted to ONNX: {why}",
                "Choose shallower layers (`python -m export layers` lists them), another network, "
                "or export it to ONNX with its own tools.",
            ) from error
        return program.model_proto

    def run(self, pixels: np.ndarray, layers: Sequence[str]) -> list[np.ndarray]:
        """PyTorch's own outputs."""
        turned = np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))
        with self.torch.no_grad():
            return [a.numpy() for a in self._outputs(self.torch.from_numpy(turned), layers)]


def _first(answer: Any) -> Any:
    """The tensor of an output: itself, the first of several, or the last hidden state."""
    if hasattr(answer, "last_hidden_state"):
        return answer.last_hidden_state
    if isinstance(answer, (tuple, list)):
        return _first(answer[0]) if answer else None
    return answer
