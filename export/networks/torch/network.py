"""Any PyTorch module: its layers are tapped by hooks while it runs, then exported to ONNX."""

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

WHOLE = "output"  # the name of what the module itself answers


class TorchNetwork(Original):
    """A `torch.nn.Module` from scaled pixels `[batch, 3, height, width]` to anything.

    Layers are named as `named_modules` names them; `output` is the module's own answer (for timm
    and Hugging Face, what comes before pooling and classifier).

    Parameters
    ----------
    forward
        The method to call, where it is not the module itself.
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
        """In the order in which they answer."""
        if self._layers is None:
            inside = dict(self.module.named_modules())
            names = [name for name in inside if name]
            pixels = self.torch.zeros(1, 3, self.height, self.width)
            try:
                with self.torch.no_grad(), self._tapped(names) as seen:
                    answer = _first(self.forward(pixels))
            except Exception as error:  # the module raises whatever a size that it lacks leads to
                raise BackboneError(
                    f"{self.name} does not run on pictures of {self.height}x{self.width}: "
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
    def _tapped(self, names: Sequence[str]) -> Iterator[dict[str, Any]]:
        """While this is on, what the named modules answer is kept: their first call's tensor."""
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

    def _answers(self, pixels: Any, names: Sequence[str]) -> tuple[Any, ...]:
        with self._tapped(names) as seen:
            whole = _first(self.forward(pixels))
        return tuple(whole if name == WHOLE else seen[name] for name in names)

    def to_onnx(self, layers: Sequence[str]) -> Any:
        """By PyTorch's own exporter."""
        torch, network, names = self.torch, self, list(layers)

        class Taps(torch.nn.Module):  # type: ignore[name-defined,misc]
            def __init__(self) -> None:
                super().__init__()
                self.module = network.module

            def forward(self, pixels: Any) -> tuple[Any, ...]:
                return network._answers(pixels, names)

        pixels = torch.randn(2, 3, self.height, self.width)
        try:
            with warnings.catch_warnings(), torch.no_grad():
                warnings.simplefilter("ignore")
                program = torch.onnx.export(
                    Taps().eval(),
                    (pixels,),
                    dynamo=True,
                    opset_version=OPSET,
                    dynamic_shapes=({0: torch.export.Dim("batch")},),
                    verbose=False,
                )
        except Exception as error:  # the exporter raises whatever broke inside of it
            cause: BaseException = error
            while cause.__cause__ is not None:  # the first one names the operator
                cause = cause.__cause__
            why = first_line(cause)
            raise BackboneError(
                f"{self.name} cannot be converted to ONNX: {why}",
                "Choose shallower layers (`python -m export layers` lists them), another network, "
                "or export it to ONNX with its own tools.",
            ) from error
        return program.model_proto

    def run(self, pixels: np.ndarray, layers: Sequence[str]) -> list[np.ndarray]:
        """PyTorch's own answer."""
        turned = np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))
        with self.torch.no_grad():
            return [a.numpy() for a in self._answers(self.torch.from_numpy(turned), layers)]


def _first(answer: Any) -> Any:
    """The tensor of an answer: itself, the first of several, or a named output's first."""
    if hasattr(answer, "last_hidden_state"):
        return answer.last_hidden_state
    if isinstance(answer, (tuple, list)):
        return _first(answer[0]) if answer else None
    return answer
