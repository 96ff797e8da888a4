"""A small network trained from scratch beside a frozen head, on the same folder in one run.

    python examples/layers-and-words/scratch.py PHOTOS [--work WORK] [--max-epochs N]

Everything is written to WORK; a second run does only what is missing.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from headstart.scripts import need, step


def main(*arguments: str) -> None:
    """The frozen head first: it gives the split. The other answers the same test examples."""
    parser = argparse.ArgumentParser(description="From scratch against frozen.")
    parser.add_argument("photos", help="folder, manifest or archive")
    parser.add_argument("--work", type=Path, default=Path("scratch"))
    parser.add_argument("--backbone", default="efficientnet_lite0")
    parser.add_argument("--max-epochs", type=int, default=30)
    parser.add_argument("--batch", type=int, default=32)
    asked = parser.parse_args(arguments or None)
    need(PHOTOS=asked.photos)
    work = asked.work
    backbone, features, frozen = work / "backbone.onnx", work / "features", work / "frozen"
    step(backbone, "export", "backbone", asked.backbone)
    step(features, "extract", asked.photos, "--backbone", backbone)
    step(frozen, "classify", "train", features)
    train = ("classify", "finetune", asked.photos, "--backbone", "small_cnn", "--model", frozen)
    every = ("--train-blocks", "all", "--max-epochs", asked.max_epochs, "--batch", asked.batch)
    rates = ("--learning-rate", 0.001, "--head-rate", 0.001, "--use-early-stop", 5)
    step(work / "from-scratch", *train, *every, *rates)


if __name__ == "__main__":
    main()
