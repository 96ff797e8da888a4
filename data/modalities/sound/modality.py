"""Recordings as a modality."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from typing import ClassVar

from headstart.data.modalities.modality import Modality, Preview
from headstart.data.modalities.sound import preview
from headstart.data.modalities.sound.reading import EXTENSIONS, check_whole
from headstart.data.modalities.sound.windows import Windows
from headstart.data.modalities.stretches import stretch_of

CODE = ("classify_sound.py", "classify_sound.mjs", "sound.mjs", "classify_sound.c")
LAYER_3 = 0xE2  # of the second byte of MPEG audio, without version and checksum
STEPS = (0.5, 1, 2, 5, 10, 30, 60, 300, 1800, 7200)  # seconds, for counting


class Recordings(Modality):
    """Recordings: WAV, FLAC, Ogg and MP3."""

    name = "sound"
    noun, plural = "recording", "recordings"
    extensions = EXTENSIONS
    divided = True
    skipped = frozenset({"silent"})
    page_scripts: ClassVar[dict[str, str]] = {"page": "recordings.js", "worker": "sound.js"}

    def input_spec(self, metadata: Mapping[str, str]) -> Windows:
        """Rate, window, hop, and what becomes of short ones and of silence."""
        return Windows(
            int(metadata["rate"]),
            int(metadata["window"]),
            int(metadata["hop"]),
            metadata["short"],
            float(metadata["silence"]),
        )

    def size_of(self, content: bytes) -> str:
        """Rate, channels and about how long; decodes the whole recording."""
        header = check_whole(content)
        channels = {1: "mono", 2: "stereo"}.get(header.channels, f"{header.channels} channels")
        most = next((step for step in STEPS if header.seconds <= step), None)
        length = f"up to {most:g} s" if most else "longer than 2 hours"
        return f"{header.rate} Hz {channels}, {length}"

    def recognizes(self, content: bytes) -> bool:
        """By the first bytes, also of formats that are not read."""
        riff = content[:4] in (b"RIFF", b"RF64") and content[8:12] == b"WAVE"
        mp3 = content[:3] == b"ID3" or (content[:1] == b"\xff" and content[1] & 0xE6 == LAYER_3)
        return riff or content[:4] in (b"fLaC", b"OggS", b"FORM") or mp3

    def ready_code(self) -> dict[str, bytes]:
        """In Python, Node and C."""
        return {name: _code(name) for name in CODE}

    def page_code(self) -> dict[str, bytes]:
        """Windows, resampling and WAV as in Node; opening files, and the microphone."""
        names = ("recordings.js", "microphone.js")
        return {"sound.js": _code("sound.mjs")} | {name: _code(name) for name in names}

    def preview(self, content: bytes) -> Preview:
        """The spectrogram of a recording's beginning, and what it sounds like."""
        return preview.of(content, 0.0, None)

    def preview_at(self, path: str, content: bytes) -> Preview:
        """The same of the stretch that a path names."""
        _, start, length = stretch_of(path) or ("", 0.0, None)
        return preview.of(content, start, length)


def _code(name: str) -> bytes:
    return (files("headstart.data.modalities.sound.code") / name).read_bytes()
