"""One round of each kind of `make chaos`: whatever is killed, the store ends up whole."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from chaos import KINDS, Chaos

pytestmark = pytest.mark.alone


@pytest.fixture(scope="module")
def chaos(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chaos]:
    chaos = Chaos(tmp_path_factory.mktemp("chaos"))
    yield chaos
    chaos.close()


@pytest.mark.parametrize("seed", range(7, 14), ids=KINDS)
def test_a_store_survives(chaos: Chaos, seed: int) -> None:
    assert chaos.round(seed).kind == KINDS[seed - 7]
