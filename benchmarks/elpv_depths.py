"""What each part of an embedding gains on ELPV, and what it costs.

    python -m benchmarks.elpv_depths FOLDER [--rows NUMBER ...] [--seed NUMBER]

Frozen EfficientNet-Lite0; standard scaling and an RBF SVM (C = 5); mean and standard deviation of
the accuracy over 10 stratified 75/25 splits (defective: probability >= 0.5). Backbones and
embeddings are kept in FOLDER, so that a second run only trains and measures. The table is printed
as Markdown. Needs the extras `keras` and `samples`. Speed is that of ONNX Runtime on one thread;
the backbones are timed in turns, so that other work on the machine slows them alike.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from sklearn.model_selection import StratifiedShuffleSplit
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from headstart.data.common import console
from headstart.data.common.onnx_runtime import open_session
from headstart.data.common.speed import BATCH, images_per_second
from headstart.data.contracts.backbone import INPUT, OUTPUT, Backbone, load_backbone
from headstart.data.examples.opening import open_source
from headstart.data.examples.reading import Reader
from headstart.data.samples import lay_out
from headstart.export.backbone.build import export_backbone
from headstart.export.options import BackboneOptions, FeatureOptions

SPLITS, TEST, C = 10, 0.25, 5.0
NARROW = ("block5", "block8", "block11", "block15", "block16", "head=avg+max")
# After the depthwise convolutions of blocks 9 to 13, which have six times as many channels.
WIDE = tuple(f"_blocks.{block - 1}._bn1_relu6" for block in range(9, 14))
ALL = ("avg", "max", "std")


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    what: str
    size: int
    features: FeatureOptions


ROWS = (
    Row("last layer, avg, 224 px", 224, FeatureOptions(("head",))),
    Row("the same, 300 px", 300, FeatureOptions(("head",))),
    Row("five depths within blocks, avg", 300, FeatureOptions(WIDE)),
    Row("the same, avg+max+std", 300, FeatureOptions(WIDE, ALL)),
    Row("and signed square root", 300, FeatureOptions(WIDE, ALL, True)),
    Row("avg+max+std and four views", 300, FeatureOptions(WIDE, ALL, False, "flips")),
    Row("all: avg+max+std, four views, root", 300, FeatureOptions(WIDE, ALL, True, "flips")),
    Row(
        "all, at five ends of blocks and the last layer",
        300,
        FeatureOptions(NARROW, ALL, True, "flips"),
    ),
)


def embeddings(folder: Path, number: int, photographs: Path) -> np.ndarray:
    """The embeddings of a row, from FOLDER if they are there."""
    backbone, row = folder / f"row{number}.onnx", ROWS[number]
    if not backbone.exists():
        options = BackboneOptions(size=row.size)
        export_backbone(backbone, "efficientnet_lite0", options, row.features)
    return embed_all(load_backbone(backbone), photographs, folder / f"row{number}.npy")


def embed_all(backbone: Backbone, photographs: Path, kept: Path) -> np.ndarray:
    """The embeddings of a folder's photographs on one thread, kept in a file for the next run."""
    if kept.exists():
        return np.asarray(np.load(kept))
    source = open_source(photographs)
    session = open_session(backbone.content, 1)
    parts, reader = [], Reader(source.folder)
    paths = source.examples["path"].to_pylist()
    with console.progress(f"embedding for {kept.stem}", len(paths)) as advance:
        for start in range(0, len(paths), BATCH):
            files = [reader.read(path) for path in paths[start : start + BATCH]]
            images = np.stack([backbone.spec.preprocessing.decode(file) for file in files])
            parts += session.run([OUTPUT], {INPUT: images})
            advance(len(images))
    np.save(kept, np.concatenate(parts))
    return np.concatenate(parts)


def accuracies(features: np.ndarray, labels: np.ndarray, seed: int) -> np.ndarray:
    """The accuracy of every split."""
    found = []
    splits = StratifiedShuffleSplit(SPLITS, test_size=TEST, random_state=seed)
    for train, test in splits.split(features, labels):
        head = make_pipeline(StandardScaler(), SVC(C=C, cache_size=1000))
        found.append(head.fit(features[train], labels[train]).score(features[test], labels[test]))
    return np.array(found)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="Ingredients of an embedding, on ELPV.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rows", type=int, nargs="*", default=list(range(len(ROWS))))
    parser.add_argument("--seed", type=int, default=0, help="of the splits")
    arguments = parser.parse_args()
    folder: Path = arguments.folder
    photographs = folder / "elpv"
    if not photographs.exists():
        lay_out("elpv", photographs)
    labels = np.array(open_source(photographs).examples["label"].to_pylist())
    lines, contents = [], []
    for number in arguments.rows:
        features = embeddings(folder, number, photographs)
        scores = accuracies(features, labels, arguments.seed)
        backbone = load_backbone(folder / f"row{number}.onnx")
        contents.append(backbone)
        lines.append((ROWS[number].what, features.shape[1], scores))
        print(f"{ROWS[number].what}: {scores.mean():.4f} +- {scores.std():.4f}", file=sys.stderr)
    print("| embedding | numbers | accuracy | img/s | MB |\n|---|---|---|---|---|")
    for size in sorted({ROWS[n].size for n in arguments.rows}):
        here = [n for n, row in enumerate(arguments.rows) if ROWS[row].size == size]
        graphs = [contents[n].content for n in here]
        speeds = images_per_second(graphs, 5.0 * len(here))
        for n, speed in zip(here, speeds, strict=True):
            what, dim, scores = lines[n]
            megabytes = len(contents[n].content) / 1e6
            print(
                f"| {what} | {dim:,} | {scores.mean():.4f} +- {scores.std():.4f} "
                f"| {speed:.1f} | {megabytes:.1f} |"
            )


if __name__ == "__main__":
    main()
