"""How a photograph becomes the backbone's input, as described in the backbone file.

Only the geometry is here; scaling and normalization are inside the backbone's graph.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from PIL import Image

from headstart.data.common.errors import InputError
from headstart.data.modalities.image.decoding import conversion_to_srgb, open_image
from headstart.data.modalities.image.resizing import centre, resize
from headstart.data.modalities.modality import InputSpec

RESIZE_RULES = ("squash", "crop")
INTERPOLATIONS = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


@dataclass(frozen=True)
class Preprocessing(InputSpec):
    """Size and resize rule of a backbone's input.

    Parameters
    ----------
    height, width
        Input size in pixels.
    resize
        `squash` stretches the whole photograph to the size; `crop` keeps the aspect ratio and cuts
        off the sides equally.
    interpolation
        `bilinear`, `bicubic` or `lanczos`, antialiased when a photograph shrinks (as Pillow does).
    """

    modality = "image"
    input = "image"
    dtype = np.uint8

    height: int
    width: int
    resize: str = "squash"
    interpolation: str = "bilinear"

    def __post_init__(self) -> None:
        if self.height < 1 or self.width < 1:
            raise InputError(f"an input size of {self.height}x{self.width} pixels is impossible")
        if self.resize not in RESIZE_RULES:
            raise InputError(
                f"unknown resize rule {self.resize!r}", f"Choose from {', '.join(RESIZE_RULES)}."
            )
        if self.interpolation not in INTERPOLATIONS:
            raise InputError(
                f"unknown interpolation {self.interpolation!r}",
                f"Choose from {', '.join(INTERPOLATIONS)}.",
            )

    def apply(self, image: Image.Image, fast: bool = False) -> np.ndarray:
        """Bring a grey or RGB image to the input size: uint8 `[height, width, 3]`, RGB.

        Parameters
        ----------
        fast
            Whether values may differ by a level from Pillow's, see `resizing`.
        """
        size, filter_ = (self.width, self.height), INTERPOLATIONS[self.interpolation]
        if image.size != size:
            box = centre(image, size) if self.resize == "crop" else None
            image = resize(image, size, filter_, fast, box)
        return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height, width and the three channels."""
        return self.height, self.width, 3

    def decode(self, content: bytes, fast: bool = True) -> np.ndarray:
        """A photograph's bytes to the backbone's input: uint8 `[height, width, 3]`, sRGB.

        Raises
        ------
        DecodeError
            With a reason code.
        """
        return decode(content, self, fast)

    def unsized(self) -> Unsized:
        """The rule for a graph that resizes by itself."""
        return Unsized(self.height, self.width, self.resize, self.interpolation)

    def to_metadata(self) -> dict[str, str]:
        """As entries of the backbone file's metadata."""
        return {name: str(value) for name, value in asdict(self).items()}

    def to_json(self) -> dict[str, Any]:
        """For programs that use an edge model."""
        return asdict(self)

    def __str__(self) -> str:
        return f"{self.height}x{self.width} {self.resize} {self.interpolation}"


class Unsized(Preprocessing):
    """Photographs keep their height and width; the size is the one that the graph resizes to."""

    def decode(self, content: bytes, fast: bool = True) -> np.ndarray:
        """A photograph's bytes to uint8 `[height, width, 3]`, sRGB, of its own size."""
        return decode(content, None)


def decode(content: bytes, preprocessing: Preprocessing | None, fast: bool = True) -> np.ndarray:
    """Decode a photograph to the backbone's input: uint8 `[height, width, 3]`, sRGB.

    Parameters
    ----------
    preprocessing
        Without it, the photograph keeps its own height and width.
    fast
        Whether a large JPEG may be decoded at a reduced size, and values may differ from Pillow's
        by a level (`data/modalities/image/resizing.py`).

    Raises
    ------
    DecodeError
        With a reason code.
    """
    enough = (preprocessing.width, preprocessing.height) if preprocessing and fast else None
    image = open_image(content, enough)
    pixels = preprocessing.apply(image, fast) if preprocessing else np.asarray(image.convert("RGB"))
    conversion = conversion_to_srgb(image.info.get("icc_profile"), image.mode)
    if conversion is None:
        return pixels
    source = Image.fromarray(pixels).convert(conversion.input_mode)
    return np.asarray(conversion.apply(source))
