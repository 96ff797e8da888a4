"""One writer a store: a second one is told who the first one is, and a dead one is noticed."""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from headstart.data.common import console
from headstart.data.common.errors import StorageError, StoreError
from headstart.data.storage.folder import Folder
from headstart.data.storage.local import LocalFolder

LOCK = "_lock"
BEAT = 5.0  # seconds between the signs of life of a writer on object storage
SILENCE = 4 * BEAT  # after which a writer is dead


@contextmanager
def sole_writer(folder: Folder) -> Iterator[None]:
    """Hold a store for writing.

    On a file system the kernel holds the lock and lets go of it when the process ends, however it
    ends. Object storage has no locks: there an object is written anew every few seconds, and one
    that stays the same is of a dead process. Two that start within the same instant there may
    both go on; what they write counts once all the same, see `headstart.extract.planning.plan`.

    Raises
    ------
    StoreError
        If another process holds it.
    """
    if isinstance(folder, LocalFolder):
        with _on_file_system(folder):
            yield
    else:
        with _on_object_storage(folder):
            yield


def _busy(folder: Folder, holder: str) -> StoreError:
    return StoreError(
        f"another extraction{holder} is writing to {folder}",
        "Wait until it has ended, or choose another folder with -o.",
    )


@contextmanager
def _on_file_system(folder: LocalFolder) -> Iterator[None]:
    path = folder.path(LOCK)
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        with path.open("a+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.seek(0)
                raise _busy(folder, file.read()) from None
            try:
                ours = os.path.samestat(os.stat(path), os.fstat(file.fileno()))
            except FileNotFoundError:
                ours = False
            if not ours:  # its last holder removed it while we opened it
                continue
            try:
                file.truncate(0)
                file.write(f" (process {os.getpid()} on {socket.gethostname()})")
                file.flush()
                yield
            finally:
                path.unlink(missing_ok=True)
                with suppress(OSError):  # a folder that we made and did not fill
                    path.parent.rmdir()
            return


@contextmanager
def _on_object_storage(folder: Folder) -> Iterator[None]:
    stop = threading.Event()
    if (found := _read(folder)) is not None:
        with console.status(f"{folder} has a lock{_holder(found)}: is it alive?"):
            stop.wait(SILENCE)
        if _read(folder) not in (found, None):
            raise _busy(folder, _holder(found))
    token, beats = secrets.token_hex(8), 0

    def beat() -> None:
        nonlocal beats
        beats += 1
        value = {"token": token, "pid": os.getpid(), "host": socket.gethostname(), "beat": beats}
        folder.write(LOCK, json.dumps(value).encode())

    def keep_beating() -> None:
        while not stop.wait(BEAT):
            try:
                beat()
            except StorageError:  # the writer itself will meet it, and say it
                continue

    beat()
    if json.loads(_read(folder) or b"{}").get("token") != token:
        raise _busy(folder, _holder(_read(folder) or b""))
    heart = threading.Thread(target=keep_beating, daemon=True)
    heart.start()
    try:
        yield
    finally:
        stop.set()
        heart.join()
        folder.remove(LOCK)


def _read(folder: Folder) -> bytes | None:
    try:
        return folder.read(LOCK)
    except FileNotFoundError:
        return None


def _holder(content: bytes) -> str:
    try:
        value = json.loads(content)
        return f" (process {value['pid']} on {value['host']})"
    except (ValueError, KeyError, TypeError):
        return ""
