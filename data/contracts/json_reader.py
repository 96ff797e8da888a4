"""JSON that someone else may have written, read by the types of our own dataclasses."""

from __future__ import annotations

import json
from typing import Any, TypeVar

import msgspec

Kind = TypeVar("Kind")


def read_json(content: bytes, kind: type[Kind]) -> Kind:
    """An object of a dataclass from JSON: keys that it does not have are ignored.

    Raises
    ------
    ValueError
        In words, if it is not JSON, nested too deeply, lacks a key, or has a value of another type.
    """
    try:
        value = json.loads(content)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    return as_kind(value, kind)


def as_kind(value: Any, kind: type[Kind]) -> Kind:
    """The same from JSON that is parsed already."""
    try:
        return msgspec.convert(value, kind)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except msgspec.ValidationError as error:
        raise ValueError(str(error)) from None


def format_version(content: bytes) -> int:
    """The key `format_version` of a JSON object; raises `ValueError` if it has none."""
    return read_json(content, _Versioned).format_version


class _Versioned(msgspec.Struct):
    format_version: int
