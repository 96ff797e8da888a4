"""The examples of a shard are read in order, by any number of threads, in batches of one shape."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import numpy as np
import pytest

from headstart.data.examples.reading import Reader
from headstart.data.modalities.image.preprocessing import Preprocessing
from headstart.data.storage.files import digest
from headstart.data.storage.places import folder_at
from headstart.data.workers.inputs import Failure, batches
from headstart.data.workers.prefetch import prefetch

SMALL = Preprocessing(8, 8)


@pytest.mark.parametrize("threads", [0, 1, 5])
def test_results_are_in_the_order_of_the_items(threads: int) -> None:
    def wait(item: int) -> int:
        time.sleep(0.001 * (item % 3))
        return item * item

    assert list(prefetch(wait, range(50), threads, 4)) == [item * item for item in range(50)]
    assert list(prefetch(wait, [], threads, 4)) == []


def test_no_more_is_taken_than_may_wait() -> None:
    taken = []

    def items():  # type: ignore[no-untyped-def]
        for item in range(100):
            taken.append(item)
            yield item

    before = threading.active_count()
    results = prefetch(lambda item: item, items(), 2, 6)
    for number in range(20):
        assert next(results) == number
        assert len(taken) <= number + 1 + 6
    results.close()  # type: ignore[attr-defined]
    assert len(taken) < 30
    assert threading.active_count() <= before


def test_an_exception_comes_where_its_result_would() -> None:
    def fail(item: int) -> int:
        if item == 3:
            raise OSError("no answer")
        return item

    results = prefetch(fail, range(10), 2, 4)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(OSError, match="no answer"):
        next(results)


def test_every_row_is_in_a_batch_or_a_failure(photos: Path) -> None:
    (photos / "red" / "00.png").write_bytes(b"")
    (photos / "red" / "01.png").write_bytes(b"I am a text")
    (photos / "red" / "02.png").unlink()
    folder = folder_at(photos)
    paths = [f"{name}/{number:02d}.png" for name in ("red", "blue") for number in range(20)]
    rows, bad, told = [], [], []
    for found in batches(Reader(folder), paths, SMALL, lambda: 16, told.append):
        if isinstance(found, Failure):
            bad.append((found.row, found.stage, found.reason, found.stamp is None))
            continue
        assert (found.inputs.shape[1:], found.inputs.dtype) == ((8, 8, 3), np.uint8)
        for example, image in zip(found.examples, found.inputs, strict=True):
            content = (photos / paths[example.row]).read_bytes()
            assert example.content == digest(content)
            assert np.array_equal(image, SMALL.decode(content))
            assert example.stamp
            rows.append(example.row)
    assert told == list(range(40))
    assert rows == list(range(3, 40))
    assert bad == [
        (0, "decode", "empty", False),
        (1, "decode", "not_an_image", False),
        (2, "read", "missing", True),
    ]


def test_batches_are_as_large_as_is_asked_for_at_that_time(photos: Path) -> None:
    paths = [f"red/{number:02d}.png" for number in range(20)]
    sizes = iter([3, 3, 3, *[8] * 100])
    found = list(batches(Reader(folder_at(photos)), paths, SMALL, lambda: next(sizes)))
    assert [len(each.examples) for each in found] == [3, 8, 8, 1]  # type: ignore[union-attr]
