"""What people use today for the same work, each a script, and whether it can run here.

A script gets the folder of photographs, the backbone (for Keras the network and its size) and the
output, and writes Parquet. Each runs in a process of its own; Daft, whose requirements differ from
ours, in an environment of its own.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
DAFT = ("daft", "numpy", "onnxruntime")  # what its environment gets


@dataclass(frozen=True)
class Peer:
    """A script of this folder.

    Parameters
    ----------
    needs
        Modules that it imports.
    install
        What makes them available.
    """

    name: str
    needs: tuple[str, ...]
    install: str

    @property
    def script(self) -> Path:
        """The file to run."""
        return HERE / f"{self.name}.py"


PEERS = {
    peer.name: peer
    for peer in (
        Peer("threads", ("onnxruntime",), 'pip install -e ".[dev]"'),
        Peer("torch_loader", ("torch",), 'pip install -e ".[torch]"'),
        Peer("ray_data", ("ray.data",), 'pip install -e ".[dev]"'),
        Peer("daft_udf", ("daft",), "--daft FOLDER, an environment that is made there"),
        Peer("keras_predict", ("tensorflow", "keras"), 'pip install -e ".[keras]"'),
    )
}


def loads(modules: Sequence[str], python: str = sys.executable) -> bool:
    """Whether modules can be imported; one that is installed may not fit the others."""
    command = [python, "-c", "; ".join(f"import {name}" for name in modules)]
    return not subprocess.run(command, capture_output=True).returncode


def prepare(names: Sequence[str], daft: Path | None) -> tuple[dict[str, str], list[str]]:
    """The interpreter of each peer that can run, and a line for each that cannot.

    Parameters
    ----------
    daft
        An environment with Daft, made if it is not there; none for the one that runs this.

    Raises
    ------
    SystemExit
        If the environment cannot be made.
    """
    pythons, missing = {}, []
    for name in names:
        peer, python = PEERS[name], sys.executable
        if name == "daft_udf" and daft:
            python = str(_environment(daft))
        if loads(peer.needs, python):
            pythons[name] = python
        else:
            missing.append(f"{name} needs {', '.join(peer.needs)}: {peer.install}")
    return pythons, missing


def _environment(folder: Path) -> Path:
    """The interpreter of an environment with Daft."""
    python = folder / "bin" / "python"
    if python.exists():
        return python
    print(f"an environment with Daft is being made in {folder} ...", flush=True)
    install = [str(python), "-m", "pip", "install", "--quiet", *DAFT]
    for command in ([sys.executable, "-m", "venv", str(folder)], install):
        if subprocess.run(command).returncode:
            sys.exit(f"no environment with Daft could be made in {folder}: see the lines above")
    return python
