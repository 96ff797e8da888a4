"""CIFAR-10 on EfficientNet: pictures scaled up, then a sweep of learning rates and dropout.

    python examples/cifar10-efficientnet/cifar10_efficientnet.py [WORK] [OPTIONS]

Everything is written to WORK; a second run does only what is missing.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from headstart.scripts import need, run, step


def main(*arguments: str) -> None:
    """Accuracy against input size, then a sweep at the largest size."""
    parser = argparse.ArgumentParser(description="CIFAR-10 on EfficientNet.")
    parser.add_argument("work", nargs="?", type=Path, default=Path("cifar10-efficientnet"))
    parser.add_argument("--source", help="CIFAR-10's archive or folder; default: downloaded")
    parser.add_argument("--backbone", default="efficientnetb7")
    parser.add_argument("--weights", default="imagenet", help="or a file")
    parser.add_argument("--sizes", default="32,96,224,600", help="pixels, the one to train at last")
    parser.add_argument("--rates", default="0.0005,0.0007,0.001,0.0015")
    parser.add_argument("--dropouts", default="0.25,0.35")
    parser.add_argument("--retrained-conv-layers", type=int, default=0)
    parser.add_argument("--max-epochs", type=int, default=20)
    asked = parser.parse_args(arguments or None)
    work, sizes = asked.work, asked.sizes.split(",")
    need(source=asked.source, weights=asked.weights)
    source = asked.source or work / "cifar10"
    if asked.source is None and not source.exists():
        run("data", "sample", "cifar10", source)
    network = (asked.backbone, "--weights", asked.weights)
    for size in sizes:
        backbone, features = work / f"{size}.onnx", work / f"features-{size}"
        step(backbone, "export", "backbone", *network, "--size", size, "--resize", "squash")
        step(features, "extract", source, "--backbone", backbone)
    step(work / "sizes.png", "classify", "trend", *(work / f"features-{size}" for size in sizes))
    step(work / "model", "classify", "train", features)
    tune = ("classify", "finetune", source, "--backbone", backbone, "--network", *network)
    rates = ("--sweep", f"head_rate={asked.rates}", "--sweep", f"dropout={asked.dropouts}")
    stop = ("--use-early-stop", 3, "--max-epochs", asked.max_epochs, "--augment", "mirror")
    layers = ("--retrained-conv-layers", asked.retrained_conv_layers)
    step(work / "tuned", *tune, "--model", work / "model", *rates, *stop, *layers)


if __name__ == "__main__":
    main()
