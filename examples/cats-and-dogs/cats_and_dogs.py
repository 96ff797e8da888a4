"""Cats and dogs on MobileNetV2: a look at nine, a frozen head, then fine-tuning.

    python examples/cats-and-dogs/cats_and_dogs.py PHOTOS [WORK] [--backbone NAME] [--weights FILE]

PHOTOS is a zip or a folder with `train` and `validation`, a folder for each class in both.
Everything is written to WORK; a second run does only what is missing.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from headstart.scripts import need, step


def main(*arguments: str) -> None:
    """Look at nine, train a head on frozen features, fine-tune the last blocks, compare."""
    parser = argparse.ArgumentParser(description="Cats and dogs on MobileNetV2.")
    parser.add_argument("photos", help="zip or folder with train and validation")
    parser.add_argument("work", nargs="?", type=Path, default=Path("cats-and-dogs"))
    parser.add_argument("--backbone", default="mobilenetv2")
    parser.add_argument("--weights", default="imagenet", help="or a file")
    parser.add_argument("--size", type=int, default=160)
    parser.add_argument("--train-blocks", default="auto")
    parser.add_argument("--max-epochs", type=int, default=10)
    asked = parser.parse_args(arguments or None)
    photos, work = asked.photos, asked.work
    need(PHOTOS=photos, weights=asked.weights)
    work.mkdir(parents=True, exist_ok=True)
    network = (asked.backbone, "--weights", asked.weights)
    backbone, features, frozen = work / "backbone.onnx", work / "features", work / "frozen"
    step(work / "nine.png", "data", "inspect", photos, "--show", 9)
    step(backbone, "export", "backbone", *network, "--size", asked.size)
    step(features, "extract", photos, "--backbone", backbone)
    step(frozen, "classify", "train", features)
    step(work / "edge.onnx", "export", "classifier", frozen, "--backbone", backbone)
    tune = ("classify", "finetune", photos, "--backbone", backbone, "--network", *network)
    flipped = ("--augment", "photo", "--train-blocks", asked.train_blocks)
    step(work / "tuned", *tune, "--model", frozen, *flipped, "--max-epochs", asked.max_epochs)


if __name__ == "__main__":
    main()
