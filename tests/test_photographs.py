"""Photographs of a shard come in order, whoever reads and decodes them."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import numpy as np
import pytest

from headstart.data.modalities.image.preprocessing import Preprocessing
from headstart.data.storage.files import digest
from headstart.data.storage.places import folder_at
from headstart.extract.ahead import ahead
from headstart.extract.inputs import Failure, Photograph, photographs

SMALL = Preprocessing(8, 8)


@pytest.mark.parametrize("threads", [0, 1, 5])
def test_results_are_in_the_order_of_the_items(threads: int) -> None:
    def wait(item: int) -> int:
        time.sleep(0.001 * (item % 3))
        return item * item

    assert list(ahead(wait, range(50), threads, 4)) == [item * item for item in range(50)]
    assert list(ahead(wait, [], threads, 4)) == []


def test_no_more_is_taken_than_may_wait() -> None:
    taken = []

    def items():  # type: ignore[no-untyped-def]
        for item in range(100):
            taken.append(item)
            yield item

    before = threading.active_count()
    results = ahead(lambda item: item, items(), 2, 6)
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

    results = ahead(fail, range(10), 2, 4)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(OSError, match="no answer"):
        next(results)


def test_every_row_is_a_photograph_or_a_failure(photos: Path) -> None:
    (photos / "red" / "00.png").write_bytes(b"")
    (photos / "red" / "01.png").write_bytes(b"I am a text")
    (photos / "red" / "02.png").unlink()
    folder = folder_at(photos)
    paths = [f"{name}/{number:02d}.png" for name in ("red", "blue") for number in range(20)]
    found = list(photographs(folder, paths, SMALL))
    assert [each.row for each in found] == list(range(40))
    bad = [(each.stage, each.reason) for each in found if isinstance(each, Failure)]
    assert bad == [("decode", "empty"), ("decode", "not_an_image"), ("read", "missing")]
    assert found[2].stamp is None
    for each in found:
        if isinstance(each, Photograph):
            assert each.content == digest((photos / paths[each.row]).read_bytes())
            assert (each.image.shape, each.image.dtype) == ((8, 8, 3), np.uint8)
            assert each.stamp
