"""Makes tf2onnx deterministic, and its memory use small."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import count
from typing import Any


@contextmanager
def deterministic_conversion() -> Iterator[Any]:
    """Provide tf2onnx, made independent of the hash seed and of memory addresses."""
    import tf2onnx
    from tf2onnx.optimizer import back_to_back_optimizer

    with ExitStack() as stack:
        stack.enter_context(_frequent_garbage_collection())
        stack.enter_context(_hashed_by_creation(tf2onnx.graph.Node))
        for module in (tf2onnx.graph, back_to_back_optimizer):  # these iterate over sets of names
            stack.enter_context(_sorted_sets(module))
        yield tf2onnx


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
