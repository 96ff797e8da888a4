"""Who is speaking: spectrograms of 100x100 pixels, a network for pictures, a head.

    python examples/speakers/speakers.py [WORK] [OPTIONS]

Everything is written to WORK; a second run does only what is missing.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pyarrow.parquet as pq

from headstart.scripts import need, run, step


def main(*arguments: str) -> None:
    """Record, train on 80 % of the sentences, test on 20 %, and predict one file."""
    parser = argparse.ArgumentParser(description="Who is speaking?")
    parser.add_argument("work", nargs="?", type=Path, default=Path("speakers"))
    parser.add_argument("--recordings", type=Path, help="a folder for each person, or a manifest")
    parser.add_argument("--backbone", default="efficientnet_lite0", help="vgg16, resnet50, ...")
    parser.add_argument("--weights", default="imagenet")
    asked = parser.parse_args(arguments or None)
    work, recordings = asked.work, asked.recordings
    need(recordings=recordings, weights=asked.weights)
    if recordings is None:
        if not (work / "voices").exists():
            run("data", "sample", "speakers", work / "voices")
        recordings = work / "voices" / "manifest.csv"
    backbone, features, model = work / "backbone.onnx", work / "features", work / "model"
    network = ("export", "backbone", asked.backbone, "--weights", asked.weights)
    step(backbone, *network, "--sound", "stft", "--size", 100)
    step(features, "extract", recordings, "--backbone", backbone)
    step(model, "classify", "train", features, "--test-size", 0.2)
    step(work / "edge.onnx", "export", "classifier", model, "--backbone", backbone)
    examples = pq.read_table(model / "examples.parquet").to_pylist()
    held_out = next(each["path"] for each in examples if each["split"] == "test")
    folder = recordings if recordings.is_dir() else recordings.parent
    run("predict", work / "edge.onnx", folder / held_out.partition("#t=")[0])


if __name__ == "__main__":
    main()
