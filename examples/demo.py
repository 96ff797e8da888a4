"""The main job on real photographs, by the commands that a user types.

    python examples/demo.py [FOLDER]

Everything is written to FOLDER (`demo` by default); a second run does only what is not done.
"""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq


def run(*command: object) -> None:
    """Run one command as the user would."""
    print(f"\n\033[1m$ python -m {shlex.join(map(str, command))}\033[0m", flush=True)
    subprocess.run([sys.executable, "-m", *map(str, command)], check=True)


def main(folder: Path) -> None:
    """Write the sample set, build, and classify photographs that training never saw."""
    photos, work = folder / "elpv", folder / "work"
    if not photos.exists():
        run("data", "sample", "elpv", photos)
    run("headstart", "build", photos, "-o", work, "--repeats", 5, "--title", "Solar cells")
    examples = pq.read_table(work / "model" / "examples.parquet").to_pylist()
    unseen = [photos / example["path"] for example in examples if example["split"] == "test"]
    run("headstart", "predict", work / "edge.onnx", *unseen[:4], *unseen[-4:])


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "demo"))
