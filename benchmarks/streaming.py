"""Training on more embeddings than fit in memory: streamed, on a sample, and in a memory map.

Each training (report left out) runs in a process of its own. Its peak is of anonymous memory: the
pages of a mapped file are the system's to take back. The ways:

- streamed: `classify train` with all rows, which stay in the store;
- sample: `classify train` with a fifth of the rows, in memory;
- mapped: scikit-learn on all rows in a memory map, which is written first;
- memory: scikit-learn with all rows in memory.

Exits with 1 if streaming takes 2.5 GB or more, over 10 % more for the most rows than for the
fewest, or if its accuracy on 20,000 fresh rows is more than 0.2 points from scikit-learn's.

    python -m benchmarks.streaming [--rows 1000000] [--dim 1280] [--classes 10] [--folder DIR]

The largest run in memory needs 7 GB at a million rows; stores and map take 11 GB of disk.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread

import numpy as np
import pyarrow as pa
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from benchmarks.normal_store import PART, Size, best_accuracy, write_store
from headstart.classify.features.batches import Batches
from headstart.classify.heads.estimators import HeadOptions
from headstart.classify.heads.fitting import FitOptions
from headstart.classify.splits.splitting import SplitOptions
from headstart.classify.training import RunOptions, train
from headstart.data.contracts.records import finish
from headstart.data.contracts.store import FeatureStore, StoreManifest
from headstart.data.storage.places import folder_at

SHARES = (0.2, 0.5, 1.0)  # of the rows
FRESH = 20_000  # rows
MOST_GB, MOST_GROWTH, MOST_DIFFERENCE = 2.5, 1.1, 0.002
HEADS = {
    "logistic": HeadOptions("logistic"),
    "ridge": HeadOptions("ridge"),
    "lda": HeadOptions("lda", {"shrinkage": 0.1}),
}


def first_parts(whole: Path, path: Path, rows: int) -> None:
    """A store of the first rows of another one; its parts are the same files."""
    manifest = FeatureStore.open(whole).manifest
    parts = manifest.parts[: -(-rows // PART)]
    path.mkdir()
    for part in parts:
        os.link(whole / f"{part.name}.parquet", path / f"{part.name}.parquet")
    finish(
        folder_at(path),
        StoreManifest(
            fingerprint=manifest.fingerprint,
            source="none",
            root="none",
            classes=manifest.classes,
            parts=parts,
        ),
    )


def by_hand(path: Path, mapped: bool) -> float:
    """Accuracy of scikit-learn's own answer, without a copy of the embeddings."""
    store = FeatureStore.open(path)
    names = store.read(["label"])["label"]
    labels = pa.compute.index_in(names, value_set=pa.array(store.manifest.classes))
    labels = labels.to_numpy().astype(np.int64)
    shape = (len(labels), store.fingerprint.dim)
    embeddings = np.empty(shape if not mapped else (0, 0), np.float32)
    if mapped:
        embeddings = np.memmap(path.parent / "map", np.float32, "w+", shape=shape)
    for numbers, batch in Batches(store, np.ones(len(labels), bool)):
        embeddings[numbers] = batch
    scaler = StandardScaler(copy=False)
    # The test rows come first, so that both parts are views.
    for start in range(FRESH, len(labels), PART):
        scaler.partial_fit(embeddings[start : start + PART])
    for start in range(0, len(labels), PART):
        embeddings[start : start + PART] = scaler.transform(embeddings[start : start + PART])
    given = HEADS["logistic"].all_parameters
    logistic = LogisticRegression(C=given["c"], max_iter=given["max_iter"])
    logistic.fit(embeddings[FRESH:], labels[FRESH:])
    return float(logistic.score(embeddings[:FRESH], labels[:FRESH]))


@contextmanager
def peak_memory() -> Iterator[list[float]]:
    """The most anonymous memory of this process meanwhile, GB, looked at every 20 ms."""
    peak, done = [0.0], Event()

    def watch() -> None:
        while not done.wait(0.02):
            status = Path("/proc/self/status").read_text()
            peak[0] = max(peak[0], int(status.split("RssAnon:")[1].split()[0]) / 1e6)

    thread = Thread(target=watch)
    thread.start()
    yield peak
    done.set()
    thread.join()


def step(how: str, head: str, path: Path) -> None:
    """Train once, in this process; prints peak memory in GB, seconds, of the CPU, and accuracy."""
    started = time.perf_counter()
    with peak_memory() as peak:
        if how in ("memory", "mapped"):
            accuracy = by_hand(path, how == "mapped")
        else:
            memory = 1 if how == "streamed" else None
            run = RunOptions(overwrite=True, report=False, memory=memory)
            output = path.parent / "model"
            options = FitOptions(HEADS[head])
            accuracy = train(path, output, options, SplitOptions(), run).scores.accuracy
    seconds, cpu = time.perf_counter() - started, time.process_time()
    print(json.dumps({"peak": peak[0], "seconds": seconds, "cpu": cpu, "accuracy": accuracy}))


def measure(how: str, head: str, path: Path) -> dict[str, float]:
    """Run a step in a child process, and print its row of the table."""
    command = [sys.executable, "-m", "benchmarks.streaming", "--step", how, head, str(path)]
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout
    answer = json.loads(output.splitlines()[-1])
    manifest = FeatureStore.open(path).manifest
    print(
        f"{head:8}  {how:8}  {manifest.rows - FRESH:>9,}  {answer['peak']:7.2f}  "
        f"{answer['seconds']:7.1f}  {answer['cpu']:7.1f}  {answer['accuracy']:8.4f}  "
        f"{best_accuracy(len(manifest.classes)):6.4f}",
        flush=True,
    )
    return answer


def run(folder: Path, rows: int, dim: int, classes: int) -> list[str]:
    """Make the stores, train, print the table; returns what broke a limit."""
    print(f"a store of {rows:,} x {dim:,} is being made ...", flush=True)
    write_store(folder / "1.0", Size(rows + FRESH, FRESH, dim, classes))
    columns = ("head", "how", "rows", "peak GB", "seconds", "CPU", "accuracy", "best")
    print("{:8}  {:8}  {:>9}  {:>7}  {:>7}  {:>7}  {:>8}  {:>6}".format(*columns), flush=True)
    broken, peaks = [], []
    for share in SHARES:
        path, count = folder / str(share), int(rows * share)
        if share < 1:
            first_parts(folder / "1.0", path, count + FRESH)
        streamed = measure("streamed", "logistic", path)
        reference = measure("memory", "logistic", path)
        peaks.append(streamed["peak"])
        if abs(streamed["accuracy"] - reference["accuracy"]) > MOST_DIFFERENCE:
            broken.append(f"accuracy at {count:,} rows")
    measure("sample", "logistic", folder / str(SHARES[0]))
    measure("mapped", "logistic", folder / str(SHARES[-1]))
    for head in ("ridge", "lda"):
        if measure("streamed", head, folder / str(SHARES[0]))["peak"] >= MOST_GB:
            broken.append(f"peak memory of {head}")
    if max(peaks) >= MOST_GB:
        broken.append("peak memory")
    if peaks[-1] > MOST_GROWTH * peaks[0]:
        broken.append("peak memory is not flat")
    return broken


def main() -> None:
    """Parse, run, and say what broke."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--dim", type=int, default=1280)
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--folder", type=Path, help="where to make the stores; a temporary one")
    parser.add_argument("--step", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.step:
        how, head, path = options.step
        step(how, head, Path(path))
        return
    with tempfile.TemporaryDirectory(prefix="streaming-", dir=options.folder) as name:
        broken = run(Path(name), options.rows, options.dim, options.classes)
    if broken:
        sys.exit(f"over the limit: {', '.join(broken)}")


if __name__ == "__main__":
    main()
