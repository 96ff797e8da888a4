"""Where an exported file may be written."""

from __future__ import annotations

from pathlib import Path

from data.errors import InputError


def check_output(path: Path, overwrite: bool) -> None:
    """Refuse an output file that is there already, or that cannot be one."""
    if path.is_dir():
        raise InputError(f"{path} is a folder", "Name a file in it, such as model.onnx.")
    if path.exists() and not overwrite:
        raise InputError(f"{path} exists already", "Pass --overwrite to replace it.")
