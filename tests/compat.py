"""The main job on every version of Python that we support: `make compat`.

Each interpreter gets a virtual environment of its own with the package, built and installed as a
user would, at the versions in `constraints.txt`. The main job then runs by its commands in an empty
folder: first with the base installation, then with the extra `keras`, which exports a network of
Keras and trains its own head.

    python tests/compat.py [--folder FOLDER] [VERSION ...]

`python3.10` and so on are looked for on PATH, and those that are missing are named. Exit code 1
says that something failed.
"""

from __future__ import annotations

import argparse
import csv
import os
import shutil
import subprocess
import sys
import textwrap
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[1]
VERSIONS = ("3.10", "3.11", "3.12", "3.13")
HEADS = ("linear-svm", "rbf-svm", "knn", "ridge", "lda", "boosting")  # beside the default
FLOOR = 0.9  # share of the digits that the edge model must recognise
PATIENCE = 1800  # seconds for one command


class StepFailedError(Exception):
    """A command ended badly, or what it wrote is wrong."""


@dataclass
class Outcome:
    """What ran with one interpreter, and the seconds that it took."""

    version: str
    megabytes: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    failure: str | None = None


def find(version: str) -> str | None:
    """The full path of an interpreter, or none. Asked, since a name may be there without one."""
    program = shutil.which(f"python{version}")
    if program is None:
        return None
    asked = subprocess.run(
        [program, "-c", "import sys; print(*sys.version_info[:2], sep='.'); print(sys.executable)"],
        capture_output=True,
        text=True,
        check=False,
    )
    lines = asked.stdout.splitlines()
    return lines[1] if asked.returncode == 0 and lines[0] == version else None


class Job:
    """The main job in a folder of one interpreter."""

    def __init__(self, folder: Path, interpreter: str) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        self.environment, self.work = folder / "environment", folder / "work"
        self.work.mkdir(parents=True)
        self.backbone = self.work / "backbone.onnx"
        self.outside = {name: os.environ[name] for name in os.environ if name != "PYTHONPATH"}
        self.run(interpreter, "-m", "venv", self.environment)
        self.python = self.environment / "bin" / "python"

    def run(self, *command: object) -> str:
        """Run one command in the work folder; what it printed."""
        said = textwrap.shorten(" ".join(map(str, command)), 200)
        print("$", said, flush=True)
        ended = subprocess.run(
            [*map(str, command)],
            cwd=self.work,
            env=self.outside,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        if ended.returncode:
            print(ended.stdout)
            raise StepFailedError(f"exit code {ended.returncode} of {said}")
        return ended.stdout

    def headstart(self, *arguments: object) -> None:
        """Run `python -m ARGUMENTS...`."""
        self.run(self.python, "-m", *arguments)

    def install(self, extra: str) -> None:
        """Install the package, and check that what is installed fits together."""
        constraints = ROOT / "constraints.txt"
        pip = (self.python, "-m", "pip", "--quiet", "--disable-pip-version-check")
        self.run(*pip, "install", "-c", constraints, f"headstart{extra} @ {ROOT.as_uri()}")
        self.run(*pip, "check")

    def main_job(self) -> None:
        """From photographs to the answers of an edge model."""
        self.headstart("data", "sample", "digits", "digits")
        self.headstart("export", "backbone", "efficientnet_lite0", "-o", self.backbone)
        self.headstart("extract", "digits", "--backbone", self.backbone, "-o", "features")
        self.headstart("classify", "train", "features", "-o", "model")
        self.headstart("classify", "predict", "model", "features", "-o", "answers.csv")
        self.export_edge("model", self.backbone)

    def export_edge(self, model: str, backbone: Path) -> None:
        """Write an edge model, and let the program for it classify photographs by it alone."""
        edge = self.work / f"{model}.edge.onnx"
        self.headstart("export", "classifier", model, "--backbone", backbone, "-o", edge)
        photographs = sorted(self.work.glob("digits/?/*.png"))[::20]
        code = self.work / f"{model}-code"
        self.headstart("export", "code", edge, "-o", code)
        answers = self.run(self.python, code / "classify_photo.py", edge, *photographs).splitlines()
        right = sum(Path(path).parent.name == label for path, label, _ in map(str.split, answers))
        if right < FLOOR * len(photographs):
            raise StepFailedError(f"{right} of {len(photographs)} photographs are recognised")

    def predict_photographs(self) -> None:
        """Let the edge model classify a folder of photographs on Ray."""
        shutil.copytree(self.work / "digits" / "3", self.work / "threes")
        self.headstart("classify", "predict", "model.edge.onnx", "threes", "-o", "threes.csv")
        with (self.work / "threes.csv").open(newline="") as file:
            labels = [row["prediction"] for row in csv.DictReader(file)]
        if labels.count("3") < FLOOR * len(labels):
            raise StepFailedError(f"{labels.count('3')} of {len(labels)} threes are recognised")

    def heads(self) -> None:
        """Train every other head that needs no extra."""
        for head in HEADS:
            self.headstart(
                "classify", "train", "features", "-o", head, "--head", head, "--no-report"
            )

    def keras(self) -> None:
        """Export a network of Keras, train a head by Keras, and put it into one file."""
        network = ("mobilenetv2", "--weights", "none", "--size", 96, "-o", "mobilenet.onnx")
        self.headstart("export", "backbone", *network)
        self.headstart("classify", "train", "features", "-o", "keras", "--head", "keras")
        self.export_edge("keras", self.backbone)

    def measure(self) -> int:
        """Megabytes that the virtual environment takes."""
        files = (file.lstat().st_size for file in self.environment.rglob("*") if file.is_file())
        return round(sum(files) / 1e6)


STEPS = ("install", "main job", "photographs", "heads", "install keras", "keras")


def try_out(version: str, interpreter: str, folder: Path) -> Outcome:
    """Run all steps with one interpreter, up to the first that fails."""
    outcome = Outcome(version)
    print(f"\n== Python {version}: {interpreter}", flush=True)
    name = "environment"
    try:
        job = Job(folder, interpreter)
        actions = (
            lambda: job.install(""),
            job.main_job,
            job.predict_photographs,
            job.heads,
            lambda: job.install("[keras]"),
            job.keras,
        )
        for name, action in zip(STEPS, actions, strict=True):
            start = time.monotonic()
            action()
            outcome.seconds[name] = time.monotonic() - start
            if name == "install":
                outcome.megabytes = job.measure()
    except (StepFailedError, subprocess.TimeoutExpired) as error:
        outcome.failure = f"{name}: {error}"
    return outcome


def table(outcomes: Sequence[Outcome]) -> str:
    """What ran, in seconds, a line for each interpreter."""
    lines = ["  ".join(("Python", "   MB", *STEPS))]
    for each in outcomes:
        cells = [f"{each.seconds[step]:.0f} s" if step in each.seconds else "-" for step in STEPS]
        row = [cell.rjust(len(step)) for step, cell in zip(STEPS, cells, strict=True)]
        lines.append("  ".join((f"{each.version:6}", f"{each.megabytes:5}", *row)))
        if each.failure:
            lines.append(f"        FAILED at {each.failure}")
    return "\n".join(lines)


def main() -> int:
    """Run everything, print the table; 1 if anything failed or nothing could run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("versions", nargs="*", default=VERSIONS, metavar="VERSION")
    parser.add_argument("--folder", type=Path, default=ROOT / "build" / "compat")
    options = parser.parse_args()
    folder = options.folder.resolve()
    found = {version: find(version) for version in options.versions}
    folder.mkdir(parents=True, exist_ok=True)
    outcomes = [
        try_out(version, interpreter, folder / version)
        for version, interpreter in found.items()
        if interpreter
    ]
    print(f"\n{table(outcomes)}")
    if missing := [f"python{version}" for version, path in found.items() if path is None]:
        print(f"not here: {', '.join(missing)}")
    return int(not outcomes or any(each.failure for each in outcomes))


if __name__ == "__main__":
    sys.exit(main())
