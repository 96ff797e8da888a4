"""A process that runs one edge model and nothing else, so that its memory is that model's.

It is told how often to run by a line on stdin, and answers by a line of JSON on stdout; it ends
when stdin does. It imports as little as it can: what is imported is measured.
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

import onnxruntime  # noqa: F401  (here, so that it counts to what was there before the model)

from headstart.data.common.errors import first_line
from headstart.data.common.onnx_runtime import open_session
from headstart.data.common.speed import random_images, time_runs

STATUS = Path("/proc/self/status")


def peak_memory() -> int:
    """The largest resident size of this process so far, in bytes.

    Linux carries `ru_maxrss` over from the process that started this one, so that a large parent
    would be measured; VmHWM is this program's own. macOS has no such file and counts anew.
    """
    if not STATUS.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = re.search(r"^VmHWM:\s+(\d+) kB$", STATUS.read_text(), re.MULTILINE)
    if found is None:
        raise RuntimeError(f"{STATUS} has no VmHWM")
    return 1024 * int(found[1])


def main() -> None:
    """Serve: `PATH THREADS HEIGHT WIDTH` on the command line."""
    path, threads, height, width = sys.argv[1:]
    before = peak_memory()
    images = random_images((int(height), int(width)))
    with _said():
        session = open_session(path, int(threads))
    _say(before=before)
    for line in sys.stdin:
        with _said():
            seconds = time_runs(session, images, int(line))
        _say(seconds=seconds, peak=peak_memory())


@contextmanager
def _said() -> Iterator[None]:
    """What ONNX Runtime cannot load or run becomes the last answer."""
    try:
        yield
    except Exception as error:  # onnxruntime has no class of its own for what it cannot run
        _say(error=first_line(error))
        sys.exit()


def _say(**values: Any) -> None:
    sys.stdout.write(json.dumps(values) + "\n")
    sys.stdout.flush()
