"""Photographs as a modality."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from io import BytesIO

import numpy as np
from PIL import Image

from headstart.data.modalities.image.decoding import EXTENSIONS, looks_like_image, open_image
from headstart.data.modalities.image.preprocessing import Preprocessing
from headstart.data.modalities.image.resizing import resize
from headstart.data.modalities.modality import Modality, Preview

SIDE = 224  # pixels of a preview's longer side, at most
QUALITY = 75  # of a preview as JPEG
CODE = ("classify_photo.py", "classify_photo.mjs", "classify_photo.c")


class Photographs(Modality):
    """Photographs: JPEG, PNG and others that `decoding` lists."""

    name = "image"
    noun, plural = "photograph", "photographs"
    extensions = EXTENSIONS

    def input_spec(self, metadata: Mapping[str, str]) -> Preprocessing:
        """Height, width, resize rule, interpolation, and the crop fraction if there is one."""
        fraction = metadata.get("crop_fraction")
        return Preprocessing(
            int(metadata["height"]),
            int(metadata["width"]),
            metadata["resize"],
            metadata["interpolation"],
            None if fraction is None else float(fraction),
            metadata.get("crop_offset", "round"),
        )

    def size_of(self, content: bytes) -> str:
        """Width and height in pixels, upright; decodes the whole photograph."""
        width, height = open_image(content).size
        return f"{width}x{height}"

    def recognizes(self, content: bytes) -> bool:
        """By the first bytes, also of formats that are not read."""
        return looks_like_image(content)

    def ready_code(self) -> dict[str, bytes]:
        """In Python, Node and C."""
        folder = files("headstart.data.modalities.image.code")
        return {name: (folder / name).read_bytes() for name in CODE}

    def preview(self, content: bytes) -> Preview:
        """A small JPEG in the photograph's own proportions."""
        buffer = BytesIO()
        pixels = _Fitting(SIDE, SIDE).decode(content)
        Image.fromarray(pixels).save(buffer, "JPEG", quality=QUALITY, optimize=True)
        return Preview("image/jpeg", buffer.getvalue())


@dataclass(frozen=True)
class _Fitting(Preprocessing):
    """Keeps the aspect ratio: shrinks large photographs, enlarges tiny ones by whole pixels."""

    def apply(self, image: Image.Image, fast: bool = False) -> np.ndarray:
        longest = max(image.size)
        if longest <= self.width // 2:
            factor = self.width // longest
            image = image.resize(
                (factor * image.width, factor * image.height), Image.Resampling.NEAREST
            )
        elif longest > self.width:
            width, height = (max(1, round(side * self.width / longest)) for side in image.size)
            image = resize(image, (width, height), Image.Resampling.LANCZOS, fast)
        return np.asarray(image.convert("RGB"))
