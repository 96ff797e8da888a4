"""Where backbones, features and models go that were given no place."""

from __future__ import annotations

import json
from typing import Any

from headstart.data.storage.cache import cache_folder
from headstart.data.storage.files import digest
from headstart.work_folder import plain

__all__ = ["cache_folder", "key_of"]


def key_of(*values: Any) -> str:
    """A name for what is made from values: options, digests and addresses."""
    return digest(json.dumps(plain(values), sort_keys=True).encode())[:24]
