"""Whether a part of a photograph's pixels is missing, where the decoders do not say so.

What is accepted: a PNG without its IEND and a GIF without its trailer, since all pixels are there;
an animation that is cut after its first picture. A JPEG without its end mark is truncated. What
cannot be seen: arithmetic coding of JPEG leaves out zeros at its end, and fax (group 3 and 4) and
JPEG inside a whole TIFF end in silence.
"""

from __future__ import annotations

import re
import struct
import zlib
from contextlib import suppress
from io import BytesIO

from PIL import Image
from PIL.TiffImagePlugin import TiffImageFile

# libjpeg's words, in warnings; the rest of the picture is grey.
JPEG_ENDS = re.compile(
    "premature end of data segment|found marker 0xd9 instead of RST|Premature end of JPEG file"
)
_CUT = re.compile("truncated|not enough image data", re.IGNORECASE)  # in Pillow's words
_HEIGHT, _WIDTH, _SAMPLES, _ROWS, _PLANAR = 257, 256, 277, 278, 284  # TIFF tags
_STRIPS, _TILES = (273, 279), (324, 325)  # offsets, and numbers of bytes
_TILE_WIDTH, _TILE_HEIGHT = 322, 323
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by a PNG's type of colour
# First column and row, and the steps, of an interlaced PNG's passes.
_PASSES = (
    (0, 0, 8, 8),
    (4, 0, 8, 8),
    (0, 4, 4, 8),
    (2, 0, 4, 4),
    (0, 2, 2, 4),
    (1, 0, 2, 2),
    (0, 1, 1, 2),
)
_PIECE = 1 << 20


def is_truncated(error: Exception, content: bytes, formats: tuple[str, ...]) -> bool:
    """Whether a file that Pillow could not decode lacks its end."""
    return bool(
        _CUT.search(str(error))
        or ends_in_header(content, formats)
        or _is_short_webp(content)
        or _is_short_tiff(content)
    )


class _EndDetector(BytesIO):
    """Records whether more bytes were requested than there are."""

    ended = False

    def read(self, size: int | None = -1, /) -> bytes:
        found = super().read(size)
        if size is not None and len(found) < size:
            self.ended = True
        return found


def ends_in_header(content: bytes, formats: tuple[str, ...]) -> bool:
    """Whether Pillow reaches the end of the file while it reads the header."""
    file = _EndDetector(content)
    with suppress(Exception):  # the error has been handled before
        Image.open(file, formats=formats)
    return file.ended


def _is_short_webp(content: bytes) -> bool:
    """Whether a WebP is shorter than its header says; Pillow only reports a missing decoder."""
    expected = int.from_bytes(content[4:8], "little") + 8
    return content[8:12] == b"WEBP" and len(content) < expected


def _is_short_tiff(content: bytes) -> bool:
    """Whether strips or tiles lie beyond the end; libtiff only reports that decoding failed."""
    with suppress(Exception):  # the error has been handled before
        tags = TiffImageFile(BytesIO(content)).tag_v2
        for offsets, counts in (_STRIPS, _TILES):
            pairs = zip(tags.get(offsets, ()), tags.get(counts, ()), strict=False)
            if any(start + size > len(content) for start, size in pairs):
                return True
    return False


def lacks_tiles(image: TiffImageFile) -> bool:
    """Whether a TIFF has fewer strips or tiles than its size needs; Pillow leaves them black."""
    tags = image.tag_v2
    height, width = tags[_HEIGHT], tags[_WIDTH]
    if _TILES[0] in tags:
        needed = -(-height // tags[_TILE_HEIGHT]) * -(-width // tags[_TILE_WIDTH])
        found = len(tags[_TILES[0]])
    else:
        needed = -(-height // min(height, tags.get(_ROWS, height)))
        found = len(tags[_STRIPS[0]])
    planes = tags.get(_SAMPLES, 1) if tags.get(_PLANAR) == 2 else 1
    return found < needed * planes


def lacks_rows(image: Image.Image, content: bytes) -> bool:
    """Whether a PNG's stream of pixels is whole, but too short; Pillow leaves the rest black.

    So the stream is measured only if the last row is black, or not the last to be stored.
    """
    last = image.crop((0, image.height - 1, image.width, image.height))
    suspect = content[28] or not any(last.tobytes())  # or interlaced
    return bool(suspect) and _inflated(content) < _bytes_of_rows(content)


def _bytes_of_rows(content: bytes) -> int:
    width, height, bits, colour = struct.unpack_from(">IIBB", content, 16)
    total = 0
    for x, y, dx, dy in _PASSES if content[28] else ((0, 0, 1, 1),):
        across, rows = -(-(width - x) // dx), -(-(height - y) // dy)
        if across > 0 and rows > 0:
            total += rows * (1 + -(-across * bits * _CHANNELS[colour] // 8))
    return total


def _inflated(content: bytes) -> int:
    """The length of a PNG's pixels, unpacked a piece at a time."""
    view, offset, length = memoryview(content), 8, 0
    inflate = zlib.decompressobj()
    while offset + 12 <= len(content):
        size, kind = struct.unpack_from(">I4s", content, offset)
        data = bytes(view[offset + 8 : offset + 8 + size]) if kind == b"IDAT" else b""
        while data:
            length += len(inflate.decompress(data, _PIECE))
            data = inflate.unconsumed_tail
        offset += 12 + size
    return length + len(inflate.flush())
