"""For scripts of several commands: each is run as one would type it, and only if it is needed."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path
from time import perf_counter

# What a command writes last into its folder.
FINISHED = ("_headstart.parquet", "model.json", "tuned.json")


# What `--weights` takes beside files.
NO_FILES = ("imagenet", "none")


def need(**given: object) -> None:
    """End the script before its first command if files or folders that were named are not there.

    Parameters
    ----------
    given
        What options were given, by their names; None, an address (`s3://...`) and the words that
        `--weights` takes need no file.
    """
    named = {name: str(path) for name, path in given.items() if path is not None}
    missing = [
        f"{'' if name.isupper() else '--'}{name} {path}"
        for name, path in named.items()
        if path not in NO_FILES and "://" not in path and not Path(path).exists()
    ]
    if missing:
        print(f"error: no such file or folder: {', '.join(missing)}", file=sys.stderr)
        print("  Check the paths; the script's README.md says where to get them.", file=sys.stderr)
        sys.exit(2)


def run(*command: object) -> None:
    """Print and run `headstart COMMAND`, and how long it took.

    The script ends where a command fails, with its exit code.

    Parameters
    ----------
    command
        Words of the command, such as `"extract", folder, "--backbone", file`.
    """
    words = [str(word) for word in command]
    print(f"\n$ headstart {shlex.join(words)}", flush=True)
    begun = perf_counter()
    if code := _process(words):
        sys.exit(code)
    print(f"({perf_counter() - begun:.0f} s)", flush=True)


def step(output: Path, *command: object) -> None:
    """Run a command that writes OUTPUT (`-o OUTPUT`), unless that is there and finished."""
    if not (output.is_file() or any((output / name).is_file() for name in FINISHED)):
        run(*command, "-o", output)


def _process(words: list[str]) -> int:
    return subprocess.run([sys.executable, "-m", "headstart", *words]).returncode  # noqa: S603
