"""How a checkpoint's own preprocessing sees a photograph: found by running it, not by its settings.

Settings have defaults in their classes, and mean what the code makes of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image

from headstart.data.common.errors import BackboneError, first_line
from headstart.data.modalities.image.preprocessing import OFFSETS, RESIZE_RULES, Preprocessing
from headstart.export.networks.scaling import Scaling, from_affine

INTERPOLATIONS = {"2": "bilinear", "3": "bicubic", "1": "lanczos"}  # by Pillow's numbers
INTERPOLATIONS |= {name: name for name in INTERPOLATIONS.values()}
LEVELS = 1.0  # mean difference of pixels above which two ways to resize are not the same
MOST = 2  # times the input's size that photographs are resized to before the centre is cut out
STATE_IT = (
    "Say how photographs are to be seen: --scaling RULE --resize RULE --interpolation NAME "
    "--crop-fraction SHARE."
)

Own = Callable[[Image.Image], np.ndarray]


@dataclass(frozen=True)
class Seen:
    """How photographs become a network's input: scaling, resizing, and both by its own code."""

    scaling: Scaling
    rule: Preprocessing
    see: Own
    warnings: tuple[str, ...] = ()


def find_scaling(own: Own, size: tuple[int, int], what: str) -> Scaling:
    """The scaling of a preprocessing that leaves photographs of this size as they are.

    Parameters
    ----------
    own
        From a photograph to the network's input, float `[3, height, width]`.

    Raises
    ------
    BackboneError
        If it is no scale and offset of each channel, in the order RGB or BGR.
    """
    height, width = size
    noise = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)

    def run(pixels: np.ndarray) -> np.ndarray:
        got = _run(own, Image.fromarray(pixels), what)
        if got.shape != (3, height, width):
            raise BackboneError(
                f"the preprocessing of {what} makes {list(got.shape)} of an image of "
                f"{height}x{width}, not one image",
                STATE_IT,
            )
        return got.transpose(1, 2, 0)

    black, white, seen = (run(each) for each in (0 * noise, 0 * noise + 255, noise))
    offset, scale = black[0, 0], (white - black)[0, 0] / 255
    for ordered, reverse in ((noise, False), (noise[..., ::-1], True)):
        if (scale != 0).all() and np.allclose(seen, ordered * scale + offset, rtol=0, atol=1e-3):
            return from_affine(scale, offset, reverse)
    raise BackboneError(
        f"the preprocessing of {what} is more than a scale and an offset of each channel", STATE_IT
    )


def find_resize(own: Own, scaling: Scaling, interpolation: object, what: str) -> Seen:
    """The rule for resizing that comes nearest to a preprocessing, for photographs of some shapes.

    A warning says so where it is not the same.

    Raises
    ------
    BackboneError
        If its interpolation is none of ours.
    """
    name = INTERPOLATIONS.get(str(interpolation))
    if name is None:
        raise BackboneError(
            f"{what} resizes photographs with an interpolation that is not supported "
            f"({interpolation})",
            STATE_IT,
        )
    scale, offset = scaling.affine

    def see(photograph: Image.Image) -> np.ndarray:
        return _run(own, photograph, what)

    def levels(photograph: Image.Image) -> np.ndarray:
        seen = (see(photograph).transpose(1, 2, 0) - offset) / scale
        return seen[..., ::-1] if scaling.reverse else seen

    photographs = [_photograph(720, 480), _photograph(333, 501)]
    wanted = [levels(photograph) for photograph in photographs]
    height, width = wanted[0].shape[:2]

    def rule_of(resized: int, resize: str, offset: str = "round") -> Preprocessing:
        whole = resize == "squash" and resized == height
        fraction = None if whole else height / resized
        return Preprocessing(height, width, resize, name, fraction, offset)

    def difference(rule: Preprocessing, most: int = 3) -> float:
        return max(
            float(np.abs(rule.apply(photograph) - pixels).mean())
            for photograph, pixels in zip(photographs[:most], wanted, strict=False)
        )

    step, rules = max(1, height // 32), [Preprocessing(height, width, "crop", name)]
    for resize in RESIZE_RULES:  # the difference grows with the distance from the right size
        coarse = [rule_of(size, resize) for size in range(height, MOST * height + 1, step)]
        near = min(coarse, key=lambda rule: difference(rule, 1)).resized[1]
        rules += [
            rule_of(size, resize, offset)
            for offset in OFFSETS
            for size in range(max(height, near - step), near + step + 1)
        ]
    rule = min(rules, key=difference)
    if (
        rule.resize == "crop" and rule.crop_fraction
    ):  # the offsets differ where three pixels of four are left over
        tall = rule.resized[1]
        long = next(n for n in range(400, 900) if (int(tall * n / 300) - width) % 4 == 3)
        photographs.append(_photograph(long, 300))
        wanted.append(levels(photographs[-1]))
        rule = min((rule_of(tall, "crop", offset) for offset in OFFSETS), key=difference)
    off = difference(rule)
    warnings: tuple[str, ...] = ()
    if off > LEVELS:
        warnings = (
            f"{what} resizes and cuts photographs in a way that is not supported exactly; nearest "
            f"is {rule}, whose pixels differ by {off:.0f} of 255 levels on average. Compare the "
            "accuracy of heads with --resize squash and --resize crop",
        )
    return Seen(scaling, rule, see, warnings)


def _photograph(width: int, height: int) -> Image.Image:
    """Smooth colours, so that another cut differs much, and another interpolation little."""
    noise = np.random.default_rng(0).integers(0, 256, (8, 12, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)


def _run(own: Own, photograph: Image.Image, what: str) -> np.ndarray:
    try:
        return np.asarray(own(photograph), np.float64)
    except Exception as error:  # preprocessing raises errors of many classes
        raise BackboneError(
            f"the preprocessing of {what} cannot be run: {first_line(error)}", STATE_IT
        ) from error
