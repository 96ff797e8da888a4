"""Quantize before you train: what a lower precision costs and gains, on ELPV.

    python -m benchmarks.precision FOLDER

The default backbone in fp32, fp16 and int8; the default head (standard scaling and logistic
regression, C = 0.01); accuracy over 10 stratified 75/25 splits. The same splits are used for a head
that is trained and tested on the lower precision, and for one that was trained on fp32 and tested
on the lower precision. Backbones and embeddings are kept in FOLDER. Speed is that of ONNX Runtime
on one thread, all precisions in turns.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedShuffleSplit
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from benchmarks.elpv_depths import embed_all
from headstart.data.common.cosine import cosines
from headstart.data.common.speed import images_per_second
from headstart.data.contracts.backbone import load_backbone
from headstart.data.examples.opening import open_source
from headstart.data.samples import lay_out
from headstart.export.backbone.build import export_backbone
from headstart.export.options import PRECISIONS, PrecisionOptions

SPLITS, TEST = 10, 0.25


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="Precisions of a backbone, on ELPV.")
    parser.add_argument("folder", type=Path)
    folder: Path = parser.parse_args().folder
    photographs = folder / "elpv"
    if not photographs.exists():
        lay_out("elpv", photographs)
    labels = np.array(open_source(photographs).examples["label"].to_pylist())
    backbones, features = {}, {}
    for name in PRECISIONS:
        file = folder / f"{name}.onnx"
        if not file.exists():
            calibrate = str(photographs) if name == "int8" else None
            export_backbone(file, precision=PrecisionOptions(name, calibrate))
        backbones[name] = load_backbone(file)
        features[name] = embed_all(backbones[name], photographs, folder / f"{name}.npy")
    own: dict[str, list[float]] = {name: [] for name in PRECISIONS}
    moved: dict[str, list[float]] = {name: [] for name in PRECISIONS}
    agreed: dict[str, list[float]] = {name: [] for name in PRECISIONS}
    for train, test in StratifiedShuffleSplit(SPLITS, test_size=TEST, random_state=0).split(
        features["fp32"], labels
    ):
        heads = {}
        for name in PRECISIONS:
            heads[name] = make_pipeline(
                StandardScaler(), LogisticRegression(C=0.01, max_iter=1000)
            ).fit(features[name][train], labels[train])
            own[name].append(heads[name].score(features[name][test], labels[test]))
            answers = heads["fp32"].predict(features[name][test])
            moved[name].append(float((answers == labels[test]).mean()))
            agreed[name].append(
                float((answers == heads["fp32"].predict(features["fp32"][test])).mean())
            )
    contents = [backbone.content for backbone in backbones.values()]
    speeds = images_per_second(contents, 45.0)
    whole = features["fp32"]
    print(
        "| precision | MB | img/s | to fp32 | cosine mean (worst) | trained on it | "
        "trained on fp32 | agrees |\n|---|---|---|---|---|---|---|---|"
    )
    for name, content, speed in zip(PRECISIONS, contents, speeds, strict=True):
        cosine = cosines(whole, features[name])
        print(
            f"| {name} | {len(content) / 1e6:.1f} | {speed:.1f} | {speed / speeds[0]:.2f} "
            f"| {cosine.mean():.4f} ({cosine.min():.4f}) "
            f"| {np.mean(own[name]):.4f} +- {np.std(own[name]):.4f} "
            f"| {np.mean(moved[name]):.4f} | {np.mean(agreed[name]):.1%} |"
        )


if __name__ == "__main__":
    main()
