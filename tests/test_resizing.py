"""Resizing: the same values as Pillow's, apart from a level here and there."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps
from skimage import data

from headstart.data.modalities.image import resizing
from headstart.data.modalities.image.resizing import FILTERS, centre, resize

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
def test_few_values_differ_by_a_level(
    mode: str, resampling: Image.Resampling, size: tuple[int, int]
) -> None:
    apart = levels(ASTRONAUT.convert(mode), size, resampling)
    assert apart.max() <= 2
    assert (apart > 0).mean() < 0.03


def test_where_pillow_takes_the_height_first() -> None:
    apart = levels(ASTRONAUT, (511, 500), Image.Resampling.BILINEAR)
    assert apart.max() == 1
    image, size = ASTRONAUT.crop((0, 0, 333, 512)), (224, 224)
    found = resize(image, size, Image.Resampling.BILINEAR, True, centre(image, size))
    apart = np.abs(
        np.asarray(found).astype(int) - ImageOps.fit(image, size, Image.Resampling.BILINEAR)
    )
    assert apart.max() == 1


@given(width=SIDES, height=SIDES, to_width=SIDES, to_height=SIDES, seed=st.integers(0, 9))
def test_any_size_to_any_other(
    width: int, height: int, to_width: int, to_height: int, seed: int
) -> None:
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    image = Image.fromarray(noise)
    apart = levels(image, (to_width, to_height), Image.Resampling.BILINEAR)
    assert apart.max() <= (2 if to_width <= width and to_height <= height else 0)


def test_without_the_package_pillow_resizes(monkeypatch: pytest.MonkeyPatch) -> None:
    assert resizing.FAST  # otherwise these tests check nothing
    assert levels(ASTRONAUT, (100, 100), Image.Resampling.LANCZOS).any()
    monkeypatch.setattr(resizing, "FAST", False)
    assert not levels(ASTRONAUT, (100, 100), Image.Resampling.LANCZOS).any()


def test_the_photograph_stays_as_it_was() -> None:
    image = ASTRONAUT.copy()
    resize(image, (10, 10), Image.Resampling.BILINEAR, fast=True)
    assert np.array_equal(np.asarray(image), np.asarray(ASTRONAUT))


@pytest.mark.parametrize("resampling", FILTERS)
@pytest.mark.parametrize("photograph", [(500, 375), (375, 500), (512, 512), (511, 300)])
@pytest.mark.parametrize("size", [(224, 224), (160, 200), (200, 160)])
def test_a_part_in_the_middle(
    resampling: Image.Resampling, photograph: tuple[int, int], size: tuple[int, int]
) -> None:
    image = ASTRONAUT.crop((0, 0, *photograph))
    expected = np.asarray(ImageOps.fit(image, size, resampling))
    slow, fast = (
        np.asarray(resize(image, size, resampling, fast, centre(image, size)))
        for fast in (False, True)
    )
    assert np.array_equal(slow, expected)
    apart = np.abs(fast.astype(int) - expected)
    assert apart.max() <= 1
    assert (apart > 0).mean() < 0.03


@given(width=SIDES, height=SIDES, to_width=SIDES, to_height=SIDES)
def test_the_middle_lies_within(width: int, height: int, to_width: int, to_height: int) -> None:
    image = Image.new("L", (width, height))
    left, top, right, bottom = centre(image, (to_width, to_height))
    assert 0 <= left < right <= width
    assert 0 <= top < bottom <= height
    assert (right - left) * to_height == pytest.approx((bottom - top) * to_width)
    assert max((right - left) / width, (bottom - top) / height) == pytest.approx(1)
    size, box = (to_width, to_height), (left, top, right, bottom)
    assert resize(image, size, Image.Resampling.BILINEAR, True, box).size == size
