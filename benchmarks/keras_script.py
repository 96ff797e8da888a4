"""From photographs to an evaluated classifier, against the usual Keras script.

The script: `image_dataset_from_directory`, a frozen pretrained network inside the model, global
average pooling, dropout, a dense layer; Adam, 10 epochs with validation; `evaluate`. Ours:
`extract`, then `classify train`, which evaluates. Both use EfficientNet-Lite0 with the same
ImageNet weights at 224 pixels on the same photographs (ELPV) and the same stratified 75/25 split,
each in separate processes, start included. (MobileNetV2, which such scripts often use, is of about
the same cost; no package contains its weights.) Downloads and exports, done once, are not counted.

    python -m benchmarks.keras_script FOLDER [--rounds 3] [--epochs 10]

Exits with 1 if ours is less than 10 times faster, or less accurate. Needs the extras `keras` and
`samples`.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from sklearn.model_selection import train_test_split

from benchmarks.keras_lite import keras_lite
from headstart.data.samples import lay_out
from headstart.export.backbone.build import export_backbone
from headstart.export.networks.keras.stack import import_keras
from headstart.export.options import BackboneOptions, FeatureOptions

NETWORK, SIZE = "efficientnet_lite0", 224
LEAST_RATIO = 10
SCRIPT = """
import sys
import keras
from keras import layers

folder, network, epochs = sys.argv[1], sys.argv[2], int(sys.argv[3])
size = (224, 224)
train, test = (
    keras.utils.image_dataset_from_directory(f"{folder}/{part}", image_size=size, batch_size=32)
    for part in ("train", "test")
)
base = keras.models.load_model(network)
base.trainable = False
model = keras.Sequential([
    keras.Input((*size, 3)),
    layers.Rescaling(1 / 128, offset=-127 / 128),
    base,
    layers.GlobalAveragePooling2D(),
    layers.Dropout(0.25),
    layers.Dense(len(train.class_names), activation="softmax"),
])
model.compile(keras.optimizers.Adam(0.001), "sparse_categorical_crossentropy", metrics=["accuracy"])
model.fit(train, validation_data=test, epochs=epochs, verbose=2)
print(model.evaluate(test, verbose=0)[1])
"""


def prepare(folder: Path) -> None:
    """The photographs, laid out for both; the network as a Keras file and as a backbone."""
    photographs = folder / "elpv"
    if not photographs.exists():
        lay_out("elpv", photographs)
        rows = list(csv.DictReader((photographs / "manifest.csv").open()))
        labels = [row["label"] for row in rows]
        parts = train_test_split(rows, test_size=0.25, stratify=labels, random_state=0)
        with (folder / "manifest.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["path", "label", "split"])
            for part, chosen in zip(("train", "test"), parts, strict=True):
                for row in chosen:
                    link = folder / part / row["label"] / Path(row["path"]).name
                    link.parent.mkdir(parents=True, exist_ok=True)
                    os.link(photographs / row["path"], link)
                    writer.writerow([link.relative_to(folder), row["label"], part])
    if not (folder / "network.keras").exists():
        export_backbone(
            folder / "backbone.onnx",
            NETWORK,
            BackboneOptions(size=SIZE),
            FeatureOptions(("head",)),
        )
        write_keras(folder / "network.keras")


def write_keras(path: Path) -> None:
    """The network up to its last feature map, with its weights, as Keras saves it."""
    keras_lite(import_keras(), NETWORK, SIZE).save(path)


def time_keras(folder: Path, epochs: int) -> tuple[float, float]:
    """Seconds and accuracy of the script."""
    started = time.perf_counter()
    command = [sys.executable, "-c", SCRIPT, str(folder), str(folder / "network.keras")]
    environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"}
    output = subprocess.run(
        [*command, str(epochs)], check=True, stdout=subprocess.PIPE, env=environment
    ).stdout
    return time.perf_counter() - started, float(output.split()[-1])


def time_headstart(folder: Path) -> tuple[float, float]:
    """Seconds and accuracy of the two commands."""
    features, model = folder / "features", folder / "model"
    for old in (features, model):
        shutil.rmtree(old, ignore_errors=True)
    started = time.perf_counter()
    for command in (
        (
            "extract",
            folder / "manifest.csv",
            "--backbone",
            folder / "backbone.onnx",
            "-o",
            features,
        ),
        ("classify", "train", features, "-o", model),
    ):
        full = [sys.executable, "-m", *map(str, command)]
        subprocess.run(full, check=True, stdout=subprocess.DEVNULL)
    seconds = time.perf_counter() - started
    card = json.loads((model / "model.json").read_text())
    return seconds, float(card["metrics"]["test"]["accuracy"])


def main() -> None:
    """Take turns, print a table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=10)
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    prepare(options.folder)
    programs = {
        f"Keras, {options.epochs} epochs": lambda: time_keras(options.folder, options.epochs),
        "extract, classify train": lambda: time_headstart(options.folder),
    }
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in programs}
    for _ in range(options.rounds):
        for name, run in programs.items():
            found[name].append(run())
            seconds, accuracy = found[name][-1]
            print(f"{name}: {seconds:.1f} s, {accuracy:.4f}", file=sys.stderr)
    print("| program | seconds | spread | accuracy |\n|---|---|---|---|")
    (base, base_accuracy), (ours, accuracy) = (np.median(runs, axis=0) for runs in found.values())
    for name, runs in found.items():
        seconds, mean = np.median(runs, axis=0)
        spread = statistics.stdev(run[0] for run in runs) if options.rounds > 1 else 0.0
        print(f"| {name} | {seconds:.1f} | {spread:.1f} | {mean:.4f} |")
    print(f"\n{base / ours:.1f} times faster")
    if base < LEAST_RATIO * ours:
        sys.exit(f"under the limit: {base / ours:.1f} times faster, {LEAST_RATIO} wanted")
    if accuracy < base_accuracy:
        sys.exit(f"less accurate: {accuracy:.4f}, and Keras {base_accuracy:.4f}")


if __name__ == "__main__":
    main()
