"""The main job, end to end, on real photographs: the same commands that a user types.

    python examples/demo.py [FOLDER]

Everything is written to FOLDER (`demo` by default), which must be new or from an earlier demo.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq

CLASSIFY = os.path.relpath(
    Path(__file__).parents[1] / "data/modalities/image/code/classify_photo.py"
)
MARK = ".headstart-demo"  # marks folders of earlier demos, which may be replaced


def run(title: str, *command: object) -> None:
    """Run one command as the user would, and print how long it took."""
    print(f"\n\033[1m== {title}\033[0m\n$ {shlex.join(map(str, ('python', *command)))}", flush=True)
    start = time.monotonic()
    subprocess.run([sys.executable, *map(str, command)], check=True)
    print(f"({time.monotonic() - start:.1f} s)", flush=True)


def main(folder: Path) -> None:
    """Run the job and print its results."""
    if folder.exists():
        if not (folder / MARK).exists():
            sys.exit(f"{folder} is not from an earlier demo: choose another folder")
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    (folder / MARK).touch()
    photos, backbone, features = folder / "elpv", folder / "backbone.onnx", folder / "features"
    model, edge = folder / "model", folder / "edge.onnx"
    start = time.monotonic()
    run("write the sample set", "-m", "data", "sample", "elpv", photos)
    run("export the backbone", "-m", "export", "backbone", "efficientnet_lite0", "-o", backbone)
    run("extract the embeddings", "-m", "extract", photos, "--backbone", backbone, "-o", features)
    run("train a head", "-m", "classify", "train", features, "-o", model, "--repeats=5")
    run("evaluate it", "-m", "classify", "evaluate", model, features)
    run(
        "export the edge model",
        *("-m", "export", "classifier", model, "--backbone", backbone, "-o", edge),
    )
    examples = pq.read_table(model / "examples.parquet").to_pylist()
    unseen = [photos / example["path"] for example in examples if example["split"] == "test"]
    run(
        "classify held-out photographs with the edge model alone (onnxruntime, numpy, Pillow)",
        *(CLASSIFY, edge, *unseen[:4], *unseen[-4:]),
    )
    took = time.monotonic() - start
    repeats = json.loads((model / "model.json").read_text())["metrics"]["repeats"]
    print("\n\033[1m== the job\033[0m")
    print(
        f"accuracy    {repeats['mean']['accuracy']:.4f} +- {repeats['std']['accuracy']:.4f} "
        f"(mean and standard deviation of {repeats['repeats']} stratified 75/25 splits)"
    )
    print(f"edge model  {edge} ({edge.stat().st_size / 1e6:.1f} MB)")
    print(f"took        {took:.0f} s")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "demo"))
