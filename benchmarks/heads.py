"""Every head on one store: accuracy, seconds, and its ONNX form against the estimator.

The ONNX form is compared on all embeddings of the store, and on random ones until there are 10,000.

    python -m benchmarks.heads FEATURES

The table is printed as Markdown. Exits with 1 if a probability differs by more than 1e-4, or a
label (`headstart.classify.heads.to_onnx.compare` raises). Needs the extra `keras`.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np

from headstart.classify.features.loading import InMemory, load
from headstart.classify.heads.estimators import HEADS, HeadOptions
from headstart.classify.heads.fitting import FitOptions, fit
from headstart.classify.heads.to_onnx import compare
from headstart.classify.scores.metrics import score
from headstart.classify.splits.held_out import divide
from headstart.classify.splits.splitting import SplitOptions, choose_split
from headstart.data.common.errors import ParityError
from headstart.data.contracts.store import FeatureStore

COMPARED = 10_000


def with_random(embeddings: np.ndarray) -> np.ndarray:
    """Float32 `[10,000, dim]`: embeddings, and random ones as wide as they are."""
    random = np.random.default_rng(0)
    shape = (max(0, COMPARED - len(embeddings)), embeddings.shape[1])
    wild = random.normal(embeddings.mean(axis=0), embeddings.std(axis=0), shape)
    return np.concatenate([embeddings, wild.astype(np.float32)])


def main() -> None:
    """Train all, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("features", type=Path)
    store = FeatureStore.open(parser.parse_args().features)
    loaded = load(store)
    if not isinstance(loaded.embeddings, InMemory):
        sys.exit("the store does not fit in memory")
    data, embeddings = loaded.data, loaded.embeddings
    split = choose_split(data, SplitOptions())
    compared = with_random(embeddings.array)
    print(f"{len(split.train):,} training and {len(split.test):,} test examples, ")
    print(f"{len(data.classes)} classes, {store.fingerprint.dim:,} dimensions\n")
    print("| head | accuracy | calibration error | before | seconds | largest difference | MB |")
    print("|---|---|---|---|---|---|---|")
    broken = []
    for name in HEADS:
        training, held_out = divide(data, embeddings, split)
        started = time.perf_counter()
        fitted = fit(training, FitOptions(HeadOptions(name)), lambda step: None)
        seconds = time.perf_counter() - started
        answers = held_out.answers(fitted.written.with_scores)
        after, before = (
            score(answers.labels, probabilities, data.classes)
            for probabilities in (answers.probabilities, answers.uncalibrated)
        )
        try:
            difference = f"{compare(fitted.answering, fitted.written.content, compared, name):.1e}"
        except ParityError as error:
            difference = "too large"
            broken.append(str(error))
        print(
            f"| {name} | {after.accuracy:.4f} | {after.calibration_error:.4f} "
            f"| {before.calibration_error:.4f} | {seconds:.1f} | {difference} "
            f"| {len(fitted.written.content) / 1e6:.2f} |",
            flush=True,
        )
    if broken:
        sys.exit("\n".join(broken))


if __name__ == "__main__":
    main()
