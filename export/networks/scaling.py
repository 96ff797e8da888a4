"""How pixels are scaled before a network, as it was trained."""

from __future__ import annotations

import difflib
from dataclasses import dataclass

import numpy as np

from headstart.data.common.errors import BackboneError

Triple = tuple[float, float, float]


@dataclass(frozen=True)
class Scaling:
    """A channel-wise rule: `(pixel - mean) / std`, pixels being 0..255.

    Parameters
    ----------
    mean, std
        For each channel, in the order of the network's input.
    reverse
        Whether the network takes blue, green, red instead of red, green, blue.
    """

    name: str
    mean: Triple = (0.0, 0.0, 0.0)
    std: Triple = (1.0, 1.0, 1.0)
    reverse: bool = False

    @property
    def affine(self) -> tuple[np.ndarray, np.ndarray]:
        """The rule as `pixel * scale + offset`: two float32 `[3]`."""
        std, mean = np.array(self.std), np.array(self.mean)
        return (1 / std).astype(np.float32), (-mean / std).astype(np.float32)

    def apply(self, images: np.ndarray) -> np.ndarray:
        """Scale uint8 `[batch, height, width, 3]`, RGB, to float32 of the same shape."""
        ordered = images[..., ::-1] if self.reverse else images
        return ((ordered - np.array(self.mean)) / np.array(self.std)).astype(np.float32)


def _unit(name: str, mean: Triple, std: Triple) -> Scaling:
    """A rule for pixels of 0..1, as PyTorch's libraries state it."""
    r, g, b = (255 * value for value in mean)
    x, y, z = (255 * value for value in std)
    return Scaling(name, (r, g, b), (x, y, z))


# `tf`, `torch` and `caffe` are the modes of keras.applications.imagenet_utils.preprocess_input.
RULES = {
    rule.name: rule
    for rule in (
        Scaling("none"),
        Scaling("unit", std=(255.0,) * 3),
        Scaling("tf", (127.5,) * 3, (127.5,) * 3),
        _unit("torch", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        Scaling("caffe", (103.939, 116.779, 123.68), reverse=True),
        # EfficientNet-Lite's, of its TensorFlow release
        Scaling("lite", (127.0,) * 3, (128.0,) * 3),
        # CLIP's (Radford et al., 2021, arXiv:2103.00020)
        _unit("clip", (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
    )
}
IN_WORDS = (
    "none (0..255), unit (0..1), tf (-1..1), torch (ImageNet's mean and deviation), "
    "caffe (blue first, ImageNet's mean subtracted), lite ((x - 127) / 128), clip (CLIP's)"
)


def find_rule(name: str) -> Scaling:
    """The rule of a name; raises `BackboneError` with the existing ones."""
    if name not in RULES:
        near = difflib.get_close_matches(name, RULES, 1, 0.5)
        hint = f"Did you mean {near[0]}? " if near else ""
        raise BackboneError(f"unknown --scaling {name!r}", f"{hint}Choose from {IN_WORDS}.")
    return RULES[name]


def from_unit(mean: Triple, std: Triple) -> Scaling:
    """The rule of a mean and deviation of pixels of 0..1, under its own name if it has one."""
    return _named(_unit("custom", mean, std))


def from_affine(scale: np.ndarray, offset: np.ndarray, reverse: bool) -> Scaling:
    """The rule `pixel * scale + offset`, under its own name if it has one."""
    r, g, b = (float(value) for value in -offset / scale)
    x, y, z = (float(value) for value in 1 / scale)
    return _named(Scaling("custom", (r, g, b), (x, y, z), reverse))


def _named(rule: Scaling) -> Scaling:
    for known in RULES.values():
        same = np.allclose(known.affine, rule.affine, rtol=1e-4, atol=1e-4)
        if known.reverse == rule.reverse and same:
            return known
    return rule
