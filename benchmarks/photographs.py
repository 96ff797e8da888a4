"""Photographs to measure with: pieces of those that scikit-image ships, as JPEG files."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from headstart.data.common import console

DISTINCT = 400  # pictures; more files are links to these
MEGAPIXELS = 24  # in all of the distinct ones, so that large ones do not take minutes to make
QUALITY = 90


def write_photographs(folder: Path, count: int, size: tuple[int, int]) -> Path:
    """Write a folder of photographs, half of them in each of two classes, if it is not there.

    Parameters
    ----------
    count
        Number of files. Where there are more than distinct pictures, further files are links.
    size
        Width and height in pixels.
    """
    if folder.is_dir() and sum(1 for _ in folder.glob("*/*.jpg")) == count:
        return folder
    from skimage import data as shipped

    scenes = [
        Image.fromarray(scene()) for scene in (shipped.astronaut, shipped.coffee, shipped.cat)
    ]
    random = np.random.default_rng(0)
    distinct = min(count, DISTINCT, max(8, MEGAPIXELS * 10**6 // (size[0] * size[1])))
    for name in "ab":
        (folder / name).mkdir(parents=True, exist_ok=True)
    with console.progress("writing photographs", count) as advance:
        for number in range(count):
            path = folder / "ab"[number % 2] / f"{number:06d}.jpg"
            if number < distinct:
                _picture(scenes[number % len(scenes)], size, random).save(path, quality=QUALITY)
            else:
                path.unlink(missing_ok=True)
                first = number % distinct
                os.link(folder / "ab"[first % 2] / f"{first:06d}.jpg", path)
            advance(1)
    return folder


def _picture(scene: Image.Image, size: tuple[int, int], random: np.random.Generator) -> Image.Image:
    """Another piece of a scene each time, with the grain that a camera leaves."""
    share = random.uniform(0.5, 1)
    wide, high = int(scene.width * share), int(scene.height * share)
    left, top = (
        int(random.integers(0, scene.width - wide + 1)),
        int(random.integers(0, scene.height - high + 1)),
    )
    piece = ImageOps.fit(scene.crop((left, top, left + wide, top + high)), size)
    grain = random.normal(0, 3, (size[1], size[0], 1)).astype(np.float32)
    return Image.fromarray((np.asarray(piece) + grain).clip(0, 255).astype(np.uint8))
