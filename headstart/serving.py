"""The page of an edge model on this machine: written to a temporary folder, served on loopback."""

from __future__ import annotations

import signal
import threading
import webbrowser
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from headstart.data.common import console
from headstart.data.common.errors import InputError
from headstart.export.demo.site import write_demo

LOOPBACK = "127.0.0.1"


class _Files(SimpleHTTPRequestHandler):
    """Files of the page, for requests that name this machine, so that no other site reads them."""

    extensions_map = {  # noqa: RUF012  as the base class has it
        **SimpleHTTPRequestHandler.extensions_map,
        ".js": "text/javascript",
        ".wasm": "application/wasm",
        ".onnx": "application/octet-stream",
    }

    def send_head(self) -> Any:
        """Refuse other names of this machine, such as one of a site that leads here."""
        port = self.connection.getsockname()[1]
        if self.headers.get("Host") not in (f"{LOOPBACK}:{port}", f"localhost:{port}"):
            self.send_error(403)
            return None
        return super().send_head()

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: what is served is known."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False


def serve(
    edge: str | Path,
    port: int = 0,
    title: str = "",
    runtime: str | None = None,
    opened: Callable[[str], Any] | None = webbrowser.open,
    as_json: bool = False,
) -> None:
    """Serve the page of an edge model until Ctrl-C or `SIGTERM`.

    Parameters
    ----------
    port
        On loopback; 0 for a free one.
    title
        Heading of the page; the name of the file if empty.
    opened
        Called with the page's address; None to open no browser.
    as_json
        Print the address as a JSON object.

    Raises
    ------
    InputError
        If the edge model cannot run in a browser, or the port is taken.
    HeadstartError
        If onnxruntime-web cannot be downloaded.
    """
    with (
        TemporaryDirectory(prefix="headstart-page-") as folder,
        _until_stopped(),
        _listening(port, folder) as server,
    ):
        with console.status("writing the page"):
            write_demo(edge, folder, title or Path(edge).stem, runtime)
        address = f"http://{LOOPBACK}:{server.server_address[1]}"
        if as_json:
            console.print_json({"address": address})
        else:
            console.say(f"{console.place(edge)} on {address}  (Ctrl-C ends it)")
        if opened:
            threading.Thread(target=opened, args=(address,), daemon=True).start()
        server.serve_forever(poll_interval=0.2)


def _listening(port: int, folder: str) -> _Server:
    if not 0 <= port < 2**16:
        raise InputError(f"--port {port} is not possible", "Give 1 to 65535, or 0 for a free one.")
    try:
        return _Server((LOOPBACK, port), partial(_Files, directory=folder))
    except OSError as error:
        raise InputError(
            f"--port {port} cannot be used: {error.strerror}", "Choose another, or leave it out."
        ) from None


@contextmanager
def _until_stopped() -> Iterator[None]:
    """Ctrl-C and `SIGTERM` are how it ends, and no error."""

    def stop(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        with suppress(KeyboardInterrupt):
            yield
    finally:
        signal.signal(signal.SIGTERM, before)
