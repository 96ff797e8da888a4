"""Every supported network: does it export, and how exact, large and fast is the file?

    python -m benchmarks.zoo docs/zoo.md [--work FOLDER] [--only NAME ...] [--table]

Each network is exported at its own input size in a separate process and compared with its framework
at batch 1 and 3; then the table is written. Weights are random (`--weights none`) if no package
contains them: see `settle` for where that matters. Results are kept in FOLDER (`build/zoo`), so
that a stopped run can be continued. Speed is that of ONNX Runtime on one thread, fp32 and int8 in
turns. Networks are sorted by size, smallest first; all of them take about three quarters of an hour
on two cores. ConvNeXtXLarge needs 20 GB of memory.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from headstart.data.common import console
from headstart.data.common.errors import HeadstartError
from headstart.export.backbone.build import describe, serialized, to_backbone
from headstart.export.backbone.check import check
from headstart.export.backbone.embedding import plan
from headstart.export.backbone.quantize import quantize
from headstart.export.networks.catalogue import APPLICATIONS, KNOWN, LITE
from headstart.export.networks.resolve import open_original
from headstart.export.options import BackboneOptions, FeatureOptions

TORCH = (
    "timm:resnet18",
    "timm:mobilenetv3_large_100",
    "timm:efficientnet_lite0",
    "timm:convnext_tiny",
    "timm:vit_small_patch16_224",
    "timm:swin_tiny_patch4_window7_224",
    "torchvision:resnet50",
    "torchvision:regnet_y_400mf",
)
EXPLODE = ("efficientnetv2m", "efficientnetv2l")  # with random weights: see `settle`
PICTURES = 2  # to measure int8's ranges on: enough for its speed, and nothing else is asked here
LONGEST = 1800  # seconds for one network
NOT_YET = "not measured yet"


def cost(name: str) -> float:
    """A guess at the work, to begin with the small ones."""
    facts = KNOWN.get(name)
    return facts.parameters * facts.size**2 / 224**2 if facts else 20.0


def settle(network: Any) -> None:
    """Set the statistics of batch normalization to those of noise.

    With random weights and none of these, numbers grow to 1e6 and rounding decides what comes out.
    """
    for layer in network.model.layers:
        if type(layer).__name__ == "BatchNormalization":
            layer.momentum = 0.0  # all of the old statistics are forgotten
    size = (PICTURES, network.height, network.width, 3)
    pictures = np.random.default_rng(1).integers(0, 256, size, dtype=np.uint8)
    network.model(network.preprocess(pictures), training=True)


def measure(name: str) -> dict[str, Any]:
    """One row: exported, checked, quantized, timed."""
    start = time.monotonic()
    options = BackboneOptions(weights="imagenet" if name in LITE else "none")
    try:
        original = open_original(name, options)
        if name in EXPLODE:
            settle(original)
        layers = () if name in APPLICATIONS or name not in LITE else ("head",)
        recipe = plan(original, FeatureOptions(layers))
        spec = describe(original, recipe, options)
        proto = to_backbone(original, recipe, spec)
        content = serialized(proto, spec)
        parity = check(content, original, recipe, spec)
        size = (PICTURES, original.height, original.width, 3)
        pictures = np.random.default_rng(0).integers(0, 256, size, dtype=np.uint8)
        del original
        lower = quantize(proto, spec, "int8", pictures)
    except HeadstartError as error:
        return {"name": name, "error": error.args[0]}
    return {
        "name": name,
        "size": spec.preprocessing.shape[0],
        "layers": list(spec.layers),
        "dim": spec.dim,
        "parity": parity,
        "bytes": len(content),
        "int8_bytes": len(lower.content),
        "fp32": lower.fp32_speed,
        "int8": lower.speed,
        "seconds": time.monotonic() - start,
    }


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as Markdown."""
    lines = [
        "| network | input | embedding | parity | MB fp32 | MB int8 | img/s fp32 | img/s int8 | "
        "int8 / fp32 |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        if "error" in row:
            why = row["error"] if row["error"] == NOT_YET else f"does not export: {row['error']}"
            lines.append(f"| {row['name']} | {why} | | | | | | | |")
            continue
        lines.append(
            f"| {row['name']} | {row['size']} | {row['dim']:,} | {row['parity']:.0e} "
            f"| {row['bytes'] / 1e6:.1f} | {row['int8_bytes'] / 1e6:.1f} "
            f"| {row['fp32']:.1f} | {row['int8']:.1f} | {row['int8'] / row['fp32']:.2f} |"
        )
    return "\n".join(lines) + "\n"


HEAD = """# Every network, exported

Made by `make zoo`. Each network of `python -m export list`, and some of timm's and torchvision's,
was exported at its own input size and held against its own framework at batch 1 and 3. Parity is
the largest difference of an embedding, relative to its largest number; an export above 1e-4 is
refused. Speed is in images per second of ONNX Runtime on one thread{machine}, fp32 and int8 in
turns; other work ran on the machine beside it, so compare within a row rather than between rows.
Weights are random, but for EfficientNet-Lite. Speed does not depend on them, and parity hardly
does: in EfficientNetV2M and L random ones let numbers grow to 1e6, where rounding decides, so that
their batch normalization was set to the statistics of noise first. int8's accuracy depends on
weights: see [precision.md](precision.md).

"""


def machine() -> str:
    """The processor's name, as Linux states it."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f" ({models[0]})" if models else ""


def memory() -> float:
    """Of this machine, in GB."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9


def main() -> int:
    """Measure what is missing and write the table; 1 if a network does not export."""
    parser = argparse.ArgumentParser(description="Export every network and write the table.")
    parser.add_argument("output", type=Path, nargs="?", default=Path("docs/zoo.md"))
    parser.add_argument("--work", type=Path, default=Path("build/zoo"))
    parser.add_argument("--only", nargs="*")
    parser.add_argument("--table", action="store_true", help="Write what is there, and stop.")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(measure(arguments.measure)))
        return 0
    names = arguments.only or sorted([*KNOWN, *TORCH], key=cost)
    work: Path = arguments.work
    work.mkdir(parents=True, exist_ok=True)
    rows = []
    with console.progress("exporting", len(names)) as advance:
        for name in names:
            kept = work / f"{name.replace(':', '-')}.json"
            if not kept.exists() and arguments.table:
                rows.append({"name": name, "error": NOT_YET})
                continue
            if not kept.exists():
                command = [sys.executable, "-m", "benchmarks.zoo", "--measure", name]
                done = subprocess.run(command, capture_output=True, text=True, timeout=LONGEST)
                if done.returncode:
                    why = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
                    if done.returncode == -signal.SIGKILL:
                        why = f"needs more memory than there is here ({memory():.0f} GB)"
                    rows.append({"name": name, "error": why})
                    advance(1)
                    continue
                kept.write_text(done.stdout.strip().splitlines()[-1] + "\n")
            rows.append(json.loads(kept.read_text()))
            advance(1)
    arguments.output.write_text(HEAD.format(machine=machine()) + table(rows))
    failed = [row["name"] for row in rows if "error" in row]
    print(f"{len(rows) - len(failed)} of {len(rows)} export; failed: {', '.join(failed) or 'none'}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
