"""Workers that are lost by certain files; processes without Ray import them by name."""

from __future__ import annotations

import ctypes
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import headstart.data.modalities.image.preprocessing as module
from headstart.classify.prediction.edge_worker import EdgeJob, EdgeSession, EdgeWorker
from headstart.data.common.errors import StorageError
from headstart.extract.worker import EmbeddingJob, EmbeddingWorker

STALLS = "FRAGILE_STALLS"  # not set in the workers of the tests' Ray


@contextmanager
def fragile_decoding() -> Iterator[None]:
    """Crash on files with the bytes `poison`, stall at `endless` where `STALLS` is set, and let the
    storage fail at `away`."""
    decode = module.decode

    def fragile(content: bytes, *rest: Any) -> Any:
        if content == b"poison":
            ctypes.string_at(0)
        if content == b"endless":
            if STALLS in os.environ:
                time.sleep(1000)
            return decode(b"broken", *rest)
        if content == b"away":
            raise StorageError("the storage is away", "Wait for it.")
        return decode(content, *rest)

    module.decode = fragile
    try:
        yield
    finally:
        module.decode = decode


class FragileWorker(EmbeddingWorker):
    """Embeds, if no file is in the way."""

    def work(self, *task: Any) -> Any:
        with fragile_decoding():
            return super().work(*task)


class FragileEdgeWorker(EdgeWorker):
    """Classifies, if no file is in the way."""

    def work(self, *task: Any) -> Any:
        with fragile_decoding():
            return super().work(*task)


@dataclass(frozen=True, kw_only=True)
class FragileJob(EmbeddingJob):
    """An extraction with such workers."""

    def worker(self, content: bytes) -> FragileWorker:
        """A fragile one."""
        return FragileWorker(self, content)


@dataclass(frozen=True, kw_only=True)
class FragileEdgeJob(EdgeJob):
    """A prediction with such workers."""

    def worker(self, content: bytes) -> FragileEdgeWorker:
        """A fragile one."""
        return FragileEdgeWorker(self, EdgeSession(self.path, content, self.spec))
