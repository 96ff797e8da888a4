"""Imports TensorFlow, with a clear message if it is missing, and makes Keras convertible."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

from headstart.data.common import packages

SEED = 0  # of random weights


def import_keras() -> ModuleType:
    """Import Keras on TensorFlow, to build a backbone (see `common.packages`)."""
    return packages.import_keras("building a backbone needs Keras")


@contextmanager
def plain_operators() -> Iterator[None]:
    """Let Keras trace only operators that tf2onnx can convert.

    Keras compiles grouped convolutions with XLA, since TensorFlow has no CPU kernels for them;
    compiled functions are opaque to tf2onnx, which needs no kernel. TensorFlow computes gelu with
    `Erfc`, which ONNX lacks; here it is computed as in its paper (arXiv:1606.08415).
    """
    import tensorflow as tf

    function, gelu = tf.function, tf.nn.gelu

    def plain(func: Any = None, **options: Any) -> Any:
        if options.pop("jit_compile", None) and func is None:
            return lambda wrapped: wrapped
        return function(func, **options) if func is not None else function(**options)

    def erf_gelu(features: Any, approximate: bool = False, name: Any = None) -> Any:
        if approximate:
            return gelu(features, approximate=True, name=name)
        half = tf.cast(0.5, features.dtype)
        return half * features * (1 + tf.math.erf(features * tf.cast(0.5**0.5, features.dtype)))

    tf.function, tf.nn.gelu = plain, erf_gelu
    try:
        yield
    finally:
        tf.function, tf.nn.gelu = function, gelu
