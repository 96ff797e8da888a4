"""The cache of a network's frozen part: its output for every example and view, computed once.

A folder with `activations.json`, which says what was computed of what, and for each shard of
examples `part-NNNNN.npy`, float16 `[examples, views, ...]`, written whole. A run that was stopped
goes on with the parts that are missing. Files are opened as memory maps: an epoch reads what it
needs.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from headstart.classify.finetune.activation_worker import ActivationJob, part_name
from headstart.classify.finetune.examples import TuningExamples
from headstart.data.common.console import first_few, human_bytes
from headstart.data.common.errors import ExtractionError, InputError
from headstart.data.storage.local import LocalFolder
from headstart.data.workers.pool import WorkerPool
from headstart.data.workers.shards import Shard

ABOUT = "activations.json"
SHARD = 64  # examples
BYTES = 2  # of a float16
RESERVE = 1.1  # of the size, that must be free
PATIENCE = 300.0  # seconds


@dataclass(frozen=True)
class Activations:
    """A cache, opened for training.

    Parameters
    ----------
    shape
        Of one view of one example.
    """

    folder: str
    rows: int
    views: int
    shape: tuple[int, ...]

    def open(self) -> list[np.ndarray]:
        """Memory maps of all parts, each float16 `[examples, views, ...]`."""
        parts = range(-(-self.rows // SHARD))
        return [np.load(Path(self.folder, part_name(each)), mmap_mode="r") for each in parts]


def take(parts: list[np.ndarray], rows: np.ndarray, views: np.ndarray) -> np.ndarray:
    """Some examples in one view each, float32 `[rows, ...]`."""
    pairs = zip(rows.tolist(), views.tolist(), strict=True)
    return np.stack([parts[row // SHARD][row % SHARD, view] for row, view in pairs]).astype(
        np.float32
    )


def size_of(examples: int, views: int, shape: tuple[int, ...]) -> int:
    """Bytes on disk."""
    return examples * views * prod(shape) * BYTES


def compute(
    folder: Path,
    job: ActivationJob,
    content: bytes,
    examples: TuningExamples,
    shape: tuple[int, ...],
    workers: int,
) -> Activations:
    """Compute what is missing of a cache; the session with Ray must be open.

    Parameters
    ----------
    folder
        Of all caches; each has a folder of its own in it, by what it was computed of.
    content
        The frozen part as an ONNX file.

    Raises
    ------
    ExtractionError
        If examples cannot be read, or have changed since their features were made.
    """
    import ray

    own = folder / _fingerprint(job, content, examples)
    own.mkdir(parents=True, exist_ok=True)
    found = Activations(str(own), len(examples.paths), job.views, shape)
    missing = _missing(own, examples)
    if missing:
        check_space(own, size_of(_rows(missing), job.views, shape))
        about = {"views": job.views, "augmentation": job.augmentation, "examples": found.rows}
        LocalFolder(str(own)).write(ABOUT, json.dumps(about).encode())
        pool = WorkerPool(job.at(own), ray.put(content), workers, PATIENCE)
        failures = [each for done in pool.run(missing, "frozen blocks") for each in done.value]
        if failures:
            raise ExtractionError(
                f"{len(failures):,} examples cannot be used: {first_few(failures, 3)}",
                "Put the files back as they were, or extract again and train the model again. What "
                "is done is kept.",
            )
    return found


def rows_to_compute(
    folder: Path, job: ActivationJob, content: bytes, examples: TuningExamples
) -> int:
    """How many examples a cache lacks."""
    return _rows(_missing(folder / _fingerprint(job, content, examples), examples))


def check_space(folder: Path, needed: int) -> None:
    """Raise `InputError` if a disk has not enough room."""
    import shutil

    free = shutil.disk_usage(folder).free
    if free < needed * RESERVE:
        raise InputError(
            f"the cache of the frozen blocks takes {human_bytes(needed)}, but {folder} has "
            f"{human_bytes(free)} free",
            "Pass --cache no, train fewer blocks, or choose another disk with -o.",
        )


def _missing(own: Path, examples: TuningExamples) -> list[Shard]:
    return [shard for shard in _shards(examples) if not (own / part_name(shard.number)).exists()]


def _rows(shards: Sequence[Shard]) -> int:
    return sum(shard.examples.num_rows for shard in shards)


def _shards(examples: TuningExamples) -> Iterator[Shard]:
    table = pa.table(
        {"id": examples.ids, "path": examples.paths, "content": list(examples.contents)}
    )
    for number, start in enumerate(range(0, table.num_rows, SHARD)):
        yield Shard(number, table.slice(start, SHARD))


def _fingerprint(job: ActivationJob, content: bytes, examples: TuningExamples) -> str:
    parts: list[Any] = [str(job.spec), str(job.scaling), job.augmentation, job.views]
    parts += [hashlib.sha256(content).hexdigest(), *examples.contents]
    return hashlib.sha256("\n".join(map(str, parts)).encode()).hexdigest()[:16]
