"""Encoders of photographs that Pillow does not write, and the picture that all of them show.

Nothing here uses the decoder under test.
"""

from __future__ import annotations

import base64
import struct
import zlib
from io import BytesIO

import numpy as np
import tifffile
from PIL import Image

WIDTH, HEIGHT = 40, 30
ACROSS, DOWN = np.meshgrid(np.linspace(0, 1, WIDTH), np.linspace(0, 1, HEIGHT))
DEEP = np.stack([ACROSS, DOWN, 1 - (ACROSS + DOWN) / 2], axis=-1)  # 0 to 1; turned, it is another
PICTURE = (DEEP * 255).round().astype(np.uint8)
GREY = PICTURE[..., 0]
ALPHA = np.ascontiguousarray(PICTURE[:, ::-1, 1])
MASK = np.hypot(ACROSS - 0.3, DOWN - 0.4) < 0.3


def encode(image: Image.Image | np.ndarray, format: str, **options: object) -> bytes:
    """The file that Pillow makes of an image."""
    buffer = BytesIO()
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    image.save(buffer, format, **options)
    return buffer.getvalue()


def rgb(grey: np.ndarray) -> np.ndarray:
    """Grey `[height, width]` as RGB."""
    return np.repeat(grey[..., np.newaxis], 3, axis=-1)


def on_white(picture: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """A picture laid on white, its opacity `alpha` 0 to 255."""
    opacity = alpha[..., np.newaxis] / 255
    return (picture * opacity + 255 * (1 - opacity)).round().astype(np.uint8)


# --- PNG, whose variants Pillow does not write


def chunk(kind: bytes, data: bytes) -> bytes:
    """A chunk of a PNG."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


ADAM7 = (
    (0, 0, 8, 8),
    (4, 0, 8, 8),
    (0, 4, 4, 8),
    (2, 0, 4, 4),
    (0, 2, 2, 4),
    (1, 0, 2, 2),
    (0, 1, 1, 2),
)


def png(pixels: np.ndarray, colour: int, extra: bytes = b"", interlaced: bool = False) -> bytes:
    """A PNG of 8 or 16 bits; `extra` chunks stand before the pixels."""
    height, width = pixels.shape[:2]
    pixels = pixels.astype(pixels.dtype.newbyteorder(">"))
    passes = [pixels[y::dy, x::dx] for x, y, dx, dy in ADAM7] if interlaced else [pixels]
    rows = b"".join(b"\0" + row.tobytes() for part in passes if part.size for row in part)
    header = struct.pack(
        ">IIBBBBB", width, height, 8 * pixels.dtype.itemsize, colour, 0, 0, interlaced
    )
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + extra
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


# --- JPEG with other colours than Pillow writes


def jpeg_segments(content: bytes) -> dict[str, int]:
    """Where the segments of a JPEG begin, and its compressed pixels, by the marker's name."""
    starts, offset = {"SOI": 0}, 2
    while True:
        marker, length = struct.unpack_from(">HH", content, offset)
        starts[f"{marker:X}-{offset}"] = offset
        offset += 2 + length
        if marker == 0xFFDA:
            return starts | {"pixels": offset, "EOI": len(content) - 2}


def ycck() -> bytes:
    """A JPEG of Adobe's as Photoshop writes it: inverted CMYK, its CMY as luminance and chroma."""
    # Inverted, 255 is no ink; YCCK is the YCbCr of 255 - CMY (libjpeg, jdcolor.c).
    planes = np.asarray(Image.fromarray(255 - PICTURE).convert("YCbCr"))
    inked = np.dstack([planes, np.full_like(GREY, 255)])
    content = encode(
        Image.frombytes("CMYK", (WIDTH, HEIGHT), (255 - inked).tobytes()), "JPEG", quality=98
    )
    flag = content.index(b"Adobe") + 11
    assert content[flag] == 0
    return content[:flag] + b"\2" + content[flag + 1 :]


def plain_cmyk() -> bytes:
    """A CMYK JPEG that is not of Adobe's: without its marker, and not inverted."""
    inks = Image.frombytes("CMYK", (WIDTH, HEIGHT), cmyk_pixels(inverted=True).tobytes())
    content = encode(inks, "JPEG", quality=98)
    start = content.index(b"\xff\xee")
    length = struct.unpack_from(">H", content, start + 2)[0]
    return content[:start] + content[start + 2 + length :]


def cmyk_pixels(inverted: bool = False) -> np.ndarray:
    """The picture in inks, uint8 `[height, width, 4]`; no black."""
    inks = np.dstack([255 - PICTURE, np.zeros_like(GREY)])
    return 255 - inks if inverted else inks


# `jpegtran -arithmetic` of a JPEG of the picture; Pillow reads such files, but writes none.
ARITHMETIC = base64.b64decode(
    "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDAAIBAQEBAQIBAQECAgICAgQDAgICAgUEBAMEBgUGBgYFBgYGBwkIBgcJ"
    "BwYGCAsICQoKCgoKBggLDAsKDAkKCgr/2wBDAQICAgICAgUDAwUKBwYHCgoKCgoKCgoKCgoKCgoKCgoKCgoKCgoK"
    "CgoKCgoKCgoKCgoKCgoKCgoKCgoKCgoKCgr/yQARCAAeACgDAREAAhEBAxEB/8wACgAQEAUBEBEF/9oADAMBAAIR"
    "AxEAPwD/AO01xGlx8cUlgnUkO4sEGhWl6I8MzVC8z2dYHtPXg22fhGJh1PVPW62QgtvYtArDWbdCa0etbdagp6Yt"
    "+7Bot17vJvYV5t6jfhiNfiKm9grF69vZ5u2TYmYGRF4uHKKkR4So8P8A/oEnRzakQK+Hcfjc224YhF5vmCR5wA3W"
    "fIODR+ufTOuiOj0FQrZp/gIQezsN3LWI42RNg+b2+VZCWjsVatp8xj8C7HdfvivETLUfp/8A1sJMvh1/zZzzuFu3"
    "5jtz3wAnkuW4cABahJ1u332C6cNYsCC5oF6DcgLFg+G3CNRl4pdDcBWFtSDWR/Cq0iJPzhCdgX//AEp6pKytrop5"
    "Bfq6JMf8c/ExA2onC2LiS0NqnX3ch3NXLNkWSMb/2Q=="
)


# --- Colour profiles (ICC.1:2010): gamma 2.2 with Adobe RGB's primaries, adapted to D50

ADOBE_TO_XYZ = np.array(
    [[0.60974, 0.20528, 0.14919], [0.31111, 0.62567, 0.06322], [0.01947, 0.06087, 0.74457]]
)
SRGB_TO_XYZ = np.array(
    [[0.43607, 0.38515, 0.14307], [0.22249, 0.71687, 0.06061], [0.01392, 0.09708, 0.71410]]
)


def profile(space: bytes, tags: dict[bytes, bytes], connection: bytes = b"XYZ ") -> bytes:
    """An ICC profile, version 2, of a screen or (for CMYK) a printer."""
    described = b"desc\0\0\0\0" + struct.pack(">I", 5) + b"test\0" + bytes(78)
    white = b"XYZ \0\0\0\0" + struct.pack(">iii", 63190, 65536, 54061)
    tags = {b"desc": described, b"cprt": b"text\0\0\0\0none\0", b"wtpt": white} | tags
    table, body = struct.pack(">I", len(tags)), b""
    for name, data in tags.items():
        table += name + struct.pack(">II", 132 + 12 * len(tags) + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    kind = b"prtr" if space == b"CMYK" else b"mntr"
    size = 128 + len(table) + len(body)
    head = struct.pack(">I", size) + b"\0\0\0\0\x02\x10\0\0" + kind + space + connection
    head += struct.pack(">6H", 2024, 1, 1, 0, 0, 0) + b"acsp" + bytes(28)
    head += struct.pack(">iii", 63190, 65536, 54061)
    return head.ljust(128, b"\0") + table + body


GAMMA = b"curv\0\0\0\0" + struct.pack(">IH", 1, round(2.2 * 256))


def adobe_rgb() -> bytes:
    """A profile of much more colourful primaries than sRGB's."""
    columns = {
        name + b"XYZ": b"XYZ \0\0\0\0"
        + struct.pack(">iii", *(ADOBE_TO_XYZ[:, i] * 65536).round().astype(int))
        for i, name in enumerate((b"r", b"g", b"b"))
    }
    return profile(b"RGB ", columns | {name + b"TRC": GAMMA for name in (b"r", b"g", b"b")})


def srgb_of(linear: np.ndarray) -> np.ndarray:
    """Linear light, 0 to 1, as sRGB of 8 bits (IEC 61966-2-1)."""
    linear = linear.clip(0, 1)
    curve = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return (curve * 255).round().astype(np.uint8)


def from_adobe_rgb(picture: np.ndarray) -> np.ndarray:
    """What pixels of Adobe RGB look like in sRGB."""
    return srgb_of((picture / 255) ** 2.2 @ (np.linalg.inv(SRGB_TO_XYZ) @ ADOBE_TO_XYZ).T)


CYAN = (60, -20, -20)  # L*a*b*


def srgb_of_lab(lightness: float, a: float, b: float) -> np.ndarray:
    """L*a*b* (D50) as sRGB of 8 bits (CIE 15)."""
    middle = (lightness + 16) / 116
    steps = np.array([middle + a / 500, middle, middle - b / 200])
    edge = 6 / 29
    parts = np.where(steps > edge, steps**3, 3 * edge**2 * (steps - 4 / 29))
    return srgb_of(np.linalg.inv(SRGB_TO_XYZ) @ (parts * [0.9642, 1, 0.8249]))


def printer() -> bytes:
    """A CMYK profile: cyan is `CYAN`, any black is black, all other paper is white."""
    white, black = (100, 0, 0), (0, 0, 0)
    corners = [black if inks & 1 else CYAN if inks & 8 else white for inks in range(16)]
    ramp = bytes(range(256))
    grid = bytes(v for light, a, b in corners for v in (round(light * 2.55), a + 128, b + 128))
    one = struct.pack(">9i", 65536, 0, 0, 0, 65536, 0, 0, 0, 65536)
    table = b"mft1\0\0\0\0" + bytes([4, 3, 2, 0]) + one + ramp * 4 + grid + ramp * 3
    return profile(b"CMYK", {b"A2B0": table}, b"Lab ")


# --- TIFF, GIF, WebP


def tiff(pixels: np.ndarray, **options: object) -> bytes:
    """The TIFF that tifffile makes, an encoder that shares nothing with Pillow."""
    buffer = BytesIO()
    tifffile.imwrite(
        buffer, pixels, **({"photometric": "minisblack" if pixels.ndim == 2 else "rgb"} | options)
    )
    return buffer.getvalue()


def stored(orientation: int) -> Image.Image:
    """The picture as a camera held in another orientation would have stored it."""
    undo = {
        1: PICTURE,
        2: PICTURE[:, ::-1],
        3: PICTURE[::-1, ::-1],
        4: PICTURE[::-1],
        5: PICTURE.transpose(1, 0, 2),
        6: np.rot90(PICTURE, 1),
        7: PICTURE[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(PICTURE, -1),
    }
    return Image.fromarray(np.ascontiguousarray(undo[orientation]))


def exif(orientation: int) -> Image.Exif:
    """EXIF that says only how the camera was held."""
    made = Image.Exif()
    made[0x0112] = orientation
    return made
