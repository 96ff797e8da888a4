"""How a photograph becomes the backbone's input: the one description, kept in the backbone file.

Only the geometry lives here; scaling and normalization are inside the backbone's graph.
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
        `squash` stretches the whole photograph to the size; `crop` keeps the proportions and cuts
        off what sticks out, around the centre.
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
                f"unknown resize rule {self.resize!r}", f"Known are {', '.join(RESIZE_RULES)}."
            )
        if self.interpolation not in INTERPOLATIONS:
            raise InputError(
                f"unknown interpolation {self.interpolation!r}",
                f"Known are {', '.join(INTERPOLATIONS)}.",
            )

    def apply(self, image: Image.Image, fast: bool = False) -> np.ndarray:
        """Bring a grey or RGB image to the input size: uint8 `[height, width, 3]`, RGB.

        Parameters
        ----------
        fast
            Whether a number may be a level off from Pillow's (`data/modalities/image/resizing.py`).
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
    """A photograph keeps its height and width; the size is the one that the graph resizes to."""

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
        Whether a large JPEG may be decoded at a part of its size, and resized with numbers that are
        a level off here and there (`data/modalities/image/resizing.py`).

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
