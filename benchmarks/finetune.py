"""Fine-tuning against frozen features on ELPV, on the same splits; the test chooses nothing.

    python -m benchmarks.finetune FOLDER [--splits 10] [--case NAME ...]
    python -m benchmarks.finetune FOLDER [--splits 3] --few 10 25 50 100

EfficientNet-Lite0. For each of the stratified 75/25 splits of `classify train --seed 0, 1, ...`:
the frozen default (logistic regression), the frozen best (several depths, four views, 300 pixels,
RBF SVM; `benchmarks.elpv_depths`), `classify finetune` in several ways, and heads on the features
of the tuned networks. With `--few`, the first way and the frozen default on so many labels of each
class. What is done is kept in FOLDER, so that it can be stopped and run again. Needs the extras
`keras`, `samples` and `torch`.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from benchmarks.elpv_depths import ALL, NARROW, ROWS, C, embeddings
from headstart.classify.scores.comparison import compare_examples
from headstart.data.contracts.model import Model
from headstart.data.contracts.tuned import Tuned
from headstart.data.examples.opening import open_source
from headstart.data.samples import lay_out

BEST = len(ROWS) - 1  # of elpv_depths
TAIL = ("--augment", "turns", "--cache", "yes")
WHOLE = ("--max-epochs", "6", "--layer-decay", "0.9")  # less than half an hour a split
CASES: dict[str, tuple[int, tuple[str, ...]]] = {
    "7 blocks, 224 px": (224, ("--train-blocks", "7", *TAIL)),
    "7 blocks, 300 px": (300, ("--train-blocks", "7", *TAIL)),
    "3 blocks, 224 px": (224, ("--train-blocks", "3", *TAIL)),
    "10 blocks, 224 px": (224, ("--train-blocks", "10", *TAIL)),
    "7 blocks, 224 px, photo": (
        224,
        ("--train-blocks", "7", "--augment", "photo", "--cache", "no"),
    ),
    "all, 224 px": (224, ("--train-blocks", "all", "--augment", "turns", *WHOLE)),
}
VIEWS: tuple[object, ...] = ("--views", "flips")
DEPTHS: tuple[object, ...] = (
    *(given for layer in NARROW for given in ("--layer", layer)),
    *(given for pooling in ALL for given in ("--pool", pooling)),
    "--power",
)
# How features are taken from a tuned network, as options of `export backbone`.
FEATURES: dict[str, tuple[object, ...]] = {
    "four views": VIEWS,
    "300 px, four views": (*VIEWS, "--size", 300),
    "300 px, four views, six depths": (*VIEWS, "--size", 300, *DEPTHS),
}


@dataclass(frozen=True)
class Result:
    """One way on one split."""

    accuracy: float
    macro_f1: float
    calibration: float
    minutes: float
    gain: float = 0.0


def headstart(*arguments: object) -> float:
    """Run a command; returns its seconds."""
    began = time.monotonic()
    command = [sys.executable, "-m", "headstart", *map(str, arguments)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.monotonic() - began


def frozen(folder: Path, size: int, seed: int, few: int | None = None) -> Path:
    """The model of the frozen default on a split, or on a few labels of each class."""
    backbone, features = folder / f"b{size}.onnx", folder / f"f{size}"
    if not backbone.exists():
        headstart("export", "backbone", "efficientnet_lite0", "--size", size, "-o", backbone)
    if not features.exists():
        headstart("extract", folder / "elpv", "--backbone", backbone, "-o", features)
    model = folder / f"m{size}-{seed}"
    fewer: tuple[object, ...] = ()
    if few:
        model, fewer = folder / f"m{size}-{seed}-{few}", ("--samples-per-class", few)
    if not model.exists():
        headstart("classify", "train", features, "-o", model, "--seed", seed, "--no-report", *fewer)
    return model


def tuned(folder: Path, case: str, seed: int, few: int | None = None) -> Result:
    """One way on one split, from the folder if it is there."""
    size, options = CASES[case]
    model = frozen(folder, size, seed, few)
    output = folder / "tuned" / f"{case.replace(' ', '-')}-{seed}{f'-{few}' * bool(few)}"
    if not (output / "tuned.json").exists():
        seconds = headstart(
            *("classify", "finetune", folder / "elpv", "--backbone", folder / f"b{size}.onnx"),
            *("--model", model, "-o", output, "--seed", seed),
            *("--cache-folder", folder / "caches", *options),
        )
        (output / "seconds.json").write_text(json.dumps(seconds))
        shutil.rmtree(output / "checkpoints", ignore_errors=True)
    opened = Tuned.open(output)
    test = opened.card.metrics["test"]
    base = Model.open(frozen(folder, 224, seed, few)).examples()
    gain = compare_examples(("frozen", "tuned"), (base, opened.examples())).difference.value
    minutes = json.loads((output / "seconds.json").read_text()) / 60
    return Result(test["accuracy"], test["macro_f1"], test["calibration_error"], minutes, gain)


def head_on_tuned(folder: Path, case: str, seed: int, features: str, head: str) -> Result:
    """A head on features of the tuned network, on a split."""
    tuned(folder, case, seed)
    output = folder / "tuned" / f"{case.replace(' ', '-')}-{seed}"
    name = features.replace(", ", "-").replace(" ", "-")
    backbone, store, model = (output / each for each in (f"{name}.onnx", name, f"{name}-{head}"))
    if not model.exists():
        if not (store / "_headstart.parquet").exists():
            headstart(
                "export", "backbone", output, *FEATURES[features], "-o", backbone, "--overwrite"
            )
            headstart("extract", folder / "elpv", "--backbone", backbone, "-o", store)
        headstart(
            *("classify", "train", store, "-o", model, "--split-of", output, "--head", head),
            "--no-report",
        )
    test = Model.open(model).card.metrics["test"]
    return Result(test["accuracy"], test["macro_f1"], test["calibration_error"], float("nan"))


def baseline(folder: Path, seed: int, few: int | None = None) -> Result:
    """The frozen default on a split."""
    test = Model.open(frozen(folder, 224, seed, few)).card.metrics["test"]
    return Result(test["accuracy"], test["macro_f1"], test["calibration_error"], 0.0)


def best_frozen(folder: Path, seed: int) -> Result:
    """Several depths and an RBF SVM on a split; it has no probabilities."""
    features = embeddings(folder, BEST, folder / "elpv")
    ids = open_source(folder / "elpv").examples["id"].to_pylist()
    place = {name: row for row, name in enumerate(ids)}
    rows = Model.open(frozen(folder, 224, seed)).examples().to_pylist()
    parts = {
        part: [(place[row["id"]], row["label"]) for row in rows if row["split"] == part]
        for part in ("train", "test")
    }
    (train, test), head = parts.values(), make_pipeline(StandardScaler(), SVC(C=C, cache_size=1000))
    head.fit(features[[row for row, _ in train]], [label for _, label in train])
    right = head.score(features[[row for row, _ in test]], [label for _, label in test])
    return Result(float(right), float("nan"), float("nan"), 0.0)


def paired_gain(gains: np.ndarray) -> tuple[float, float]:
    """Mean over splits and its standard error.

    They share examples, so that it varies more than it seems (Nadeau and Bengio 2003).
    """
    error = gains.std(ddof=1) * np.sqrt(1 / len(gains) + 1 / 3) if len(gains) > 1 else 0.0
    return float(gains.mean()), float(error)


def main() -> None:
    """Print the table as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--splits", type=int, default=10)
    parser.add_argument("--case", nargs="*", default=list(CASES)[:2], choices=list(CASES))
    parser.add_argument("--heads", nargs="*", default=["logistic", "rbf-svm"])
    parser.add_argument("--features", nargs="*", default=["four views"], choices=list(FEATURES))
    parser.add_argument("--few", nargs="+", type=int, metavar="LABELS")
    options = parser.parse_args()
    folder: Path = options.folder
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "elpv").exists():
        lay_out("elpv", folder / "elpv")
    seeds = range(options.splits)
    if options.few:
        print("| labels of each class | frozen | fine-tuned | gain, points |\n|---|---|---|---|")
        for few in options.few:
            before = [baseline(folder, seed, few).accuracy for seed in seeds]
            after = [tuned(folder, options.case[0], seed, few).accuracy for seed in seeds]
            gain, error = paired_gain(np.array(after) - before)
            print(
                f"| {few} | {np.mean(before):.4f} | {np.mean(after):.4f} | {100 * gain:+.2f} +- "
                f"{100 * error:.2f} |",
                flush=True,
            )
        return
    found = {
        "frozen, default": [baseline(folder, seed) for seed in seeds],
        "frozen, best": [best_frozen(folder, seed) for seed in seeds],
    }
    for case in options.case:
        found[case] = []
        for seed in seeds:
            found[case].append(tuned(folder, case, seed))
            print(case, seed, found[case][-1], file=sys.stderr)
        for features, head in product(options.features, options.heads):
            found[f"{case}; {head} on its features, {features}"] = [
                head_on_tuned(folder, case, seed, features, head) for seed in seeds
            ]
    print("| way | accuracy | gain over the frozen default | macro F1 | calibration | minutes |")
    print("|---|---|---|---|---|---|")
    for name, results in found.items():
        values = np.array([[r.accuracy, r.macro_f1, r.calibration, r.minutes] for r in results])
        base = np.array([each.accuracy for each in found["frozen, default"]])
        gains = values[:, 0] - base
        mean, spread = values.mean(0), values[:, 0].std(ddof=1) if len(results) > 1 else 0.0
        gain, error = paired_gain(gains)
        print(
            f"| {name} | {mean[0]:.4f} +- {spread:.4f} | {100 * gain:+.2f} +- "
            f"{100 * error:.2f} points | {mean[1]:.4f} | {mean[2]:.4f} | {mean[3]:.1f} |"
        )


if __name__ == "__main__":
    main()
