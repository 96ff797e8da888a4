"""Planning at scale: a manifest of ten million rows, and a store of ten thousand parts.

Each step runs in a process of its own, whose time and peak memory are measured. Exits with 1 if a
limit is broken: planning a new store in 60 s and 2 GB, opening a store in 2 s.

    python -m benchmarks.plan [--rows 10000000] [--parts 10000]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from headstart.data.contracts.fingerprint import Fingerprint
from headstart.data.contracts.records import PartContent, begin, finish, write_part
from headstart.data.contracts.store import ERROR_SCHEMA, FeatureStore, StoreManifest, part_schema
from headstart.data.examples.opening import open_source
from headstart.data.storage.places import folder_at
from headstart.extract.planning.plan import plan

PRINT = Fingerprint("none", "0" * 64, "8x8 squash bilinear", "fp32", 4)
LIMITS = {"plan csv": (60.0, 2.0), "plan parquet": (60.0, 2.0), "open": (2.0, None)}


def examples(rows: int) -> pa.Table:
    """Paths as in real sources, and one of 1,000 labels."""
    numbers = pa.array(np.arange(rows))
    classes = pa.compute.cast(pa.array(np.arange(rows) % 1000), pa.string())
    path = pa.compute.binary_join_element_wise(
        "photographs/class_", classes, "/image_", numbers.cast(pa.string()), ".jpg", ""
    )
    return pa.table({"path": path, "label": classes})


def write_store(folder: Path, source: Path, parts: int) -> None:
    """A finished store of all examples of a manifest, with embeddings of zeros."""
    table = open_source(source).examples
    store, schema = folder_at(folder), part_schema(PRINT.dim, [])
    begin(store, PRINT, str(source))
    size = -(-len(table) // parts)
    records = []
    for number in range(parts):
        rows = table.slice(number * size, size).combine_chunks()
        flat = pa.array(np.zeros(len(rows) * PRINT.dim, np.float32))
        nothing = pa.nulls(len(rows), pa.string())
        columns = {
            "content": pa.array(["0" * 64] * len(rows)),
            "stamp": nothing,
            "embedding": pa.FixedSizeListArray.from_arrays(flat, type=schema.field(7).type),
        }
        part = [columns[name] if name in columns else rows[name] for name in schema.names]
        name = f"part-{number:05d}-{number:012x}"
        part_table = pa.table(part, schema=schema)
        content = PartContent(PRINT, part_table, ERROR_SCHEMA.empty_table())
        records.append(write_part(store, name, content, len(rows)))
    classes = tuple(sorted(set(table["label"].to_pylist())))
    finish(
        store,
        StoreManifest(
            fingerprint=PRINT,
            source=str(source),
            root=str(source.parent),
            classes=classes,
            parts=tuple(records),
            inferences=len(table),
        ),
    )


def step(what: str, folder: Path) -> None:
    """One step, in this process; prints its seconds and the peak memory in GB."""
    started = time.perf_counter()
    if what == "open":
        result = FeatureStore.open(folder / "store").manifest.rows
    else:
        kind = "parquet" if what == "again" else what.split()[1]
        store = folder / ("store" if what == "again" else "new")
        todo = plan(open_source(folder / f"m.{kind}"), folder_at(store), PRINT)
        result = todo.todo.num_rows
    seconds = time.perf_counter() - started
    print(json.dumps({"seconds": seconds, "peak": peak_memory(), "result": result}))


def peak_memory() -> float:
    """Of this process, in GB; `getrusage` would count the process that started it as well."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024 / 1e9


def main() -> None:
    """Make the data, run the steps, print a table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--parts", type=int, default=10_000)
    parser.add_argument("--step", nargs=2, metavar=("WHAT", "FOLDER"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.step:
        step(options.step[0], Path(options.step[1]))
        return
    with tempfile.TemporaryDirectory(prefix="plan-") as name:
        folder = Path(name)
        table = examples(options.rows)
        pa.csv.write_csv(table, folder / "m.csv")
        pq.write_table(table, folder / "m.parquet")
        del table
        print(f"a store of {options.parts:,} parts is being made ...", flush=True)
        write_store(folder / "store", folder / "m.parquet", options.parts)
        broken = []
        print(f"{'step':14}  {'seconds':>7}  {'limit':>5}  {'peak GB':>7}  {'limit':>5}  rows")
        for what in ("plan csv", "plan parquet", "open", "again"):
            command = [sys.executable, "-m", "benchmarks.plan", "--step", what, str(folder)]
            answer = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
            seconds, memory = LIMITS.get(what, (None, None))
            print(
                f"{what:14}  {answer['seconds']:7.2f}  {seconds or '':>5}  {answer['peak']:7.2f}  "
                f"{memory or '':>5}  {answer['result']}",
                flush=True,
            )
            if (seconds and answer["seconds"] > seconds) or (memory and answer["peak"] > memory):
                broken.append(what)
    if broken:
        sys.exit(f"over the limit: {', '.join(broken)}")


if __name__ == "__main__":
    main()
