"""HEIC, AVIF and JPEG XL: read where a package beside Pillow, or a newer Pillow, decodes them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from typing import Any

from PIL import features

from headstart.data.modalities.modality import DecodeError

CONVERT = "or convert it to JPEG or PNG"
_PIP = "pip install 'headstart[heic]'"
# JPEG XL (ISO/IEC 18181-1, D.3): bits of a height or width, by the two bits before it.
_SIZES = (9, 13, 18, 30)
_RATIOS = {1: (1, 1), 2: (12, 10), 3: (4, 3), 4: (3, 2), 5: (16, 9), 6: (5, 4), 7: (2, 1)}


@dataclass(frozen=True)
class Format:
    """A format that Pillow may not be able to decode.

    Parameters
    ----------
    name
        As people call it.
    signature
        Of the first bytes of a file.
    names
        Pillow's names of the decoders that may take it.
    needs
        What has to be installed, and how.
    """

    name: str
    signature: re.Pattern[bytes]
    names: tuple[str, ...]
    needs: str


HEIC = Format(
    "HEIC",
    re.compile(rb"....ftyp(hei[cxms]|hev[cxms]|mif1|msf1)", re.DOTALL),
    ("HEIF", "AVIF"),  # mif1 may be either
    f"pillow-heif ({_PIP})",
)
AVIF = Format(
    "AVIF",
    re.compile(rb"....ftypavi[fs]", re.DOTALL),
    ("AVIF",),
    "Pillow 11.3 or later, with AVIF (pip install --upgrade pillow)",
)
JXL = Format(
    "JPEG XL",
    re.compile(rb"\xff\x0a|\0\0\0\x0cJXL \r\n\x87\n", re.DOTALL),
    ("JXL",),
    f"pillow-jxl-plugin ({_PIP})",
)
FORMATS = (HEIC, AVIF, JXL)


def format_of(content: bytes) -> Format | None:
    """Which of these formats a file has, by its first bytes."""
    return next((each for each in FORMATS if each.signature.match(content)), None)


def decoders(format: Format) -> tuple[str, ...]:
    """Pillow's names of the decoders for a format, registered with Pillow.

    Raises
    ------
    DecodeError
        If there are none here.
    """
    if not _registered(format):
        raise DecodeError(
            "unsupported", f"{format.name} needs {format.needs} to be read, {CONVERT}"
        )
    return format.names


@lru_cache
def _registered(format: Format) -> bool:
    if format is AVIF:
        return bool(features.check("avif"))
    try:
        if format is HEIC:
            import_module("pillow_heif").register_heif_opener()
        else:  # importing it registers it; other threads would compete with other workers
            plugin: Any = import_module("pillow_jxl.JpegXLImagePlugin")
            plugin.DECODE_THREADS = 0
    except ImportError:
        return False
    return True


def _boxes(content: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Kind, start of the content and end of each box of a file (ISO/IEC 14496-12, 4.2)."""
    at = 0
    while at + 8 <= len(content):
        size, start = int.from_bytes(content[at : at + 4], "big"), at + 8
        if size == 1:
            size, start = int.from_bytes(content[start : start + 8], "big"), start + 8
        end = at + size if size else len(content)  # 0: to the end of the file
        yield content[at + 4 : at + 8], start, end
        if end < start:
            return
        at = end
    if at < len(content):  # in the middle of a box's size or kind
        yield b"", at + 8, at + 8


def lacks_boxes(content: bytes) -> bool:
    """Whether a file of boxes (HEIC, AVIF, JPEG XL) ends before its last box."""
    return any(end > len(content) for _, _, end in _boxes(content))


def pixels_of_jxl(content: bytes) -> int:
    """How many pixels a JPEG XL has, by its header: its decoder takes memory for all of them."""
    start = 2
    if not content.startswith(b"\xff\x0a"):
        inside = {kind: place + 2 for kind, place, _ in reversed([*_boxes(content)])}
        start = inside.get(b"jxlc", inside.get(b"jxlp", len(content)) + 4)  # a number comes first
    bits, at = int.from_bytes(content[start : start + 12], "little"), 0

    def take(count: int) -> int:
        nonlocal at
        at += count
        return (bits >> (at - count)) & ((1 << count) - 1)

    small = take(1)

    def side() -> int:
        return 8 * (1 + take(5)) if small else 1 + take(_SIZES[take(2)])

    height = side()
    ratio = take(3)
    width = side() if ratio == 0 else height * _RATIOS[ratio][0] // _RATIOS[ratio][1]
    return height * width
