"""tf2onnx, so that it writes the same file each time and needs little memory."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import count
from typing import Any


@contextmanager
def steady_conversion() -> Iterator[Any]:
    """tf2onnx, which answers the same while this is on, whatever the hash seed, and tidies up."""
    import tf2onnx
    from tf2onnx.optimizer import back_to_back_optimizer

    with ExitStack() as stack:
        stack.enter_context(_collected())
        stack.enter_context(_numbered(tf2onnx.graph.Node))
        for module in (tf2onnx.graph, back_to_back_optimizer):  # these walk sets of names
            stack.enter_context(_sorted_sets(module))
        yield tf2onnx


class _SortedSet(set):
    """A set that is walked in order: names by the alphabet, nodes as `_numbered` has them."""

    def __iter__(self) -> Iterator[Any]:
        return iter(sorted(super().__iter__(), key=lambda e: e if isinstance(e, str) else hash(e)))

    def __sub__(self, other: Any) -> _SortedSet:
        return _SortedSet(super().__sub__(other))


@contextmanager
def _sorted_sets(module: Any) -> Iterator[None]:
    """While this is on, a module that says `set` gets one that is walked in order."""
    module.set = _SortedSet
    try:
        yield
    finally:
        del module.set


@contextmanager
def _numbered(node: type) -> Iterator[None]:
    """Hash nodes by when they came, not by memory address: tf2onnx walks sets of them, and which of
    two equal nodes stays, or where a transpose ends up, would be chance."""
    numbers = count()

    def number(self: Any) -> int:
        if "_came" not in self.__dict__:
            self._came = next(numbers)
        return int(self._came)

    node.__hash__ = number  # type: ignore[assignment]
    try:
        yield
    finally:
        node.__hash__ = object.__hash__  # type: ignore[assignment]


@contextmanager
def _collected() -> Iterator[None]:
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
