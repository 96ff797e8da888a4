"""Reads the data in a pickle without running what else may be in it.

A pickle is a program: loading one can call anything. Here its instructions are listed by
`pickletools`, which runs nothing, and followed by the few rules below: texts, bytes, numbers,
lists, tuples, dictionaries, and numpy's arrays of bytes. Everything else is refused by its name.
"""

from __future__ import annotations

import math
import pickletools
from dataclasses import dataclass, field
from typing import Any

import numpy as np

MOST_STEPS = 5_000_000  # CIFAR-100's 50,000 examples take 300,000
RECONSTRUCT = ("numpy.core.multiarray _reconstruct", "numpy._core.multiarray _reconstruct")
NDARRAY, DTYPE, ENCODE = "numpy ndarray", "numpy dtype", "_codecs encode"
NAMES = (*RECONSTRUCT, NDARRAY, DTYPE, ENCODE)
VALUES = {
    *("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT"),
    *("BINSTRING", "SHORT_BINSTRING", "BINUNICODE", "SHORT_BINUNICODE"),
    *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
}
CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
TUPLES = {"EMPTY_TUPLE": 0, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
IGNORED = {"PROTO", "FRAME"}


class PickleError(ValueError):
    """A pickle that is damaged, or holds more than data; the message ends a sentence about it."""


@dataclass
class _Array:
    """An array of bytes, once its state is there."""

    values: np.ndarray | None = None

    def build(self, state: Any) -> None:
        """Set shape and values from numpy's state: version, shape, type, order, bytes."""
        if not (isinstance(state, tuple) and len(state) == 5):
            raise PickleError("holds an array of an unknown layout")
        _, shape, kind, fortran, content = state
        content = content.encode("latin-1") if isinstance(content, str) else content
        if not (isinstance(kind, _Type) and kind.code in ("u1", "|u1", "uint8")):
            raise PickleError("holds an array that is not of bytes")
        good = isinstance(shape, tuple) and all(type(n) is int and n >= 0 for n in shape)
        if not good or not isinstance(content, bytes) or math.prod(shape) != len(content):
            raise PickleError("holds an array whose shape does not fit its bytes")
        values = np.frombuffer(content, np.uint8)
        self.values = values.reshape(shape, order="F" if fortran else "C")


@dataclass(frozen=True)
class _Type:
    code: str


@dataclass(frozen=True)
class _Name:
    """Something that a pickle would import; it is only compared here."""

    text: str


class _Mark:
    pass


@dataclass
class _Machine:
    stack: list[Any] = field(default_factory=list)
    memo: dict[int, Any] = field(default_factory=dict)

    def since_mark(self) -> list[Any]:
        place = len(self.stack) - 1
        while not isinstance(self.stack[place], _Mark):
            place -= 1
            if place < 0:
                raise PickleError("is damaged")
        found = self.stack[place + 1 :]
        del self.stack[place:]
        return found

    def step(self, name: str, argument: Any) -> None:
        """Follow one instruction."""
        stack = self.stack
        if name in VALUES:
            stack.append(argument)
        elif name in CONSTANTS:
            stack.append(CONSTANTS[name])
        elif name in TUPLES:
            start = len(stack) - TUPLES[name]
            stack[start:] = [tuple(stack[start:])]
        elif name == "TUPLE":
            stack.append(tuple(self.since_mark()))
        elif name == "MARK":
            stack.append(_Mark())
        elif name == "EMPTY_LIST":
            stack.append([])
        elif name == "EMPTY_DICT":
            stack.append({})
        elif name in ("APPEND", "APPENDS"):
            items = [stack.pop()] if name == "APPEND" else self.since_mark()
            _of(stack[-1], list).extend(items)
        elif name in ("SETITEM", "SETITEMS"):
            items = [stack.pop(-2), stack.pop()] if name == "SETITEM" else self.since_mark()
            _of(stack[-1], dict).update(zip(items[::2], items[1::2], strict=True))
        elif name in ("BINPUT", "LONG_BINPUT"):
            self.memo[argument] = stack[-1]
        elif name == "MEMOIZE":
            self.memo[len(self.memo)] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            stack.append(self.memo[argument])
        elif name in ("GLOBAL", "STACK_GLOBAL"):
            text = argument if name == "GLOBAL" else f"{stack.pop(-2)} {stack.pop()}"
            if text not in NAMES:
                raise PickleError(f"would import {text.replace(' ', '.')}")
            stack.append(_Name(text))
        elif name == "REDUCE":
            arguments = stack.pop()
            stack.append(_made(_of(stack.pop(), _Name).text, _of(arguments, tuple)))
        elif name == "BUILD":
            state = stack.pop()
            if not isinstance(stack[-1], _Type):  # that of a type is the order of its bytes
                _of(stack[-1], _Array).build(state)
        elif name not in IGNORED:
            raise PickleError(f"has the instruction {name}")


def _of(value: Any, kind: type) -> Any:
    if not isinstance(value, kind):
        raise PickleError("is damaged")
    return value


def _made(name: str, arguments: tuple[Any, ...]) -> Any:
    if name in RECONSTRUCT:
        return _Array()
    if name == DTYPE and arguments and isinstance(arguments[0], str):
        return _Type(arguments[0])
    if name == ENCODE and arguments[1:] == ("latin1",) and isinstance(arguments[0], str):
        return arguments[0].encode("latin-1")  # how Python 3 writes bytes for Python 2
    raise PickleError(f"would call {name.replace(' ', '.')}")


def read_pickled(content: bytes) -> dict[str, Any]:
    """The dictionary in a pickle by its keys as text; arrays are uint8, texts of Python 2 Latin-1.

    Raises
    ------
    PickleError
        If it is damaged, is no dictionary, or holds anything but data.
    """
    machine = _Machine()
    try:
        for count, (opcode, argument, _) in enumerate(pickletools.genops(content)):
            if opcode.name == "STOP":
                break
            if count > MOST_STEPS:
                raise PickleError("has too many instructions")
            machine.step(opcode.name, argument)
        found = machine.stack.pop()
    except PickleError:
        raise
    except (ValueError, IndexError, KeyError, TypeError, AttributeError, UnicodeError):
        raise PickleError("is damaged") from None
    if not isinstance(found, dict):
        raise PickleError("is not a dictionary")
    return {
        key.decode("latin-1") if isinstance(key, bytes) else str(key): value.values
        if isinstance(value, _Array)
        else value
        for key, value in found.items()
    }
