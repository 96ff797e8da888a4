"""`python -m ROOM` runs our room in every folder, also in one that has its own `data.py`.

`python -m` looks in the current folder first. `headstart.pth` imports this module when Python
starts with `-m`. Only what stands directly behind `-m` is found here, and once: every later
`import data` finds what it always would, such as the user's own file.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, SourceFileLoader
from pathlib import Path
from types import ModuleType

ROOMS = ("data", "extract", "classify", "export", "cluster")
WITH_VALUE = ("-W", "-X", "--check-hash-based-pycs")


def module_of(arguments: Sequence[str]) -> str | None:
    """What stands behind Python's `-m`, given `sys.orig_argv[1:]`; none where there is no `-m`."""
    waiting = iter(arguments)
    for argument in waiting:
        if argument in WITH_VALUE:
            next(waiting, None)
        elif not argument.startswith("-") or argument == "-":
            return None  # a script, or stdin
        elif argument[1:2] not in ("W", "X", "-"):
            flags, found, name = argument[1:].partition("m")
            if "c" in flags:
                return None
            if found:
                return name or next(waiting, None)
    return None


class _Room:
    """Finds the room that `python -m` asks for, once."""

    def __init__(self, room: str) -> None:
        self.room = room

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The spec of the room's `__main__`, under its full name."""
        if name != self.room:
            return None
        sys.meta_path.remove(self)  # type: ignore[arg-type]
        file = str(Path(__file__).with_name(self.room) / "__main__.py")
        spec = ModuleSpec(f"headstart.{name}.__main__", SourceFileLoader(name, file), origin=file)
        spec.has_location = True
        return spec


if (_asked := module_of(sys.orig_argv[1:])) in ROOMS:
    sys.meta_path.insert(0, _Room(_asked))  # type: ignore[arg-type]
