"""A process that runs one edge model and nothing else, so that its memory is that model's.

Each line on stdin says how often to run, and each result is a line of JSON on stdout; the process
ends when stdin does. It imports as little as possible, since imports count as memory.
"""

from __future__ import annotations

import json
import re
import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import onnxruntime  # noqa: F401  (here, so that it counts as memory before the model)

from headstart.data.common.errors import first_line
from headstart.data.common.onnx_runtime import open_session
from headstart.data.common.speed import random_inputs, time_runs

STATUS = Path("/proc/self/status")


def peak_memory() -> int:
    """The largest resident size of this process so far, in bytes.

    On Linux `ru_maxrss` includes that of the process that started this one; VmHWM is this program's
    own. macOS has no such file, and its `ru_maxrss` starts from zero.
    """
    if not STATUS.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = re.search(r"^VmHWM:\s+(\d+) kB$", STATUS.read_text(), re.MULTILINE)
    if found is None:
        raise RuntimeError(f"{STATUS} has no VmHWM")
    return 1024 * int(found[1])


def main() -> None:
    """Serve: `PATH THREADS SHAPE...` on the command line, the shape of an example."""
    path, threads, *shape = sys.argv[1:]
    before = peak_memory()
    with _reported_errors():
        session = open_session(path, int(threads))
        inputs = random_inputs(session, [int(side) for side in shape])
    _send(before=before)
    for line in sys.stdin:
        with _reported_errors():
            seconds = time_runs(session, inputs, int(line))
        _send(seconds=seconds, peak=peak_memory())


@contextmanager
def _reported_errors() -> Iterator[None]:
    """Send what ONNX Runtime cannot load or run as the last result."""
    try:
        yield
    except Exception as error:  # onnxruntime has no common class for what it cannot run
        _send(error=first_line(error))
        sys.exit()


def _send(**values: Any) -> None:
    sys.stdout.write(json.dumps(values) + "\n")
    sys.stdout.flush()
