"""The folder that `headstart build` fills, and its record of what each part was made from.

`build.json` (format version 1) has the source and, for each part, `from` (what it was made from:
options and digests) and `is` (the digest of what was written). A part is unchanged if both are as
they were. The version is bumped when a reader of the old version would take a part for another.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

from headstart.data.common.errors import InputError
from headstart.data.storage.files import check_parent, check_writable, digest, local_path
from headstart.data.storage.files import write_whole as write_file

FORMAT_VERSION = 1
RECORD = "build.json"
ANOTHER = "Choose an empty or new folder with -o."


class WorkFolder:
    """The folder, opened; nothing is written before `record`.

    Raises
    ------
    InputError
        If it contains other files, was built by a newer headstart, or cannot be written.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = local_path(path)
        check_parent(self.path)
        if self.path.exists() and not self.path.is_dir():
            raise InputError(f"{self.path} is a file, not a folder", "Choose another folder.")
        self._record = self._read(path)
        check_writable(self.path)

    def _read(self, path: str | Path) -> dict[str, Any]:
        file = self.path / RECORD
        if not file.exists():
            names = sorted(each.name for each in self.path.iterdir()) if self.path.exists() else []
            if names:
                raise InputError(f"{path} contains other files, such as {names[0]}", ANOTHER)
            return {"format_version": FORMAT_VERSION, "source": "", "parts": {}}
        try:
            record = json.loads(file.read_bytes())
            version, _, parts = record["format_version"], record["source"], dict(record["parts"])
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"{file} is damaged: {error!r}", ANOTHER) from None
        if version != FORMAT_VERSION:
            raise InputError(
                f"{path} was built in format {version}; this headstart reads {FORMAT_VERSION}",
                f"Update headstart. {ANOTHER}",
            )
        return {**record, "parts": parts}

    @property
    def source(self) -> str:
        """The source that it was built from; empty if it is new."""
        return str(self._record["source"])

    def begin(self, source: str) -> None:
        """Mark the folder as one of ours, with its source."""
        self._record["source"] = source
        self._write()

    def made_from(self, part: str) -> Any:
        """What a part was made from; None if it was not made."""
        return self._record["parts"].get(part, {}).get("from")

    def unchanged(self, part: str, made_from: Any, *places: Path) -> bool:
        """Whether a part was made from the same, and is as it was written."""
        known = {"from": plain(made_from), "is": digest_of(*places)}
        return bool(known["is"]) and self._record["parts"].get(part) == known

    def record(self, part: str, made_from: Any, *places: Path) -> None:
        """Remember what a part was made from, and what it is; without places, that it began."""
        self._record["parts"][part] = {"from": plain(made_from), "is": digest_of(*places)}
        self._write()

    def _write(self) -> None:
        write_file(self.path / RECORD, json.dumps(self._record, indent=1).encode())


def plain(value: Any) -> Any:
    """Options as JSON gives them back, to be compared with what was recorded."""
    if is_dataclass(value) and not isinstance(value, type):
        value = asdict(value)
    if isinstance(value, Mapping):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    return value if isinstance(value, str | int | float | bool | None) else str(value)


def digest_of(*places: Path) -> str:
    """The digest of files, and of all files below folders; empty if one is missing."""
    if not places or not all(place.exists() for place in places):
        return ""
    lines = []
    for place in places:
        files = sorted(place.rglob("*")) if place.is_dir() else [place]
        lines += [
            f"{file.relative_to(place)} {digest(file.read_bytes())}"
            for file in files
            if file.is_file()
        ]
    return digest("\n".join(lines).encode())
