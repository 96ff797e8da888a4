"""Training on a million embeddings by streaming, against scikit-learn with all of them in memory.

The classes are normal distributions around orthogonal means, mixed into correlated features of
unlike means and scales: the best possible accuracy is known, and mixing does not change it. Each
training runs in a process of its own, whose peak memory is measured. Exits with 1 if streaming
takes 2.5 GB or more, takes over 10 % more for the most rows than for the fewest, or if its accuracy
on 20,000 fresh rows is more than 0.2 points from scikit-learn's.

    python -m benchmarks.streaming [--rows 1000000] [--dim 1280] [--classes 10] [--folder DIR]

The largest run in memory needs 7 GB at a million rows; the stores take 5.3 GB of disk.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
from scipy.integrate import quad
from scipy.stats import norm
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from benchmarks.plan import peak_memory
from classify.streamed_logistic import LogisticOptions, fit_logistic
from classify.streamed_moments import fit_lda, fit_ridge
from classify.streaming import Batches, outcomes, predict_logits
from data.fingerprint import Fingerprint
from data.folders import Folder
from data.records import begin, finish, write_part
from data.store import ERROR_SCHEMA, FeatureStore, StoreManifest, part_schema

SHARES = (0.2, 0.5, 1.0)  # of the rows
FRESH, PART = 20_000, 10_000  # rows
DISTANCE = 2.5  # of a class's mean from the origin, in standard deviations
MOST_GB, MOST_GROWTH, MOST_DIFFERENCE = 2.5, 1.1, 0.002
HEADS: dict[str, Callable[..., Pipeline]] = {
    "logistic": fit_logistic,
    "ridge": fit_ridge,
    "lda": fit_lda,
}


def best_accuracy(classes: int) -> float:
    """Of the Bayes classifier: that the true class's projection is larger than all others."""

    def density(value: float) -> float:
        return float(norm.pdf(value - DISTANCE) * norm.cdf(value) ** (classes - 1))

    return quad(density, -10, 10 + DISTANCE)[0]


def write_store(path: Path, rows: int, dim: int, classes: int, seed: int) -> None:
    """A finished store, made and written a part at a time."""
    world = np.random.default_rng(0)  # the same for all stores
    means = np.linalg.qr(world.normal(size=(dim, classes)))[0].T * DISTANCE
    mixing = np.linalg.qr(world.normal(size=(dim, dim)))[0] * np.geomspace(1, 0.01, dim)
    mixing = mixing @ np.linalg.qr(world.normal(size=(dim, dim)))[0] * world.uniform(0.1, 10, dim)
    mixing, shift = mixing.astype(np.float32), world.normal(size=dim).astype(np.float32)
    random = np.random.default_rng(seed)
    prints = Fingerprint("none", "0" * 64, "8x8 squash bilinear", "fp32", dim)
    names = tuple(f"c{index:05d}" for index in range(classes))
    folder, schema = Folder.at(path), part_schema(dim, [])
    begin(folder, prints, "none")
    records = []
    for number, start in enumerate(range(0, rows, PART)):
        size = min(PART, rows - start)
        labels = random.integers(classes, size=size)
        embeddings = random.standard_normal((size, dim), np.float32)
        embeddings += means.astype(np.float32)[labels]
        embeddings = embeddings @ mixing + shift
        ids = pa.array([str(start + row) for row in range(size)])
        nothing = pa.nulls(size, pa.string())
        label = pa.array([names[index] for index in labels])
        kind = schema.field("embedding").type
        embedding = pa.FixedSizeListArray.from_arrays(pa.array(embeddings.ravel()), type=kind)
        columns = [ids, ids, ids, nothing, label, nothing, nothing, embedding]
        table = pa.table(columns, schema=schema)
        name = f"part-{number:05d}-{number:012x}"
        records.append(write_part(folder, name, table, ERROR_SCHEMA.empty_table()))
    finish(folder, StoreManifest(prints, "none", "none", names, tuple(records)))


def first_parts(whole: Path, path: Path, rows: int) -> None:
    """A store of the first rows of another one; its parts are the same files."""
    manifest = FeatureStore.open(whole).manifest
    parts = manifest.parts[: -(-rows // PART)]
    path.mkdir()
    for part in parts:
        os.link(whole / f"{part.name}.parquet", path / f"{part.name}.parquet")
    finish(
        Folder.at(path),
        StoreManifest(manifest.fingerprint, "none", "none", manifest.classes, parts),
    )


def all_rows(path: Path) -> tuple[Batches, np.ndarray]:
    """All embeddings of a store, and their labels."""
    store = FeatureStore.open(path)
    names = store.read(["label"])["label"]
    labels = pa.compute.index_in(names, value_set=pa.array(store.manifest.classes))
    batches = Batches(store, np.ones(store.manifest.rows, bool))
    return batches, labels.to_numpy().astype(np.int64)


class Counted(Batches):
    """Batches that count how often they were read to their end."""

    passes = 0

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        yield from super().__iter__()
        type(self).passes += 1


def in_memory(batches: Batches, labels: np.ndarray) -> Pipeline:
    """scikit-learn's own answer, without a copy of the embeddings: so that a million fit."""
    scaler = StandardScaler(copy=False)
    embeddings = np.empty((len(labels), batches.dim), np.float32)
    for rows, batch in batches:
        scaler.partial_fit(batch)
        embeddings[rows] = batch
    for start in range(0, len(labels), PART):
        embeddings[start : start + PART] = scaler.transform(embeddings[start : start + PART])
    options = LogisticOptions()
    logistic = LogisticRegression(C=options.c, tol=options.tol, max_iter=options.max_iter)
    return make_pipeline(scaler, logistic.fit(embeddings, labels))


def step(how: str, head: str, path: Path, fresh: Path) -> None:
    """Train once, in this process; prints peak memory in GB, seconds, passes and accuracy."""
    started = time.perf_counter()
    batches, labels = all_rows(path)
    if how == "memory":
        estimator = in_memory(batches, labels)
        passes = int(estimator[-1].n_iter_[0])
    else:
        counted = Counted(batches.store, batches.chosen)
        estimator = HEADS[head](counted, labels, batches.store.manifest.classes)
        passes = Counted.passes
    seconds = time.perf_counter() - started
    tests, truth = all_rows(fresh)
    found = outcomes(predict_logits(estimator, tests), truth)
    accuracy = float((found.predictions == truth).mean())
    answer = {"peak": peak_memory(), "seconds": seconds, "passes": passes, "accuracy": accuracy}
    print(json.dumps(answer))


def measure(how: str, head: str, path: Path, fresh: Path, classes: int) -> dict[str, float]:
    """Run a step in a child process, and print its row of the table."""
    names = [how, head, str(path), str(fresh)]
    command = [sys.executable, "-m", "benchmarks.streaming", "--step", *names]
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout
    answer = json.loads(output)
    print(
        f"{head:8}  {how:8}  {FeatureStore.open(path).manifest.rows:>9,}  {answer['peak']:7.2f}  "
        f"{answer['seconds']:7.1f}  {answer['passes']:6}  {answer['accuracy']:8.4f}  "
        f"{best_accuracy(classes):6.4f}",
        flush=True,
    )
    return answer


def run(folder: Path, rows: int, dim: int, classes: int) -> list[str]:
    """Make the stores, train, print the table; returns what broke a limit."""
    print(f"a store of {rows:,} x {dim:,} is being made ...", flush=True)
    write_store(folder / "fresh", FRESH, dim, classes, seed=2)
    write_store(folder / "1.0", rows, dim, classes, seed=1)
    columns = ("head", "how", "rows", "peak GB", "seconds", "passes", "accuracy", "best")
    print("{:8}  {:8}  {:>9}  {:>7}  {:>7}  {:>6}  {:>8}  {:>6}".format(*columns), flush=True)
    broken, peaks = [], []
    for share in SHARES:
        path, count = folder / str(share), int(rows * share)
        if share < 1:
            first_parts(folder / "1.0", path, count)
        streamed = measure("streamed", "logistic", path, folder / "fresh", classes)
        reference = measure("memory", "logistic", path, folder / "fresh", classes)
        peaks.append(streamed["peak"])
        if abs(streamed["accuracy"] - reference["accuracy"]) > MOST_DIFFERENCE:
            broken.append(f"accuracy at {count:,} rows")
    for head in ("ridge", "lda"):
        peak = measure("streamed", head, folder / str(SHARES[0]), folder / "fresh", classes)["peak"]
        if peak >= MOST_GB:
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
    parser.add_argument("--step", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.step:
        how, head, path, fresh = options.step
        step(how, head, Path(path), Path(fresh))
        return
    with tempfile.TemporaryDirectory(prefix="streaming-", dir=options.folder) as name:
        broken = run(Path(name), options.rows, options.dim, options.classes)
    if broken:
        sys.exit(f"over the limit: {', '.join(broken)}")


if __name__ == "__main__":
    main()
