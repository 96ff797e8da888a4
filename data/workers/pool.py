"""A pool of workers on Ray: hands out shards, replaces lost workers, isolates bad examples."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from headstart.data.common import console
from headstart.data.common.errors import HeadstartError, StorageError, last_line
from headstart.data.examples.reading import container_of
from headstart.data.modalities.known import MODALITIES
from headstart.data.workers.inputs import Failure
from headstart.data.workers.shards import Shard
from headstart.data.workers.worker import Job

CRASHES = (signal.SIGSEGV, signal.SIGBUS, signal.SIGILL, signal.SIGFPE)
TRIES = 2  # tries of a shard before it is split: a machine may be lost by chance
MAX_STARTUP_FAILURES = 3  # workers in a row that die while starting
# Examples in a row, without a finished shard, that end their workers: by a crash, or by a stall,
# which takes `patience` seconds three times.
MAX_DIED_IN_A_ROW, MAX_STALLED_IN_A_ROW = 16, 3
KILLED = "its process was killed or crashed; short memory is the usual cause"
MACHINE_LOST, MACHINE_SILENT = "its machine was lost", "its machine does not answer"
ADVICE = {
    "died": "the memory of the machines: fewer --workers have more each.",
    "stalled": "how long it takes for one of them.",
}
POLL_SECONDS = 0.5  # for results
WATCH_SECONDS = 1.0  # for positions
POSITIONS_A_SECOND = 200  # at most: of thousands of workers, each is asked more seldom
GROW_SECONDS = 5.0  # for machines that have joined
QUIET_SECONDS = 30.0  # for notes to the user
MOST_NOTES = 16  # of slow workers at once


@dataclass
class _Task:
    """A shard, and how many workers were lost while working on it."""

    shard: Shard
    losses: int = 0


@dataclass
class _Member:
    """A worker and its tasks; it works on the first."""

    actor: Any
    number: int
    name: str = ""
    started: float = 0.0
    tasks: deque[_Task] = field(default_factory=deque)
    row: int = 0
    last_progress: float = field(default_factory=time.monotonic)
    asked: bool = False


@dataclass(frozen=True)
class Finished:
    """A shard that is done.

    Parameters
    ----------
    value
        The result of the worker, or of `Job.failed`.
    worker
        Number of the worker; None for a shard that was given up.
    started
        When that worker had started, by the driver's `time.monotonic`.
    """

    value: Any
    worker: int | None = None
    started: float = 0.0


class WorkerPool:
    """Workers on Ray that turn shards into results.

    A worker that dies, or that finishes no example for `patience` seconds, is replaced, and its
    shard is retried one example at a time, each recorded before it is processed. If that worker is
    lost as well, the shard is split around the recorded example; if that example alone ends a third
    worker, it has failed (`worker/died`, `worker/stalled`).

    Parameters
    ----------
    job
        What all workers share.
    content
        The bytes of the graph's file, in Ray's object store.
    size
        Number of workers.
    patience
        Seconds without an example after which a worker is replaced.
    room
        How many more workers the cluster has room for now; by default, none are added to those of
        the start.

    Attributes
    ----------
    lost
        Examples of shards whose workers were lost, all examples of the shard counted.
    started
        When the first worker had started, by `time.monotonic`; 0 before.
    """

    def __init__(
        self,
        job: Job,
        content: Any,
        size: int,
        patience: float,
        room: Callable[[], int] | None = None,
    ) -> None:
        self.job, self.size, self.patience, self.room = job, size, patience, room
        self.modality = MODALITIES[job.spec.modality]
        self.content = [content]  # in a list, so that Ray does not unpack it
        self.members: list[_Member] = []
        self.waiting: deque[_Task] = deque()
        self.answers: dict[Any, tuple[Callable[[_Member, Any], None], _Member]] = {}
        self.finished: deque[Finished] = deque()
        self.marks: Any = None
        self.lost = 0
        self.started = 0.0
        self.created = self.startup_failures = self.failed_in_a_row = self.next_number = 0
        self.noted = self.watched = self.grown = time.monotonic()
        self.advance: Callable[[int], None] = lambda step: None

    def run(self, shards: list[Shard], what: str) -> Iterator[Finished]:
        """Yield results as they are finished, in any order; they cover every example.

        Parameters
        ----------
        what
            Label of the progress bar, such as `embedding`.

        Raises
        ------
        HeadstartError
            `Job.stopped`, if a worker cannot continue (such as a full disk), none starts, or too
            many examples in a row end their workers.
        """
        import ray

        self.waiting = deque(map(_Task, shards))
        self.next_number = 1 + max((shard.number for shard in shards), default=0)
        total = sum(map(len, shards))
        try:
            with console.progress(what, total) as self.advance:
                while self.waiting or any(member.tasks for member in self.members):
                    self._grow()
                    self._start_workers()
                    self._hand_out()
                    for answer in self._ready():
                        self._receive(answer)
                    self._watch()
                    while self.finished:
                        yield self.finished.popleft()
        finally:
            for actor in (member.actor for member in self.members):
                ray.kill(actor)
            if self.marks:
                ray.kill(self.marks)

    def _ready(self) -> list[Any]:
        """All answers that are there, at least one unless `POLL_SECONDS` pass before."""
        import ray

        asked = list(self.answers)
        if ray.wait(asked, timeout=POLL_SECONDS)[0]:
            return ray.wait(asked, num_returns=len(asked), timeout=0)[0]
        return []

    def _grow(self) -> None:
        """Use machines that have joined since the start."""
        now = time.monotonic()
        if self.room is None or not self.waiting or now - self.grown < GROW_SECONDS:
            return
        self.grown = now
        starting = sum(not member.name for member in self.members)
        self.size += max(0, self.room() - starting)

    def _start_workers(self) -> None:
        needed = min(self.size, len(self.waiting) + sum(bool(m.tasks) for m in self.members))
        while len(self.members) < needed:
            member = _Member(_actor(self.job), self.created)
            self.created += 1
            self.members.append(member)
            self._ask(member, member.actor.start.remote(self.content), self._on_started)

    def _hand_out(self) -> None:
        # Each worker has its next shard queued, so that it is never idle; the last shards are
        # handed out one by one, so that a slow worker does not leave the others idle.
        started = [member for member in self.members if member.name]
        for depth in (1, 2):
            for member in started:
                if self.waiting and len(member.tasks) < depth:
                    if not member.tasks:
                        member.row, member.last_progress = 0, time.monotonic()
                    task = self.waiting.popleft()
                    member.tasks.append(task)
                    marks = self.marks if task.losses else None
                    self._ask(member, member.actor.work.remote(task.shard, marks), self._on_done)

    def _ask(self, member: _Member, answer: Any, then: Callable[[_Member, Any], None]) -> None:
        self.answers[answer] = (then, member)

    def _receive(self, answer: Any) -> None:
        import ray

        if answer not in self.answers:  # of a worker that was replaced meanwhile
            return
        then, member = self.answers.pop(answer)
        try:
            value = ray.get(answer)
        except ray.exceptions.RayTaskError as error:
            raise self._stopped(member, error) from error
        except ray.exceptions.RayError as error:
            self._replace(member, "died", _cause_of_death(error))
        else:
            then(member, value)

    def _on_started(self, member: _Member, name: str) -> None:
        member.name = name
        member.started = member.last_progress = time.monotonic()
        self.started = self.started or member.started
        self.startup_failures = 0

    def _on_done(self, member: _Member, value: Any) -> None:
        shard = member.tasks.popleft().shard
        self.finished.append(Finished(value, member.number, member.started))
        self.failed_in_a_row = 0
        self._move(member, len(shard))
        member.row = 0

    def _on_position(self, member: _Member, position: tuple[int, int]) -> None:
        number, row = position
        member.asked = False
        if member.tasks and member.tasks[0].shard.number == number and row > member.row:
            self._move(member, row)

    def _move(self, member: _Member, row: int) -> None:
        self.advance(row - member.row)
        member.row = row
        member.last_progress = self.noted = time.monotonic()

    def _watch(self) -> None:
        now = time.monotonic()
        if now - self.watched < max(WATCH_SECONDS, len(self.members) / POSITIONS_A_SECOND):
            return
        self.watched = now
        for member in list(self.members):
            if not member.tasks:
                continue
            if now - member.last_progress > self.patience:
                why = f"no {self.modality.noun} was done in {self.patience:g} s"
                self._replace(member, "stalled", why)
            elif not member.asked:
                member.asked = True
                self._ask(member, member.actor.position.remote(), self._on_position)
        if now - self.noted > QUIET_SECONDS:
            self.noted = now
            self._note_what_is_slow(now)

    def _note_what_is_slow(self, now: float) -> None:
        busy = [member for member in self.members if member.tasks]
        busy.sort(key=lambda member: member.last_progress)
        for member in busy[:MOST_NOTES]:
            example = member.tasks[0].shard.name_of(member.row)
            console.note(f"{member.name}: at {example} for {now - member.last_progress:.0f} s")
        if not busy:
            place = "CPU and GPU" if self.job.gpu else "CPU"
            console.note(
                f"waiting for a free {place}: none of {len(self.members)} workers has started yet"
            )

    def _replace(self, member: _Member, how: str, why: str) -> None:
        import ray

        ray.kill(member.actor)
        self.members.remove(member)
        self.answers = {a: (t, m) for a, (t, m) in self.answers.items() if m is not member}
        if not member.name:
            self.startup_failures += why not in (MACHINE_LOST, MACHINE_SILENT)
            if self.startup_failures == MAX_STARTUP_FAILURES:
                raise self.job.stopped(
                    f"{MAX_STARTUP_FAILURES} workers in a row died while starting: "
                    f"{why}\n  Check {'the memory of the machines, ' * (why == KILLED)}what is "
                    "installed on them, and Ray's logs."
                )
            return
        if not member.tasks:
            return
        task = member.tasks.popleft()
        self.waiting.extendleft(reversed(member.tasks))
        self.advance(-member.row)
        self.lost += len(task.shard)
        task.losses += 1
        console.note(
            f"{member.name} {how} near {task.shard.name_of(member.row)}: {why}; it is replaced"
        )
        if self.marks is None:
            self.marks = _marks()
        if task.losses < TRIES:
            self.waiting.appendleft(task)
        elif len(task.shard) == 1:
            self._give_up(task.shard, how, why)
        else:
            self.waiting.extendleft(reversed(self._split(task)))

    def _split(self, task: _Task) -> list[_Task]:
        """Split around the row that the last worker was at, if it is known, else in halves."""
        import ray

        shard = task.shard
        size = len(shard)
        try:
            at = ray.get(self.marks.read.remote(shard.number))
        except ray.exceptions.RayError:  # the machine of the marks was lost as well
            at, self.marks = None, _marks()
        cuts = [0, size // 2, size] if at is None else sorted({0, at, at + 1, size})
        pieces = []
        for start, end in pairwise(cuts):
            piece = shard.piece(self.next_number, start, end - start)
            self.next_number += 1
            pieces.append(_Task(piece, 1 if start == at else 0))
        return pieces

    def _give_up(self, shard: Shard, how: str, why: str) -> None:
        shard = shard.loaded()
        path = shard.examples["path"][0].as_py()
        (stamp,) = self.job.root.stamps([container_of(path)])
        message = (
            f"its workers {how} at this {self.modality.noun}, the last one with it alone: {why}"
        )
        failure = Failure(0, "worker", how, message, stamp)
        self.finished.append(Finished(self.job.failed(shard, failure)))
        self.advance(1)
        self.failed_in_a_row += 1
        most = MAX_STALLED_IN_A_ROW if how == "stalled" else MAX_DIED_IN_A_ROW
        if self.failed_in_a_row >= most:
            raise self.job.stopped(
                f"{self.failed_in_a_row} {self.modality.plural} in a row ended their "
                f"workers, the last one is {shard.name_of(0)}: {why}\n  Check the graph's file, "
                f"and {ADVICE[how]}"
            )

    def _stopped(self, member: _Member, error: Any) -> HeadstartError:
        cause = getattr(error, "cause", None)
        where = ""
        if member.tasks and not isinstance(cause, StorageError):
            shard = member.tasks[0].shard
            where = f"shard {shard.number} ({shard.where()}) failed: "
        return self.job.stopped(where + str(cause or error).strip())


def _cause_of_death(error: Exception) -> str:
    """Ray's reason for the loss of a worker, in short."""
    import ray

    if isinstance(error, ray.exceptions.OutOfMemoryError) or "memory monitor" in str(error):
        return "Ray ended it, since its machine was short of memory"
    if isinstance(error, ray.exceptions.NodeDiedError) or "node has died" in str(error).lower():
        return MACHINE_LOST
    if isinstance(error, ray.exceptions.ActorUnavailableError):
        return MACHINE_SILENT
    died = ray.exceptions.ActorDiedError, ray.exceptions.WorkerCrashedError
    if isinstance(error, died) and "creation task" not in str(error):
        return KILLED
    return last_line(error)  # such as a package that is missing on its machine


def _end_at_crashes() -> None:
    """Let a crash end this process at once. Ray's handler writes a trace first, and hung in 7 of 25
    crashes with OpenVINO's threads running."""
    libc = ctypes.CDLL(None)
    for number in CRASHES:
        libc.signal(number, None)  # SIG_DFL; Python's own `signal` works in the main thread only


class _Marks:
    """The row being processed in each shard that has lost a worker."""

    def __init__(self) -> None:
        self.rows: dict[int, int | None] = {}

    def write(self, shard: int, row: int | None) -> None:
        self.rows[shard] = row

    def read(self, shard: int) -> int | None:
        return self.rows.get(shard)


def _marks() -> Any:
    """On the driver's machine: the job ends with that one anyhow."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
    options: Any = {"num_cpus": 0, "scheduling_strategy": here}
    return ray.remote(**options)(_Marks).remote()


def _actor(job: Job) -> Any:
    import ray

    class RayWorker:
        failure: Exception | None = None

        def start(self, content: list[Any]) -> str:
            _end_at_crashes()
            self.worker = job.worker(ray.get(content[0]))
            return f"worker {os.getpid()} on {socket.gethostname()}"

        def work(self, shard: Shard, marks: Any) -> Any:
            if self.failure:  # such as a full disk: the queued shard would fail as well
                raise self.failure

            def mark(row: int | None) -> None:
                # Where its machine is lost, the row is not known, and the shard is split in halves.
                with suppress(ray.exceptions.RayError):
                    ray.get(marks.write.remote(shard.number, row))

            try:
                return self.worker.work(shard, mark if marks else None)
            except Exception as error:
                self.failure = error
                raise

        @ray.method(concurrency_group="watch")
        def position(self) -> tuple[int, int]:
            return self.worker.position

    options: Any = {
        "num_cpus": 1,
        "num_gpus": job.gpu,
        "max_restarts": 0,
        "concurrency_groups": {"watch": 1},
    }
    return ray.remote(**options)(RayWorker).remote()
