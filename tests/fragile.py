"""Workers that are lost by certain files; processes without Ray import them by name."""

from __future__ import annotations

import ctypes
import os
import time
from dataclasses import dataclass
from typing import Any

import headstart.data.modalities.image.preprocessing as module
from headstart.extract.worker import EmbeddingJob, EmbeddingWorker

STALLS = "FRAGILE_STALLS"  # not set in the workers of the tests' Ray


class FragileWorker(EmbeddingWorker):
    """Crashes on files with the bytes `poison`, stalls at `endless` where `STALLS` is set."""

    def work(self, *task: Any) -> Any:
        decode = module.decode

        def fragile(content: bytes, *rest: Any) -> Any:
            if content == b"poison":
                ctypes.string_at(0)
            if content == b"endless":
                if STALLS in os.environ:
                    time.sleep(1000)
                return decode(b"broken", *rest)
            return decode(content, *rest)

        module.decode = fragile
        try:
            return super().work(*task)
        finally:
            module.decode = decode


@dataclass(frozen=True, kw_only=True)
class FragileJob(EmbeddingJob):
    """An extraction with such workers."""

    def worker(self, content: bytes) -> FragileWorker:
        """A fragile one."""
        return FragileWorker(self, content)
