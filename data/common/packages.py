"""Optional packages, imported quietly where they are needed, with a clear error if missing."""

from __future__ import annotations

import importlib
import logging
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import ModuleType

from headstart.data.common.errors import MissingPackageError


def import_packages(names: Sequence[str], purpose: str, extra: str) -> list[ModuleType]:
    """Import packages of an extra; what they write to stderr meanwhile is hidden.

    Parameters
    ----------
    purpose
        What needs them, the start of the error message: "building a backbone needs Keras".
    extra
        The extra of headstart that installs them.

    Raises
    ------
    MissingPackageError
        Naming the missing package, which may be a dependency of theirs.
    """
    try:
        with quiet():
            return [importlib.import_module(name) for name in names]
    except ModuleNotFoundError as error:
        raise MissingPackageError(
            f"{purpose}, but {error.name} is not installed",
            f"Install it with: pip install 'headstart[{extra}]'",
        ) from None


def import_keras(purpose: str) -> ModuleType:
    """Import Keras on TensorFlow, and check that tf2onnx is installed.

    Parameters
    ----------
    purpose
        As for `import_packages`.

    Raises
    ------
    MissingPackageError
        With the command that installs the extra.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # must be set before TensorFlow loads
    os.environ["KERAS_BACKEND"] = "tensorflow"  # tf2onnx reads TensorFlow graphs only
    *_, keras = import_packages(("tensorflow", "tf2onnx", "keras"), purpose, "keras")
    for name in ("tensorflow", "tf2onnx", "tf2onnx.tfonnx", "tf2onnx.optimizer"):
        logging.getLogger(name).setLevel(logging.ERROR)
    return keras


@contextmanager
def quiet() -> Iterator[None]:
    """Silence what native libraries write to stderr before their log levels are in force."""
    sys.stderr.flush()
    kept, nothing = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nothing)
