"""The user's cache: `$XDG_CACHE_HOME/headstart`, or `~/.cache/headstart`.

Everything in it can be deleted at any time, and is made again when it is needed.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from headstart.data.common import console
from headstart.data.common.errors import StorageError
from headstart.data.contracts.json_reader import Kind, read_json
from headstart.data.storage.files import write_whole


def cache_folder(*names: str) -> Path:
    """A place in the cache; it may not exist yet."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(base, "headstart", *names)


def recall(path: Path, kind: type[Kind]) -> Kind | None:
    """A dataclass from a JSON file; None if it is missing or damaged, which is said.

    What `kind` refuses with a `ValueError` when it is made counts as damaged.
    """
    try:
        return read_json(path.read_bytes(), kind)
    except OSError:
        return None
    except ValueError as error:
        console.note(f"{path} is damaged and is not used: {error}")
        return None


def remember(path: Path, value: Any) -> None:
    """Write a dataclass into a JSON file of the cache; does nothing if it cannot be written."""
    with suppress(StorageError):
        write_whole(path, json.dumps(asdict(value), indent=1).encode())
