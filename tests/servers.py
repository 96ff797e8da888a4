"""Object storage on loopback: real servers, and a connection to them that can be cut."""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress


@contextmanager
def s3_server() -> Iterator[int]:
    """A server for S3, with an empty `bucket`; yields its port."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    _, port = server.get_host_and_port()
    make_bucket(port)
    yield port
    server.stop()


def make_bucket(port: int) -> None:
    """Create `bucket`; replace it if it exists."""
    from urllib.request import Request, urlopen

    urlopen(Request(f"http://127.0.0.1:{port}/moto-api/reset", method="POST"))
    urlopen(Request(f"http://127.0.0.1:{port}/bucket", method="PUT"))


@contextmanager
def gcs_server() -> Iterator[int]:
    """A server for Google's storage protocol, with an empty `bucket`; yields its port."""
    from gcp_storage_emulator.server import create_server

    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    server = create_server("127.0.0.1", port, in_memory=True, default_bucket="bucket")
    server.start()
    yield port
    server.stop()


class Wire:
    """A TCP connection to a server on loopback, which can be cut and restored.

    Parameters
    ----------
    target
        Port of the server.
    """

    def __init__(self, target: int) -> None:
        self.target, self.open, self.requests = target, True, 0
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.connections: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """Break every connection, and refuse new ones."""
        self.open = False
        for connection in self.connections:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()
        self.connections.clear()

    def restore(self) -> None:
        """Accept connections again."""
        self.open = True

    def _accept(self) -> None:
        while True:
            try:
                inside, _ = self.listener.accept()
            except OSError:
                return
            if not self.open:
                inside.close()
                continue
            outside = socket.create_connection(("127.0.0.1", self.target))
            self.connections += [inside, outside]
            for one, other in ((inside, outside), (outside, inside)):
                threading.Thread(target=self._pass, args=(one, other), daemon=True).start()

    def _pass(self, one: socket.socket, other: socket.socket) -> None:
        with suppress(OSError):
            while content := one.recv(1 << 16):
                self.requests += content.startswith((b"GET", b"PUT", b"HEAD", b"POST", b"DELETE"))
                other.sendall(content)
        for end in (one, other):
            with suppress(OSError):
                end.close()

    def close(self) -> None:
        """End it."""
        self.cut()
        self.listener.close()


def wait_until(true: object, seconds: float = 60) -> None:
    """Wait until a function returns something true; fail after `seconds`."""
    deadline = time.monotonic() + seconds
    while not true():  # type: ignore[operator]
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)
