"""A program run once, as a process, and how long it took."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq

from benchmarks.peers import PEERS

OURS = "headstart"
LAST = 2000  # characters of what a program said before it failed


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


def time_run(
    name: str, arguments: list[str], photographs: Path, out: Path, python: str = sys.executable
) -> Took:
    """Run a program once, with an empty output.

    Raises
    ------
    SystemExit
        If it fails, with what it said.
    """
    shutil.rmtree(out, ignore_errors=True)
    ours = name.startswith(OURS)
    if ours:
        command = ["-m", "extract", photographs, "--backbone", *arguments, "-o", out, "--json"]
    else:
        command = [PEERS[name].script, photographs, *arguments, out]
    # Files, not pipes: a pipe stays open while processes end that a shell would not wait for.
    with tempfile.TemporaryFile("w+") as said, tempfile.TemporaryFile("w+") as errors:
        started = time.perf_counter()
        done = subprocess.run([python, *map(str, command)], stdout=said, stderr=errors)
        whole = time.perf_counter() - started
        said.seek(0)
        errors.seek(0)
        if done.returncode:
            text = (said.read() + errors.read())[-LAST:]
            sys.exit(f"{name} failed with exit code {done.returncode}:\n{text}")
        if not ours:
            return Took(pq.read_table(out, columns=["id"]).num_rows, whole)
        told = json.loads(said.read())
    return Took(told["embedded"], whole, told["seconds"]["embed"], told["first_embedding"])
