"""How much memory decoding a file takes: `python tests/memory.py FILE` prints the bytes."""

from __future__ import annotations

import re
import resource
import sys
from pathlib import Path

from headstart.data.modalities.image.preprocessing import Preprocessing, decode


def peak() -> int:
    """The most memory that this process has held so far, bytes."""
    status = Path("/proc/self/status")
    if status.exists():  # `ru_maxrss` of Linux counts what the parent held before exec
        return int(re.findall(r"VmHWM:\s+(\d+) kB", status.read_text())[0]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


if __name__ == "__main__":
    content = Path(sys.argv[1]).read_bytes()
    before = peak()
    decode(content, Preprocessing(64, 64))
    print(peak() - before)
