"""Speakers told apart by a backbone for photographs that sees spectrograms.

    python -m benchmarks.speakers [--work FOLDER] [--backbone efficientnet_lite0]

Four voices of English say 100 sentences each (Debian's `flite`: awb, rms and slt are made of
recordings of real speakers, kal16 of another's diphones). A quarter of the sentences is held out,
the same ones of every voice, so that no sentence is in both parts. Prints the accuracy on held-out
windows and on held-out recordings, and, with the edge model, on the same recordings as stereo of
44.1 kHz and as 8 kHz. `--folder` takes other recordings instead: a folder for each speaker, in
which files of one name say the same, and files of different names nothing in common; such as the
actors of Debian's fillets-ng-data-cs and -nl, who are real people (`-m-` and `-v-` in the names).

Exits with 1 if fewer than 98 % of the held-out recordings are right.
"""

from __future__ import annotations

import argparse
import csv
import sys
import tempfile
from pathlib import Path

import numpy as np
import soundfile
import soxr

from headstart.classify.prediction.edge import predict_examples
from headstart.classify.training import RunOptions, train
from headstart.data.samples import lay_out
from headstart.export.backbone.build import export_backbone
from headstart.export.edge.classifier import export_classifier
from headstart.export.options import SoundOptions
from headstart.extract.job import extract

HELD_OUT = 0.25
WANTED = 0.98


def write_manifest(folder: Path) -> Path:
    """A quarter of the names is held out, whoever speaks."""
    files = sorted(folder.glob("*/*.*"))
    names = sorted({file.name for file in files})
    order = np.random.default_rng(0).permutation(len(names))
    test = {names[row] for row in order[: int(len(names) * HELD_OUT)]}
    path = folder / "manifest.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label", "split"])
        for each in files:
            split = "test" if each.name in test else "train"
            writer.writerow([each.relative_to(folder), each.parent.name, split])
    return path


def changed(folder: Path, target: Path, rate: int, channels: int) -> list[Path]:
    """The held-out recordings at another rate, with other channels."""
    found = []
    with (folder / "manifest.csv").open() as file:
        for row in csv.DictReader(file):
            if row["split"] == "test":
                samples, own = soundfile.read(folder / row["path"], dtype="float32", always_2d=True)
                other = soxr.resample(samples.mean(axis=1), own, rate)
                path = target / row["path"]
                path.parent.mkdir(parents=True, exist_ok=True)
                soundfile.write(path, np.stack([other] * channels, axis=1), rate)
                found.append(path)
    return found


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--work", type=Path)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--backbone", default="efficientnet_lite0")
    parser.add_argument("--sound", default="logmel")
    asked = parser.parse_args()
    work = asked.work or Path(tempfile.mkdtemp(prefix="speakers-"))
    work.mkdir(parents=True, exist_ok=True)
    folder = asked.folder or work / "voices"
    if asked.folder is None and not folder.exists():
        lay_out("speakers", folder)
    manifest = write_manifest(folder)
    backbone, features, model, edge = (
        work / name for name in ("backbone.onnx", "features", "model", "edge.onnx")
    )
    sound = SoundOptions(asked.sound)
    written = export_backbone(backbone, asked.backbone, sound=sound, overwrite=True)
    summary = extract(manifest, backbone, features)
    trained = train(features, model, run=RunOptions(overwrite=True))
    made = export_classifier(model, backbone, edge) if not edge.exists() else None
    windows, wholes = trained.scores.accuracy_interval, trained.scores.wholes
    print(f"\n{written.backbone.fingerprint}\n{summary.rows} windows, {summary.rate:.0f}/s")
    print(f"held-out windows: {windows.value:.4f} ({windows.low:.4f} to {windows.high:.4f})")
    if wholes is None:
        sys.exit("no recording has several windows")
    whole = wholes.accuracy
    print(f"held-out recordings: {whole.value:.4f} ({whole.low:.4f} to {whole.high:.4f})")
    if made is not None:
        print(f"edge model: differs by {made.parity.largest_difference:.1e} at most")
    for rate, channels in ((44_100, 2), (8_000, 1)):
        target = work / f"at-{rate}"
        changed(folder, target, rate, channels)
        table = predict_examples(edge, target, work / f"{rate}.csv", overwrite=True).to_pylist()
        right = np.mean([row["prediction"] == row["label"] for row in table])
        print(f"the same recordings, {rate} Hz, {channels} channels: {right:.4f} of {len(table)}")
    if whole.value < WANTED:
        sys.exit(f"over the limit: fewer than {WANTED:.0%} of the held-out recordings are right")


if __name__ == "__main__":
    main()
