"""A PyTorch network that can be trained: which modules are its blocks, and where it can be cut."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from headstart.data.common.onnx_graphs import IR_VERSION, OPSET
from headstart.export.networks.network import FIRST, FLAT, LAST
from headstart.export.networks.onnx.surgery import to_opset
from headstart.export.networks.torch.network import WHOLE, TorchNetwork
from headstart.export.networks.trainable.folding import fold_normalization
from headstart.export.networks.trainable.trainable import Block, Trainable

WEIGHTS = "weights.safetensors"
REPEATED = 3  # composite modules of one class in a container: then each is a block
SAME = 1e-5  # relative: two ways to compute the same features
Names = Callable[[dict[str, Any]], dict[str, Any]]


class _Done(Exception):
    """Ends a network's run once the features are there: a classifier behind them is not needed."""

    def __init__(self, features: Any) -> None:
        super().__init__()
        self.features = features


class TrainableTorch(Trainable):
    """A network of timm, torchvision or Hugging Face.

    Parameters
    ----------
    network
        As `export backbone` opens it.
    names
        Turns the module's tensors by name into those of the file that `export backbone` reads.
    """

    def __init__(self, network: TorchNetwork, names: Names = lambda tensors: tensors) -> None:
        self.network, self.torch, self.names = network, network.torch, names
        self.name, self.height, self.width = network.name, network.height, network.width
        self.scaling, self.weights = network.scaling, network.weights
        self.resize, self.interpolation = network.resize, network.interpolation
        self.crop_fraction, self.crop_offset = network.crop_fraction, network.crop_offset
        self.layer = network.find(network.default_layers[-1:])[0]
        self.pool = network.default_pools[0]
        self.ready = False  # to be trained; a network that is exported stays as it is
        self.pieces = self._find_pieces()
        self.blocks = [self._block(pieces) for pieces in self._grouped()]
        self.dim = self._width()
        self._module: Any = None

    def prepare(self) -> None:
        """Compute convolutions and frozen normalization as one; the weights stay as they are."""
        if not self.ready:
            image = self.torch.zeros(1, 3, self.height, self.width)
            fold_normalization(self.network.module, lambda: self.network.forward(image))
            self.ready = True

    @property
    def module(self) -> Any:
        """From `(values, cut)` to features `[batch, dim]`."""
        if self._module is None:
            outer, torch = self, self.torch

            class Features(torch.nn.Module):  # type: ignore[name-defined,misc]
                def __init__(self) -> None:
                    super().__init__()
                    self.network = outer.network.module

                def forward(self, values: Any, cut: int = 0) -> Any:
                    return outer.pooled(outer.run(values, cut))

            self._module = Features()
        return self._module

    def to(self, device: Any) -> None:
        """Move all weights to a device."""
        self.network.module.to(device=device, memory_format=self.torch.channels_last)

    def front(self, pixels: Any, cut: int) -> Any:
        """The output of the blocks before `cut`, for scaled pixels."""
        with self._stop_after(self.blocks[cut - 1].end):
            return self._until_done(pixels)

    def front_to_onnx(self, cut: int) -> bytes:
        """By PyTorch's own exporter; call it before `prepare`."""
        name = self.blocks[cut - 1].end
        proto = to_opset(self.network.to_onnx([name]), OPSET, self.name)
        proto.ir_version = IR_VERSION
        return bytes(proto.SerializeToString())

    def run(self, values: Any, cut: int) -> Any:
        """The output of the layer of the features, before pooling."""
        with self._stop_after(self.layer.name):
            if not cut:
                return self._until_done(values)
            end = self.blocks[cut - 1].end
            empty = values.new_zeros(()).expand(len(values), 3, self.height, self.width)
            with self._replaced(end, values):
                return self._until_done(empty)

    def _until_done(self, pixels: Any) -> Any:
        try:
            whole = self.network.forward(pixels)
        except _Done as done:
            return done.features
        return _tensor(whole)

    @contextmanager
    def _stop_after(self, name: str) -> Iterator[None]:
        if name == WHOLE:
            yield
            return

        def stop(_module: Any, _inputs: Any, output: Any) -> None:
            raise _Done(_tensor(output))

        handle = self.network.module.get_submodule(name).register_forward_hook(stop)
        try:
            yield
        finally:
            handle.remove()

    @contextmanager
    def _replaced(self, end: str, values: Any) -> Iterator[None]:
        """Let a run begin after a module: those before it return zeros, and it returns `values`."""
        place = self.pieces.index(end)
        kept = []
        for number, name in enumerate(self.pieces[: place + 1]):
            module = self.network.module.get_submodule(name)
            kept.append((module, module.__dict__.get("forward")))
            if number == place:
                module.forward = lambda *_, **__: values
            else:
                shape = self.shapes[name]
                module.forward = lambda *_, shape=shape, **__: values.new_zeros(()).expand(
                    len(values), *shape
                )
        try:
            yield
        finally:
            for module, forward in kept:
                if forward is None:
                    del module.forward
                else:
                    module.forward = forward

    def pooled(self, value: Any) -> Any:
        """The features `[batch, dim]` of the layer's output, as `export backbone` pools it."""
        layer = self.layer
        if layer.layout == FLAT:
            return value
        if layer.layout == FIRST:
            return value.mean((2, 3))
        if layer.layout == LAST:
            return value.mean((1, 2))
        return value[:, 0] if self.pool == "token" else value[:, layer.prefix :].mean(1)

    def save(self, folder: Path) -> str:
        """All tensors as safetensors."""
        from safetensors.torch import save_file

        state = {
            name: tensor.detach().cpu().contiguous().clone()
            for name, tensor in self.names(self.network.module.state_dict()).items()
        }
        save_file(state, folder / WEIGHTS)
        return WEIGHTS

    def _width(self) -> int:
        shape, layout = self.layer.shape, self.layer.layout
        return int(shape[0] if layout == FIRST else shape[-1])

    def _find_pieces(self) -> list[str]:
        """The modules of which the network is a chain, in the order in which they run."""
        root = self.network.module
        names = list(_expanded("", root, self.torch))
        shapes: dict[str, tuple[int, ...]] = {}
        hooks = []
        for name in names:

            def keep(_module: Any, _inputs: Any, output: Any, name: str = name) -> None:
                tensor = _tensor(output)
                if hasattr(tensor, "shape"):
                    shapes.setdefault(name, tuple(tensor.shape[1:]))

            hooks.append(root.get_submodule(name).register_forward_hook(keep))
        try:
            with self.torch.no_grad(), self._stop_after(self.layer.name):
                self._until_done(self.torch.zeros(1, 3, self.height, self.width))
        finally:
            for hook in hooks:
                hook.remove()
        self.shapes = shapes
        return list(shapes)

    def _grouped(self) -> list[list[str]]:
        """Pieces of one block: what has no weights, or is a normalization, ends the one before."""
        groups: list[list[str]] = []
        for name in self.pieces:
            module = self.network.module.get_submodule(name)
            own = any(True for _ in module.parameters())
            if groups and (not own or "Norm" in type(module).__name__):
                groups[-1].append(name)
            elif own or not groups:
                groups.append([name])
        joined: list[list[str]] = []
        with self.torch.no_grad():
            image = self.torch.rand(1, 3, self.height, self.width)
            whole = self.pooled(self.run(image, 0))
            for group in groups:
                if joined and not self._can_cut(joined[-1][-1], image, whole):
                    joined[-1].extend(group)
                else:
                    joined.append(group)
        return joined

    def _can_cut(self, end: str, image: Any, whole: Any) -> bool:
        """Whether what comes after a module needs nothing but its output."""
        try:
            with self._stop_after(end):
                values = self._until_done(image)
            with self._stop_after(self.layer.name), self._replaced(end, values):
                again = self.pooled(self._until_done(image * 0))
        except (RuntimeError, IndexError, TypeError, ValueError):  # shapes that do not fit
            return False
        if again.shape != whole.shape:
            return False
        return bool((again - whole).abs().max() <= SAME * whole.abs().max())

    def _block(self, pieces: Sequence[str]) -> Block:
        modules = [self.network.module.get_submodule(name) for name in pieces]
        parameters = tuple(each for module in modules for each in module.parameters())
        convolutions: list[tuple[Any, ...]] = []
        for module in (inner for each in modules for inner in each.modules()):
            if isinstance(module, self.torch.nn.Conv2d):
                convolutions.append(tuple(module.parameters()))
            elif "Norm" in type(module).__name__ and convolutions:
                convolutions[-1] += tuple(module.parameters(recurse=False))
        return Block(pieces[0], pieces[-1], parameters, tuple(convolutions))


def _expanded(name: str, module: Any, torch: Any) -> Iterator[str]:
    """The names of modules that follow each other: containers are opened, blocks are not."""
    container = isinstance(module, (torch.nn.Sequential, torch.nn.ModuleList))
    if not name or container or _holds_blocks(module, torch):
        for own, child in module.named_children():
            yield from _expanded(f"{name}.{own}".lstrip("."), child, torch)
    else:
        yield name


def _holds_blocks(module: Any, torch: Any) -> bool:
    """Whether a module is a container of several composite modules of one class."""
    for child in module.children():
        if isinstance(child, (torch.nn.Sequential, torch.nn.ModuleList)):
            kinds = [type(each) for each in child if any(True for _ in each.children())]
            if any(kinds.count(kind) >= REPEATED for kind in set(kinds)):
                return True
    return False


def _tensor(output: Any) -> Any:
    """The tensor of an output: itself, the first of several, or the last hidden state."""
    if hasattr(output, "last_hidden_state"):
        return output.last_hidden_state
    return output[0] if isinstance(output, (tuple, list)) and output else output
