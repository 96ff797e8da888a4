"""`python -m extract` against what people use today: same photographs, same network, to Parquet.

The peers (`benchmarks/peers`) are a careful script with a pool of threads, PyTorch's DataLoader,
Ray Data, Daft, and Keras' `predict`; all but Keras run the same ONNX file by ONNX Runtime in fp32.
headstart runs in fp32, in bf16 where the CPU has it, and with a backbone that was quantized to
int8. Steady state is, of headstart, from when its first worker is up until the last part is
recorded, as the job itself measures it; of a peer, what it takes longer than for a batch of
photographs. Whole is the process, start-up and shut-down included. All take turns; medians. The
limit is explained in `benchmarks/limit.py`; since a machine that others share is faster in one
minute than in the next, a run is divided by the limit of its own round.

    python -m benchmarks.extract OUT [--quick] [--rounds 3] [--only NAME]

Writes OUT/extract.md and OUT/extract.png. Exits with 1 below the ratios in `CASES`. Needs
`pip install -e ".[bench]"`.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow.parquet as pq

from benchmarks.extract_report import OURS, Result, Run, report
from benchmarks.limit import limits
from benchmarks.photographs import write_photographs
from extract.engines import has_bf16

PEERS = Path(__file__).parent / "peers"
SMALL, LARGE = (500, 375), (4000, 3000)


@dataclass(frozen=True)
class Case:
    """A network on photographs of a size, and what is wanted.

    Parameters
    ----------
    photographs
        Number for steady state, large enough that the first second (engines in turns, one worker
        behind the other) is little of a run; `whole` for the comparison of whole processes.
    ratio, whole_ratio
        How many times as fast as the best peer headstart has to be, at its best precision.
    """

    name: str
    network: str
    size: int
    pixels: tuple[int, int]
    photographs: int
    whole: int
    ratio: float
    whole_ratio: float

    @property
    def kind(self) -> str:
        """Of the photographs, as a name for their folder."""
        return f"{self.pixels[0]}x{self.pixels[1]}"


CASES = (
    Case("MobileNetV2 160, 500x375", "mobilenetv2", 160, SMALL, 8000, 20_000, 2.0, 1.6),
    Case("EfficientNet-Lite0 224, 500x375", "efficientnet_lite0", 224, SMALL, 4000, 0, 1.0, 1.0),
    Case("ResNet50 224, 500x375", "resnet50", 224, SMALL, 640, 2000, 5.0, 3.0),
    Case("MobileNetV2 160, 4000x3000", "mobilenetv2", 160, LARGE, 768, 1500, 5.0, 3.0),
)
LEAST_OF_LIMIT = 0.85
LEAST_SCALING = 1.9  # from one worker to two, where there are two cores
ALONE = f"{OURS} int8, one worker"
FEW = 32  # photographs: a batch of the peers
QUICK = 16  # as many times fewer photographs
KERAS = ("mobilenetv2", "resnet50")


def export(case: Case, folder: Path, photographs: Path) -> dict[str, str]:
    """Backbone files for each precision."""
    weights = "imagenet" if case.network == "efficientnet_lite0" else "none"
    files = {
        "fp32": f"{case.network}-{case.size}.onnx",
        "int8": f"{case.network}-{case.size}-8.onnx",
    }
    for precision, name in files.items():
        path = folder / name
        if not path.exists():
            command = [*("-m", "export", "backbone", case.network, "-o", path), "--precision"]
            more = [precision, "--weights", weights, "--size", case.size]
            more += ["--calibrate", photographs] if precision == "int8" else []
            subprocess.run(
                [sys.executable, *map(str, command + more)], check=True, capture_output=True
            )
        files[precision] = str(path)
    return files


def ways_of(case: Case, files: dict[str, str]) -> dict[str, list[str]]:
    """What is to be run, by name, and the arguments between photographs and output."""
    ours = {"fp32": files["fp32"], "int8": files["int8"]}
    if has_bf16():
        ours["bf16"] = files["fp32"]
    ways = {f"{OURS} {name}": [file, "--precision", name] for name, file in ours.items()}
    for name in ("threads", "torch_loader", "ray_data", "daft_udf"):
        ways[name] = [files["fp32"]]
    if case.network in KERAS:
        ways["keras_predict"] = [case.network, str(case.size)]
    return ways


def start_of(name: str, arguments: list[str], photographs: Path, out: Path) -> float:
    """Seconds that a peer takes for next to no photographs: its start-up and shut-down."""
    few = out.with_name(f"few-{photographs.name}")
    for path in sorted(photographs.glob("*/*.jpg"))[:FEW]:
        link = few / path.relative_to(photographs)
        link.parent.mkdir(parents=True, exist_ok=True)
        if not link.exists():
            link.hardlink_to(path)
    shutil.rmtree(out, ignore_errors=True)
    started = time.perf_counter()
    command = [sys.executable, PEERS / f"{name}.py", few, *arguments, out]
    subprocess.run([*map(str, command)], check=True, capture_output=True)
    return time.perf_counter() - started


def run(name: str, arguments: list[str], photographs: Path, out: Path, start: float = 0.0) -> Run:
    """Run it once into an empty place; `start` is what a peer takes for a few photographs."""
    shutil.rmtree(out, ignore_errors=True)
    if name.startswith(OURS):
        command = ["-m", "extract", photographs, "--backbone", *arguments, "-o", out, "--json"]
    else:
        command = [PEERS / f"{name}.py", photographs, *arguments, out]
    started = time.perf_counter()
    done = subprocess.run([sys.executable, *map(str, command)], check=True, capture_output=True)
    whole = time.perf_counter() - started
    if name.startswith(OURS):
        summary = json.loads(done.stdout)
        count = summary["embedded"]
        return Run(count / summary["seconds"]["embed"], count / whole, summary["first_embedding"])
    count = pq.read_table(out, columns=["id"]).num_rows
    return Run((count - FEW) / max(whole - start, 1e-9), count / whole, None)


def measure(case: Case, work: Path, options: argparse.Namespace) -> Result:
    """All ways of a case, in turns."""
    count = max(case.photographs // (QUICK if options.quick else 1), 64)
    photographs = write_photographs(work / f"{case.kind}-{count}", count, case.pixels)
    ways = ways_of(case, export(case, work, photographs))
    ours = {arguments[-1]: arguments[0] for name, arguments in ways.items() if OURS in name}
    ways[ALONE] = [*ways[f"{OURS} int8"], "--workers", "1"]
    found: dict[str, list[Run]] = {name: [] for name in ways}
    bounds: list[dict[str, float]] = []
    for number in range(1, options.rounds + 1):
        bounds.append(limits(photographs, ours))
        print(f"{case.name}: round {number}, limits {bounds[-1]}", flush=True)
        for name, arguments in ways.items():
            out = work / "out"
            start = 0.0 if OURS in name else start_of(name, arguments, photographs, out)
            found[name].append(run(name, arguments, photographs, out, start))
            print(f"{case.name}: round {number}, {name} {found[name][-1]}", flush=True)
    alone = found.pop(ALONE)
    result = Result(found, bounds, alone, count, {})
    if not case.whole or options.quick:
        return result
    pair = {name: ways[name] for name in (result.best(ours=True), result.best(ours=False))}
    return replace(result, whole=measure_whole(case, pair, work, options.rounds))


def measure_whole(
    case: Case, ways: dict[str, list[str]], work: Path, rounds: int
) -> dict[str, float]:
    """Seconds of whole processes on more photographs, in turns: the medians."""
    photographs = write_photographs(work / f"{case.kind}-{case.whole}", case.whole, case.pixels)
    took: dict[str, list[float]] = {name: [] for name in ways}
    for name in [*ways] * rounds:
        rate = run(name, ways[name], photographs, work / "out").whole
        took[name].append(case.whole / rate)
        print(f"{case.name}: {case.whole:,}, {name} {took[name][-1]:.1f} s", flush=True)
    return {name: statistics.median(each) for name, each in took.items()}


def main() -> None:
    """Measure, write the table and the plot, and fail below the ratios."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("out", type=Path)
    parser.add_argument(
        "--quick", action="store_true", help=f"1/{QUICK} of the photographs, once, of one case"
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="", help="cases whose name contains this")
    parser.add_argument("--work", type=Path, help="keep photographs and backbones here")
    options = parser.parse_args()
    if options.quick:
        options.rounds = 1
    options.out.mkdir(parents=True, exist_ok=True)
    cases = [case for case in CASES if options.only in case.name]
    cases = cases[:1] if options.quick else cases
    with tempfile.TemporaryDirectory(prefix="extract-") as name:
        work = options.work or Path(name)
        work.mkdir(parents=True, exist_ok=True)
        found = {case: measure(case, work, options) for case in cases}
    short = report(found, options.out, LEAST_OF_LIMIT, LEAST_SCALING)
    if short:
        sys.exit("below what is wanted:\n  " + "\n  ".join(short))


if __name__ == "__main__":
    main()
