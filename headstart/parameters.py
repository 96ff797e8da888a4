"""What the Python API adds to a function: errors name parameters; silence unless watched."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import fields
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from headstart.data.common import console
from headstart.data.common.errors import HeadstartError

P = ParamSpec("P")
R = TypeVar("R")
K = TypeVar("K")
# Flags of the command line that take no value.
SWITCHES = (
    *("overwrite", "any-size", "allow-unlabelled", "allow-outside"),
    *("retry-failed", "prune", "rehash", "power", "include-top", "trust"),
)
SWITCH = re.compile(rf"(?<![\w-])--({'|'.join(SWITCHES)})(?![\w-])")
NEGATED = re.compile(r"(?<![\w-])--no-(report)(?![\w-])")
NUMBER = re.compile(r"(?<![\w-])--([a-z][a-z-]*) (?=-?\d)")
FLAG = re.compile(r"(?<![\w-])--([a-z][a-z-]*)")
OUTPUT = re.compile(r"(?<![\w-])-o\b")
COMMAND = "python -m "


def in_python(text: str) -> str:
    """A message with parameters instead of flags; lines with commands stay as they are."""
    return "\n".join(line if COMMAND in line else _renamed(line) for line in text.split("\n"))


def _renamed(line: str) -> str:
    line = SWITCH.sub(lambda found: f"{_name(found)}=True", line)
    line = NEGATED.sub(lambda found: f"{_name(found)}=False", line)
    line = NUMBER.sub(lambda found: f"{_name(found)}=", line)
    return OUTPUT.sub("output", FLAG.sub(_name, line))


def _name(found: re.Match[str]) -> str:
    return found[1].replace("-", "_")


def public(function: Callable[P, R]) -> Callable[P, R]:
    """A function of the API: see the module."""

    @wraps(function)
    def called(*arguments: P.args, **named: P.kwargs) -> R:
        try:
            with console.quiet_unless_watched():
                return function(*arguments, **named)
        except HeadstartError as error:
            error.message, error.fix = in_python(error.message), in_python(error.fix)
            raise

    return called


def taken(kind: type[K], given: Mapping[str, Any]) -> K:
    """A dataclass of options, of the parameters that are named like its fields."""
    return kind(**{each.name: given[each.name] for each in fields(kind)})  # type: ignore[arg-type]
