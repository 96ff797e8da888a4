"""Extraction as a whole: check, plan, drive the workers, record the store."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.compute as pc

from data import console
from data.backbone import Backbone, load_backbone
from data.errors import Checklist, ExtractionError, InputError, StoppedError
from data.files import Folder
from data.sources import Source, open_source
from data.store import (
    MANIFEST,
    FeatureStore,
    PartRecord,
    StoreManifest,
    begin,
    drop_records,
    sole_writer,
)
from extract.plan import Plan, Shard, plan, sweep
from extract.session import ray_session
from extract.worker import Job, Worker

RETRIES = 3  # of a shard whose worker died; its death is told, not repeated for ever


@dataclass(frozen=True)
class ExtractOptions:
    """How an extraction is to run.

    Parameters
    ----------
    address
        Of a Ray cluster; a local one is started where none is given.
    workers
        Number of workers, one CPU each; all free CPUs where none is given.
    batch_size
        Photographs that go through the backbone at once.
    allow_unlabelled
        See `open_source`.
    """

    address: str | None = None
    workers: int | None = None
    batch_size: int = 16
    allow_unlabelled: bool = False

    def __post_init__(self) -> None:
        for name, most in (("workers", 100_000), ("batch_size", 1024)):
            value = getattr(self, name)
            if value is not None and not 1 <= value <= most:
                flag = "--" + name.replace("_", "-")
                raise InputError(f"{flag} {value} is not possible", f"Give 1 to {most:,}.")


@dataclass(frozen=True)
class Summary:
    """What an extraction did, took and wrote.

    Parameters
    ----------
    examples
        In the source.
    before
        Of them, done by earlier runs.
    embedded, failed
        By this run.
    vanished
        In the store, but not in the source any more.
    errors
        All errors in the store by `stage/reason`, those of earlier runs too.
    seconds
        By stage: `plan`, `start Ray`, `embed`, `stop Ray`.
    """

    store: str
    examples: int
    before: int
    embedded: int
    failed: int
    vanished: int
    rows: int
    errors: dict[str, int]
    workers: int
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def bad_share(self) -> float:
        """Share of the examples in the store that failed, 0 to 1."""
        bad = sum(self.errors.values())
        return bad / max(1, bad + self.rows)

    @property
    def rate(self) -> float:
        """Photographs a second, start-up and shut-down left out."""
        return (self.embedded + self.failed) / max(self.seconds.get("embed", 0.0), 1e-9)


def extract(
    source: str | Path,
    backbone: str | Path,
    output: str | Path,
    options: ExtractOptions = ExtractOptions(),
) -> Summary:
    """Embed every photograph of a source that is not in the store yet.

    Running it again goes on where the last run stopped, or does nothing on a finished store.

    Raises
    ------
    InputError
        What is wrong with source, backbone and store: everything at once, before any work.
    ExtractionError
        If workers keep dying; what was done is kept.
    """
    clock = _Clock()
    checks = Checklist()
    with checks.item():
        examples = open_source(source, options.allow_unlabelled)
    with checks.item():
        loaded = load_backbone(backbone)
    with checks.item():
        store = Folder.at(output)
    checks.finish()
    todo = plan(examples, store, loaded.fingerprint)
    clock.stage("plan")
    parts, workers = todo.done, 0
    if todo.todo.num_rows:
        job = Job(loaded.spec, examples.folder, store, options.batch_size)
        try:
            with ray_session(options.address, options.workers) as workers:
                clock.stage("start Ray")
                with sole_writer(store):
                    # Once more, now that nobody else writes: another run may just have ended.
                    todo = plan(examples, store, loaded.fingerprint)
                    begin(store, loaded.fingerprint, examples.path)
                    sweep(store, todo.done)
                    parts = (*todo.done, *_drive(job, loaded.content, todo, workers))
                    _finish(store, examples, loaded, parts)
                clock.stage("embed")
        except KeyboardInterrupt:
            raise StoppedError(
                "stopped; the parts that are done are kept",
                "Run the same command again to go on.",
            ) from None
        clock.stage("stop Ray")
    elif not todo.finished:
        with sole_writer(store):
            _finish(store, examples, loaded, parts)
    return _summary(store, examples, todo, workers, clock.seconds)


class _Clock:
    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.last = time.monotonic()

    def stage(self, name: str) -> None:
        now = time.monotonic()
        self.seconds[name], self.last = now - self.last, now


def _drive(job: Job, content: bytes, todo: Plan, workers: int) -> list[PartRecord]:
    """Hand the shards to actors as they come free, and show how far it is."""
    import ray

    shards = todo.shards(workers)
    backbone = [ray.put(content)]  # once for all; in a list, so that Ray does not unpack it

    class RayWorker:
        worker: Worker | None = None

        def extract(self, shard: Shard, backbone: list[Any]) -> PartRecord:
            # Built with the first shard and not in __init__: an actor that died starts over here.
            self.worker = self.worker or Worker(job, ray.get(backbone[0]))
            return self.worker.extract(shard)

    actor: Any = ray.remote(num_cpus=1, max_restarts=-1, max_task_retries=RETRIES)(RayWorker)
    actors = [actor.remote() for _ in range(min(workers, len(shards)))]
    waiting = iter(shards)
    running: dict[Any, tuple[Any, Shard]] = {}
    records = []

    def hand_out(worker: Any) -> None:
        shard = next(waiting, None)
        if shard is not None:
            running[worker.extract.remote(shard, backbone)] = (worker, shard)

    for worker in actors:
        hand_out(worker)
        hand_out(worker)  # the next shard waits at the worker, so that it is never idle
    with console.progress("embedding", todo.todo.num_rows) as advance:
        while running:
            (ready, *_), _ = ray.wait(list(running))
            worker, shard = running.pop(ready)
            try:
                records.append(ray.get(ready))
            except ray.exceptions.RayError as error:
                raise _shard_failed(shard, error) from error
            advance(shard.examples.num_rows)
            hand_out(worker)
    return records


def _shard_failed(shard: Shard, error: Exception) -> ExtractionError:
    ids = shard.examples["id"]
    reason = str(getattr(error, "cause", None) or error).strip().splitlines()[-1]
    return ExtractionError(
        f"shard {shard.name} ({len(ids)} examples, {ids[0].as_py()} to {ids[-1].as_py()}) "
        f"failed: {reason}",
        "What is done is kept. Run the same command again to go on.",
    )


def _finish(
    store: Folder, source: Source, backbone: Backbone, parts: tuple[PartRecord, ...]
) -> None:
    """Write the manifest; the records that it takes the place of go afterwards."""
    sweep(store, parts)
    ordered = tuple(sorted(parts, key=lambda part: part.name))
    manifest = StoreManifest(
        backbone.fingerprint, source.path, str(source.folder), tuple(source.classes), ordered
    )
    store.write(MANIFEST, manifest.to_bytes())
    drop_records(store)


def _summary(
    store: Folder, source: Source, todo: Plan, workers: int, seconds: dict[str, float]
) -> Summary:
    finished = FeatureStore.open(store.root)
    failures = finished.read_errors()
    kinds = pc.binary_join_element_wise(failures["stage"], failures["reason"], "/")
    counts = {pair["values"]: pair["counts"] for pair in pc.value_counts(kinds).to_pylist()}
    before_rows = sum(part.rows for part in todo.done)
    before_errors = sum(part.errors for part in todo.done)
    return Summary(
        store=str(store),
        examples=len(source),
        before=len(source) - todo.todo.num_rows,
        embedded=finished.manifest.rows - before_rows,
        failed=finished.manifest.errors - before_errors,
        vanished=todo.vanished,
        rows=finished.manifest.rows,
        errors=dict(sorted(counts.items())),
        workers=workers,
        seconds=seconds,
    )
