"""A plan file by file, for up to a billion examples on a thousand nodes, with faked workers.

Real are the planner (on a local Ray, whose two or so workers list the files one after the other),
the pool (with as many workers as asked for, which answer at once), the records and the manifest.
Faked are the files (their listings are made up), the embedding, and the parts (empty files). The
driver is this process: its time and peak memory are measured, and rates are by its CPU time. Exits
with 1 if it needs more than 4 GB.

    python -m benchmarks.scale [--examples 1000000000] [--files 100000] [--nodes 1000] [--own-ids]
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from benchmarks.plan import PRINT, peak_memory
from headstart.data.common.ray_session import ray_session
from headstart.data.contracts.records import RECORDS, begin, begin_part, finish
from headstart.data.contracts.store import FeatureStore, PartRecord, StoreManifest
from headstart.data.examples.source import Source
from headstart.data.modalities.image.preprocessing import Preprocessing
from headstart.data.modalities.known import MODALITIES
from headstart.data.storage.folder import Folder
from headstart.data.storage.places import folder_at
from headstart.data.workers import pool as pools
from headstart.data.workers.pool import WorkerPool
from headstart.data.workers.shards import Shard
from headstart.extract.planning import by_file
from headstart.extract.planning.by_file import PlanByFile, plan_by_file
from headstart.extract.planning.files import Files, Listing

MOST_MEMORY = 4.0  # GB
STAMP = "1000000-1700000000000000000"


@dataclass(frozen=True)
class MadeUp:
    """In place of `Containers`: files that are not there, with as many examples each."""

    folder: Folder
    rows: int
    own_ids: bool
    columns: tuple[pa.Array, pa.Array, pa.Array]

    def open(self, path: object, names: Sequence[str]) -> Source:
        """The listing of one file; ids of the user's have nothing of the file's name in them."""
        (name,) = names
        numbers, labels, nothing = self.columns
        start = f"user-{int(name[6:-4]):06d}-" if self.own_ids else f"{name}/photographs/"
        ids = pc.binary_join_element_wise(start, numbers, "")
        columns = [ids, ids, labels, nothing, nothing]
        table = pa.table(columns, ["id", "path", "label", "split", "group"])
        return Source(str(path), self.folder, table, {}, MODALITIES["image"])


def columns_of(rows: int) -> tuple[pa.Array, pa.Array, pa.Array]:
    """What all files have: numbers as text, labels, and nothing."""
    classes = pa.array([f"class {n}" for n in range(100)])
    labels = classes.take(pa.array(np.arange(rows) % 100))
    return pc.cast(pa.array(np.arange(rows)), pa.string()), labels, pa.nulls(rows, pa.string())


class Clock:
    """Seconds, of which on a CPU, and peak memory of each step in this process."""

    def __init__(self) -> None:
        self.faked = self.faked_cpu = 0.0

    @contextmanager
    def step(self, name: str, per: int = 0) -> Any:
        """Measure and print a step; what the fakes need in this process is subtracted."""
        self.faked = self.faked_cpu = 0.0
        start, cpu = time.perf_counter(), time.process_time()
        yield
        took = time.perf_counter() - start - self.faked
        used = time.process_time() - cpu - self.faked_cpu
        rate = f"{per / used:11,.0f}/s" if per else ""
        print(
            f"{name:43} {took:7.1f} s, {used:6.1f} s of CPU {rate:13} {peak_memory():5.2f} GB",
            flush=True,
        )


class Workers:
    """In place of Ray for the pool: workers that have always done what they were asked for."""

    def __init__(self, store: Folder, clock: Clock) -> None:
        self.store, self.clock = store, clock
        self.values: dict[int, Any] = {}  # in the order of their references
        self.next = 0

    def answer(self, make: Any) -> int:
        """A reference to what a fake worker returns."""
        self.next += 1
        self.values[self.next] = make
        return self.next

    def wait(self, asked: list[int], num_returns: int = 1, timeout: float = 0) -> Any:
        """The first answers: all are there."""
        return list(islice(self.values, num_returns)), []

    def get(self, answer: int) -> Any:
        """Now the fake worker writes its records."""
        start, cpu = time.perf_counter(), time.process_time()
        value = self.values.pop(answer)()
        self.clock.faked += time.perf_counter() - start
        self.clock.faked_cpu += time.process_time() - cpu
        return value

    def actor(self, job: object) -> Any:
        """A fake worker."""
        name = f"worker {self.next}"
        calls = {
            "start": lambda content: self.answer(lambda: name),
            "work": lambda shard, marks: self.answer(lambda: self.record(shard)),
            "position": lambda: self.answer(lambda: (-1, 0)),
        }
        methods = {each: SimpleNamespace(remote=call) for each, call in calls.items()}
        return SimpleNamespace(**methods)

    def record(self, shard: Shard) -> PartRecord:
        """As a worker writes it, and an empty file in place of its part."""
        name = f"part-{shard.number:05d}-{shard.number:012x}"
        begin_part(self.store, name, len(shard))
        record = PartRecord(name, len(shard), 0, "0" * 64, None, len(shard), None, shard.file)
        Path(str(self.store), f"{name}.parquet").touch()
        self.store.write(f"{RECORDS}/{name}.json", json.dumps(asdict(record)).encode())
        return record


def planned(source: Files, store: Folder, on_ray: bool = True) -> PlanByFile:
    """The plan, which there is."""
    found = plan_by_file(source, store, PRINT, on_ray=on_ray)
    if found is None:
        sys.exit("files have to be listed, though a run has just finished")
    return found


def run(examples: int, files: int, nodes: int, own_ids: bool) -> None:
    """All steps of one extraction, and a second one that finds nothing to do."""
    with tempfile.TemporaryDirectory(prefix="scale-", dir="/dev/shm") as place:
        rows = examples // files
        clock, store = Clock(), folder_at(Path(place, "store"))
        made_up: Any = MadeUp(folder_at(place), rows, own_ids, columns_of(rows))
        names = [f"shard-{number:06d}.tar" for number in range(files)]
        listing = Listing(place, made_up, Preprocessing(8, 8))
        source = Files(listing, dict.fromkeys(names, STAMP))
        with clock.step("start"), ray_session(None, None):
            with clock.step("plan, and list files (faked, by Ray here)", files):
                todo = planned(source, store)
            shards = todo.shards(nodes, 16)
            print(f"  {todo.left:,} examples in {len(shards):,} shards", flush=True)
        begin(store, PRINT, place)
        workers = Workers(store, clock)
        job: Any = SimpleNamespace(spec=Preprocessing(8, 8), gpu=0)
        with (
            clock.step(f"hand out to {nodes:,} workers, and take back", len(shards)),
            mock.patch.object(pools, "_actor", workers.actor),
            mock.patch("ray.wait", workers.wait),
            mock.patch("ray.get", workers.get),
            mock.patch("ray.kill"),
        ):
            pool = WorkerPool(job, None, nodes, 300.0)
            parts = tuple(each.value for each in pool.run(shards, "embedding"))
        with clock.step("read the records, as a run that goes on", len(shards)):
            by_file.read_stored(store, place, PRINT, by_file.Update(), False)
        with clock.step("write the manifest"):
            manifest = StoreManifest(PRINT, place, place, todo.source.classes, parts, examples)
            finish(store, manifest)
        size = Path(str(store), "_headstart.json").stat().st_size / 1e6
        print(f"  a manifest of {size:,.0f} MB", flush=True)
        with clock.step("plan again: nothing to do", files):
            again = planned(source, store, on_ray=False)
        with clock.step("open the store"):
            found = FeatureStore.open(str(store)).manifest.rows
        if not again.finished or found != examples:
            sys.exit(f"the store has {found:,} of {examples:,} examples, and {again.left:,} to do")


def main() -> None:
    """Run and compare the memory with the limit."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--examples", type=int, default=1_000_000_000)
    parser.add_argument("--files", type=int, default=100_000)
    parser.add_argument("--nodes", type=int, default=1_000)
    parser.add_argument("--own-ids", action="store_true", help="ids are compared over all files")
    options = parser.parse_args()
    run(options.examples, options.files, options.nodes, options.own_ids)
    if peak_memory() > MOST_MEMORY:
        sys.exit(f"over the limit of {MOST_MEMORY} GB")


if __name__ == "__main__":
    main()
