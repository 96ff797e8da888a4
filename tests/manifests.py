"""The manifest of a feature store, as a test reads and changes it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from headstart.data.contracts.store import MANIFEST
from headstart.data.storage.notes import columns_of, from_note, to_note


def manifest_of(store: Path) -> dict[str, Any]:
    """What it says."""
    return json.loads(from_note((store / MANIFEST).read_bytes()))


def change_manifest(store: Path, value: dict[str, Any]) -> None:
    """Let it say something else."""
    file = store / MANIFEST
    file.write_bytes(to_note(json.dumps(value).encode(), columns_of(file.read_bytes())))
