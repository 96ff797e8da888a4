"""`classify train` against scikit-learn called by hand, on the same 100,000 embeddings.

By hand is: read the Parquet, scale, fit `LogisticRegression` with the same parameters, score the
test rows. Each runs in a separate process, start and reading included; both take turns, and the
medians are compared. `classify train` also calibrates, writes `head.onnx`, compares it with the
estimator, and writes a prediction for every test example. Exits with 1 if it takes longer with its
report, or is more than 0.2 points less accurate.

    python -m benchmarks.training [--rows 100000] [--dim 1280] [--classes 10] [--rounds 3]
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.normal_store import Size, best_accuracy, write_store

MOST_RATIO, MOST_LOSS = 1.0, 0.002
TESTED = 0.2  # of the rows, on top of them
BY_HAND = """
import sys
import numpy as np
import pyarrow.parquet as pq
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

table = pq.read_table(sys.argv[1], columns=["label", "split", "embedding"])
flat = table["embedding"].combine_chunks().flatten().to_numpy()
embeddings = flat.reshape(table.num_rows, -1)
labels = table["label"].to_numpy()
tested = table["split"].to_numpy() == "test"
head = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=1000))
head.fit(embeddings[~tested], labels[~tested])
print(head.score(embeddings[tested], labels[tested]))
"""


def by_hand(store: Path) -> tuple[float, float]:
    """Seconds and accuracy."""
    started = time.perf_counter()
    command = [sys.executable, "-c", BY_HAND, str(store)]
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout
    return time.perf_counter() - started, float(output)


def headstart(store: Path, *options: str) -> tuple[float, float]:
    """Seconds and accuracy."""
    started = time.perf_counter()
    output = store.parent / "model"
    command = (*("-m", "classify", "train", store), "-o", output, "--overwrite", *options)
    subprocess.run([sys.executable, *map(str, command)], check=True, stdout=subprocess.DEVNULL)
    seconds = time.perf_counter() - started
    metrics = json.loads((output / "model.json").read_text())["metrics"]
    return seconds, float(metrics["test"]["accuracy"])


def main() -> None:
    """Make the store, take turns, print a table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--dim", type=int, default=1280)
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    programs = {
        "scikit-learn by hand": by_hand,
        "classify train --no-report": lambda store: headstart(store, "--no-report"),
        "classify train": headstart,
    }
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in programs}
    with tempfile.TemporaryDirectory(prefix="training-") as name:
        store, tested = Path(name, "features"), round(TESTED * options.rows)
        write_store(store, Size(options.rows + tested, tested, options.dim, options.classes))
        for _ in range(options.rounds):
            for program, run in programs.items():
                found[program].append(run(store))
    medians = {program: np.median(runs, axis=0) for program, runs in found.items()}
    base = medians["scikit-learn by hand"]
    print(f"{options.rows:,} x {options.dim:,}, best accuracy {best_accuracy(options.classes):.4f}")
    print("| program | seconds | spread | ratio | accuracy |\n|---|---|---|---|---|")
    for program, (seconds, accuracy) in medians.items():
        spread = statistics.stdev(run[0] for run in found[program]) if options.rounds > 1 else 0.0
        ratio = seconds / base[0]
        print(f"| `{program}` | {seconds:.1f} | {spread:.1f} | {ratio:.2f} | {accuracy:.4f} |")
    seconds, accuracy = medians["classify train"]
    if seconds > MOST_RATIO * base[0]:
        sys.exit(f"over the limit: {seconds / base[0]:.2f} times as long, {MOST_RATIO} allowed")
    if accuracy < base[1] - MOST_LOSS:
        sys.exit(f"over the limit: {100 * (base[1] - accuracy):.2f} points less accurate")


if __name__ == "__main__":
    main()
