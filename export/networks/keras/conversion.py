"""Converts TensorFlow functions by tf2onnx: deterministic, and in less time and memory."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import count
from typing import Any

from headstart.data.common.onnx_graphs import OPSET
from headstart.export.networks.onnx.surgery import make_constants


class _PassError(Exception):
    """One of tf2onnx's passes failed."""


def convert(function: Any, signature: Sequence[Any], **options: Any) -> Any:
    """The ONNX form of a `tf.function`, by tf2onnx, the same each time.

    Parameters
    ----------
    signature
        A `tf.TensorSpec` for each argument.
    options
        More of those of `tf2onnx.convert.from_function`.

    Returns
    -------
    onnx.ModelProto

    Raises
    ------
    Exception
        Of any class, as TensorFlow and tf2onnx do.
    """
    import tf2onnx
    from tf2onnx.optimizer import back_to_back_optimizer

    with ExitStack() as stack:
        stack.enter_context(_frequent_garbage_collection())
        stack.enter_context(_hashed_by_creation(tf2onnx.graph.Node))
        for module in (tf2onnx.graph, back_to_back_optimizer):  # these iterate over sets of names
            stack.enter_context(_sorted_sets(module))

        def converted() -> Any:
            return tf2onnx.convert.from_function(function, signature, opset=OPSET, **options)[0]

        try:
            with _passes_in_place(tf2onnx):
                proto = converted()
        except _PassError:
            proto = converted()
    # tf2onnx makes inputs of the tensors that the function captured.
    captures = function.get_concrete_function(*signature).graph.captures
    make_constants(proto, {inside.name: outside for outside, inside in captures})
    return proto


@contextmanager
def _passes_in_place(tf2onnx: Any) -> Iterator[None]:
    """Let tf2onnx's passes work on one graph, and write its weights once, at the end.

    Otherwise each of some fifty passes begins with a copy of the graph and its weights, to return
    to if it fails, and ends by copying them again: a third of the time of a conversion. Here a pass
    that fails raises `_PassError`.
    """
    optimizer, graph_class = tf2onnx.optimizer, tf2onnx.graph.Graph
    optimize, update = optimizer.optimize_graph, graph_class.update_proto

    def in_place(graph: Any, *_: Any, **options: Any) -> Any:
        graph_class.update_proto = lambda *_: None
        try:
            return optimize(graph, catch_errors=False, **options)
        except Exception as error:  # each pass raises errors of its own
            raise _PassError from error
        finally:
            graph_class.update_proto = update

    optimizer.optimize_graph = in_place
    try:
        yield
    finally:
        optimizer.optimize_graph = optimize


class _SortedSet(set):
    """A set with a fixed order: names alphabetically, nodes by `_hashed_by_creation`."""

    def __iter__(self) -> Iterator[Any]:
        return iter(sorted(super().__iter__(), key=lambda e: e if isinstance(e, str) else hash(e)))

    def __sub__(self, other: Any) -> _SortedSet:
        return _SortedSet(super().__sub__(other))


@contextmanager
def _sorted_sets(module: Any) -> Iterator[None]:
    """Replace `set` in a module by one with a fixed order."""
    module.set = _SortedSet
    try:
        yield
    finally:
        del module.set


@contextmanager
def _hashed_by_creation(node: type) -> Iterator[None]:
    """Hash nodes by their order of creation, not by memory address.

    tf2onnx iterates over sets of nodes: which of two equal nodes it keeps, and where it moves a
    transpose, depends on their order.
    """
    numbers = count()

    def number(self: Any) -> int:
        if "_creation" not in self.__dict__:
            self._creation = next(numbers)
        return int(self._creation)

    node.__hash__ = number  # type: ignore[assignment]
    try:
        yield
    finally:
        node.__hash__ = object.__hash__  # type: ignore[assignment]


@contextmanager
def _frequent_garbage_collection() -> Iterator[None]:
    """Collect garbage often: tf2onnx leaves reference cycles with copies of all weights.

    Python counts objects, not bytes; InceptionResNetV2's 0.2 GB grew to 14 GB.
    """
    before = gc.get_threshold()
    gc.collect()
    gc.freeze()  # existing objects are not searched each time
    gc.set_threshold(before[0], 2, 1)
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()
        gc.collect()
