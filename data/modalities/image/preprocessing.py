"""How a photograph becomes the backbone's input: the one description, kept in the backbone file.

Only the geometry lives here; scaling and normalization are inside the backbone's graph.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from headstart.data.common.errors import InputError
from headstart.data.modalities.image.resizing import centre, resize

RESIZE_RULES = ("squash", "crop")
INTERPOLATIONS = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


@dataclass(frozen=True)
class Preprocessing:
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

    def __str__(self) -> str:
        return f"{self.height}x{self.width} {self.resize} {self.interpolation}"
