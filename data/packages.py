"""Packages of an extra, imported where they are needed: quietly, with a clear word if missing."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import ModuleType

from data.errors import MissingPackageError


def import_packages(names: Sequence[str], purpose: str, extra: str) -> list[ModuleType]:
    """Import packages that come with an extra, without what they write to stderr meanwhile.

    Parameters
    ----------
    purpose
        What needs them, the begin of the error's sentence: "building a backbone needs Keras".
    extra
        Of headstart, that they are installed with.

    Raises
    ------
    MissingPackageError
        Naming the missing package, which may be one that they need themselves.
    """
    try:
        with _quiet():
            return [importlib.import_module(name) for name in names]
    except ModuleNotFoundError as error:
        raise MissingPackageError(
            f"{purpose}, but {error.name} is not installed",
            f"Install it with: pip install 'headstart[{extra}]'",
        ) from None


@contextmanager
def _quiet() -> Iterator[None]:
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
