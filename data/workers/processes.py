"""Workers in processes of this machine, without Ray, whose start a small job would wait for.

They are what a `WorkerPool` has on Ray, but none is replaced: when one is lost, the others finish
their shards, and what is left is for a pool.
"""

from __future__ import annotations

import socket
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from typing import Any

from headstart.data.common import console
from headstart.data.modalities.known import MODALITIES
from headstart.data.workers.pool import KILLED, POLL_SECONDS, Finished
from headstart.data.workers.process import Ahead, Started
from headstart.data.workers.shards import Shard
from headstart.data.workers.worker import Job


@dataclass
class _Process:
    """A process, and the shard that it works on."""

    process: Started
    number: int
    started: float = 0.0  # its worker; 0 before
    shard: Shard | None = None
    row: int = 0
    last_progress: float = field(default_factory=time.monotonic)

    def __str__(self) -> str:
        return f"worker {self.process.process.pid} on {socket.gethostname()}"

    @property
    def connection(self) -> Connection:
        return self.process.connection


class Processes:
    """Processes of this machine that turn shards into results; to be used in a `with` block.

    Parameters
    ----------
    ahead
        Those that were started ahead.
    patience
        Seconds without an example after which one is given up.

    Attributes
    ----------
    left
        Shards that are not done, since a process was lost.
    lost
        Examples of the shards that lost processes worked on.
    started
        When the first worker of the last job had started, by `time.monotonic`; 0 before.
    """

    def __init__(self, ahead: Ahead, patience: float) -> None:
        self.patience = patience
        self.members = [_Process(each, number) for number, each in enumerate(ahead.take())]
        self.left: list[Shard] = []
        self.lost = 0
        self.started = 0.0

    def __enter__(self) -> Processes:
        return self

    def __exit__(self, *error: object) -> None:
        for member in self.members:
            member.process.kill()
        self.members = []

    def run(self, job: Job, content: bytes, shards: list[Shard], what: str) -> Iterator[Finished]:
        """Yield results as they are finished, in any order; `left` has the rest.

        Parameters
        ----------
        content
            The bytes of the graph's file.
        what
            Label of the progress bar.

        Raises
        ------
        HeadstartError
            `Job.stopped`, if a worker cannot continue, such as with a full disk.
        """
        waiting, self.started = deque(shards), 0.0
        if not self.members:
            self.left = [*self.left, *shards]
            return
        busy = self.members[: len(shards)]
        for member in busy:
            member.started, member.last_progress = 0.0, time.monotonic()
            self._send(member, (job, content))
        with console.progress(what, sum(map(len, shards))) as advance:
            while busy:
                ready = wait([member.connection for member in busy], POLL_SECONDS)
                for member in [each for each in busy if each.connection in ready]:
                    before = member.row
                    kind, value = _received(member)
                    if kind == "failed":
                        raise job.stopped(_failure(member, *value))
                    if kind == "at":
                        number, row = value
                        if member.shard and member.shard.number == number and row > member.row:
                            member.row, member.last_progress = row, time.monotonic()
                            advance(row - before)
                        continue
                    if kind == "done" and member.shard:
                        advance(len(member.shard) - before)
                        yield Finished(value, -1 - member.number, member.started)
                    if kind == "started":
                        member.started = time.monotonic()
                        self.started = self.started or member.started
                    if kind == "lost":
                        advance(-before)
                        self._lose(member, "died", KILLED, waiting)
                        busy.remove(member)
                    elif waiting:
                        member.shard, member.row = waiting.popleft(), 0
                        member.last_progress = time.monotonic()
                        self._send(member, member.shard)
                    else:
                        member.shard = None
                        busy.remove(member)
                noun = MODALITIES[job.spec.modality].noun
                for member in list(busy):
                    if member.shard and time.monotonic() - member.last_progress > self.patience:
                        advance(-member.row)
                        why = f"no {noun} was done in {self.patience:g} s"
                        self._lose(member, "stalled", why, waiting)
                        busy.remove(member)

    @staticmethod
    def _send(member: _Process, task: Any) -> None:
        try:
            member.connection.send(task)
        except OSError:  # it has ended, which is found where its answer is awaited
            return

    def _lose(self, member: _Process, how: str, why: str, waiting: deque[Shard]) -> None:
        """Give a process up, and leave its shard and all that wait."""
        if member.shard:
            name = member.shard.name_of(member.row)
            console.note(f"{member} {how} near {name}: {why}; what it leaves is done on Ray")
            self.left.append(member.shard)
            self.lost += len(member.shard)
        self.left.extend(waiting)
        waiting.clear()
        self.members.remove(member)
        member.process.kill()


def _received(member: _Process) -> tuple[str, Any]:
    try:
        return member.connection.recv()
    except (EOFError, OSError):
        return "lost", None


def _failure(member: _Process, text: str, of_storage: bool) -> str:
    if member.shard is None or of_storage:
        return text.strip()
    return f"shard {member.shard.number} ({member.shard.where()}) failed: {text}".strip()
