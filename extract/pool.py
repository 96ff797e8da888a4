"""The workers on Ray: hand out shards, replace lost ones, isolate what kills them."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import pyarrow as pa

from headstart.data.common import console
from headstart.data.common.errors import ExtractionError
from headstart.data.contracts.records import read_row, write_part
from headstart.data.contracts.store import PartRecord
from headstart.data.examples.reading import container_of
from headstart.extract.inputs import Failure
from headstart.extract.part import error_rows
from headstart.extract.planning.plan import Shard
from headstart.extract.worker import Job, Worker, new_part

CRASHES = (signal.SIGSEGV, signal.SIGBUS, signal.SIGILL, signal.SIGFPE)
TRIES = 2  # of a shard before it is split: a machine may be lost by chance
STILLBORN = 3  # workers in a row that die before they are up
TICK, WATCH, QUIET = 0.5, 1.0, 30.0  # seconds: between looks, questions, and words of patience


@dataclass
class Task:
    """A shard, how often a worker was lost over it, and the name of its part in this try."""

    shard: Shard
    losses: int = 0
    name: str = ""


@dataclass
class _Member:
    """A worker and what it has to do; the first of its tasks is the one that it is at."""

    actor: Any
    number: int
    name: str = ""
    up: float = 0.0
    tasks: deque[Task] = field(default_factory=deque)
    row: int = 0
    moved: float = field(default_factory=time.monotonic)
    asked: bool = False


@dataclass(frozen=True)
class _Done:
    """A part, the engine it was made by, and how long after it was up a worker's first embedding
    was there, in seconds; none if there was nothing to embed."""

    record: PartRecord
    engines: tuple[str, ...]
    first: float | None


class Crew:
    """Workers that turn shards into parts, as many at once as there are CPUs for them.

    A worker that dies, or that finishes no photograph for `patience` seconds, is replaced, and its
    shard tried again, now with care: the worker writes down which photograph it is at. Lost again,
    the shard is split around that photograph; if it takes a third worker with it, alone, it
    becomes a row of errors (`worker/died`, `worker/stalled`).

    Parameters
    ----------
    job
        What all workers share.
    backbone
        The bytes of the backbone file, in Ray's object store.
    size
        Number of workers.
    patience
        Seconds without a photograph after which a worker is given up.
    """

    def __init__(self, job: Job, backbone: Any, size: int, patience: float) -> None:
        self.job, self.size, self.patience = job, size, patience
        self.backbone = [backbone]  # in a list, so that Ray does not unpack it
        self.members: list[_Member] = []
        self.waiting: deque[Task] = deque()
        self.answers: dict[Any, tuple[Callable[[_Member, Any], None], _Member]] = {}
        self.records: list[PartRecord] = []
        self.lost = 0  # examples of shards that were begun and never finished
        self.engines: dict[int, tuple[str, ...]] = {}  # of each worker, as it was last
        self.first: float | None = None  # seconds from the start of `run` to the first embedding
        self.up = 0.0  # when the first worker was
        self.hired = self.stillborn = self.next_number = 0
        self.spoken = self.watched = time.monotonic()
        self.advance: Callable[[int], None] = lambda step: None

    def run(self, shards: list[Shard]) -> list[PartRecord]:
        """Turn shards into parts.

        Raises
        ------
        ExtractionError
            If a worker says why it cannot go on, such as a full disk, or none comes up.
        """
        import ray

        self.begun = time.monotonic()
        self.waiting = deque(map(Task, shards))
        self.next_number = 1 + max(shard.number for shard in shards)
        total = sum(len(shard.examples) for shard in shards)
        try:
            with console.progress("embedding", total) as self.advance:
                while self.waiting or any(member.tasks for member in self.members):
                    self._hire()
                    self._hand_out()
                    ready, _ = ray.wait(list(self.answers), timeout=TICK)
                    for answer in ready:
                        self._hear(answer)
                    self._watch()
        finally:
            for member in self.members:
                ray.kill(member.actor)
        return self.records

    def _hire(self) -> None:
        needed = min(self.size, len(self.waiting) + sum(bool(m.tasks) for m in self.members))
        while len(self.members) < needed:
            member = _Member(_actor(self.job), self.hired)
            self.hired += 1
            self.members.append(member)
            self._ask(member, member.actor.up.remote(self.backbone), self._is_up)

    def _hand_out(self) -> None:
        # The next shard waits at the worker, so that it is never idle; the last ones are not
        # hoarded, so that a slow worker does not leave the others idle.
        up = [member for member in self.members if member.name]
        for depth in (1, 2):
            for member in up:
                if self.waiting and len(member.tasks) < depth:
                    if not member.tasks:
                        member.row, member.moved = 0, time.monotonic()
                    task = self.waiting.popleft()
                    task.name = new_part(task.shard)
                    member.tasks.append(task)
                    careful = task.losses > 0
                    answer = member.actor.extract.remote(task.shard, task.name, careful)
                    self._ask(member, answer, self._is_done)

    def _ask(self, member: _Member, answer: Any, then: Callable[[_Member, Any], None]) -> None:
        self.answers[answer] = (then, member)

    def _hear(self, answer: Any) -> None:
        import ray

        if answer not in self.answers:  # of a worker that was given up meanwhile
            return
        then, member = self.answers.pop(answer)
        try:
            value = ray.get(answer)
        except ray.exceptions.RayTaskError as error:
            raise self._failed(member, error) from error
        except ray.exceptions.RayError as error:
            self._replace(member, "died", _why(error))
        else:
            then(member, value)

    def _is_up(self, member: _Member, name: str) -> None:
        member.name, member.moved = name, time.monotonic()
        self.up = self.up or member.moved
        member.up = member.moved
        self.stillborn = 0

    def _is_done(self, member: _Member, done: _Done) -> None:
        shard = member.tasks.popleft().shard
        self.records.append(done.record)
        self.engines[member.number] = done.engines
        if done.first is not None:  # by its own clock, which machines do not share
            first = member.up + done.first - self.begun
            self.first = first if self.first is None else min(self.first, first)
        self._move(member, len(shard.examples))
        member.row = 0

    def _has_come(self, member: _Member, place: tuple[int, int]) -> None:
        number, row = place
        member.asked = False
        if member.tasks and member.tasks[0].shard.number == number and row > member.row:
            self._move(member, row)

    def _move(self, member: _Member, row: int) -> None:
        self.advance(row - member.row)
        member.row = row
        member.moved = self.spoken = time.monotonic()

    def _watch(self) -> None:
        now = time.monotonic()
        if now - self.watched < WATCH:
            return
        self.watched = now
        for member in list(self.members):
            if not member.tasks:
                continue
            if now - member.moved > self.patience:
                self._replace(member, "stalled", f"no photograph was done in {self.patience:g} s")
            elif not member.asked:
                member.asked = True
                self._ask(member, member.actor.at.remote(), self._has_come)
        if now - self.spoken > QUIET:
            self.spoken = now
            self._explain(now)

    def _explain(self, now: float) -> None:
        busy = [member for member in self.members if member.tasks]
        for member in busy:
            example = _example(member.tasks[0].shard, member.row)
            console.note(f"{member.name}: at {example} for {now - member.moved:.0f} s")
        if not busy:
            place = "CPU and GPU" if self.job.gpu else "CPU"
            console.note(
                f"waiting for a free {place}: none of {len(self.members)} workers is up yet"
            )

    def _replace(self, member: _Member, how: str, why: str) -> None:
        import ray

        ray.kill(member.actor)
        self.members.remove(member)
        self.answers = {a: (t, m) for a, (t, m) in self.answers.items() if m is not member}
        if not member.name:
            self.stillborn += 1
            if self.stillborn == STILLBORN:
                raise ExtractionError(
                    f"{STILLBORN} workers died one after the other as they started: {why}",
                    "Check the memory of the machines and Ray's logs.",
                )
            return
        if not member.tasks:
            return
        task = member.tasks.popleft()
        self.waiting.extendleft(reversed(member.tasks))
        self.advance(-member.row)
        self.lost += len(task.shard.examples)
        task.losses += 1
        console.note(
            f"{member.name} {how} near {_example(task.shard, member.row)}: {why}; it is replaced"
        )
        if task.losses < TRIES:
            self.waiting.appendleft(task)
        elif len(task.shard.examples) == 1:
            self._give_up(task.shard, how, why)
        else:
            self.waiting.extendleft(reversed(self._split(task)))

    def _split(self, task: Task) -> list[Task]:
        """Around the row that the last worker was at, if that is known, else in halves."""
        shard, at = task.shard, read_row(self.job.store, task.name)
        size = len(shard.examples)
        cuts = [0, size // 2, size] if at is None else sorted({0, at, at + 1, size})
        pieces = []
        for start, end in pairwise(cuts):
            piece = Shard(self.next_number, shard.examples.slice(start, end - start))
            self.next_number += 1
            pieces.append(Task(piece, 1 if start == at else 0))
        return pieces

    def _give_up(self, shard: Shard, how: str, why: str) -> None:
        path = shard.examples["path"][0].as_py()
        (stamp,) = self.job.root.stamps([container_of(path)])
        message = f"its workers {how} at this photograph, the last one with it alone: {why}"
        errors = error_rows(shard.examples, [Failure(0, "worker", how, message, stamp)])
        self.records.append(write_part(self.job.store, new_part(shard), pa.table({}), errors))
        self.advance(1)

    def _failed(self, member: _Member, error: Any) -> ExtractionError:
        reason = str(getattr(error, "cause", None) or error).strip()
        where = ""
        if member.tasks:
            shard = member.tasks[0].shard
            ids = shard.examples["id"]
            where = (
                f"shard {shard.number} ({len(ids)} examples, {ids[0].as_py()} to "
                f"{ids[-1].as_py()}) failed: "
            )
        return ExtractionError(
            where + reason, "What is done is kept. Run the same command again to go on."
        )


def _example(shard: Shard, row: int) -> str:
    return repr(shard.examples["id"][min(row, len(shard.examples) - 1)].as_py())


def _why(error: Exception) -> str:
    """What Ray knows of a death, in few words."""
    import ray

    if isinstance(error, ray.exceptions.OutOfMemoryError) or "memory monitor" in str(error):
        return "Ray ended it, since its machine was short of memory"
    if isinstance(error, ray.exceptions.NodeDiedError) or "node has died" in str(error).lower():
        return "its machine was lost"
    return "its process was killed or crashed; short memory is the usual cause"


def _die_of_crashes() -> None:
    """Let a crash end this process at once. Ray's handler writes a trace first, and in 7 of 25
    crashes beside OpenVINO's threads it never came to an end."""
    libc = ctypes.CDLL(None)
    for number in CRASHES:
        libc.signal(number, None)  # SIG_DFL; Python's own `signal` wants the main thread


def _actor(job: Job) -> Any:
    import ray

    class RayWorker:
        worker: Worker
        failure: Exception | None = None

        def up(self, backbone: list[Any]) -> str:
            _die_of_crashes()
            self.worker = Worker(job, ray.get(backbone[0]))
            self.up_at = time.monotonic()
            return f"worker {os.getpid()} on {socket.gethostname()}"

        def extract(self, shard: Shard, name: str, careful: bool) -> _Done:
            if self.failure:  # such as a full disk: what waits here would only fail as well
                raise self.failure
            try:
                record = self.worker.extract(shard, name, careful)
                first = self.worker.first
                since = None if first is None else first - self.up_at
                return _Done(record, self.worker.engine.names, since)
            except Exception as error:
                self.failure = error
                raise

        @ray.method(concurrency_group="watch")
        def at(self) -> tuple[int, int]:
            return self.worker.place

    options: Any = {
        "num_cpus": 1,
        "num_gpus": job.gpu,
        "max_restarts": 0,
        "concurrency_groups": {"watch": 1},
    }
    return ray.remote(**options)(RayWorker).remote()
