"""A process of `Processes`: what starts it, and what it runs. Imports little, so as to start soon.

Jobs and shards go in and results come out through one connection.
"""

from __future__ import annotations

import ctypes
import json
import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from glob import glob
from importlib import import_module
from multiprocessing.connection import Connection, Pipe
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from headstart.data.common.errors import StorageError

POSITION_SECONDS = 1.0  # between two reports of the position
DIES_WITH_PARENT = 1  # Linux's PR_SET_PDEATHSIG

CGROUP_CPUS = Path("/sys/fs/cgroup/cpu.max")
SCRIPT = Path(__file__).with_name("serving.py")


@dataclass(frozen=True)
class Started:
    """A process that serves us."""

    process: subprocess.Popen[bytes]
    connection: Connection

    def kill(self) -> None:
        """End it at once."""
        self.process.kill()
        self.process.wait()
        self.connection.close()


class Ahead:
    """Processes that import what they need while the job is planned; those not taken end with us.

    Parameters
    ----------
    size
        How many.
    modules
        What each imports.
    """

    def __init__(self, size: int, modules: Sequence[str]) -> None:
        self.started: list[Started] = []
        try:
            for _ in range(size):
                self.started.append(start(modules))
        except BaseException:
            self.end()
            raise

    def __enter__(self) -> Ahead:
        return self

    def __exit__(self, *error: object) -> None:
        self.end()

    def take(self) -> list[Started]:
        """All of them; whoever takes them ends them."""
        taken, self.started = self.started, []
        return taken

    def end(self) -> None:
        """End those that were not taken."""
        for each in self.take():
            each.kill()


def start(modules: Sequence[str]) -> Started:
    """Start a process that serves us, and imports modules until it gets its first job."""
    ours, theirs = Pipe()
    arguments = json.dumps([list(map(str, sys.path)), theirs.fileno(), list(modules)])
    process = subprocess.Popen(  # noqa: S603 - our own program
        [sys.executable, str(SCRIPT), arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        pass_fds=[theirs.fileno()],
        start_new_session=True,  # Ctrl-C is for us
        env={"OMP_NUM_THREADS": "1"} | os.environ,
    )
    theirs.close()
    return Started(process, ours)


def cpus_here() -> int:
    """How many CPUs this process may use."""
    count = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    limit = CGROUP_CPUS.read_text().split() if CGROUP_CPUS.exists() else ["max"]
    if limit[0].isdigit():
        count = min(count, max(1, math.floor(int(limit[0]) / int(limit[1]))))
    return count


def has_gpu() -> bool:
    """Whether this machine has a GPU of NVIDIA's."""
    return bool(glob("/dev/nvidia[0-9]*"))


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
