"""Bytes of a photograph to pixels, with a reason code for everything that can go wrong."""

from __future__ import annotations

from io import BytesIO

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from data.preprocessing import Preprocessing

# Only formats that Pillow decodes itself: no EPS (which would start Ghostscript), no plugins.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM")
EXTENSIONS = frozenset(
    [
        ".jpg",
        ".jpeg",
        ".jpe",
        ".jfif",
        ".png",
        ".webp",
        ".gif",
        ".bmp",
        ".tif",
        ".tiff",
        ".pbm",
        ".pgm",
        ".ppm",
    ]
)


class DecodeError(Exception):
    """A photograph that cannot be decoded.

    Parameters
    ----------
    reason
        A stable code: `empty`, `not_an_image`, `truncated`, `too_large` or `damaged`.
    message
        What was found.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(reason, message)
        self.reason, self.message = reason, message

    def __str__(self) -> str:
        return self.message


def open_image(content: bytes) -> Image.Image:
    """Decode a photograph as it should be seen: upright, its first frame, grey (`L`) or `RGB`.

    16-bit grey is scaled to 8 bits; transparent parts are laid on white.

    Raises
    ------
    DecodeError
        With a reason code.
    """
    if not content:
        raise DecodeError("empty", "the file has no bytes")
    try:
        image = Image.open(BytesIO(content), formats=FORMATS)
        image.load()
        return _flatten(ImageOps.exif_transpose(image))
    except UnidentifiedImageError:
        raise DecodeError(
            "not_an_image", f"no image format that we read begins with {content[:8]!r}"
        ) from None
    except Image.DecompressionBombError as error:
        raise DecodeError("too_large", str(error)) from None
    except Exception as error:  # damaged bytes make Pillow's decoders raise whatever there is
        reason = "truncated" if "truncated" in str(error).lower() else "damaged"
        raise DecodeError(reason, str(error) or type(error).__name__) from None


def _flatten(image: Image.Image) -> Image.Image:
    if image.mode in ("L", "RGB"):
        return image
    if image.mode == "I" or image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image).clip(0, 65535) >> 8).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")


def decode(content: bytes, preprocessing: Preprocessing) -> np.ndarray:
    """Decode a photograph to the backbone's input: uint8 `[height, width, 3]`, RGB.

    Raises
    ------
    DecodeError
        With a reason code.
    """
    return preprocessing.apply(open_image(content))
