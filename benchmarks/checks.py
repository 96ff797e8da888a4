"""The cost of safety: extraction with and without hashes, records, atomic writes and a watchdog.

The peer does the same work on the same Ray actors and engine, and nothing for safety: no hash, no
stamp, no record, no flush to disk, no watchdog, no retry. Both take turns; the medians are
compared. Exits with 1 if safety costs more than 3 %.

    python -m benchmarks.checks --backbone b.onnx [--photographs 1500] [--rounds 5]
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from headstart.data.common.ray_session import ray_session
from headstart.data.contracts.backbone import Backbone, load_backbone
from headstart.data.contracts.records import begin
from headstart.data.examples.opening import Source, open_source
from headstart.data.storage.places import folder_at
from headstart.data.workers.pool import WorkerPool
from headstart.extract.engines.runtimes import EngineConfig, OnnxRuntimeEngine
from headstart.extract.planning.plan import plan
from headstart.extract.worker import EmbeddingJob

BATCH, LIMIT = 16, 0.03


def paint(folder: Path, photographs: int) -> None:
    """JPEGs of 500x375 with some structure, 40 kB each."""
    random = np.random.default_rng(0)
    for number in range(photographs):
        coarse = random.integers(0, 255, (47, 63, 3)).astype(np.uint8)
        photograph = Image.fromarray(coarse).resize((500, 375), Image.Resampling.BICUBIC)
        path = folder / "ab"[number % 2] / f"{number:05d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        photograph.save(path, quality=90)


def with_checks(source: Source, backbone: Backbone, out: Path, workers: int) -> float:
    """headstart's own pool; seconds."""
    import ray

    store = folder_at(out)
    todo = plan(source, store, backbone.fingerprint)
    job = EmbeddingJob(
        root=source.folder,
        spec=backbone.spec.preprocessing,
        backbone=backbone.spec,
        fingerprint=backbone.fingerprint,
        store=store,
        config=EngineConfig("fp32", "onnxruntime", BATCH),
    )
    content = ray.put(backbone.content)
    started = time.perf_counter()
    begin(store, backbone.fingerprint, source.path)
    pool = WorkerPool(job, content, workers, 300)
    assert len(list(pool.run(todo.shards(workers, BATCH), "embedding")))  # noqa: S101
    return time.perf_counter() - started


def without(source: Source, backbone: Backbone, out: Path, workers: int) -> float:
    """The same shards on plain actors that read, decode, embed and write; seconds."""
    import ray

    rule, dim, root = backbone.spec.preprocessing, backbone.spec.dim, source.folder.root

    @ray.remote(num_cpus=1)
    class Plain:
        def __init__(self, content: list[Any]) -> None:
            self.engine = OnnxRuntimeEngine(ray.get(content[0]), backbone.spec)

        def extract(self, number: int, paths: list[str]) -> None:
            images = np.empty((BATCH, *rule.shape), rule.dtype)
            embeddings = []
            for start in range(0, len(paths), BATCH):
                batch = paths[start : start + BATCH]
                for row, path in enumerate(batch):
                    images[row] = rule.decode(Path(root, path).read_bytes())
                embeddings.append(self.engine.embed(images[: len(batch)]))
            flat = pa.array(np.concatenate(embeddings).ravel())
            rows = pa.FixedSizeListArray.from_arrays(flat, dim)
            table = pa.table({"id": paths, "embedding": rows})
            pq.write_table(table, out / f"part-{number}.parquet", compression="none")

    out.mkdir()
    shards = plan(source, folder_at(out / "none"), backbone.fingerprint).shards(workers, BATCH)
    content = ray.put(backbone.content)
    started = time.perf_counter()
    actors = [Plain.remote([content]) for _ in range(workers)]  # type: ignore[attr-defined]
    pool = ray.util.ActorPool(actors)
    work = [(shard.number, shard.examples["path"].to_pylist()) for shard in shards]
    list(pool.map_unordered(lambda actor, task: actor.extract.remote(*task), work))
    seconds = time.perf_counter() - started
    for actor in actors:
        ray.kill(actor)
    return seconds


def main() -> None:
    """Take turns, print the medians and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--backbone", required=True)
    parser.add_argument("--photographs", type=int, default=1500)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    backbone = load_backbone(options.backbone)
    times: dict[str, list[float]] = {"with checks": [], "without": []}
    with tempfile.TemporaryDirectory(prefix="checks-") as name, ray_session(None, None) as workers:
        folder = Path(name)
        paint(folder / "photographs", options.photographs)
        source = open_source(folder / "photographs")
        with_checks(source, backbone, folder / "warm-up", workers)
        for number in range(options.rounds):
            runs = [("with checks", with_checks), ("without", without)]
            for what, run in runs[:: 1 if number % 2 else -1]:
                seconds = run(source, backbone, folder / f"{what}{number}", workers)
                times[what].append(seconds)
                time.sleep(2)  # for Ray to count the CPUs as free
    for what, took in times.items():
        rates = sorted(options.photographs / seconds for seconds in took)
        print(
            f"{what:12} {statistics.median(rates):7.1f} photographs/s "
            f"({rates[0]:.1f} to {rates[-1]:.1f}), {workers} workers"
        )
    medians = {what: statistics.median(took) for what, took in times.items()}
    cost = medians["with checks"] / medians["without"] - 1
    print(f"safety costs {cost:+.1%} (limit {LIMIT:.0%})")
    if cost > LIMIT:
        sys.exit(1)


if __name__ == "__main__":
    main()
