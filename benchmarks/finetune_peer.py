"""Fine-tuning against the usual Keras script: a frozen head, then all layers, with augmentation.

The script is what Keras' guide to transfer learning does: `image_dataset_from_directory`, random
flips and rotations, a frozen network below a dense layer for 10 epochs (Adam, 1e-3), then all
layers unfrozen, normalization in inference mode, for 10 more (Adam, 1e-5). Ours: `extract`,
`classify train`, `classify finetune` of the last 7 blocks from a cache, each in its own process,
all of it counted. Both use EfficientNet-Lite0 with the same ImageNet weights at 224 pixels on the
same photographs (ELPV) and the same stratified 75/25 split.

    python -m benchmarks.finetune_peer FOLDER [--epochs 10] [--sweep]

With `--sweep`, eight recipes: ours by `--sweep` (successive halving), the script's time eight
times. Needs the extras `keras`, `samples` and `torch`.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.keras_script import prepare

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
inputs = keras.Input((*size, 3))
x = layers.RandomFlip("horizontal_and_vertical")(inputs)
x = layers.RandomRotation(0.2)(x)
x = layers.Rescaling(1 / 128, offset=-127 / 128)(x)
x = base(x, training=False)
x = layers.GlobalAveragePooling2D()(x)
x = layers.Dropout(0.2)(x)
model = keras.Model(inputs, layers.Dense(len(train.class_names), activation="softmax")(x))
for trainable, rate in ((False, 1e-3), (True, 1e-5)):
    base.trainable = trainable
    model.compile(
        keras.optimizers.Adam(rate), "sparse_categorical_crossentropy", metrics=["accuracy"]
    )
    model.fit(train, validation_data=test, epochs=epochs, verbose=2)
    print(model.evaluate(test, verbose=0)[1], flush=True)
"""
TAIL = ("--train-blocks", "7", "--augment", "turns", "--cache", "yes")
SWEEP = ("--sweep", "learning_rate=3e-5,1e-4,3e-4,1e-3", "--sweep", "dropout=0.2,0.35")
TRIALS = 8


def time_script(folder: Path, epochs: int) -> tuple[float, float]:
    """Seconds and accuracy of the Keras script."""
    began = time.perf_counter()
    command = [sys.executable, "-c", SCRIPT, str(folder), str(folder / "network.keras")]
    environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"}
    output = subprocess.run(
        [*command, str(epochs)], check=True, stdout=subprocess.PIPE, env=environment
    ).stdout
    return time.perf_counter() - began, float(output.split()[-1])


def time_headstart(folder: Path, options: tuple[str, ...]) -> tuple[float, float]:
    """Seconds and accuracy of ours, from photographs on, with no cache to begin with."""
    made = {name: folder / f"tune-{name}" for name in ("features", "model", "caches", "tuned")}
    for old in made.values():
        shutil.rmtree(old, ignore_errors=True)
    source, backbone = folder / "manifest.csv", folder / "backbone.onnx"
    began = time.perf_counter()
    for command in (
        ("extract", source, "--backbone", backbone, "-o", made["features"]),
        ("classify", "train", made["features"], "-o", made["model"], "--no-report"),
        (
            *("classify", "finetune", source, "--backbone", backbone, "--model", made["model"]),
            *("-o", made["tuned"], "--cache-folder", made["caches"], *options),
        ),
    ):
        full = [sys.executable, "-m", "headstart", *map(str, command)]
        subprocess.run(full, check=True, stdout=subprocess.DEVNULL)
    seconds = time.perf_counter() - began
    card = json.loads((made["tuned"] / "tuned.json").read_text())
    return seconds, float(card["metrics"]["test"]["accuracy"])


def main() -> None:
    """Print the table as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--epochs", type=int, default=10, help="of each of the script's two parts")
    parser.add_argument("--sweep", action="store_true", help="eight recipes as well")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    prepare(options.folder)
    ours = time_headstart(options.folder, TAIL)
    print("ours:", *ours, file=sys.stderr)
    script = time_script(options.folder, options.epochs)
    print("script:", *script, file=sys.stderr)
    print("| program | minutes | accuracy |\n|---|---|---|")
    print(f"| Keras script | {script[0] / 60:.1f} | {script[1]:.4f} |")
    print(f"| extract, train, finetune | {ours[0] / 60:.1f} | {ours[1]:.4f} |")
    print(f"\n{script[0] / ours[0]:.1f} times as fast")
    if options.sweep:
        swept = time_headstart(options.folder, (*TAIL, *SWEEP))
        print(
            f"\n{TRIALS} recipes: {swept[0] / 60:.1f} minutes, {swept[1]:.4f}; the script ", end=""
        )
        print(f"{TRIALS * script[0] / 60:.1f}: {TRIALS * script[0] / swept[0]:.1f} times as fast")


if __name__ == "__main__":
    main()
