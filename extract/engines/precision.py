"""`--precision auto`: chooses a precision by measuring on the examples themselves."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from headstart.data.common import console
from headstart.data.common.arrays import numbers
from headstart.data.common.cosine import cosines
from headstart.data.common.errors import BackboneError, ExtractionError, HeadstartError, InputError
from headstart.data.contracts.backbone import Backbone, BackboneSpec
from headstart.data.examples.reading import Reader
from headstart.data.modalities.modality import DecodeError
from headstart.data.storage.folder import Folder
from headstart.data.workers.inputs import Failure, most_rows
from headstart.data.workers.processes import Processes
from headstart.data.workers.shards import Shard
from headstart.data.workers.tasks import result_of
from headstart.data.workers.worker import Job, Mark, Worker
from headstart.extract.engines.runtimes import (
    ENGINES,
    Engine,
    EngineConfig,
    EngineError,
    engines_here,
    open_engines,
)

AUTO = "auto"
PRECISIONS = ("fp32", "fp16", "bf16", "int8", AUTO)
LEAST_COSINE = 0.99  # mean, centred, to the embeddings in the file's own precision
EXAMPLES = 16  # embedded in each setting
PIECE = 8  # of them that are then timed at once
SECONDS = 0.4  # for all settings together, after the first call of each; at least one piece of each
SPARE = 4  # candidates for each example that is needed: some may be broken
SEED = 0
MEASURING = "measuring engines and precisions"


@dataclass(frozen=True)
class Measured:
    """The speed of a setting on one core, and its difference from the file's own precision.

    Parameters
    ----------
    rate
        Examples per second, without reading and decoding.
    cosine, worst
        Mean and smallest centred cosine of embeddings to those of the first setting.
    """

    config: EngineConfig
    rate: float
    cosine: float
    worst: float

    def __str__(self) -> str:
        return (
            f"{self.config.precision} by {self.config.engine} {self.rate:,.0f}/s a core, "
            f"cosine {self.cosine:.4f}"
        )


def check_precision(asked: str | None, engine: str | None, backbone: Backbone) -> str:
    """The precision that was asked for; by default, the file's own.

    Raises
    ------
    InputError
        If the file, or the engine, cannot run in it.
    """
    own, name = backbone.spec.precision, backbone.spec.name
    precision = own if asked is None or asked == AUTO else asked
    if precision not in (own, "bf16" if own == "fp32" else own):
        fix = f"Leave --precision out, or name a backbone file in {precision}."
        if own == "fp32":
            calibrate = " --calibrate SOURCE" * (precision == "int8")
            fix = (
                f"Export one that does: python -m export backbone {name} --precision {precision}"
                f"{calibrate} -o {name}-{precision}.onnx"
            )
        raise BackboneError(
            f"{backbone.path} is a backbone in {own}, which does not run in {precision}", fix
        )
    if engine and precision not in ENGINES[engine]:
        able = ", ".join(each for each, known in ENGINES.items() if precision in known)
        raise InputError(f"--engine {engine} does not run in {precision}", f"These do: {able}.")
    return precision


def measurable(config: EngineConfig) -> bool:
    """Whether there is a choice: a file in fp32, on CPUs."""
    return config.precision == "fp32" and not config.on_gpu


def candidates(config: EngineConfig) -> list[EngineConfig]:
    """The settings for a file in fp32: first ONNX Runtime's, with which others are compared.

    If an engine is given, only its settings.
    """
    found = [
        EngineConfig(precision, engine, config.batch)
        for precision in ("fp32", "bf16")
        for engine in engines_here(precision)
    ]
    return [each for each in found if config.engine in (None, each.engine)]


def measure(
    content: bytes, spec: BackboneSpec, config: EngineConfig, folder: Folder, paths: Sequence[str]
) -> list[Measured]:
    """Embed some examples in each setting that runs here, in turns.

    Parameters
    ----------
    content, spec
        Of the backbone file.
    config
        Its batch, and its engine if one is given.
    folder, paths
        The examples; only as many as needed are read.

    Raises
    ------
    InputError
        If none of them can be read.
    """
    images, size = _some(folder, paths, spec), config.batch
    if spec.preprocessing.ragged:
        size = most_rows(size, images.shape[1])
    opened = []
    for each in candidates(config):
        try:
            opened.append((each, open_engines(content, spec, each)[0]))
        except EngineError:  # another engine is used, as in extraction itself
            if config.engine:
                raise
    first = [_embed(engine, images, size) for _, engine in opened]  # also warms them up
    took: list[list[float]] = [[] for _ in opened]
    batch = np.resize(images, (min(PIECE, size), *images.shape[1:]))  # repeats them
    end = time.monotonic() + SECONDS
    while time.monotonic() < end or not took[0]:
        for (_, engine), times in zip(opened, took, strict=True):
            start = time.perf_counter()
            engine.embed(batch)
            times.append(time.perf_counter() - start)
    found = []
    for (each, _), embeddings, times in zip(opened, first, took, strict=True):
        near = centred_cosines(embeddings, first[0])
        rate = len(batch) / float(np.median(times))
        found.append(Measured(each, rate, float(near.mean()), float(near.min())))
    return found


@dataclass(frozen=True, kw_only=True)
class MeasuringJob(Job):
    """`measure` as a job of one shard; its result is what that returns or raises."""

    backbone: BackboneSpec
    config: EngineConfig

    def worker(self, content: bytes) -> _Measuring:
        """What measures."""
        return _Measuring(self, content)

    def failed(self, shard: Shard, failure: Failure) -> HeadstartError:
        """The shard is never divided into single examples."""
        return self.stopped(failure.message)

    def stopped(self, reason: str) -> ExtractionError:
        """The error of a measurement that cannot be made."""
        return ExtractionError(f"{MEASURING} failed: {reason}", "Name a precision instead.")


class _Measuring(Worker):
    job: MeasuringJob

    def __init__(self, job: MeasuringJob, content: bytes) -> None:
        super().__init__(job)
        self.content = content

    def work(self, shard: Shard, mark: Mark | None = None) -> list[Measured] | HeadstartError:
        job, paths = self.job, shard.examples["path"].to_pylist()
        try:
            return measure(self.content, job.backbone, job.config, job.root, paths)
        except HeadstartError as error:
            return error


def measured_here(
    processes: Processes,
    backbone: Backbone,
    config: EngineConfig,
    folder: Folder,
    paths: pa.ChunkedArray,
) -> list[Measured]:
    """`measure` on some of the examples, in a process of this machine.

    Raises
    ------
    InputError
        As in `measure` and `open_engines`.
    ExtractionError
        If the process is lost.
    """
    some = _sample(paths)
    spec = backbone.spec
    job = MeasuringJob(root=folder, spec=spec.preprocessing, backbone=spec, config=config)
    shard = Shard(0, pa.table([some, some], ["id", "path"]))
    found = [each.value for each in processes.run(job, backbone.content, [shard], MEASURING)]
    if not found:
        raise job.stopped("its process was lost")
    if isinstance(found[0], HeadstartError):
        raise found[0]
    return found[0]


def measured_on_ray(
    content: Any,
    backbone: Backbone,
    config: EngineConfig,
    folder: Folder,
    paths: pa.ChunkedArray,
) -> list[Measured]:
    """The same on a machine of the cluster.

    Parameters
    ----------
    content
        The bytes of the backbone file, in Ray's object store.
    """
    import ray

    with console.status(f"{MEASURING} on some of the examples"):
        task: Any = ray.remote(num_cpus=1, max_retries=0)(measure)
        answer = task.remote(content, backbone.spec, config, folder, _sample(paths).to_pylist())
        return result_of(answer, MEASURING, ExtractionError)


def _sample(paths: pa.ChunkedArray) -> pa.ChunkedArray:
    rows = np.random.default_rng(SEED).permutation(len(paths))[: SPARE * EXAMPLES]
    return paths.take(numbers(rows))


def choose(measured: Sequence[Measured]) -> Measured:
    """The fastest whose embeddings are close enough; the first one always counts."""
    near = [each for each in measured if each.cosine >= LEAST_COSINE]
    return max(near or measured[:1], key=lambda each: each.rate)


def explain(measured: Sequence[Measured], chosen: Measured) -> list[str]:
    """What was measured and chosen, one line each."""
    lines = [
        f"precision {chosen.config.precision}: the fastest of {len(measured)} settings with a mean "
        f"centred cosine of at least {LEAST_COSINE} to fp32"
    ]
    if len(measured) == 1:
        lines = [f"precision {chosen.config.precision}: it is the only one that runs here"]
    return lines + [f"  {each}{', chosen' * (each is chosen)}" for each in measured]


def centred_cosines(embeddings: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """The cosine of each embedding with its reference, each without the mean of its set.

    All embeddings of a network point more or less the same way, since they are not negative after a
    ReLU: between themselves, plain cosines are near 1 whatever becomes of the small differences
    that a head separates classes by. One example alone has no differences; its cosine is 0.

    Parameters
    ----------
    embeddings, reference
        Of the same examples, `[n, dim]`.

    Returns
    -------
    np.ndarray
        float64 `[n]`.
    """
    if len(reference) < 2:
        return np.zeros(len(reference))
    a, b = (each.astype(np.float64) for each in (embeddings, reference))
    return cosines(a - a.mean(axis=0), b - b.mean(axis=0))


def _embed(engine: Engine, images: np.ndarray, batch: int) -> np.ndarray:
    starts = range(0, len(images), batch)
    return np.concatenate([engine.embed(images[start : start + batch]) for start in starts])


def _some(folder: Folder, paths: Sequence[str], spec: BackboneSpec) -> np.ndarray:
    reader, images = Reader(folder), []
    for path in paths:
        try:
            images.append(spec.preprocessing.at(path).decode(reader.read(path)))
        except (OSError, DecodeError):
            continue  # extraction itself will report it
        if len(images) == EXAMPLES:
            break
    if not images:
        raise InputError(
            f"none of {len(paths):,} examples can be read, so --precision auto has nothing "
            "to measure with",
            "Name a precision, or see what is wrong with them: python -m data inspect SOURCE",
        )
    return spec.preprocessing.stack(images)
