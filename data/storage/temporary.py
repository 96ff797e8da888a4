"""A temporary folder of this process, with a short path: removed at its end, or by the next one."""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from headstart.data.common.errors import InputError

PREFIX = "headstart-ray-"
RANDOM = 8  # characters that `mkdtemp` adds


@contextmanager
def temporary_folder(longest: int) -> Iterator[Path]:
    """Create a folder that only this user can read.

    It is removed at the end, but kept after an error: what it holds may explain it. The kernel
    holds a lock on it as long as this process lives, so that the next one that asks for a folder
    can remove those that are left.

    Parameters
    ----------
    longest
        Bytes that its path may have.

    Raises
    ------
    InputError
        If there is no place for it.
    """
    path, lock = _create(longest)
    keep = False
    try:
        yield path
    except Exception:
        keep = True
        raise
    finally:
        if not keep:
            shutil.rmtree(path, ignore_errors=True)
        os.close(lock)


def _create(longest: int) -> tuple[Path, int]:
    tried = []
    for place in dict.fromkeys(_places()):
        if len(os.fsencode(place)) + 1 + len(PREFIX) + RANDOM > longest:
            tried.append(f"{place} has too long a path")
            continue
        try:
            _sweep(Path(place))
            return _create_locked(place)
        except OSError as error:
            tried.append(f"{place}: {error.strerror}")
    raise InputError(
        f"there is no place for Ray's temporary files: {'; '.join(tried)}",
        f"Set RAY_TMPDIR to a folder that can be written, with a path of at most "
        f"{longest - 1 - len(PREFIX) - RANDOM} characters.",
    )


def _places() -> Iterator[str]:
    """Where to try: what the user set first."""
    if asked := os.environ.get("RAY_TMPDIR"):
        yield os.path.abspath(asked)
    with suppress(OSError):  # none can be written
        yield tempfile.gettempdir()
    yield from ("/tmp", "/var/tmp", "/dev/shm")  # noqa: S108 - a new folder in it, of this user alone


def _create_locked(place: str) -> tuple[Path, int]:
    while True:
        path = Path(tempfile.mkdtemp(prefix=PREFIX, dir=place))
        with suppress(FileNotFoundError):  # another process has swept it already
            lock = os.open(path, os.O_RDONLY)
            fcntl.flock(lock, fcntl.LOCK_EX)
            if os.path.exists(path):
                return path, lock
            os.close(lock)


def _sweep(place: Path) -> None:
    """Remove the folders of this user's processes that have ended."""
    for path in place.glob(f"{PREFIX}{'?' * RANDOM}"):
        with suppress(OSError):  # in use, or just removed by another process
            found = path.lstat()
            if found.st_uid != os.getuid() or not stat.S_ISDIR(found.st_mode):
                continue
            lock = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(path, ignore_errors=True)
            finally:
                os.close(lock)
