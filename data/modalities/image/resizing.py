"""Resizing, by Pillow; shrinking is four times as fast if the package cykooz-resizer is installed.

Pillow resizes the width first, then the height, and rounds to whole numbers in between. The fast
code does the same with the same kernels, whose weights have 16 bits instead of Pillow's 22: at most
3 % of the values of a photograph differ by a level, mostly 0.1 %. If the height shrinks much more
than the width, or for the centre crop of a photograph at least one and a half times as high as
wide, Pillow 13 resizes the height first; then a quarter of the values may differ by a level, and
with bicubic and lanczos by more where they overshoot, between black and white.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec

from PIL import Image

FILTERS = {  # Pillow's, and their names in cykooz-resizer
    Image.Resampling.BILINEAR: "bilinear",
    Image.Resampling.BICUBIC: "catmull_rom",
    Image.Resampling.LANCZOS: "lanczos3",
}
FAST = find_spec("cykooz_resizer") is not None  # not available for Linux on ARM


def centre(image: Image.Image, size: tuple[int, int]) -> tuple[float, float, float, float]:
    """Left, top, right, bottom, in pixels, of the largest centre crop with `size`'s proportions."""
    width = min(image.width, image.height * size[0] / size[1])
    height = min(image.height, image.width * size[1] / size[0])
    left, top = (image.width - width) / 2, (image.height - height) / 2
    return left, top, left + width, top + height


def cut(
    whole: tuple[int, int],
    size: tuple[int, int],
    resized: tuple[int, int],
    cover: bool,
    offset: Callable[[float], int],
) -> tuple[float, float, float, float]:
    """Left, top, right, bottom, in pixels, of what is left of a photograph's centre.

    It is resized to `resized`, or in its own proportions until it covers that, and `size` cut out:
    the whole pixels that torchvision's `Resize` and `CenterCrop` leave. `offset` makes a whole
    number of where the centre begins.
    """
    begins, ends = [], []
    for axis in (0, 1):
        new, other = resized[axis], 1 - axis
        if cover:
            new = max(new, int(resized[other] * whole[axis] / whole[other]))
        first, step = offset((new - size[axis]) / 2), whole[axis] / new
        begins.append(first * step)
        ends.append(min((first + size[axis]) * step, whole[axis]))
    return begins[0], begins[1], ends[0], ends[1]


def resize(
    image: Image.Image,
    size: tuple[int, int],
    resampling: Image.Resampling,
    fast: bool,
    box: tuple[float, float, float, float] | None = None,
) -> Image.Image:
    """A grey (`L`) or `RGB` image, or a part of one, in another width and height.

    Parameters
    ----------
    fast
        Whether values may differ from Pillow's by a level.
    box
        Left, top, right and bottom of the part, in pixels, possibly with fractions.
    """
    left, top, right, bottom = box or (0, 0, *image.size)
    width, height = right - left, bottom - top
    if not (fast and FAST) or width < size[0] or height < size[1]:
        return image.resize(size, resampling, box)
    from cykooz_resizer import CropBox, FilterType, ResizeAlg, ResizeOptions, Resizer

    kernel = ResizeAlg.convolution(FilterType[FILTERS[resampling]])
    resizer = Resizer()
    for to, part in (
        ((size[0], image.height), CropBox(left, 0, width, image.height)),
        (size, CropBox(0, top, size[0], height)),
    ):
        if to != image.size:
            made = Image.new(image.mode, to, None)
            resizer.resize_pil(image, made, ResizeOptions(kernel, False, part))
            image = made
    return image
