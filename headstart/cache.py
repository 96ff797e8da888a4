"""Where backbones, features and models go that were given no place.

`$XDG_CACHE_HOME/headstart`, or `~/.cache/headstart`: everything in it can be deleted at any time,
and is made again when it is needed.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from headstart.data.storage.files import digest
from headstart.work_folder import plain


def cache_folder(*names: str) -> Path:
    """A place in the cache; it may not exist yet."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(base, "headstart", *names)


def key_of(*values: Any) -> str:
    """A name for what is made from values: options, digests and addresses."""
    return digest(json.dumps(plain(values), sort_keys=True).encode())[:24]
