"""Photographs are decoded as they should be seen, or get a reason code."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from unittest.mock import Mock

import fuzz_decoding
import numpy as np
import pytest
import simplejpeg
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile

from headstart.data.common.errors import InputError
from headstart.data.modalities.image.decoding import REASONS, open_image
from headstart.data.modalities.image.preprocessing import Preprocessing, decode
from headstart.data.modalities.modality import DecodeError

pytestmark = pytest.mark.filterwarnings(r"ignore:::PIL\.")  # as decoding does


def encode(image: Image.Image, format: str = "PNG", **options: object) -> bytes:
    buffer = BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def gradient(mode: str = "RGB", size: tuple[int, int] = (40, 30)) -> Image.Image:
    columns = np.linspace(0, 255, size[0], dtype=np.uint8)
    pixels = np.broadcast_to(columns[None, :, None], (size[1], size[0], 3))
    return Image.fromarray(np.ascontiguousarray(pixels)).convert(mode)


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF", "PPM"])
def test_every_format_gives_the_same_picture(format: str) -> None:
    image = open_image(encode(gradient(), format))
    assert image.mode in ("L", "RGB")
    got = np.asarray(image.convert("RGB")).astype(int)
    assert np.abs(got - np.asarray(gradient())).mean() < 6


@pytest.mark.parametrize("mode", ["L", "1", "P", "RGBA", "LA", "CMYK"])
def test_every_mode_becomes_uint8_rgb(mode: str) -> None:
    format = "TIFF" if mode == "CMYK" else "PNG"
    got = decode(encode(gradient(mode), format), Preprocessing(8, 10))
    assert (got.shape, got.dtype) == ((8, 10, 3), np.uint8)
    assert got[4, 0].max() < 80 < 175 < got[4, -1].min()


def test_16_bit_grey_is_scaled_and_not_clipped() -> None:
    deep = Image.fromarray(np.array([[0, 32768, 65535]], np.uint16))
    assert np.asarray(open_image(encode(deep))).tolist() == [[0, 128, 255]]


def test_transparent_parts_are_white() -> None:
    glass = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
    assert open_image(encode(glass)).getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_photographs_stand_upright(orientation: int) -> None:
    upright = gradient()
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = upright.transpose(undo[orientation]) if orientation > 1 else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    got = open_image(encode(stored, "PNG", exif=exif))
    assert np.array_equal(np.asarray(got), np.asarray(upright))


@pytest.mark.parametrize(
    ("content", "reason", "message"),
    [
        (b"", "empty", "the file has no bytes"),
        (b"hello, I am a text", "not_an_image", "no supported image format begins with"),
        (encode(gradient())[:60], "truncated", "truncated"),
        (encode(gradient(), "JPEG")[:200], "truncated", "Truncated"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", "not_an_image", "no supported image format"),
    ],
    ids=["empty", "text", "png", "jpeg", "eps"],
)
def test_what_cannot_be_decoded_has_a_reason(content: bytes, reason: str, message: str) -> None:
    with pytest.raises(DecodeError, match=message) as caught:
        open_image(content)
    assert caught.value.reason == reason


def test_a_decompression_bomb_is_refused_by_its_header() -> None:
    bomb = encode(Image.new("1", (20000, 20000)))
    assert len(bomb) < 100_000
    with pytest.raises(DecodeError) as caught:
        open_image(bomb)
    assert caught.value.reason == "too_large"


@settings(max_examples=150, deadline=None)
@given(data=st.data(), format=st.sampled_from(["PNG", "JPEG", "WEBP", "GIF", "TIFF", "BMP"]))
def test_damaged_bytes_decode_or_give_a_reason(data: st.DataObject, format: str) -> None:
    content = bytearray(encode(gradient(), format))
    for _ in range(data.draw(st.integers(1, 8))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(content)))
    try:
        got = decode(bytes(content[:cut]), Preprocessing(8, 8))
    except DecodeError as error:
        assert error.reason in REASONS
    else:
        assert (got.shape, got.dtype) == ((8, 8, 3), np.uint8)


def test_grey_is_resized_as_its_rgb_copy_would_be() -> None:
    grey = gradient("L", (300, 200))
    rule = Preprocessing(64, 48)
    assert np.array_equal(rule.apply(grey), rule.apply(grey.convert("RGB")))


def test_crop_keeps_proportions_and_squash_keeps_everything() -> None:
    wide = Image.new("RGB", (300, 100))
    wide.paste((255, 0, 0), (0, 0, 90, 100))
    assert Preprocessing(10, 10, "crop").apply(wide).max() == 0
    assert Preprocessing(10, 10, "squash").apply(wide)[5, 0].tolist() == [255, 0, 0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 5), "an input size of 0x5 pixels is impossible"),
        ((5, 5, "stretch"), "unknown resize rule 'stretch'\n  Choose from squash, crop."),
        (
            (5, 5, "crop", "cubic"),
            "unknown interpolation 'cubic'\n  Choose from bilinear, bicubic, lanczos.",
        ),
    ],
)
def test_impossible_rules_are_refused(arguments: tuple, message: str) -> None:
    with pytest.raises(InputError) as caught:
        Preprocessing(*arguments)
    assert str(caught.value) == message


def test_a_photograph_with_damaged_exif_is_decoded() -> None:
    """The pixels are whole: they are shown unturned, or as the rest of the EXIF says."""
    exif = Image.Exif()
    exif[0x0112] = 6
    content = bytearray(encode(gradient(), "JPEG", exif=exif))
    turned = np.asarray(open_image(bytes(content)))
    plain = np.asarray(open_image(encode(gradient(), "JPEG")))
    assert np.array_equal(turned, np.rot90(plain, -1))
    start = content.index(b"Exif\0\0")
    for position in range(start + 6, start + 32):
        for value in (0, 1, 0x7F, 0xFF):
            damaged = bytes(content[:position]) + bytes([value]) + bytes(content[position + 1 :])
            image = np.asarray(open_image(damaged))
            assert any(
                np.array_equal(image, view)
                for base in (plain, plain[::-1])
                for view in (base, *(np.rot90(base, turn) for turn in (1, 2, 3)))
            )


@pytest.mark.alone
def test_a_fuzz_run_finds_nothing(tmp_path: Path) -> None:
    """A tenth of what `make fuzz` runs, the same every time."""
    report = fuzz_decoding.run(10_000, 0, tmp_path)
    assert report.findings == []
    assert report.outcomes.total() == 10_000
    assert set(report.outcomes) == {"decoded", *REASONS} - {"empty"}
    assert min(report.outcomes.values()) > 100


def _crash(content: bytes, rule: Preprocessing) -> np.ndarray:
    os.abort()


def _hang(content: bytes, rule: Preprocessing) -> np.ndarray:
    while True:
        time.sleep(1)


def _raise(content: bytes, rule: Preprocessing) -> np.ndarray:
    raise KeyError("x")


def _give_floats(content: bytes, rule: Preprocessing) -> np.ndarray:
    return np.zeros((rule.height, rule.width, 3))


def _give_a_new_reason(content: bytes, rule: Preprocessing) -> np.ndarray:
    raise DecodeError("odd", "hm")


def _speak(content: bytes, rule: Preprocessing) -> np.ndarray:
    os.write(2, b"TIFF: oh dear")
    return decode(b"", rule)


@pytest.mark.parametrize(
    ("decoder", "finding"),
    [
        (_crash, "file 0: the process ended with -6"),
        (_hang, "file 0: no end after 2 s"),
        (_raise, "file 0: KeyError: 'x'"),
        (_give_floats, r"file 0: ValueError: decoded to float64 \(24, 32, 3\)"),
        (_give_a_new_reason, "file 0: ValueError: 'odd': 'hm' is not a documented error"),
        (_speak, "on stderr: b'TIFF: oh dear'"),
    ],
)
def test_a_fuzz_run_names_what_breaks_a_decoder(
    decoder: Callable, finding: str, tmp_path: Path
) -> None:
    report = fuzz_decoding.run(1, 5, tmp_path, decoder, time_limit=2)
    assert len(report.findings) == 1
    assert re.search(finding, report.findings[0])
    if decoder is not _speak:
        kept = tmp_path / "5-0.bin"
        assert report.findings[0].endswith(f"kept as {kept}")
        assert kept.read_bytes() == fuzz_decoding.mutated(fuzz_decoding.corpus(), 5, 0)


def photograph(width: int, height: int) -> Image.Image:
    """A smooth picture with some grain, as of a camera."""
    x, y = np.meshgrid(np.linspace(0, 6, width), np.linspace(0, 4, height))
    waves = np.stack([np.sin(x), np.cos(x + y), np.sin(2 * y)], axis=-1) * 90 + 128
    grain = np.random.default_rng(0).normal(0, 4, waves.shape)
    return Image.fromarray((waves + grain).clip(0, 255).astype(np.uint8))


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("format", ["JPEG", "MPO"])
def test_a_large_jpeg_is_decoded_smaller_but_never_below_what_is_wanted(
    mode: str, format: str
) -> None:
    more = {"save_all": True, "append_images": [photograph(9, 9).convert(mode)]}
    content = encode(
        photograph(640, 480).convert(mode), format, **(more if format == "MPO" else {})
    )
    for wanted, size in (
        ((640, 480), (640, 480)),
        ((321, 100), (640, 480)),
        ((320, 240), (320, 240)),
        ((100, 130), (320, 240)),
        ((160, 120), (160, 120)),
        ((1, 1), (80, 60)),
    ):
        assert open_image(content, wanted).size == size
    assert open_image(content).size == (640, 480)


KINDS = (
    {},
    {"progressive": True},
    {"subsampling": 0, "optimize": True},
    {"keep_rgb": True},
    {"restart_marker_rows": 1},
    {"mode": "L"},
    {"mode": "CMYK", "progressive": True},
)


@settings(max_examples=200, deadline=None)
@given(data=st.data(), kind=st.sampled_from(KINDS), size=st.sampled_from([None, (8, 8), (33, 40)]))
def test_ordinary_jpegs_are_decoded_to_the_pixels_that_pillow_makes(
    data: st.DataObject, kind: dict, size: tuple[int, int] | None
) -> None:
    """And odd or damaged ones give the same messages, whichever library decodes first.

    Except where the pixels end early: Pillow has other words for that, or makes the rest grey.
    """
    mode = kind.get("mode", "RGB")
    content = bytearray(encode(photograph(97, 70).convert(mode), "JPEG", **kind))
    for _ in range(data.draw(st.integers(0, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    content = content[: data.draw(st.integers(len(content) // 2, 3 * len(content)))]
    rule = Preprocessing(*size) if size else None

    def answer() -> tuple:
        try:
            pixels = decode(bytes(content), rule)
        except DecodeError as error:
            return error.reason, error.message
        return pixels.shape, pixels.tobytes()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(simplejpeg, "decode_jpeg", Mock(side_effect=ValueError("not asked")))
        by_pillow = answer()
    ends_early = ("truncated", "the pixels end before the height and width of the header")
    assert answer() in (by_pillow, ends_early)


def test_an_ordinary_jpeg_is_not_decoded_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(JpegImageFile, "load", Mock(side_effect=AssertionError))
    assert open_image(encode(photograph(640, 480), "JPEG"), (160, 120)).size == (160, 120)


def test_a_turned_jpeg_is_large_enough_upright() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    content = encode(photograph(640, 480), "JPEG", exif=exif)
    assert open_image(content, (240, 320)).size == (240, 320)
    assert open_image(content, (320, 240)).size == (480, 640)


def test_other_formats_keep_their_size() -> None:
    for format in ("PNG", "WEBP", "TIFF", "BMP"):
        assert open_image(encode(photograph(64, 48), format), (8, 8)).size == (64, 48)


@pytest.mark.parametrize("resize", ["squash", "crop"])
def test_decoding_at_a_part_of_the_size_changes_little(resize: str) -> None:
    rule = Preprocessing(60, 60, resize)
    content = encode(photograph(640, 480), "JPEG", quality=90)
    whole, part = (decode(content, rule, fast=fast).astype(int) for fast in (False, True))
    assert not np.array_equal(whole, part)
    assert np.abs(whole - part).mean() < 1
    assert np.abs(whole - part).max() <= 12
    small = encode(photograph(119, 119), "JPEG")
    levels = np.abs(decode(small, rule, fast=False).astype(int) - decode(small, rule))
    assert levels.max() <= 1
    assert (levels > 0).mean() < 0.05


def test_a_large_jpeg_that_ends_early_is_reported_at_any_size() -> None:
    content = encode(photograph(640, 480), "JPEG")
    for share in (0.5, 0.9, 0.99):
        with pytest.raises(DecodeError) as caught:
            open_image(content[: int(share * len(content))], (40, 40))
        assert caught.value.reason == "truncated"
