"""HEIC, AVIF and JPEG XL: pixels, orientation, damage and limits."""

from __future__ import annotations

import io
import re

import numpy as np
import pytest
from PIL import Image

from headstart.data.modalities.image.decoding import looks_like_image, open_image
from headstart.data.modalities.image.formats import FORMATS, decoders, pixels_of_jxl
from headstart.data.modalities.modality import DecodeError

PICTURE = np.zeros((40, 64, 3), np.uint8)
PICTURE[:, :32, 0], PICTURE[20:, :, 1] = 255, 200
TURNED = Image.Exif()
TURNED[0x0112] = 6  # to be shown a quarter clockwise


def encoded(name: str, picture: np.ndarray = PICTURE, **options: object) -> bytes:
    decoders(next(each for each in FORMATS if name in each.names))
    file = io.BytesIO()
    Image.fromarray(picture).save(file, name, **options)
    return file.getvalue()


@pytest.mark.parametrize("name", ["HEIF", "AVIF", "JXL"])
def test_the_pixels_are_read(name: str) -> None:
    content = encoded(name)
    assert looks_like_image(content)
    pixels = np.asarray(open_image(content)).astype(int)
    assert np.abs(pixels - PICTURE)[2:-2, 2:30].mean() < 4


def test_it_is_upright() -> None:
    """HEIC and JPEG XL have been turned by their decoders: their EXIF counts no more."""
    assert open_image(encoded("AVIF", exif=TURNED)).size == (40, 64)
    assert open_image(encoded("JXL", exif=TURNED.tobytes(), lossless=True)).size == (64, 40)


@pytest.mark.parametrize("name", ["HEIF", "AVIF", "JXL"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.97])
def test_what_is_cut_or_damaged_is_an_error(name: str, share: float) -> None:
    content = encoded(name, **({"use_container": True} if name == "JXL" else {}))
    with pytest.raises(DecodeError) as cut:
        open_image(content[: int(share * len(content))])
    assert cut.value.reason == "truncated"
    middle = len(content) // 2
    with pytest.raises(DecodeError) as damaged:
        open_image(content[:40] + bytes(middle) + content[40 + middle :])
    assert damaged.value.reason in ("truncated", "damaged")


@pytest.mark.parametrize("shape", [(40, 64), (8, 8), (600, 333), (1, 9000), (48, 64)])
@pytest.mark.parametrize("container", [False, True])
def test_the_size_of_a_jpeg_xl_is_in_its_header(shape: tuple[int, int], container: bool) -> None:
    content = encoded("JXL", np.zeros(shape, np.uint8), use_container=container)
    assert pixels_of_jxl(content) == shape[0] * shape[1]


def test_a_huge_jpeg_xl_is_not_decoded() -> None:
    """Its decoder would take memory for all pixels: 30 bits for each side."""
    huge = (0 | 3 << 1 | (1 << 30) - 1 << 3 | 1 << 33).to_bytes(12, "little")  # as wide as high
    with pytest.raises(DecodeError) as caught:
        open_image(b"\xff\x0a" + huge)
    assert caught.value.reason == "too_large"


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headstart.data.modalities.image.formats._registered", lambda _: False)
    with pytest.raises(DecodeError, match=re.escape("pip install 'headstart[heic]'")) as caught:
        open_image(b"\0\0\0\x18ftypheic" + bytes(40))
    assert caught.value.reason == "unsupported"
