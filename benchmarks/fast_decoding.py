"""Does fast decoding cost accuracy? JPEGs at a reduced size, fast resizing, bf16.

    python -m benchmarks.fast_decoding FOLDER [--size 144]

ELPV and digits become JPEG files of 300x300 (ELPV's own size; digits are enlarged) at quality 95,
and the default backbone takes 144x144: files are decoded at half their size, which loses the most.
With `--size 224` they are decoded whole, and only resized differently. Embeddings of whole decoding
and Pillow's resizing in fp32, of fast decoding in fp32, and of fast decoding in bf16 each train the
default head on the same 10 stratified 75/25 splits. The interval of a difference is that of Nadeau
and Bengio (2003) for repeated splits. Exits with 1 if a mean falls by more than 0.5 points.
"Moved": trained on fast decoding, tested on exact decoding, as on an edge device.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedShuffleSplit
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from headstart.data.common import console
from headstart.data.common.intervals import of_mean
from headstart.data.contracts.backbone import load_backbone
from headstart.data.examples.opening import open_source
from headstart.data.modalities.image.decoding import open_image
from headstart.data.samples import lay_out
from headstart.export.backbone.build import export_backbone
from headstart.export.options import BackboneOptions
from headstart.extract.engines.runtimes import EngineConfig, open_engines

SPLITS, TEST, SIDE, BATCH, MOST_LOSS = 10, 0.25, 300, 16, 0.005
SETTINGS = {
    "exact, fp32": (False, EngineConfig("fp32", "onnxruntime")),
    "fast, fp32": (True, EngineConfig("fp32", "onnxruntime")),
    "fast, bf16": (True, EngineConfig("bf16", "openvino")),
}


def as_jpeg(sample: str, folder: Path) -> tuple[list[Path], np.ndarray]:
    """The photographs of a sample set as JPEG files, and their labels."""
    original = folder / sample
    if not original.exists():
        lay_out(sample, original)
    examples = open_source(original).examples
    paths = []
    for path in examples["path"].to_pylist():
        file = (folder / f"{sample}-jpeg" / path).with_suffix(".jpg")
        paths.append(file)
        if not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            image = open_image((original / path).read_bytes()).convert("RGB")
            image.resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(file, quality=95)
    return paths, np.array(examples["label"].to_pylist())


def embed(paths: list[Path], backbone_file: Path, fast: bool, config: EngineConfig) -> np.ndarray:
    """Embeddings, float32 `[photographs, dim]`."""
    backbone = load_backbone(backbone_file)
    (engine,) = open_engines(backbone.content, backbone.spec, config)
    found = []
    with console.progress(f"embedding, {config.precision}", len(paths)) as advance:
        for start in range(0, len(paths), BATCH):
            batch = paths[start : start + BATCH]
            images = [backbone.spec.preprocessing.decode(path.read_bytes(), fast) for path in batch]
            found.append(engine.embed(np.stack(images)))
            advance(len(batch))
    return np.concatenate(found)


def main() -> None:
    """Print a table for each sample set."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--size", type=int, default=144)
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    backbone = options.folder / f"b{options.size}.onnx"
    if not backbone.exists():
        export_backbone(backbone, options=BackboneOptions(size=options.size))
    short = []
    for sample in ("elpv", "digits"):
        paths, labels = as_jpeg(sample, options.folder)
        features = {name: embed(paths, backbone, *setting) for name, setting in SETTINGS.items()}
        scores: dict[str, list[float]] = {name: [] for name in SETTINGS}
        moved: dict[str, list[float]] = {name: [] for name in SETTINGS}
        splits = StratifiedShuffleSplit(SPLITS, test_size=TEST, random_state=0)
        for train, test in splits.split(labels, labels):
            for name, rows in features.items():
                head = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=1000))
                head.fit(rows[train], labels[train])
                scores[name].append(head.score(rows[test], labels[test]))
                moved[name].append(head.score(features["exact, fp32"][test], labels[test]))
        print(f"{sample}, {len(labels):,} photographs")
        print("| decoding, precision | accuracy | difference (95 %) | moved |\n|---|---|---|---|")
        first = np.array(scores["exact, fp32"])
        for name in SETTINGS:
            own = np.array(scores[name])
            apart = of_mean(own - first, TEST / (1 - TEST))
            print(
                f"| {name} | {own.mean():.4f} +- {own.std(ddof=1):.4f} | "
                f"{100 * apart.value:+.2f} points ({100 * apart.low:+.2f} to "
                f"{100 * apart.high:+.2f}) | {np.mean(moved[name]):.4f} |"
            )
            if apart.value < -MOST_LOSS:
                short.append(f"{sample}, {name}: {100 * apart.value:+.2f} points")
    if short:
        sys.exit("more is lost than 0.5 points: " + "; ".join(short))


if __name__ == "__main__":
    main()
