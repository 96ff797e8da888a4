"""One writer per store: a second one learns who the first one is, and a dead one is noticed."""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from headstart.data.common import console
from headstart.data.common.errors import StorageError, StoreError
from headstart.data.storage.files import in_words
from headstart.data.storage.folder import Folder
from headstart.data.storage.local import LocalFolder
from headstart.data.storage.notes import from_note, to_note

LOCK = "_lock"  # how the name begins
HEARTBEAT = 5.0  # seconds between the heartbeats of a writer on object storage
# Seconds without one after which a writer counts as dead: storage that does not answer a living one
# is tried again for `headstart.data.storage.remote.PATIENCE`.
SILENCE = 90.0
SETTLE = 1.0  # seconds in which another writer that starts at the same instant is noticed

Held = Callable[[], None]


@dataclass(frozen=True)
class _Lock:
    """The file that says who holds the lock."""

    folder: Folder
    columns: pa.Schema | None

    @property
    def name(self) -> str:
        return LOCK if self.columns is None else f"{LOCK}.parquet"

    def content(self, text: str) -> bytes:
        return text.encode() if self.columns is None else to_note(text.encode(), self.columns)

    def read(self) -> bytes | None:
        """Who holds it; None if nobody does."""
        try:
            return from_note(self.folder.read(self.name))
        except OSError:
            return None
        except ValueError:  # half a file
            return b""


@contextmanager
def sole_writer(folder: Folder, columns: pa.Schema | None = None) -> Iterator[Held]:
    """Hold a store's lock for writing; yields what raises `StoreError` if it is lost meanwhile.

    On a file system the kernel releases the lock when the process ends, however it ends. Object
    storage has no locks: there, the writer rewrites an object every few seconds, and an object that
    does not change belongs to a dead process. Arrow has no conditional writes, so that two writers
    could both believe to be the only one for the moment between two requests; therefore what
    is done last (the manifest, removing files) is preceded by a look at the lock, and parts have
    names that nobody else writes, see `headstart.extract.planning.plan`.

    Parameters
    ----------
    columns
        Of the Parquet files in the folder, whose readers are to pass over the lock, see `notes`.

    Raises
    ------
    StoreError
        If another process holds it.
    """
    lock = _on_file_system if isinstance(folder, LocalFolder) else _on_object_storage
    with lock(_Lock(folder, columns)) as held:
        yield held


def _busy(folder: Folder, holder: str) -> StoreError:
    return StoreError(
        f"another run{holder} is writing to {folder}",
        "Wait until it has ended, or choose another folder with -o.",
    )


def _lost(lock: _Lock, holder: str) -> StoreError:
    return StoreError(
        f"{lock.folder.where(lock.name)} was removed or replaced{holder} while this extraction ran",
        "What is done is kept. Run the same command again when no other extraction writes there.",
    )


@contextmanager
def _on_file_system(lock: _Lock) -> Iterator[Held]:
    """Lock the folder, and in it a file that says who holds it.

    If somebody removes the file, the folder is still locked; a file system that cannot lock folders
    has the file alone.
    """
    place = Path(lock.folder.root)
    path = place / lock.name
    with ExitStack() as stack:
        with in_words(path):
            try:
                guard = _lock_folder(place, stack)
                file = _lock(path, os.O_RDWR | os.O_CREAT, stack)
            except BlockingIOError:
                raise _busy(lock.folder, (lock.read() or b"").decode()) from None

        def held() -> None:
            if not (_is_at(path, file) if guard is None else _is_at(place, guard)):
                raise _lost(lock, "")

        try:
            os.truncate(file, 0)
            os.write(file, lock.content(f" (process {os.getpid()} on {socket.gethostname()})"))
            yield held
        finally:
            if _is_at(path, file):
                path.unlink()
            with suppress(OSError):  # only a folder that we created and left empty can be removed
                place.rmdir()


def _lock(path: Path, flags: int, stack: ExitStack) -> int:
    """Open and lock what has this name now, even if its last holder has just removed it."""
    while True:
        number = os.open(path, flags, 0o666)
        stack.callback(os.close, number)
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if _is_at(path, number):
            return number


def _lock_folder(place: Path, stack: ExitStack) -> int | None:
    while True:
        place.mkdir(parents=True, exist_ok=True)
        try:
            return _lock(place, os.O_RDONLY, stack)
        except BlockingIOError:
            raise
        except FileNotFoundError:  # its last holder has just removed it
            continue
        except OSError:  # such as NFS
            return None


def _is_at(path: Path, number: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(number))
    except FileNotFoundError:
        return False


@contextmanager
def _on_object_storage(lock: _Lock) -> Iterator[Held]:
    folder, stop = lock.folder, threading.Event()
    if (found := lock.read()) is not None:
        with console.status(
            f"{folder} has a lock{_holder(found)}: checking if its process is alive"
        ):
            stop.wait(SILENCE)
        if lock.read() not in (found, None):
            raise _busy(folder, _holder(found))
    token, count = secrets.token_hex(8), 0

    def held() -> None:
        found = lock.read() or b""
        if token.encode() not in found:
            raise _lost(lock, _holder(found))

    def write() -> None:
        nonlocal count
        count += 1
        value = {"token": token, "pid": os.getpid(), "host": socket.gethostname(), "count": count}
        folder.write(lock.name, lock.content(json.dumps(value)))

    def keep_writing() -> None:
        while not stop.wait(HEARTBEAT):
            try:
                held()
                write()
            except StoreError:  # it is another's now: `held` tells the extraction
                return
            except StorageError:  # the extraction itself will report it
                continue

    write()
    stop.wait(SETTLE)
    if token.encode() not in (found := lock.read() or b""):
        raise _busy(folder, _holder(found))
    heartbeat = threading.Thread(target=keep_writing, daemon=True)
    heartbeat.start()
    try:
        yield held
    finally:
        stop.set()
        heartbeat.join()
        with suppress(StoreError):
            held()
            folder.remove(lock.name)


def _holder(content: bytes) -> str:
    try:
        value = json.loads(content)
        return f" (process {value['pid']} on {value['host']})"
    except (ValueError, KeyError, TypeError, RecursionError):
        return ""
