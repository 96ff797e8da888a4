"""Near-duplicates: planted copies are found, examples that are only alike are not."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from io import BytesIO

import numpy as np
import pytest
from PIL import Image, ImageEnhance
from sklearn.datasets import load_digits

from headstart.classify.diagnosis import near_duplicates as module
from headstart.classify.diagnosis.near_duplicates import near_duplicates, nearest


def pixels(images: list[Image.Image]) -> np.ndarray:
    """An embedding that needs no network: the photograph at 16x16 grey pixels."""
    small = [np.asarray(image.convert("L").resize((16, 16)), np.float32) for image in images]
    return np.stack(small).reshape(len(images), -1)


def recoded(image: Image.Image) -> Image.Image:
    buffer = BytesIO()
    image.save(buffer, "JPEG", quality=50)
    return Image.open(BytesIO(buffer.getvalue()))


@pytest.fixture(scope="module")
def digits() -> list[Image.Image]:
    scans = load_digits().images
    grey = [Image.fromarray((scan * 255 / 16).round().astype(np.uint8)) for scan in scans]
    return [image.resize((64, 64), Image.Resampling.BICUBIC) for image in grey]


CHANGES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "JPEG": recoded,
    "crop": lambda image: image.crop((1, 1, 63, 63)),
    "brightness": lambda image: ImageEnhance.Brightness(image).enhance(1.05),
}


def test_planted_copies_are_found_and_others_are_not(digits: list[Image.Image]) -> None:
    order = np.random.default_rng(0).permutation(len(digits))
    train, test = order[:1200], order[1200:]
    planted = [CHANGES[name](digits[row]) for name in CHANGES for row in train[:30]]
    found = near_duplicates(
        pixels([digits[row] for row in train]),
        pixels([digits[row] for row in test] + planted),
    )
    copies = found.is_duplicate[len(test) :].reshape(len(CHANGES), -1)
    recall = dict(zip(CHANGES, copies.mean(axis=1), strict=True))
    assert recall["JPEG"] == recall["brightness"] == 1
    assert recall["crop"] >= 0.8
    assert found.is_duplicate[: len(test)].mean() <= 0.005
    # The training example that is named is the one that was copied.
    names = found.test >= len(test)
    assert np.array_equal(found.train[names], (found.test[names] - len(test)) % 30)
    assert np.array_equal(np.sort(found.test), np.flatnonzero(found.is_duplicate))
    assert (np.diff(found.similarity) <= 0).all()
    assert found.similarity.min() > 0.9
    assert found.how == (
        "The nearest training example is closer than it would be by chance, given the distances to "
        "the ten nearest in samples of the training examples; of independent examples, about one "
        "in 1,000 is."
    )


@pytest.mark.parametrize("each", [5, 6, 8, 20, 40])
@pytest.mark.parametrize("dim", [16, 64])
def test_bursts_are_found(each: int, dim: int) -> None:
    """Every photograph belongs to a burst, most of which is in training."""
    random = np.random.default_rng(each * dim)
    scenes = np.repeat(random.normal(size=(1500 // each, dim)), each, axis=0)
    frames = (scenes + 0.02 * random.normal(size=scenes.shape)).astype(np.float32)
    order = random.permutation(len(frames))
    train, test = order[300:], order[:300]
    found = near_duplicates(frames[train], frames[test])
    alone = ~np.isin(test // each, train // each)
    assert found.is_duplicate[~alone].mean() >= 0.95
    assert not found.is_duplicate[alone].any()
    named = train[found.train] // each == test[found.test] // each
    assert named.all()


@pytest.mark.parametrize("frames", [30, 100, 300])
def test_frames_of_videos_are_found(frames: int) -> None:
    random = np.random.default_rng(0)
    drift = np.cumsum(0.05 * random.normal(size=(20, frames, 32)), axis=1)
    everything = (random.normal(size=(20, 1, 32)) + drift).reshape(-1, 32).astype(np.float32)
    order = random.permutation(len(everything))
    count = len(order) // 5
    found = near_duplicates(everything[order[count:]], everything[order[:count]])
    assert found.is_duplicate.mean() >= 0.95


def test_bursts_among_other_photographs() -> None:
    random = np.random.default_rng(0)
    scenes = random.normal(size=(60, 32))

    def burst(each: int) -> np.ndarray:
        return np.repeat(scenes, each, axis=0) + 0.03 * random.normal(size=(60 * each, 32))

    train = np.concatenate([random.normal(size=(1000, 32)), burst(10)]).astype(np.float32)
    test = np.concatenate([random.normal(size=(200, 32)), burst(5)]).astype(np.float32)
    found = near_duplicates(train, test).is_duplicate
    assert found[200:].all()
    assert found[:200].mean() <= 0.005


@pytest.mark.parametrize("each", [15, 30, 200])
def test_small_classes_far_apart_are_no_bursts(each: int) -> None:
    random = np.random.default_rng(each)
    labels = np.repeat(np.arange(1200 // each), each)
    examples = 3 * random.normal(size=(1200 // each, 16))[labels]
    examples = (examples + 0.3 * random.normal(size=examples.shape)).astype(np.float32)
    order = random.permutation(len(labels))
    train, test = order[300:], order[:300]
    found = near_duplicates(examples[train], examples[test], labels[train])
    assert found.is_duplicate.mean() <= 0.005


@pytest.mark.parametrize("dim", [2, 8, 64])
def test_independent_examples_are_taken_for_duplicates_once_in_a_thousand(dim: int) -> None:
    random = np.random.default_rng(dim)
    examples = random.normal(size=(8000, dim + 1)).astype(np.float32)
    rate = near_duplicates(examples[:4000], examples[4000:]).is_duplicate.mean()
    assert rate <= 0.003


def test_neither_scale_nor_a_shift_of_the_backbone_counts() -> None:
    random = np.random.default_rng(0)
    train = random.normal(size=(300, 16)).astype(np.float32)
    test = np.concatenate([random.normal(size=(100, 16)), train[:20] * 1.001]).astype(np.float32)
    plain = near_duplicates(train, test)
    assert plain.is_duplicate[100:].all()
    for scale, shift in ((1000, 0), (0.001, 0), (1, 30)):
        moved = near_duplicates(train * np.float32(scale) + shift, test * np.float32(scale) + shift)
        assert np.array_equal(moved.is_duplicate, plain.is_duplicate)


def test_a_dense_class_is_no_heap_of_duplicates() -> None:
    random = np.random.default_rng(0)
    dense = random.normal(scale=0.01, size=(500, 16)) + 5
    wide = random.normal(size=(500, 16))
    train = np.concatenate([dense[:400], wide[:400]]).astype(np.float32)
    test = np.concatenate([dense[400:], wide[400:]]).astype(np.float32)
    assert not near_duplicates(train, test).is_duplicate.any()


@pytest.mark.alone
def test_blocks_change_nothing_and_bound_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)
    train = random.normal(size=(20_000, 64)).astype(np.float32)
    test = random.normal(size=(400, 64)).astype(np.float32)
    monkeypatch.setattr(module, "TEST_BLOCK", 150)
    monkeypatch.setattr(module, "TRAIN_BLOCK", 999)
    tracemalloc.start()
    similarity, rows = nearest(train, test, 10)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 5e6  # all products would be 32 MB
    mean = train.mean(axis=0)
    all_products = module.directions(test, mean) @ module.directions(train, mean).T
    expected = np.argsort(-all_products, axis=1, kind="stable")[:, :10]
    assert np.array_equal(rows, expected)
    assert np.abs(similarity - np.take_along_axis(all_products, expected, 1)).max() < 1e-5


def test_what_has_no_neighbourhood_has_no_duplicates() -> None:
    few = np.eye(20, dtype=np.float32)
    found = near_duplicates(few, few)
    assert (len(found.test), found.is_duplicate.tolist()) == (0, [False] * 20)
    assert found.how == (
        "Near-duplicates are not searched for with fewer than 50 training examples."
    )
    train = np.random.default_rng(0).normal(size=(60, 4)).astype(np.float32)
    assert len(near_duplicates(train, train[:0]).test) == 0
    # Embeddings that are all the same have no directions, and nothing is usual among them.
    same = np.ones((60, 4), np.float32)
    assert not near_duplicates(same, same[:5]).is_duplicate.any()
