"""Odd but whole photographs with the picture that they show, and broken ones with their reason."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass

import numpy as np
from encoders import (
    ALPHA,
    ARITHMETIC,
    CYAN,
    DEEP,
    GREY,
    MASK,
    PICTURE,
    adobe_rgb,
    chunk,
    cmyk_pixels,
    encode,
    exif,
    from_adobe_rgb,
    jpeg_segments,
    on_white,
    plain_cmyk,
    png,
    printer,
    profile,
    rgb,
    srgb_of,
    srgb_of_lab,
    stored,
    tiff,
    ycck,
)
from PIL import Image


@dataclass(frozen=True)
class Whole:
    """A file, the picture it shows (uint8 `[height, width, 3]`), and how far off a pixel may be."""

    content: bytes
    picture: np.ndarray
    tolerance: int = 0


def whole() -> dict[str, Whole]:
    """Every kind of photograph that must be decoded, by file name."""
    return _jpegs() | _pngs() | _webps_and_gifs() | _tiffs() | _others()


def _jpegs() -> dict[str, Whole]:
    best = {"quality": 98, "subsampling": 0}
    jpeg = encode(PICTURE, "JPEG", **best)
    flat = np.zeros((8, 8, 4), np.uint8) + np.array([255, 0, 0, 0], np.uint8)
    cyan = np.broadcast_to(srgb_of_lab(*CYAN), (8, 8, 3))
    muted = PICTURE // 4 + 96
    damaged_exif = b"Exif\0\0MM\0*\0\0\0\x08\xff\xff" + bytes(range(40))
    inks = Image.frombytes("CMYK", (40, 30), cmyk_pixels().tobytes())
    files = {
        "baseline.jpg": Whole(jpeg, PICTURE, 4),
        "progressive.jpg": Whole(encode(PICTURE, "JPEG", progressive=True, **best), PICTURE, 4),
        "arithmetic.jpg": Whole(ARITHMETIC, PICTURE, 4),
        "restarts.jpg": Whole(encode(PICTURE, "JPEG", restart_marker_rows=1, **best), PICTURE, 4),
        "subsampled.jpg": Whole(encode(PICTURE, "JPEG", quality=98), PICTURE, 12),
        "grey.jpg": Whole(encode(GREY, "JPEG", quality=98), rgb(GREY), 3),
        "two-pictures.jpg": Whole(
            encode(
                Image.fromarray(PICTURE),
                "MPO",
                save_all=True,
                append_images=[Image.fromarray(PICTURE[::-1])],
                **best,
            ),
            PICTURE,
            4,
        ),
        "cmyk-adobe.jpg": Whole(encode(inks, "JPEG", **best), PICTURE, 4),
        "cmyk-plain.jpg": Whole(plain_cmyk(), PICTURE, 4),
        "cmyk-profile.jpg": Whole(
            encode(Image.frombytes("CMYK", (8, 8), flat.tobytes()), "JPEG", icc_profile=printer()),
            cyan,
            4,
        ),
        "ycck-adobe.jpg": Whole(ycck(), PICTURE, 4),
        "adobe-rgb.jpg": Whole(
            encode(muted, "JPEG", icc_profile=adobe_rgb(), **best), from_adobe_rgb(muted), 8
        ),
        "damaged-profile.jpg": Whole(
            encode(PICTURE, "JPEG", icc_profile=adobe_rgb()[:200], **best), PICTURE, 4
        ),
        "damaged-exif.jpg": Whole(encode(PICTURE, "JPEG", exif=damaged_exif, **best), PICTURE, 4),
        "and-more-bytes.jpg": Whole(jpeg + b"\0" * 100, PICTURE, 4),
        "named-png.png": Whole(jpeg, PICTURE, 4),
    }
    for turn in range(1, 9):
        turned = encode(stored(turn), "JPEG", exif=exif(turn), **best)
        files[f"held-{turn}.jpg"] = Whole(turned, PICTURE, 4)
    return files


def _pngs() -> dict[str, Whole]:
    deep = (DEEP * 65535).round().astype(np.uint16)
    deep_alpha = ALPHA.astype(np.uint16) * 257
    few = np.where(MASK, 1, 2).astype(np.uint8)
    colours = np.array([[0, 0, 0], [250, 20, 30], [10, 60, 200]], np.uint8)
    palette = Image.fromarray(few)
    palette.putpalette(colours.tobytes())
    grey_key, colour_key = int(GREY[0, 5]), PICTURE[3, 5]
    is_colour_key = (colour_key == PICTURE).all(axis=-1)
    deep_key = int(deep[0, 5, 0])
    flipped = Image.fromarray(PICTURE[::-1])
    screen = chunk(b"iCCP", b"test\0\0" + zlib.compress(adobe_rgb()))
    gamma = profile(b"GRAY", {b"kTRC": b"curv\0\0\0\0" + struct.pack(">IH", 1, 256)})
    linear = chunk(b"iCCP", b"test\0\0" + zlib.compress(gamma))
    key = struct.pack(">3H", *map(int, colour_key))
    return {
        "rgb.png": Whole(encode(PICTURE, "PNG"), PICTURE),
        "rgb-16.png": Whole(png(deep, 2), PICTURE, 1),
        "grey-16.png": Whole(png(deep[..., 0], 0), rgb(GREY), 1),
        "grey.png": Whole(png(GREY, 0), rgb(GREY)),
        "1-bit.png": Whole(encode(Image.fromarray(MASK), "PNG"), rgb(MASK * np.uint8(255))),
        "2-bit.png": Whole(encode(palette, "PNG", bits=2), colours[few]),
        "palette.png": Whole(encode(palette, "PNG"), colours[few]),
        "palette-clear.png": Whole(
            encode(palette, "PNG", transparency=b"\xff\x80\0"),
            on_white(colours[few], np.where(few == 1, 128, 0)),
            1,
        ),
        "rgba.png": Whole(png(np.dstack([PICTURE, ALPHA]), 6), on_white(PICTURE, ALPHA), 1),
        "rgba-16.png": Whole(png(np.dstack([deep, deep_alpha]), 6), on_white(PICTURE, ALPHA), 2),
        "la.png": Whole(png(np.dstack([GREY, ALPHA]), 4), on_white(rgb(GREY), ALPHA), 1),
        "la-16.png": Whole(
            png(np.dstack([deep[..., 0], deep_alpha]), 4), on_white(rgb(GREY), ALPHA), 2
        ),
        "grey-key.png": Whole(
            png(GREY, 0, chunk(b"tRNS", struct.pack(">H", grey_key))),
            on_white(rgb(GREY), np.where(grey_key == GREY, 0, 255)),
        ),
        "rgb-key.png": Whole(
            png(PICTURE, 2, chunk(b"tRNS", key)),
            on_white(PICTURE, np.where(is_colour_key, 0, 255)),
        ),
        "grey-16-key.png": Whole(
            png(deep[..., 0], 0, chunk(b"tRNS", struct.pack(">H", deep_key))),
            on_white(rgb(GREY), np.where(deep[..., 0] == deep_key, 0, 255)),
            1,
        ),
        "interlaced.png": Whole(png(PICTURE, 2, interlaced=True), PICTURE),
        "animated.png": Whole(
            encode(Image.fromarray(PICTURE), "PNG", save_all=True, append_images=[flipped]),
            PICTURE,
        ),
        "held-6.png": Whole(encode(stored(6), "PNG", exif=exif(6)), PICTURE),
        "adobe-rgb.png": Whole(png(PICTURE, 2, screen), from_adobe_rgb(PICTURE), 2),
        "linear-grey.png": Whole(png(GREY, 0, linear), rgb(srgb_of(GREY / 255)), 4),
        "grey-of-rgb.png": Whole(png(GREY, 0, screen), from_adobe_rgb(rgb(GREY)), 2),
        "other-profile.png": Whole(png(PICTURE, 2, linear), PICTURE),
        "no-end.png": Whole(encode(PICTURE, "PNG")[:-12], PICTURE),
        "named-jpg.jpg": Whole(encode(PICTURE, "PNG"), PICTURE),
        "1x1.png": Whole(encode(PICTURE[:1, :1], "PNG"), PICTURE[:1, :1]),
        "10000x1.png": Whole(encode(_line(), "PNG"), _line()),
        "1x10000.png": Whole(
            encode(_line().transpose(1, 0, 2).copy(), "PNG"), _line().transpose(1, 0, 2)
        ),
    }


def _line() -> np.ndarray:
    return np.ascontiguousarray(np.resize(PICTURE.reshape(1, -1, 3), (1, 10_000, 3)))


def _webps_and_gifs() -> dict[str, Whole]:
    first, second = Image.fromarray(PICTURE), Image.fromarray(PICTURE[::-1])
    frames = {"save_all": True, "append_images": [second]}
    clear = Image.fromarray(np.dstack([PICTURE, ALPHA]))
    colours = np.array([[255, 0, 0], [0, 0, 255], [9, 99, 9]], np.uint8)
    two = Image.fromarray(MASK.astype(np.uint8))
    two.putpalette(colours.tobytes())
    other = two.transpose(Image.Transpose.ROTATE_180)
    shades = Image.fromarray(np.where(MASK, 40, 200).astype(np.uint8))
    painted = colours[MASK.astype(np.uint8)]
    return {
        "lossless.webp": Whole(encode(PICTURE, "WEBP", lossless=True), PICTURE),
        "lossy.webp": Whole(encode(PICTURE, "WEBP", quality=98), PICTURE, 12),
        "clear.webp": Whole(
            encode(clear, "WEBP", lossless=True, exact=True), on_white(PICTURE, ALPHA), 1
        ),
        "animated.webp": Whole(encode(first, "WEBP", lossless=True, **frames), PICTURE),
        "held-8.webp": Whole(encode(stored(8), "WEBP", lossless=True, exif=exif(8)), PICTURE),
        "adobe-rgb.webp": Whole(
            encode(PICTURE, "WEBP", lossless=True, icc_profile=adobe_rgb()),
            from_adobe_rgb(PICTURE),
            2,
        ),
        "still.gif": Whole(encode(two, "GIF"), painted),
        "animated.gif": Whole(encode(two, "GIF", save_all=True, append_images=[other]), painted),
        "clear.gif": Whole(
            encode(two, "GIF", transparency=1), on_white(painted, np.where(MASK, 0, 255))
        ),
        "clear-grey.gif": Whole(
            encode(shades, "GIF", transparency=40),
            rgb(np.where(MASK, 255, 200).astype(np.uint8)),
        ),
    }


def _tiffs() -> dict[str, Whole]:
    deep = (DEEP * 65535).round().astype(np.uint16)
    clear = np.dstack([PICTURE, ALPHA])
    bilevel = Image.fromarray(MASK)
    packed = ("raw", "tiff_lzw", "tiff_adobe_deflate", "packbits", "zstd", "lzma")
    files = {
        f"{name}.tif": Whole(encode(PICTURE, "TIFF", compression=name), PICTURE) for name in packed
    }
    lab = np.zeros((8, 8, 3), np.uint8) + np.array([153, 236, 236], np.uint8)  # CYAN
    return files | {
        "jpeg.tif": Whole(encode(PICTURE, "TIFF", compression="jpeg", quality=98), PICTURE, 6),
        "group4.tif": Whole(
            encode(bilevel, "TIFF", compression="group4"), rgb(MASK * np.uint8(255))
        ),
        "tiled.tif": Whole(tiff(PICTURE, tile=(16, 16)), PICTURE),
        "tiled-deflate.tif": Whole(tiff(PICTURE, tile=(16, 16), compression="zlib"), PICTURE),
        "planar.tif": Whole(tiff(PICTURE.transpose(2, 0, 1), planarconfig="separate"), PICTURE),
        "big.tif": Whole(tiff(PICTURE, bigtiff=True), PICTURE),
        "pages.tif": Whole(
            encode(
                Image.fromarray(PICTURE),
                "TIFF",
                save_all=True,
                append_images=[Image.fromarray(PICTURE[::-1])],
            ),
            PICTURE,
        ),
        "grey-16.tif": Whole(tiff(deep[..., 0]), rgb(GREY), 1),
        "grey-16-big-endian.tif": Whole(tiff(deep[..., 0], byteorder=">"), rgb(GREY), 1),
        "grey-16-white-is-0.tif": Whole(
            tiff(65535 - deep[..., 0], photometric="miniswhite"), rgb(GREY), 1
        ),
        "white-is-0.tif": Whole(tiff(255 - GREY, photometric="miniswhite"), rgb(GREY)),
        "rgb-16.tif": Whole(tiff(deep), PICTURE, 1),
        "rgba.tif": Whole(tiff(clear, extrasamples=["unassalpha"]), on_white(PICTURE, ALPHA), 1),
        "rgba-premultiplied.tif": Whole(
            tiff(
                np.dstack([(PICTURE * (ALPHA[..., None] / 255)).round().astype(np.uint8), ALPHA]),
                extrasamples=["assocalpha"],
            ),
            on_white(PICTURE, ALPHA),
            3,
        ),
        "grey-12.tif": Whole(_twelve_bits(), rgb(GREY), 1),
        "float.tif": Whole(tiff(DEEP[..., 0].astype(np.float32)), rgb(GREY), 1),
        "cmyk.tif": Whole(tiff(cmyk_pixels(), photometric="separated"), PICTURE),
        "lab.tif": Whole(
            encode(Image.frombytes("LAB", (8, 8), lab.tobytes()), "TIFF"),
            np.broadcast_to(srgb_of_lab(*CYAN), (8, 8, 3)),
            4,
        ),
        "held-6.tif": Whole(encode(stored(6), "TIFF", exif=exif(6)), PICTURE),
        "adobe-rgb.tif": Whole(
            encode(PICTURE, "TIFF", icc_profile=adobe_rgb()), from_adobe_rgb(PICTURE), 2
        ),
    }


def _tags(tags: dict[int, int]) -> bytes:
    """A little-endian TIFF's header and directory; pixels begin at byte 200."""
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    return (b"II*\0\x08\0\0\0" + struct.pack("<H", len(tags)) + entries).ljust(200, b"\0")


def _twelve_bits() -> bytes:
    """Two samples in three bytes."""
    values = (DEEP[..., 0] * 4095).round().astype(np.uint16).reshape(-1, 2)
    first, second = values[:, 0], values[:, 1]
    packed = np.stack([first >> 4, (first & 15) << 4 | second >> 8, second & 255], axis=-1)
    pixels = packed.astype(np.uint8).tobytes()
    sizes = {256: 40, 257: 30, 258: 12, 259: 1, 262: 1, 273: 200, 277: 1, 278: 30}
    return _tags(sizes | {279: len(pixels)}) + pixels


def _others() -> dict[str, Whole]:
    head = b"40 30 255\n"
    bmp = bytearray(encode(PICTURE[::-1], "BMP"))
    struct.pack_into("<i", bmp, 22, -30)
    deep = (DEEP[..., 0] * 65535).round().astype(">u2")
    plain = b"P3 " + head + b" ".join(str(value).encode() for value in PICTURE.ravel())
    return {
        "rgb.bmp": Whole(encode(PICTURE, "BMP"), PICTURE),
        "top-down.bmp": Whole(bytes(bmp), PICTURE),
        "1-bit.bmp": Whole(encode(Image.fromarray(MASK), "BMP"), rgb(MASK * np.uint8(255))),
        "grey.bmp": Whole(encode(GREY, "BMP"), rgb(GREY)),
        "rgb.ppm": Whole(b"P6 " + head + PICTURE.tobytes(), PICTURE),
        "plain.ppm": Whole(plain, PICTURE),
        "grey-16.pgm": Whole(b"P5 40 30 65535\n" + deep.tobytes(), rgb(GREY), 1),
        "1-bit.pbm": Whole(encode(Image.fromarray(MASK), "PPM"), rgb(MASK * np.uint8(255))),
    }


def broken() -> dict[str, tuple[bytes, str]]:
    """Files that hold no photograph that can be shown, and the reason code, by file name."""
    jpeg, picture = encode(PICTURE, "JPEG"), encode(PICTURE, "PNG")
    pixels = picture.index(b"IDAT") + 20
    float_, nan = DEEP.astype(np.float32)[..., 0] * 255, np.full((4, 4), np.nan, np.float32)
    return {
        "zero.jpg": (b"", "empty"),
        "text.jpg": (b"I am no photograph.\n", "not_an_image"),
        "page.jpg": (b"<!DOCTYPE html><html><body>404</body></html>", "not_an_image"),
        "document.jpg": (b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n", "not_an_image"),
        "postscript.jpg": (b"%!PS-Adobe-3.0 EPSF-3.0\n", "not_an_image"),
        "telephone.jpg": (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "damaged"),
        "drawing.png": (b'<svg xmlns="http://www.w3.org/2000/svg"/>', "not_an_image"),
        "nothing-but-zeros.jpg": (bytes(5000), "not_an_image"),
        "rotten.png": (
            picture[:pixels] + bytes([picture[pixels] ^ 1]) + picture[pixels + 1 :],
            "damaged",
        ),
        "rotten-header.png": (picture.replace(b"IHDR\0", b"IHDR\1", 1), "damaged"),
        "zeroed.jpg": (jpeg[:20] + bytes(len(jpeg) - 20), "truncated"),
        "12-bit.jpg": (jpeg.replace(b"\x11\x08\0\x1e", b"\x11\x0c\0\x1e", 1), "damaged"),
        "float-0-to-255.tif": (tiff(float_), "unsupported"),
        "float-64.tif": (tiff(DEEP[..., 0]), "damaged"),
        "float-nan.tif": (tiff(nan), "unsupported"),
        "signed-16.tif": (tiff(GREY.astype(np.int16) * 100), "unsupported"),
        "32-bit.tif": (tiff(GREY.astype(np.uint32) * 1000), "unsupported"),
        "long.png": (encode(Image.new("1", (200_000, 2)), "PNG"), "too_large"),
    } | {name: (content, "too_large") for name, content in _bombs().items()}


def _bombs(side: int = 60_000) -> dict[str, bytes]:
    """Small files whose headers claim 3,600 million pixels."""
    jpeg = bytearray(encode(PICTURE, "JPEG"))
    struct.pack_into(">HH", jpeg, jpeg.index(b"\xff\xc0") + 5, side, side)
    gif = bytearray(encode(GREY, "GIF"))
    struct.pack_into("<HH", gif, 6, side, side)
    bmp = bytearray(encode(PICTURE, "BMP"))
    struct.pack_into("<ii", bmp, 18, side, side)
    two = Image.fromarray(PICTURE[::-1])
    webp = bytearray(encode(Image.fromarray(PICTURE), "WEBP", save_all=True, append_images=[two]))
    assert webp[12:16] == b"VP8X"
    webp[24:30] = (side - 1).to_bytes(3, "little") * 2
    tags = {256: side, 257: side, 258: 8, 259: 1, 262: 1, 273: 200, 278: side, 279: 9}
    row = zlib.compress(bytes(1 + side // 8))
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    return {
        "bomb.jpg": bytes(jpeg),
        "bomb.png": b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", row),
        "bomb.webp": bytes(webp),
        "bomb.gif": bytes(gif),
        "bomb.bmp": bytes(bmp),
        "bomb.tif": _tags(tags) + bytes(9),
        "bomb.ppm": b"P6 60000 60000 255\n" + bytes(100),
    }


def cuts() -> dict[str, tuple[bytes, str | None]]:
    """A JPEG, a PNG and a WebP cut at each of their structures, and inside.

    The reason code is None where all pixels are there, though the end is not.
    """
    jpeg = encode(PICTURE, "JPEG", exif=exif(1))
    found: dict[str, tuple[bytes, str | None]] = {}
    starts = jpeg_segments(jpeg)
    for name, start in starts.items():
        for offset in (start, start + 1, start + 2, start + 4):
            if 3 <= offset < len(jpeg):
                found[f"cut-{name}-{offset}.jpg"] = (jpeg[:offset], "truncated")
    picture = png(PICTURE, 2, chunk(b"tEXt", b"Comment\0hello"))
    for kind in (b"IHDR", b"tEXt", b"IDAT", b"IEND"):
        start = picture.index(kind) - 4
        for offset in (start, start + 4, start + 8, start + 9):
            whole = kind == b"IEND"
            found[f"cut-{kind.decode()}-{offset}.png"] = (
                picture[:offset],
                None if whole else "truncated",
            )
    webp = encode(PICTURE, "WEBP", lossless=True, exif=exif(1), icc_profile=adobe_rgb())
    offset = 12
    while offset < len(webp):
        size = struct.unpack_from("<I", webp, offset + 4)[0]
        for cut in (offset, offset + 4, offset + 8, offset + 9):
            name = f"cut-{webp[offset : offset + 4].decode().strip()}-{cut}.webp"
            found[name] = (webp[:cut], "truncated")
        offset += 8 + size + size % 2
    return found
