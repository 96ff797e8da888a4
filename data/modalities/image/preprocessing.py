"""How a photograph becomes the backbone's input, as described in the backbone file.

Only the geometry is here; scaling and normalization are inside the backbone's graph.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from PIL import Image

from headstart.data.common.errors import InputError
from headstart.data.modalities.image.decoding import conversion_to_srgb, open_image
from headstart.data.modalities.image.resizing import centre, cut, resize
from headstart.data.modalities.modality import InputSpec

RESIZE_RULES = ("squash", "crop")
LEAST_FRACTION = 0.1
OFFSETS: dict[str, Callable[[float], int]] = {"round": round, "floor": math.floor}
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
    crop_fraction
        How much of the height and width remains when the photograph was resized, to whole pixels:
        the centre of the input's size is cut out, as PyTorch's libraries do. `squash` resizes to
        `resized`, `crop` in the photograph's own proportions until it covers that. Without it,
        `squash` keeps all, and `crop` cuts the largest part, with fractions of pixels.
    crop_offset
        Where the centre begins if half a pixel is left over: `round` as in torchvision (to an even
        number), `floor` as in Hugging Face's processors.
    """

    modality = "image"
    input = "image"
    dtype = np.uint8

    height: int
    width: int
    resize: str = "squash"
    interpolation: str = "bilinear"
    crop_fraction: float | None = None
    crop_offset: str = "round"

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
        if self.crop_fraction is not None and not LEAST_FRACTION <= self.crop_fraction <= 1:
            raise InputError(
                f"a crop fraction of {self.crop_fraction} is impossible",
                f"Give {LEAST_FRACTION} to 1, such as 0.875.",
            )

        if self.crop_offset not in OFFSETS:
            raise InputError(
                f"unknown crop offset {self.crop_offset!r}", f"Choose from {', '.join(OFFSETS)}."
            )

    @property
    def resized(self) -> tuple[int, int]:
        """Width and height before the centre is cut out, or what they must cover."""
        part = self.crop_fraction or 1
        return round(self.width / part), round(self.height / part)

    @property
    def format_version(self) -> int:
        """Readers of format 1 would leave out the crop fraction."""
        return 1 if self.crop_fraction is None else 2

    def apply(self, image: Image.Image, fast: bool = False) -> np.ndarray:
        """Bring a grey or RGB image to the input size: uint8 `[height, width, 3]`, RGB.

        Parameters
        ----------
        fast
            Whether values may differ by a level from Pillow's, see `resizing`.
        """
        size, filter_ = (self.width, self.height), INTERPOLATIONS[self.interpolation]
        if self.crop_fraction is not None:
            offset = OFFSETS[self.crop_offset]
            box = cut(image.size, size, self.resized, self.resize == "crop", offset)
            image = resize(image, size, filter_, fast, box)
        elif image.size != size:
            whole = self.resize == "squash"
            image = resize(image, size, filter_, fast, None if whole else centre(image, size))
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
        return Unsized(**asdict(self))

    def to_metadata(self) -> dict[str, str]:
        """As entries of the backbone file's metadata."""
        return {name: str(value) for name, value in self.to_json().items()}

    def to_json(self) -> dict[str, Any]:
        """For programs that use an edge model."""
        value = asdict(self)
        if self.crop_fraction is None:
            del value["crop_fraction"], value["crop_offset"]
        return value

    def __str__(self) -> str:
        rule = f"{self.height}x{self.width} {self.resize} {self.interpolation}"
        width, height = self.resized
        if self.crop_fraction is None:
            return rule
        return f"{rule} of {height}x{width}" + (" floor" if self.crop_offset == "floor" else "")


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
    enough = preprocessing.resized if preprocessing and fast else None
    image = open_image(content, enough)
    pixels = preprocessing.apply(image, fast) if preprocessing else np.asarray(image.convert("RGB"))
    conversion = conversion_to_srgb(image.info.get("icc_profile"), image.mode)
    if conversion is None:
        return pixels
    source = Image.fromarray(pixels).convert(conversion.input_mode)
    return np.asarray(conversion.apply(source))
