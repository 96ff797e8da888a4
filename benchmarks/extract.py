"""`python -m extract` against common alternatives: same photographs, same network, to Parquet.

The peers (`benchmarks/peers`) are a careful script with a pool of threads, PyTorch's DataLoader,
Ray Data, Daft, and Keras' `predict`; all but Keras run the same ONNX file by ONNX Runtime in fp32.
headstart runs in fp32, in bf16 where the CPU has it, and with a backbone that was quantized to
int8. All take turns; medians.

Steady state is the time of a run minus that of a run over an eighth of the photographs, in which a
network is loaded and called for the first time: for a peer the time of the process, for headstart
the time from the start of its first worker until the last part is recorded, as the job itself
measures it. The limit is explained in `benchmarks/limit.py`; since the speed of a shared machine
changes from minute to minute, it is measured before and after each run of ours.

With `--whole`: the whole process, start-up and shut-down included, as a user waits for it, with
several numbers of photographs (`benchmarks/extract_whole.py`). `--quick` is that, once, with 500
photographs and EfficientNet-Lite0: about a minute.

    python -m benchmarks.extract OUT [--quick | --whole] [--rounds 3] [--only NAME] [--skip-missing]

Writes OUT/extract.md and OUT/extract.png, or OUT/extract_whole.md. Exits with 1 below
`LEAST_OF_LIMIT` and `LEAST_SCALING`, or, whole, where a peer is faster with 500 photographs or
more. Needs `pip install -e ".[dev]"`; what else a peer needs is said before anything starts.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.extract_report import Result, Run, report
from benchmarks.extract_whole import INT8, Whole, measure_whole, table
from benchmarks.limit import between, limit_of
from benchmarks.peers import PEERS, loads, prepare
from benchmarks.photographs import write_photographs
from benchmarks.processes import OURS, time_run
from headstart.extract.engines.runtimes import has_bf16

SMALL, LARGE = (500, 375), (4000, 3000)


@dataclass(frozen=True)
class Case:
    """A network on photographs of a size in pixels.

    Parameters
    ----------
    photographs
        Number for steady state, large enough that the first second (engines in turns, one worker
        behind the other) is little of a run.
    whole
        Numbers for whole processes.
    """

    name: str
    network: str
    size: int
    pixels: tuple[int, int]
    photographs: int
    whole: tuple[int, ...] = ()

    @property
    def kind(self) -> str:
        """Of the photographs, as a name for their folder."""
        return f"{self.pixels[0]}x{self.pixels[1]}"

    @property
    def framework(self) -> str:
        """What is needed to export the network; empty for nothing."""
        return "keras" if self.network in KERAS else ""


KERAS = ("mobilenetv2", "resnet50")
CASES = (
    Case("MobileNetV2 160, 500x375", "mobilenetv2", 160, SMALL, 8000, (500, 1000, 4000, 20_000)),
    Case("EfficientNet-Lite0 224, 500x375", "efficientnet_lite0", 224, SMALL, 4000),
    Case("ResNet50 224, 500x375", "resnet50", 224, SMALL, 640, (500,)),
    Case("MobileNetV2 160, 4000x3000", "mobilenetv2", 160, LARGE, 768, (200,)),
)
QUICK = Case("EfficientNet-Lite0 224, 500x375", "efficientnet_lite0", 224, SMALL, 0, (500,))
SIZES = sorted({size for case in CASES for size in case.whole})
LEAST_OF_LIMIT = 0.85
LEAST_SCALING = 1.9  # from one worker to two, where there are two cores
ALONE = f"{INT8}, one worker"
START = 8  # an eighth of the photographs is taken off as start-up
FEWEST = 64  # photographs


def export(case: Case, folder: Path, photographs: Path) -> dict[str, str]:
    """Backbone files for each precision."""
    weights = "none" if case.framework else "imagenet"
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
            command = [sys.executable, *command, *more]
            done = subprocess.run([*map(str, command)], capture_output=True, text=True)
            if done.returncode:
                sys.exit(f"{case.network} could not be exported:\n{done.stderr}")
        files[precision] = str(path)
    return files


def arguments_of(case: Case, files: dict[str, str], peers: Sequence[str]) -> dict[str, list[str]]:
    """What each peer gets between photographs and output; Keras is left out without a network."""
    found = {name: [files["fp32"]] for name in peers}
    if "keras_predict" in found:
        found["keras_predict"] = [case.network, str(case.size)]
        if case.network not in KERAS:
            del found["keras_predict"]
    return found


def run(
    name: str, arguments: list[str], photographs: Path, out: Path, python: str = sys.executable
) -> Run:
    """Run a program over some of the photographs, and over all."""
    some = time_run(name, arguments, some_of(photographs), out, python)
    all_ = time_run(name, arguments, photographs, out, python)
    count = all_.photographs
    steady = (count - some.photographs) / max(all_.seconds - some.seconds, 1e-9)
    up = count / all_.embed if all_.embed else None
    return Run(steady, count / all_.whole, up, all_.first)


def some_of(photographs: Path) -> Path:
    """A folder of every eighth photograph."""
    some = photographs.with_name(f"some-{photographs.name}")
    for path in sorted(photographs.glob("*/*.jpg"))[::START]:
        link = some / path.relative_to(photographs)
        link.parent.mkdir(parents=True, exist_ok=True)
        if not link.exists():
            link.hardlink_to(path)
    return some


def measure_run(name: str, arguments: list[str], photographs: Path, python: str) -> Run:
    """Run a program, and measure the limit before and after if it is one of ours."""
    out = photographs.with_name("out")
    if not name.startswith(OURS) or name == ALONE:
        return run(name, arguments, photographs, out, python)
    file, _, precision = arguments
    before = limit_of(photographs, file, precision)
    one = run(name, arguments, photographs, out, python)
    return replace(one, limit=between(before, limit_of(photographs, file, precision)))


def measure(case: Case, work: Path, rounds: int, pythons: dict[str, str]) -> Result:
    """Steady state of all programs of a case, in turns."""
    photographs = photographs_of(case, work, case.photographs)
    files = export(case, work, photographs)
    ours = {"bf16": files["fp32"]} if has_bf16() else {}
    ways = {f"{OURS} {name}": [file, "--precision", name] for name, file in (ours | files).items()}
    ways[ALONE] = [*ways[INT8], "--workers", "1"]
    ways |= arguments_of(case, files, list(pythons))
    found: dict[str, list[Run]] = {name: [] for name in ways}
    for number in range(1, rounds + 1):
        for name, arguments in ways.items():
            python = pythons.get(name, sys.executable)
            found[name].append(measure_run(name, arguments, photographs, python))
            print(f"{case.name}: round {number}, {name} {found[name][-1]}", flush=True)
    alone = found.pop(ALONE)
    return Result(found, alone, case.photographs)


def whole(
    case: Case, work: Path, rounds: int, pythons: dict[str, str], sizes: Sequence[int]
) -> list[Whole]:
    """Whole processes of a case, by number of photographs."""
    found = []
    for size in case.whole:
        if size not in sizes:
            continue
        photographs = photographs_of(case, work, size)
        files = export(case, work, photographs)
        programs = {OURS: [files["fp32"]], INT8: [files["int8"]]}
        programs |= arguments_of(case, files, list(pythons))
        interpreters = {name: pythons.get(name, sys.executable) for name in programs}
        found.append(
            measure_whole(
                programs,
                interpreters,
                photographs,
                rounds,
                lambda line: print(f"{case.name}: {line}", flush=True),
            )
        )
    return found


def photographs_of(case: Case, work: Path, count: int) -> Path:
    """A folder of so many of them."""
    return write_photographs(work / f"{case.kind}-{count}", count, case.pixels)


def ready(cases: Sequence[Case], options: argparse.Namespace) -> dict[str, str]:
    """The interpreter of each peer; ends the program if something is missing.

    Raises
    ------
    SystemExit
        If a peer is missing, and was not to be skipped; or what headstart itself needs.
    """
    names = options.peers or list(PEERS)
    if not any(case.network in KERAS for case in cases):
        names = [name for name in names if name != "keras_predict"]
    needed = [name for name in ("skimage", *{case.framework for case in cases}) if name]
    if not loads(needed):
        sys.exit(f'not installed: {", ".join(needed)}\n  pip install -e ".[dev]"')
    pythons, missing = prepare(names, options.daft)
    for line in missing:
        print(f"missing: {line}", flush=True)
    if missing and not options.skip_missing:
        sys.exit("Install what is missing, or give --skip-missing to go on without it.")
    if not pythons:
        sys.exit("There is no peer to compare with: install one of those above.")
    if "torch_loader" in pythons and not loads(["torchvision.io"]):
        print("note: torchvision does not load, so that torch_loader decodes with Pillow")
    return pythons


def parse() -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("out", type=Path)
    parser.add_argument(
        "--quick", action="store_true", help="whole, once, 500 photographs, EfficientNet-Lite0"
    )
    parser.add_argument("--whole", action="store_true", help="whole processes, by size")
    parser.add_argument(
        "--sizes", type=int, nargs="+", choices=SIZES, default=SIZES, help="whole: of these only"
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="", help="cases whose name contains this")
    parser.add_argument("--peers", nargs="+", choices=list(PEERS), help="these only")
    parser.add_argument("--skip-missing", action="store_true", help="go on without such peers")
    parser.add_argument(
        "--daft", type=Path, metavar="FOLDER", help="environment with Daft; made if not there"
    )
    parser.add_argument("--work", type=Path, help="keep photographs and backbones here")
    options = parser.parse_args()
    options.whole |= options.quick
    if options.quick:
        options.rounds = 1
    return options


def main() -> None:
    """Measure, write the table and the plot, and fail below the limits."""
    options = parse()
    cases = [case for case in CASES if options.only in case.name]
    if options.whole:
        cases = [case for case in cases if set(case.whole) & set(options.sizes)]
    cases = [QUICK] if options.quick else cases
    if not cases:
        sys.exit(f"no case is left: --only one of {', '.join(case.name for case in CASES)}")
    pythons = ready(cases, options)
    options.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="extract-") as name:
        work = options.work or Path(name)
        work.mkdir(parents=True, exist_ok=True)
        if options.whole:
            tables = [
                table(case.name, whole(case, work, options.rounds, pythons, options.sizes))
                for case in cases
            ]
            lines = [line for lines, _ in tables for line in lines]
            short = [line for _, missed in tables for line in missed]
            (options.out / "extract_whole.md").write_text("\n".join(lines))
            print("\n".join(lines))
        else:
            found = {case: measure(case, work, options.rounds, pythons) for case in cases}
            short = report(found, options.out, LEAST_OF_LIMIT, LEAST_SCALING)
    if short:
        sys.exit("below what is wanted:\n  " + "\n  ".join(short))


if __name__ == "__main__":
    main()
