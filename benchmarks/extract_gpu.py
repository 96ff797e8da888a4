"""`python -m extract --engine cuda` against common alternatives on a machine with a GPU.

Same photographs (JPEGs of 500x375), same backbone file, to Parquet; all run it by ONNX Runtime on
the GPU in the file's precision. Steady state and whole as in `benchmarks/extract.py`; medians. The
limit is the slower one of decoding with all cores and of inference on the GPU, each alone: unlike
on CPUs, both can run at the same time.

    python -m benchmarks.extract_gpu OUT BACKBONE... [--photographs 20000] [--rounds 3]

Writes OUT/extract_gpu.md. Exits with 1 where a peer is faster in steady state. Needs
onnxruntime-gpu and PyTorch.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.extract import run
from benchmarks.extract_report import Run, best
from benchmarks.limit import decoding_rate, inference_rate
from benchmarks.photographs import write_photographs
from benchmarks.processes import OURS
from headstart.data.contracts.backbone import load_backbone
from headstart.extract.engines.runtimes import EngineConfig

PEERS = ("torch_loader", "threads")
BATCHES = (16, 64, 256)
SIZE = (500, 375)


def measure(file: str, photographs: Path, rounds: int) -> dict[str, Run]:
    """All programs in turns: the medians."""
    found: dict[str, list[Run]] = {name: [] for name in (OURS, *PEERS)}
    with tempfile.TemporaryDirectory(prefix="gpu-") as name:
        out = Path(name, "out")
        for number in range(rounds):
            for program, runs in found.items():
                arguments = [file, "--engine", "cuda"] if program == OURS else [file]
                runs.append(run(program, arguments, photographs, out))
                print(f"{Path(file).stem}: round {number + 1}, {program} {runs[-1]}", flush=True)
    return {name: Run.median(runs) for name, runs in found.items()}


def table(file: str, photographs: Path, found: dict[str, Run]) -> list[str]:
    """What was measured with a backbone, and how near it is to the limit."""
    spec = load_backbone(file).spec
    decoding = decoding_rate(photographs, spec)
    gpu = {
        batch: inference_rate(file, EngineConfig(spec.precision, "cuda", batch))
        for batch in BATCHES
    }
    alone = ", ".join(f"{rate:,.0f}/s in batches of {batch}" for batch, rate in gpu.items())
    limit, peer = min(decoding, max(gpu.values())), found[best(found, False)].steady
    lines = [
        f"### {Path(file).stem}, {spec.precision}",
        f"Decoding alone {decoding:,.0f}/s; the GPU alone {alone}.",
        "",
        "| | steady, img/s | to the best peer | of the limit | whole, img/s | first after |",
        "|---|---|---|---|---|---|",
    ]
    for name, row in sorted(found.items(), key=lambda pair: -pair[1].steady):
        first = f"{row.first:.1f} s" if row.first is not None else ""
        lines.append(
            f"| {name} | {row.steady:,.0f} | {row.steady / peer:.2f} | {row.steady / limit:.0%} | "
            f"{row.whole:,.0f} | {first} |"
        )
    return [*lines, ""]


def machine() -> str:
    """The GPU's name and the number of CPUs."""
    query = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    gpus = subprocess.run(query, check=True, capture_output=True, text=True).stdout.split("\n")
    return f"{gpus[0]}, {len(os.sched_getaffinity(0))} CPUs"


def main() -> None:
    """Measure, write the table, and fail where a peer is faster."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("backbones", nargs="+")
    parser.add_argument("--photographs", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    lines, slower = [machine(), ""], []
    with tempfile.TemporaryDirectory(prefix="photographs-") as name:
        photographs = write_photographs(Path(name, "jpeg"), options.photographs, SIZE)
        for file in options.backbones:
            found = measure(file, photographs, options.rounds)
            lines += table(file, photographs, found)
            peer = best(found, False)
            if found[OURS].steady < found[peer].steady:
                slower.append(f"{file}: {peer} is faster")
    (options.out / "extract_gpu.md").write_text("\n".join(lines))
    print("\n".join(lines))
    if slower:
        sys.exit("\n".join(slower))


if __name__ == "__main__":
    main()
