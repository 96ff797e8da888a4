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


def module_of(argv: Sequence[str], orig_argv: Sequence[str]) -> str | None:
    """What stands behind Python's `-m`; none where Python runs something else.

    While Python starts, `sys.argv` is `-m` and what stands behind the module's name, so that its
    length says where in `sys.orig_argv` the name is: no option of Python's has to be parsed.
    """
    if argv[:1] != ["-m"]:
        return None
    name = orig_argv[len(orig_argv) - len(argv)]
    return name.partition("m")[2] if name.startswith("-") else name  # -mdata, -umdata


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


if (_asked := module_of(sys.argv, sys.orig_argv)) in ROOMS:
    sys.meta_path.insert(0, _Room(_asked))  # type: ignore[arg-type]
