"""A working directory in; what Ray would upload of it, and what it would leave out."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from headstart.cluster.commands import inputs
from headstart.cluster.connection import use_tokens
from headstart.data.common.console import counted, first_few, human_bytes
from headstart.data.common.errors import Checklist, InputError
from headstart.data.storage.files import local_path

# What is not code; Ray itself leaves out the first four.
EXCLUDES = [".git", ".venv", "venv", "__pycache__", "*.onnx", "*.parquet", "*.skops"]
# Names that end like this are files, also where they do not exist.
FILES = (".onnx", ".parquet", ".csv", ".tsv", ".tar", ".keras", ".h5", ".pth", ".safetensors")
LARGEST = 5  # files that are named where a folder is too large
QUIET = logging.getLogger("headstart.cluster.upload")


@dataclass(frozen=True)
class Upload:
    """Parts of a folder, relative to it.

    Parameters
    ----------
    sizes
        The bytes of each file that is uploaded.
    left_out
        Files, and whole folders with `/` at the end, that ignore files or `EXCLUDES` leave out.
    """

    folder: Path
    sizes: dict[str, int]
    left_out: list[str]

    @property
    def size(self) -> int:
        """The bytes of all files; Ray's archive is not compressed."""
        return sum(self.sizes.values())

    def describe(self) -> str:
        """One or two lines for people."""
        text = (
            f"uploads {counted(len(self.sizes), 'file')} ({human_bytes(self.size)}) "
            f"from {self.folder}"
        )
        if self.left_out:
            text += (
                f"\nleaves out {first_few(sorted(self.left_out))} (.gitignore, .rayignore, or "
                f"one of {', '.join(EXCLUDES)})"
            )
        return text


def plan_upload(folder: Path) -> Upload:
    """What Ray would upload of a folder, by its own rules: ignore files of every folder count."""
    use_tokens()
    from ray._private.ray_constants import RAY_RUNTIME_ENV_IGNORE_GITIGNORE
    from ray._private.runtime_env import packaging

    gitignore = os.environ.get(RAY_RUNTIME_ENV_IGNORE_GITIGNORE, "0") != "1"
    sizes: dict[str, int] = {}

    def visit(path: Path, excludes: Sequence[Callable[[Path], bool]]) -> list[str]:
        """Note a path's files; returns what is left out below it."""
        excludes = [
            *excludes,
            *packaging.get_excludes_from_ignore_files(path, gitignore, logger=QUIET),
        ]
        name = str(path.relative_to(folder))
        is_folder = path.is_dir()
        if any(excluded(path) for excluded in excludes):
            return [f"{name}/" if is_folder else name]
        if not is_folder:
            if path.is_file():
                sizes[name] = path.stat().st_size
            return []
        before = len(sizes)
        left_out = [each for inside in sorted(path.iterdir()) for each in visit(inside, excludes)]
        whole = left_out and len(sizes) == before and path != folder
        return [f"{name}/"] if whole else left_out

    return Upload(folder, sizes, visit(folder, [packaging._get_excludes(folder, EXCLUDES)]))


def check_upload(upload: Upload, command: Sequence[str]) -> None:
    """Refuse a command whose files would be missing, and a folder that is too large.

    Raises
    ------
    InputError
        If the command names a relative path that is not uploaded whole, or the folder has more
        bytes than Ray accepts.
    """
    use_tokens()
    from ray._private.ray_constants import DASHBOARD_CLIENT_MAX_SIZE

    checks = Checklist()
    for name in inputs(command):
        with checks.item():
            if "://" not in name and not name.startswith(("/", "~")):
                _check_named(upload, name)
    with checks.item():
        if upload.size > DASHBOARD_CLIENT_MAX_SIZE:
            largest = sorted(upload.sizes, key=lambda each: -upload.sizes[each])[:LARGEST]
            named = (f"{each} ({human_bytes(upload.sizes[each])})" for each in largest)
            raise InputError(
                f"{upload.folder} has {human_bytes(upload.size)} to upload, and Ray accepts "
                f"{human_bytes(DASHBOARD_CLIENT_MAX_SIZE)}; the largest files are "
                f"{', '.join(named)}",
                "Name them in .rayignore, or give a folder of code alone with --working-dir.",
            )
    checks.finish()


def _check_named(upload: Upload, name: str) -> None:
    path = Path(os.path.normpath(upload.folder / name))
    fix = "Give a whole path that the cluster's machines have, or an address in object storage."
    if not path.exists():
        if path.suffix in FILES:
            raise InputError(f"{name} does not exist in {upload.folder}", fix)
        return  # a number, a name, a word
    if not path.is_relative_to(upload.folder):
        raise InputError(f"{name} is outside {upload.folder}, which alone is uploaded", fix)
    inside = str(path.relative_to(upload.folder))
    missing = [each for each in upload.left_out if _is_below(each, inside)]
    if any(_is_below(inside, each) for each in upload.left_out):
        raise InputError(f"{name} would not be uploaded: {_reason(path)}", fix)
    if missing:
        raise InputError(
            f"{name} would not be uploaded whole: {first_few(missing)} would be left out", fix
        )


def _is_below(path: str, folder: str) -> bool:
    path, folder = path.rstrip("/"), folder.rstrip("/")
    return path == folder or folder == "." or path.startswith(f"{folder}/")


def _reason(path: Path) -> str:
    if pattern := next((each for each in EXCLUDES if path.match(each)), None):
        return f"{pattern} is always left out"
    return ".gitignore or .rayignore leaves it out"


def paths_on_nodes(command: Sequence[str]) -> list[str]:
    """The whole local paths that a command of ours reads; `~` is for the nodes to replace."""
    found = []
    for name in inputs(command):
        if name.startswith("file://"):
            found.append(str(local_path(name)))
        elif name.startswith(("/", "~")):
            found.append(name)
    return found
