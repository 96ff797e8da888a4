"""Changes of pictures that keep their label, drawn anew for every example and epoch.

`none`; `mirror`; `flips`: also upside down, and both; `turns`: all eight ways to lay a square
picture; `photo`: mirrored, and a little rotated, enlarged, moved, and changed in contrast,
brightness and colour. The first four have views that can be computed once and kept.
"""

from __future__ import annotations

from typing import Any

import numpy as np

VIEWS = {"none": 1, "mirror": 2, "flips": 4, "turns": 8, "photo": 2}
CAN_BE_CACHED = ("none", "mirror", "flips", "turns")
# Of `photo` at strength 1; uniform in plus and minus these.
DEGREES, ZOOM, SHIFT, LIGHT, COLOUR = 10.0, 0.1, 0.08, 0.2, 0.2


def view(pictures: np.ndarray, number: int, augmentation: str) -> np.ndarray:
    """One of the views of pictures `[batch, height, width, channels]`; number 0 is as they are.

    Turns by 90 degrees need square pictures.
    """
    if augmentation == "turns":
        turned = np.rot90(pictures, number // 2, (1, 2))
        return turned[:, :, ::-1] if number % 2 else turned
    mirrored = pictures[:, :, ::-1] if number % 2 else pictures
    return mirrored[:, ::-1] if number // 2 else mirrored


def changed(picture: Any, random: np.random.Generator, strength: float) -> Any:
    """A picture, uint8 tensor `[3, height, width]`, changed as `photo` says, mirroring excepted."""
    from torchvision.transforms.v2 import functional

    draw = random.uniform(-strength, strength, 8)
    height, width = picture.shape[1:]
    moved = functional.affine(
        picture,
        angle=DEGREES * draw[0],
        translate=[round(SHIFT * draw[1] * width), round(SHIFT * draw[2] * height)],
        scale=float(np.exp(ZOOM * draw[3])),
        shear=[0.0, 0.0],
        interpolation=functional.InterpolationMode.BILINEAR,
        fill=picture.float().mean((1, 2)).tolist(),
    )
    moved = functional.adjust_contrast(moved, max(0.0, 1 + LIGHT * draw[4]))
    moved = functional.adjust_brightness(moved, max(0.0, 1 + LIGHT * draw[5]))
    return functional.adjust_saturation(moved, max(0.0, 1 + COLOUR * draw[6]))
