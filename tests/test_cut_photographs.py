"""A photograph with a part of its pixels is an error, however its file ends."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable

import numpy as np
import pytest
from encoders import ARITHMETIC, chunk, encode, plain_cmyk, png, tiff, ycck
from PIL import Image

from headstart.data.modalities.image.decoding import open_image
from headstart.data.modalities.modality import DecodeError

WIDTH, HEIGHT = 160, 120
_GRAIN = np.random.default_rng(0).normal(128, 40, (HEIGHT, WIDTH, 3))
PIXELS = _GRAIN.clip(1, 255).astype(np.uint8)
GREY = np.ascontiguousarray(PIXELS[..., 0])
PHOTO = Image.fromarray(PIXELS)
SMALL = (20, 20)

JPEGS = {
    "baseline": encode(PIXELS, "JPEG"),
    "progressive": encode(PIXELS, "JPEG", progressive=True),
    "restarts": encode(PIXELS, "JPEG", restart_marker_rows=1),
    "grey": encode(GREY, "JPEG"),
    "grey-progressive": encode(GREY, "JPEG", progressive=True),
    "cmyk": encode(PHOTO.convert("CMYK"), "JPEG"),
    "cmyk-plain": plain_cmyk(),
    "ycck": ycck(),
}
PAGES = {
    **{f"{name}.jpg": content for name, content in JPEGS.items()},
    "rgb.png": encode(PIXELS, "PNG"),
    "interlaced.png": png(PIXELS, 2, interlaced=True),
    "palette.png": encode(PHOTO.quantize(), "PNG"),
    "rgb.bmp": encode(PIXELS, "BMP"),
    "palette.bmp": encode(PHOTO.quantize(), "BMP"),
    "still.gif": encode(PHOTO, "GIF"),
    "lossy.webp": encode(PIXELS, "WEBP"),
    "lossless.webp": encode(PIXELS, "WEBP", lossless=True),
    "colour.ppm": encode(PIXELS, "PPM"),
    "plain.ppm": f"P3 {WIDTH} {HEIGHT} 255\n".encode()
    + b" ".join(str(value).encode() for value in PIXELS.ravel()),
    "tiled.tif": tiff(PIXELS, tile=(64, 64)),
    "tiled-deflate.tif": tiff(PIXELS, tile=(64, 64), compression="zlib"),
    "planar.tif": tiff(PIXELS.transpose(2, 0, 1), planarconfig="separate"),
    "group4.tif": encode(PHOTO.convert("1"), "TIFF", compression="group4"),
    **{
        f"{name}.tif": encode(PIXELS, "TIFF", compression=name)
        for name in ("raw", "tiff_lzw", "tiff_adobe_deflate", "packbits", "zstd", "jpeg")
    },
}


def reason(content: bytes, at_least: tuple[int, int] | None = None) -> str:
    try:
        open_image(content, at_least)
    except DecodeError as error:
        assert error.message
        return error.reason
    return "decoded"


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize("share", [0.01, 0.1, 0.5, 0.9, 0.99])
def test_a_photograph_is_truncated_wherever_it_is_cut(name: str, share: float) -> None:
    content = PAGES[name]
    assert reason(content) == "decoded"
    # Tiles are filled up beyond the picture's edge: there, nothing of it is missing.
    cut = content[: int(share * (len(content) - (9000 if name == "tiled.tif" else 0)))]
    assert reason(cut) == reason(cut, SMALL) == "truncated"


def jpeg_of_height(content: bytes, factor: float) -> bytes:
    """The header claims another height."""
    changed = bytearray(content)
    frame = next(at for mark in b"\xc0\xc2\xc9" if (at := content.find(bytes([255, mark]))) > 0)
    (height,) = struct.unpack_from(">H", changed, frame + 5)
    struct.pack_into(">H", changed, frame + 5, int(factor * height))
    return bytes(changed)


@pytest.mark.parametrize("factor", [100, 2, 1.2])
@pytest.mark.parametrize("name", JPEGS)
def test_a_jpeg_that_claims_more_than_it_has_is_truncated(name: str, factor: float) -> None:
    """Its rest would be grey; libjpeg says so in a warning only."""
    claims = jpeg_of_height(JPEGS[name], factor)
    assert reason(claims) == reason(claims, SMALL) == "truncated"


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9, 0.99])
@pytest.mark.parametrize("name", JPEGS)
def test_an_end_mark_after_a_part_does_not_make_a_jpeg_whole(name: str, share: float) -> None:
    content = JPEGS[name]
    start = content.index(b"\xff\xda") + 30
    part = content[: start + int(share * (len(content) - 2 - start))].rstrip(b"\xff") + b"\xff\xd9"
    assert reason(part) == reason(part, SMALL) == "truncated"


def png_with(rows: bytes, colour: int, interlaced: bool = False) -> bytes:
    header = struct.pack(">IIBBBBB", WIDTH, HEIGHT, 8, colour, 0, 0, interlaced)
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def _inflated(content: bytes) -> bytes:
    start = content.index(b"IDAT")
    (length,) = struct.unpack_from(">I", content, start - 4)
    return zlib.decompress(content[start + 4 : start + 4 + length])


@pytest.mark.parametrize("share", [0.01, 0.5, 0.99])
@pytest.mark.parametrize(
    ("content", "colour", "interlaced"),
    [
        (png(PIXELS, 2), 2, False),
        (png(GREY, 0), 0, False),
        (png(PIXELS, 2, interlaced=True), 2, True),
    ],
    ids=["rgb", "grey", "interlaced"],
)
def test_a_png_whose_pixels_end_early_is_truncated(
    content: bytes, colour: int, interlaced: bool, share: float
) -> None:
    """Its stream is whole, checksums and all, but of fewer rows; they would be black."""
    rows = _inflated(content)
    assert reason(png_with(rows, colour, interlaced)) == "decoded"
    assert reason(png_with(rows[: int(share * len(rows))], colour, interlaced)) == "truncated"
    first = sum(1 + len(GREY[0, x::8]) * (3 if colour == 2 else 1) for x in (0, 4)) * HEIGHT // 8
    border = first if interlaced else int(share * HEIGHT) * len(rows) // HEIGHT
    assert reason(png_with(rows[:border], colour, interlaced)) == "truncated"


def test_a_black_end_is_no_reason_to_refuse_a_png() -> None:
    dark = PIXELS.copy()
    dark[HEIGHT // 2 :] = 0
    for content in (
        encode(dark, "PNG"),
        png(dark, 2, interlaced=True),
        encode(Image.fromarray(dark).quantize(), "PNG"),
        encode(Image.fromarray(dark).convert("1"), "PNG"),
        encode(0 * dark, "PNG"),
        encode(0 * dark[:1, :1], "PNG"),
        png((0 * dark[..., :1]).astype(np.uint16)[..., 0], 0),
        *(png(0 * dark[:3, :wide], 2, interlaced=True) for wide in range(1, 10)),
        *(png(0 * dark[:tall, :3], 2, interlaced=True) for tall in range(1, 10)),
    ):
        assert reason(content) == "decoded"


def claim(content: bytes, change: Callable[[int, int], int]) -> bytes:
    """A TIFF with other values of its tags, without a change of its size."""
    order = "<" if content[:2] == b"II" else ">"
    changed = bytearray(content)
    (directory,) = struct.unpack_from(order + "I", content, 4)
    (count,) = struct.unpack_from(order + "H", content, directory)
    for at in range(directory + 2, directory + 2 + 12 * count, 12):
        tag, kind, values = struct.unpack_from(order + "HHI", content, at)
        if values == 1 and kind in (3, 4):
            code = order + ("H" if kind == 3 else "I")
            (value,) = struct.unpack_from(code, content, at + 8)
            struct.pack_into(code, changed, at + 8, change(tag, value))
    return bytes(changed)


@pytest.mark.parametrize("factor", [100, 2])
@pytest.mark.parametrize("kind", ["tiles", "strips"])
def test_a_tiff_with_fewer_tiles_or_strips_than_it_claims_is_truncated(
    kind: str, factor: int
) -> None:
    options = {"tile": (64, 64)} if kind == "tiles" else {"rowsperstrip": 16}
    content = tiff(PIXELS, **options)
    assert reason(content) == "decoded"
    taller = claim(content, lambda tag, value: factor * value if tag == 257 else value)
    assert reason(taller) == "truncated"


@pytest.mark.parametrize("name", ["rgb.bmp", "palette.bmp", "still.gif", "colour.ppm"])
def test_others_that_claim_more_are_truncated(name: str) -> None:
    content = bytearray(PAGES[name])
    if name.endswith("bmp"):
        struct.pack_into("<i", content, 22, 100 * HEIGHT)
    elif name.endswith("gif"):
        struct.pack_into("<H", content, 8, 100 * HEIGHT)
        struct.pack_into("<H", content, content.index(b"\x2c\0\0\0\0") + 7, 100 * HEIGHT)
    else:
        content = content.replace(b" 120\n", b" 12000\n", 1)
    assert reason(bytes(content)) == "truncated"


def test_what_lacks_only_its_end() -> None:
    """A PNG without IEND and a GIF without its trailer have all pixels, and are decoded.

    A JPEG without its end mark is truncated: Pillow, like others, cannot say that nothing is
    missing.
    """
    assert reason(PAGES["rgb.png"][:-12]) == "decoded"
    assert reason(PAGES["still.gif"][:-1]) == "decoded"
    assert reason(PAGES["baseline.jpg"][:-2]) == "truncated"
    assert reason(PAGES["baseline.jpg"] + b"\0" * 100) == "decoded"
    animated = {"save_all": True, "append_images": [Image.fromarray(PIXELS[::-1])]}
    for format in ("GIF", "PNG", "MPO"):  # the first picture is whole
        content = encode(PHOTO, format, **animated)
        assert reason(content[: int(0.9 * len(content))]) == "decoded"


def test_an_arithmetic_jpeg_may_leave_out_what_is_zero() -> None:
    """So one that claims more than it has cannot be told from a whole one; a cut one can."""
    assert reason(ARITHMETIC) == reason(jpeg_of_height(ARITHMETIC, 2)) == "decoded"
    assert reason(ARITHMETIC[:-2]) == "truncated"
