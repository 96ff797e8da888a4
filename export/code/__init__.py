"""Ready code that classifies photographs with an edge model, in Python, Node and C."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from headstart.data.common.errors import Checklist
from headstart.data.contracts.edge import load_edge
from headstart.data.storage.files import check_output, local_path, write_whole

NAMES = ("classify_photo.py", "classify_photo.mjs", "classify_photo.c")


def write_code(edge: str | Path, output: str | Path | None, overwrite: bool) -> list[Path]:
    """Write the code to a folder, by default to that of the edge model.

    Raises
    ------
    InputError
        If there is no such edge model, or a file of such a name exists.
    """
    checks = Checklist()
    with checks.item():
        load_edge(edge)
    folder = local_path(output) if output is not None else local_path(edge).parent
    paths = [folder / name for name in NAMES]
    for path in paths:
        with checks.item():
            check_output(path, overwrite)
    checks.finish()
    for path in paths:
        write_whole(path, files("headstart.export.code").joinpath(path.name).read_bytes())
    return paths
