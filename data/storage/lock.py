"""One writer per store: a second one gets an error that names the first; dead ones are detected."""

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
HEARTBEAT = 5.0  # seconds between the heartbeats of a writer on object storage
SILENCE = 4 * HEARTBEAT  # seconds without one after which a writer counts as dead


@contextmanager
def sole_writer(folder: Folder) -> Iterator[None]:
    """Hold a store's lock for writing.

    On a file system the kernel releases the lock when the process ends, however it ends. Object
    storage has no locks: there, the writer rewrites an object every few seconds, and an object that
    does not change belongs to a dead process. Two writers that start at the same instant may both
    continue there; what they write still counts once, see `headstart.extract.planning.plan`.

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
            if not ours:  # its last holder removed it after we opened it
                continue
            try:
                file.truncate(0)
                file.write(f" (process {os.getpid()} on {socket.gethostname()})")
                file.flush()
                yield
            finally:
                path.unlink(missing_ok=True)
                with suppress(
                    OSError
                ):  # only a folder that we created and left empty can be removed
                    path.parent.rmdir()
            return


@contextmanager
def _on_object_storage(folder: Folder) -> Iterator[None]:
    stop = threading.Event()
    if (found := _read(folder)) is not None:
        with console.status(
            f"{folder} has a lock{_holder(found)}: checking if its process is alive"
        ):
            stop.wait(SILENCE)
        if _read(folder) not in (found, None):
            raise _busy(folder, _holder(found))
    token, count = secrets.token_hex(8), 0

    def write() -> None:
        nonlocal count
        count += 1
        value = {"token": token, "pid": os.getpid(), "host": socket.gethostname(), "count": count}
        folder.write(LOCK, json.dumps(value).encode())

    def keep_writing() -> None:
        while not stop.wait(HEARTBEAT):
            try:
                write()
            except StorageError:  # the extraction itself will report it
                continue

    write()
    if json.loads(_read(folder) or b"{}").get("token") != token:
        raise _busy(folder, _holder(_read(folder) or b""))
    heartbeat = threading.Thread(target=keep_writing, daemon=True)
    heartbeat.start()
    try:
        yield
    finally:
        stop.set()
        heartbeat.join()
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
