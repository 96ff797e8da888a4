"""The program in C, compiled with the real compiler against the ONNX Runtime that Node has."""

from __future__ import annotations

import platform
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[1]
SOURCES = Path(__file__).parent / "c"
HEADER = "onnxruntime_c_api.h"
PLACES = (ROOT / ".onnxruntime" / "usr/include/onnxruntime", Path("/usr/include/onnxruntime"))
LIBRARIES = ("libjpeg", "libpng", "libexif", "jansson")
MACHINES = {"x86_64": "x64", "aarch64": "arm64"}  # as npm's packages call them
STRICT = ("-std=c11", "-O2", "-Wall", "-Wextra", "-Wpedantic", "-Werror")
SANITIZED = ("-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined")


def runtime() -> Path:
    """The library that onnxruntime-node brings."""
    package = ROOT / "tests/node/node_modules/onnxruntime-node"
    machine = MACHINES[platform.machine()]
    found = sorted(package.glob(f"bin/napi-v*/linux/{machine}/libonnxruntime.so.*"))
    assert found, f"no libonnxruntime.so in {package}: make tests/node/node_modules"
    return found[0]


def compiled(source: Path, program: Path, *options: str) -> Path:
    """Compile `source`, or a program in `tests/c` that includes one in its folder.

    Raises
    ------
    AssertionError
        With the compiler's words, or what to install.
    """
    header = [place for place in PLACES if (place / HEADER).exists()]
    assert header, f"no {HEADER} in {PLACES[0]} or {PLACES[1]}: run tests/setup/onnxruntime-header"
    wanted = ["pkg-config", "--cflags", "--libs", *LIBRARIES]
    flags = subprocess.run(wanted, capture_output=True, text=True, check=False)
    assert flags.returncode == 0, f"{flags.stderr}\nrun tests/setup/system"
    library = runtime()
    command = ["gcc", *STRICT, *options, source, "-o", program, f"-I{program.parent}"]
    command += ["-isystem", header[0], *flags.stdout.split(), library]
    answer = subprocess.run(
        [*command, f"-Wl,-rpath,{library.parent}", "-lm"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode == 0, answer.stderr
    return program
