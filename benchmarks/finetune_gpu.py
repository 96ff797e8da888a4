"""One epoch of the whole network on a GPU against the CPU: photographs per second.

    python -m benchmarks.finetune_gpu FOLDER

EfficientNet-Lite0 at 224 pixels on ELPV, `classify finetune --train-blocks all`, where the device
has bfloat16 in mixed precision; one epoch on CPUs, `EPOCHS` on the GPU, whose last one counts: the
first compiles. A machine with a GPU needs some six minutes. Without a GPU it says so and exits with
2. Needs the extras `samples` and `torch`.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from pathlib import Path

from benchmarks.finetune import frozen, headstart
from headstart.data.contracts.tuned import Tuned
from headstart.data.samples import lay_out

EPOCHS = 3
WHOLE = ("--train-blocks", "all", "--augment", "turns", "--cache", "no", "--overwrite")


def rate(folder: Path, name: str, epochs: int, *options: object) -> tuple[float, float]:
    """Photographs per second of the last epoch, and the network's accuracy."""
    output = folder / name
    shutil.rmtree(output, ignore_errors=True)
    headstart(
        *("classify", "finetune", folder / "elpv", "--backbone", folder / "b224.onnx"),
        *("--model", frozen(folder, 224, 0), "-o", output, "--max-epochs", epochs),
        *(*WHOLE, *options),
    )
    card = Tuned.open(output).card
    return card.history[-1]["rate"], card.metrics["test"]["accuracy"]


def main() -> None:
    """Print the table as Markdown."""
    import torch

    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    options = parser.parse_args()
    folder: Path = options.folder
    if not torch.cuda.is_available():
        print("not run: PyTorch finds no GPU here", file=sys.stderr)
        sys.exit(2)
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "elpv").exists():
        lay_out("elpv", folder / "elpv")
    gpu = rate(folder, "on-gpu", EPOCHS, "--gpus-per-worker", 1)
    cpu = rate(folder, "on-cpu", 1)
    name = f"{torch.cuda.get_device_name()}, bfloat16 {torch.cuda.is_bf16_supported()}"
    print("| device | epochs | photographs/s | accuracy |\n|---|---|---|---|")
    print(f"| {name} | {EPOCHS} | {gpu[0]:.0f} | {gpu[1]:.4f} |")
    print(f"| {os.cpu_count()} CPUs | 1 | {cpu[0]:.0f} | {cpu[1]:.4f} |")


if __name__ == "__main__":
    main()
