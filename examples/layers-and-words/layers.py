"""How much of a network is re-usable: the accuracy on every layer, early to late, of several sets.

    python examples/layers-and-words/layers.py SOURCE... [--work WORK] [--network NAME]

Everything is written to WORK; a second run does only what is missing.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from headstart.scripts import need, step

LAYERS = "block2,block5,block8,block11,block15,head"  # of the EfficientNet-Lites


def main(*arguments: str) -> None:
    """A backbone for each layer, features of each set, and a plot."""
    parser = argparse.ArgumentParser(description="Accuracy by layer.")
    parser.add_argument("sources", nargs="+", help="folders, manifests or archives")
    parser.add_argument("--work", type=Path, default=Path("layers"))
    parser.add_argument("--network", default="efficientnet_lite0", help="or inceptionv3, ...")
    parser.add_argument("--weights", default="imagenet", help="or a file")
    parser.add_argument("--layers", default=LAYERS, help="as `headstart export layers` lists them")
    parser.add_argument("--size", type=int, default=96)
    asked = parser.parse_args(arguments or None)
    for source in asked.sources:
        need(SOURCE=source, weights=asked.weights)
    size = ("--size", asked.size, "--resize", "squash")
    network = (asked.network, "--weights", asked.weights, *size)
    stores: list[Path] = []
    backbones: list[object] = []
    for layer in asked.layers.split(","):
        backbone = asked.work / f"{layer.replace('/', '-')}.onnx"
        step(backbone, "export", "backbone", *network, "--layer", layer)
        backbones += ["--backbone", backbone]
        for source in asked.sources:
            stores.append(asked.work / f"{Path(source).stem}-{backbone.stem}")
            step(stores[-1], "extract", source, "--backbone", backbone)
    step(asked.work / "layers.png", "classify", "trend", *stores, "--over", "layer", *backbones)


if __name__ == "__main__":
    main()
