"""CIFAR-10 on a frozen VGG16: two dense layers, few samples, early stopping.

    python examples/cifar10-vgg16/cifar10_vgg16.py [WORK] [OPTIONS]

Everything is written to WORK; a second run does only what is missing.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from headstart.scripts import need, run, step


def main(*arguments: str) -> None:
    """Embed once, train the two dense layers, then some convolutions if they are asked for."""
    parser = argparse.ArgumentParser(description="CIFAR-10 on VGG16.")
    parser.add_argument("work", nargs="?", type=Path, default=Path("cifar10-vgg16"))
    parser.add_argument("--source", help="CIFAR-10's archive or folder; default: downloaded")
    parser.add_argument("--backbone", default="vgg16")
    parser.add_argument("--weights", default="imagenet", help="or a file")
    parser.add_argument("--size", type=int, default=64, help="pixels that pictures are scaled to")
    parser.add_argument("--samples-per-class", type=int, default=300)
    parser.add_argument("--retrained-conv-layers", type=int, default=0)
    parser.add_argument("--use-early-stop", type=int, default=1)
    parser.add_argument("--max-epochs", type=int, default=20)
    asked = parser.parse_args(arguments or None)
    work, few = asked.work, ("--samples-per-class", asked.samples_per_class)
    need(source=asked.source, weights=asked.weights)
    source = asked.source or work / "cifar10"
    if asked.source is None and not source.exists():
        run("data", "sample", "cifar10", source)
    backbone, features, model = work / "backbone.onnx", work / "features", work / "model"
    network = (asked.backbone, "--weights", asked.weights)
    step(backbone, "export", "backbone", *network, "--size", asked.size)
    step(features, "extract", source, "--backbone", backbone)
    dense = ("--head", "keras", "--param", f"epochs={asked.max_epochs}")
    patience = ("--param", f"early_stop={asked.use_early_stop}")
    step(model, "classify", "train", features, *few, *dense, *patience)
    step(work / "edge.onnx", "export", "classifier", model, "--backbone", backbone)
    if asked.retrained_conv_layers:
        tune = ("classify", "finetune", source, "--backbone", backbone, "--model", model, *few)
        layers = ("--retrained-conv-layers", asked.retrained_conv_layers)
        stop = ("--use-early-stop", asked.use_early_stop, "--max-epochs", asked.max_epochs)
        step(work / "tuned", *tune, "--network", *network, *layers, *stop)


if __name__ == "__main__":
    main()
