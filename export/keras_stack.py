"""The one place that imports TensorFlow: quietly, and with a clear word where it is missing."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

from data.errors import MissingPackageError


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence what TensorFlow's libraries write to stderr before their log levels are in force."""
    sys.stderr.flush()
    kept, nothing = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nothing)


def import_keras() -> ModuleType:
    """Import Keras on TensorFlow, and tf2onnx's being there checked as well.

    Raises
    ------
    MissingPackageError
        With the command that installs the extra.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # must be set before TensorFlow loads
    os.environ["KERAS_BACKEND"] = "tensorflow"  # tf2onnx reads TensorFlow graphs only
    try:
        with _quiet():
            import tensorflow as tf
            import tf2onnx
    except ModuleNotFoundError as error:
        raise MissingPackageError(
            f"building a backbone needs Keras, but {error.name} is not installed",
            "Install it with: pip install 'headstart[keras]'",
        ) from None
    import keras

    tf.get_logger().setLevel(logging.ERROR)
    for name in ("tf2onnx", tf2onnx.tfonnx.logger.name, "tf2onnx.optimizer"):
        logging.getLogger(name).setLevel(logging.ERROR)
    return keras
