"""`python -m extract` against common alternatives: same photographs, same network, to Parquet.

The peers (`benchmarks/peers`) are a careful script with a pool of threads, PyTorch's DataLoader,
Ray Data, Daft, and Keras' `predict`; all but Keras run the same ONNX file by ONNX Runtime in fp32.
headstart runs in fp32, in bf16 where the CPU has it, and with a backbone that was quantized to
int8. Steady state is the time of a run minus that of a run over `FEW` photographs, in which a
network is loaded and called for the first time: for a peer the time of the process, for headstart
the time from the start of its first worker until the last part is recorded, as the job itself
measures it (Ray's start takes much longer). Whole is the process, start-up and shut-down included.
All take turns; medians. The limit is explained in `benchmarks/limit.py`; since the speed of a
shared machine changes from minute to minute, it is measured before and after each run of ours.

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
from benchmarks.limit import between, limit_of
from benchmarks.photographs import write_photographs
from headstart.extract.engines.runtimes import has_bf16

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
FEW = 32  # photographs: a batch of the peers, and one of each of two workers
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


def programs_of(case: Case, files: dict[str, str]) -> dict[str, list[str]]:
    """The programs to run, by name, and their arguments between photographs and output."""
    ours = {"fp32": files["fp32"], "int8": files["int8"]}
    if has_bf16():
        ours = {"bf16": files["fp32"], **ours}
    ways = {f"{OURS} {name}": [file, "--precision", name] for name, file in ours.items()}
    ways[ALONE] = [*ways[f"{OURS} int8"], "--workers", "1"]
    for name in ("threads", "torch_loader", "ray_data", "daft_udf"):
        ways[name] = [files["fp32"]]
    if case.network in KERAS:
        ways["keras_predict"] = [case.network, str(case.size)]
    return ways


@dataclass(frozen=True)
class Took:
    """Seconds of a process, and what headstart reports itself."""

    photographs: int
    whole: float
    embed: float | None = None
    first: float | None = None

    @property
    def seconds(self) -> float:
        """The seconds that steady state is computed from."""
        return self.whole if self.embed is None else self.embed


def time_run(name: str, arguments: list[str], photographs: Path, out: Path) -> Took:
    """Run a program once, with an empty output."""
    shutil.rmtree(out, ignore_errors=True)
    if name.startswith(OURS):
        command = ["-m", "extract", photographs, "--backbone", *arguments, "-o", out, "--json"]
    else:
        command = [PEERS / f"{name}.py", photographs, *arguments, out]
    started = time.perf_counter()
    done = subprocess.run([sys.executable, *map(str, command)], check=True, capture_output=True)
    whole = time.perf_counter() - started
    if name.startswith(OURS):
        reported = json.loads(done.stdout)
        return Took(
            reported["embedded"], whole, reported["seconds"]["embed"], reported["first_embedding"]
        )
    return Took(pq.read_table(out, columns=["id"]).num_rows, whole)


def run(name: str, arguments: list[str], photographs: Path, out: Path) -> Run:
    """Run a program over a few photographs and over all."""
    few = time_run(name, arguments, few_of(photographs), out)
    all_ = time_run(name, arguments, photographs, out)
    count = all_.photographs
    steady = (count - few.photographs) / max(all_.seconds - few.seconds, 1e-9)
    up = count / all_.embed if all_.embed else None
    return Run(steady, count / all_.whole, up, all_.first)


def few_of(photographs: Path) -> Path:
    """A folder of the first `FEW` photographs."""
    few = photographs.with_name(f"few-{photographs.name}")
    for path in sorted(photographs.glob("*/*.jpg"))[:FEW]:
        link = few / path.relative_to(photographs)
        link.parent.mkdir(parents=True, exist_ok=True)
        if not link.exists():
            link.hardlink_to(path)
    return few


def measure_run(name: str, arguments: list[str], photographs: Path, out: Path) -> Run:
    """Run a program, and measure the limit before and after if it is one of ours."""
    if not name.startswith(OURS) or name == ALONE:
        return run(name, arguments, photographs, out)
    file, _, precision = arguments
    before = limit_of(photographs, file, precision)
    one = run(name, arguments, photographs, out)
    return replace(one, limit=between(before, limit_of(photographs, file, precision)))


def measure(case: Case, work: Path, options: argparse.Namespace) -> Result:
    """All programs of a case, in turns."""
    count = max(case.photographs // (QUICK if options.quick else 1), 64)
    photographs = write_photographs(work / f"{case.kind}-{count}", count, case.pixels)
    ways = programs_of(case, export(case, work, photographs))
    found: dict[str, list[Run]] = {name: [] for name in ways}
    for number in range(1, options.rounds + 1):
        for name, arguments in ways.items():
            found[name].append(measure_run(name, arguments, photographs, work / "out"))
            print(f"{case.name}: round {number}, {name} {found[name][-1]}", flush=True)
    alone = found.pop(ALONE)
    result = Result(found, alone, count, {})
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
        took[name].append(time_run(name, ways[name], photographs, work / "out").whole)
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
