"""Folders in object storage (`s3://`, `gs://`), through Arrow's file systems.

Nothing here assumes a rename: an object appears whole when its upload ends, or not at all.
Credentials come from where the storage's own tools look (environment, files, machine role).
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

import pyarrow as pa
from pyarrow import fs
from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception,
    stop_after_delay,
    wait_random_exponential,
)

from headstart.data.common import console
from headstart.data.common.errors import InputError, StorageError
from headstart.data.storage.folder import HIDDEN, Folder

PATIENCE = 60.0  # seconds of retries if the storage does not answer
CONNECT_SECONDS, REQUEST_SECONDS = 5, 30
NOTE_AFTER = 3  # failures before the user is told
# Environment variables of the storage's own tools, for other servers with the same protocol.
ENDPOINTS = {"s3": ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"), "gs": ("STORAGE_EMULATOR_HOST",)}
DENIED = "ACCESS_DENIED"
# Errors that retries cannot fix, as the AWS SDK names them.
PERMANENT = (
    DENIED,
    "NO_SUCH_BUCKET",
    "INVALID_ACCESS_KEY_ID",
    "SIGNATURE_DOES_NOT_MATCH",
    "INVALID_CLIENT_TOKEN_ID",
    "ExpiredToken",
    "PERMISSION_DENIED",
    "UNAUTHENTICATED",
)
Result = TypeVar("Result")


@dataclass(frozen=True)
class RemoteFolder(Folder):
    """A prefix in a bucket.

    Parameters
    ----------
    endpoint
        Address of another server with the same protocol (`http://host:port`); read from the
        environment once, and passed on to the workers.
    patience
        Seconds of retries if the storage does not answer.
    """

    endpoint: str | None = None
    patience: float = PATIENCE

    @staticmethod
    def at(path: str | Path) -> RemoteFolder:
        """The folder at an address; it need not exist yet.

        Raises
        ------
        InputError
            If the kind of storage is not supported, the bucket is missing, or it has credentials.
        """
        address = os.fspath(path)
        scheme, _, rest = address.partition("://")
        if scheme not in ENDPOINTS:
            raise InputError(
                f"{address}: storage of kind {scheme}:// is not supported",
                "Use s3://, gs://, file:// or a local path.",
            )
        bucket, *parts = rest.split("/")
        if "@" in bucket:
            raise InputError(
                f"{scheme}://...@{bucket.rpartition('@')[2]}: an address must not contain "
                "credentials, since it is written into the feature store",
                "Set the variables AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY instead.",
            )
        if not bucket:
            raise InputError(f"{address} has no bucket", f"Write {scheme}://BUCKET/FOLDER.")
        root = "/".join([f"{scheme}://{bucket}", *filter(None, parts)])
        places = (os.environ.get(name) for name in ENDPOINTS[scheme])
        return RemoteFolder(root, next(filter(None, places), None), PATIENCE)

    def _note_retries(self, state: RetryCallState) -> None:
        if state.attempt_number == NOTE_AFTER:
            console.note(f"{self} does not answer; retrying for up to {self.patience:g} s")

    @cached_property
    def _prefix(self) -> str:
        return self.root.partition("://")[2]

    @property
    def _fs(self) -> fs.FileSystem:
        scheme, _, rest = self.root.partition("://")
        return _connect(scheme, rest.partition("/")[0], self.endpoint)

    def _path(self, name: str) -> str:
        return f"{self._prefix}/{name}" if name else self._prefix

    def check(self) -> None:
        """Raise `InputError` if this can never be a folder because an object has its name."""
        if self.attempt(lambda: self._fs.get_file_info(self._prefix)).type == fs.FileType.File:
            raise InputError(f"{self} is a file, not a folder", "Choose another folder with -o.")

    def exists(self, name: str = "") -> bool:
        """Whether a file, or without a name anything below the prefix, exists."""
        found = self.attempt(lambda: self._fs.get_file_info(self._path(name)))
        return found.type != fs.FileType.NotFound

    def is_file(self, name: str) -> bool:
        """Whether there is an object of that name."""
        found = self.attempt(lambda: self._fs.get_file_info(self._path(name)))
        return found.type == fs.FileType.File

    def files(
        self, under: str = "", hidden: Counter[str] | None = None
    ) -> Iterator[tuple[str, str]]:
        """Name and stamp of every object below, hidden ones left out."""
        selector = fs.FileSelector(self._path(under), allow_not_found=True, recursive=True)
        for info in self.attempt(lambda: self._fs.get_file_info(selector)):
            name = info.path[len(self._prefix) + 1 :]
            if info.type != fs.FileType.File:
                continue
            if "/." not in f"/{name}":
                yield name, _stamp(info)
            elif hidden is not None:
                hidden[HIDDEN] += 1

    def stamps(self, names: Sequence[str]) -> list[str | None]:
        """The stamps of objects; None for missing ones."""
        paths = [self._path(name) for name in names]
        infos = self.attempt(lambda: self._fs.get_file_info(paths))
        return [_stamp(info) if info.type == fs.FileType.File else None for info in infos]

    def read_stamped(self, name: str) -> tuple[bytes, str]:
        """The bytes of an object and its stamp.

        Raises
        ------
        OSError
            If the object is missing, or access is denied.
        StorageError
            If the storage does not answer.
        """

        def fetch() -> tuple[bytes, str]:
            with self._fs.open_input_stream(self._path(name)) as stream:
                changed = (stream.metadata() or {}).get("Last-Modified")
                content = stream.read()
            if changed is None:
                return content, _stamp(self._fs.get_file_info(self._path(name)))
            when = datetime.fromisoformat(changed.decode().replace("Z", "+00:00"))
            return content, f"{len(content)}-{int(when.timestamp())}"

        return self.attempt(fetch)

    def open(self, name: str) -> pa.NativeFile:
        """An object to read parts of; use it within `attempt`."""
        return self._fs.open_input_file(self._path(name))

    def write(self, name: str, content: bytes | memoryview) -> None:
        """Write a whole object or nothing."""

        def put() -> None:
            with self._fs.open_output_stream(self._path(name)) as stream:
                stream.write(content)

        self.attempt(put)

    def remove(self, name: str) -> None:
        """Remove an object, if it exists."""
        with suppress(FileNotFoundError):
            self.attempt(lambda: self._fs.delete_file(self._path(name)))

    def remove_all(self, under: str) -> None:
        """Remove all objects below a prefix."""
        self.attempt(lambda: self._fs.delete_dir_contents(self._path(under), missing_dir_ok=True))
        marker = f"{self._path(under)}/"  # Arrow leaves an empty object where a folder was
        self.attempt(lambda: self._fs.delete_dir(marker) if self.exists(under) else None)

    def attempt(self, call: Callable[[], Result]) -> Result:
        """Call a function, and retry with growing pauses while the storage does not answer.

        Raises
        ------
        FileNotFoundError, PermissionError
            If an object is missing, or access is denied.
        StorageError
            If the storage still fails after `patience` seconds, or the failure is permanent.
        """
        retrying = Retrying(
            retry=retry_if_exception(_is_temporary),
            stop=stop_after_delay(self.patience),
            wait=wait_random_exponential(multiplier=0.1, max=8),
            before_sleep=self._note_retries,
            reraise=True,
        )
        try:
            return retrying(call)
        except FileNotFoundError:
            raise
        except OSError as error:
            if DENIED in str(error):
                raise PermissionError(str(error)) from None
            raise StorageError(
                f"{self} cannot be reached: {error}",
                "Check network, address and credentials, then run the same command again: "
                "it continues where it stopped.",
            ) from None


def _is_temporary(error: BaseException) -> bool:
    """Whether a retry may succeed."""
    if not isinstance(error, OSError) or isinstance(error, FileNotFoundError):
        return False
    return not any(word in str(error) for word in PERMANENT)


def _stamp(info: fs.FileInfo) -> str:
    # Whole seconds: a listing has more digits than the answer to a single read.
    return f"{info.size}-{info.mtime_ns // 10**9}"


@lru_cache(maxsize=8)
def _connect(scheme: str, bucket: str, endpoint: str | None) -> fs.FileSystem:
    """One connection per process and place; its own retries are quicker than `attempt`'s."""
    place = urlsplit(endpoint or "")
    where = {"endpoint_override": place.netloc or None, "scheme": place.scheme or None}
    if scheme == "gs":
        patience = timedelta(seconds=CONNECT_SECONDS)
        return fs.GcsFileSystem(anonymous=bool(endpoint), retry_time_limit=patience, **where)
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    return fs.S3FileSystem(
        region=region or (None if endpoint else fs.resolve_s3_region(bucket)),
        connect_timeout=CONNECT_SECONDS,
        request_timeout=REQUEST_SECONDS,
        allow_delayed_open=True,  # a small object is one request, not three
        retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=2),
        **where,
    )
