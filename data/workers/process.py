"""What a process of `Processes` runs: jobs and shards in, results out, through one connection."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import time
from importlib import import_module
from multiprocessing.connection import Connection
from queue import SimpleQueue
from typing import Any

from headstart.data.common.errors import StorageError

POSITION_SECONDS = 1.0  # between two reports of the position
DIES_WITH_PARENT = 1  # Linux's PR_SET_PDEATHSIG


def serve(number: int, modules: list[str]) -> None:
    """Serve the process that started this one, until it closes the connection or ends.

    It sends `(job, content)`, answered by `("started", None)`, and shards, answered by
    `("done", result)`; while a shard is processed, `("at", position)` is sent every second. An
    exception is answered by `("failed", (its text, whether it is of the storage))`.

    Parameters
    ----------
    number
        File descriptor of the connection.
    modules
        To import while the first job is awaited.
    """
    if sys.platform == "linux":  # also where the graph keeps the reader below from running
        ctypes.CDLL(None).prctl(DIES_WITH_PARENT, signal.SIGKILL)
    connection = Connection(number)
    lock = threading.Lock()
    tasks: SimpleQueue[Any] = SimpleQueue()
    workers: list[Any] = []

    def send(what: str, value: Any) -> None:
        with lock:
            connection.send((what, value))

    def receive() -> None:
        try:
            for name in modules:
                import_module(name)
            while True:
                tasks.put(connection.recv())
        except (EOFError, OSError):
            os._exit(0)

    def report() -> None:
        while True:
            time.sleep(POSITION_SECONDS)
            for worker in workers:
                send("at", worker.position)

    for function in (receive, report):
        threading.Thread(target=function, daemon=True).start()
    while True:
        task = tasks.get()
        try:
            if isinstance(task, tuple):
                job, content = task
                workers[:] = [job.worker(content)]
                send("started", None)
            else:
                send("done", workers[0].work(task))
        except Exception as error:
            send("failed", (str(error) or repr(error), isinstance(error, StorageError)))
