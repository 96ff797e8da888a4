"""Photographs in another size: Pillow's numbers, but for a level here and there."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from skimage import data

from data import resizing
from data.resizing import FILTERS, resize

ASTRONAUT = Image.fromarray(data.astronaut())  # 512 x 512
SIDES = st.integers(1, 300)


def levels(image: Image.Image, size: tuple[int, int], resampling: Image.Resampling) -> np.ndarray:
    """How far each number is from Pillow's."""
    found, expected = resize(image, size, resampling, fast=True), image.resize(size, resampling)
    assert (found.mode, found.size) == (expected.mode, expected.size)
    return np.abs(np.asarray(found).astype(int) - np.asarray(expected))


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("resampling", FILTERS)
@pytest.mark.parametrize("size", [(224, 224), (160, 224), (64, 48), (500, 511), (512, 100)])
def test_hardly_a_number_is_a_level_off(
    mode: str, resampling: Image.Resampling, size: tuple[int, int]
) -> None:
    apart = levels(ASTRONAUT.convert(mode), size, resampling)
    assert apart.max() <= 2
    assert (apart > 0).mean() < 0.03


def test_where_pillow_takes_the_height_first() -> None:
    apart = levels(ASTRONAUT, (511, 500), Image.Resampling.BILINEAR)
    assert apart.max() == 1


@given(width=SIDES, height=SIDES, to_width=SIDES, to_height=SIDES, seed=st.integers(0, 9))
def test_any_size_to_any_other(
    width: int, height: int, to_width: int, to_height: int, seed: int
) -> None:
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    image = Image.fromarray(noise)
    apart = levels(image, (to_width, to_height), Image.Resampling.BILINEAR)
    assert apart.max() <= (2 if to_width <= width and to_height <= height else 0)


def test_without_the_package_it_is_pillow(monkeypatch: pytest.MonkeyPatch) -> None:
    assert resizing.FAST  # or nothing of this was tested
    assert levels(ASTRONAUT, (100, 100), Image.Resampling.LANCZOS).any()
    monkeypatch.setattr(resizing, "FAST", False)
    assert not levels(ASTRONAUT, (100, 100), Image.Resampling.LANCZOS).any()


def test_the_photograph_stays_as_it_was() -> None:
    image = ASTRONAUT.copy()
    resize(image, (10, 10), Image.Resampling.BILINEAR, fast=True)
    assert np.array_equal(np.asarray(image), np.asarray(ASTRONAUT))
