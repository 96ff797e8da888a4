"""A pool of workers on Ray: hands out shards, replaces lost workers, isolates what ends them."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import time
from collections import deque
from collections.abc import Callable, Iterator
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
TRIES = 2  # of a shard before it is split: a machine may be lost by chance
MAX_STARTUP_FAILURES = 3  # workers in a row that die before they are up
# Examples that end their workers, with no shard done between them: by a crash, or by a stall, which
# takes `patience` seconds three times.
MAX_DIED_IN_A_ROW, MAX_STALLED_IN_A_ROW = 16, 3
POLL_SECONDS, WATCH_SECONDS, QUIET_SECONDS = 0.5, 1.0, 30.0  # results, places, notes to people


@dataclass
class _Task:
    """A shard, and how often a worker was lost over it."""

    shard: Shard
    losses: int = 0


@dataclass
class _Member:
    """A worker and its tasks; it works on the first of them."""

    actor: Any
    number: int
    name: str = ""
    started: float = 0.0
    tasks: deque[_Task] = field(default_factory=deque)
    row: int = 0
    moved: float = field(default_factory=time.monotonic)
    asked: bool = False


@dataclass(frozen=True)
class Finished:
    """A shard that is done.

    Parameters
    ----------
    value
        What the worker, or `Job.failed`, made of it.
    worker
        Number of the worker; none for a shard that was given up.
    started
        When that worker was up, by the driver's `time.monotonic`.
    """

    value: Any
    worker: int | None = None
    started: float = 0.0


class WorkerPool:
    """Workers that turn shards into results, as many at once as there are CPUs for them.

    A worker that dies, or that finishes no example for `patience` seconds, is replaced, and its
    shard tried again, one example at a time, each written down before it is touched. Lost again,
    the shard is split around that example; if it takes a third worker with it, alone, it has failed
    (`worker/died`, `worker/stalled`).

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

    Attributes
    ----------
    lost
        Examples of shards that were started and lost with their workers.
    started
        When the first worker was up, by `time.monotonic`; 0 before.
    """

    def __init__(self, job: Job, content: Any, size: int, patience: float) -> None:
        self.job, self.size, self.patience = job, size, patience
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
        self.noted = self.watched = time.monotonic()
        self.advance: Callable[[int], None] = lambda step: None

    def run(self, shards: list[Shard], what: str) -> Iterator[Finished]:
        """Yield results as they are done, in no order; every example of the shards is in one.

        Parameters
        ----------
        what
            Is done, for the progress bar.

        Raises
        ------
        HeadstartError
            The job's own, if a worker says why it cannot go on (such as a full disk), none comes
            up, or one example after the other ends its workers.
        """
        import ray

        self.waiting = deque(map(_Task, shards))
        self.next_number = 1 + max((shard.number for shard in shards), default=0)
        total = sum(len(shard.examples) for shard in shards)
        try:
            with console.progress(what, total) as self.advance:
                while self.waiting or any(member.tasks for member in self.members):
                    self._start_workers()
                    self._hand_out()
                    ready, _ = ray.wait(list(self.answers), timeout=POLL_SECONDS)
                    for answer in ready:
                        self._receive(answer)
                    self._watch()
                    while self.finished:
                        yield self.finished.popleft()
        finally:
            for actor in (member.actor for member in self.members):
                ray.kill(actor)
            if self.marks:
                ray.kill(self.marks)

    def _start_workers(self) -> None:
        needed = min(self.size, len(self.waiting) + sum(bool(m.tasks) for m in self.members))
        while len(self.members) < needed:
            member = _Member(_actor(self.job), self.created)
            self.created += 1
            self.members.append(member)
            self._ask(member, member.actor.start.remote(self.content), self._on_started)

    def _hand_out(self) -> None:
        # The next shard waits at the worker, so that it is never idle; the last ones are handed out
        # one by one, so that a slow worker does not leave the others idle.
        started = [member for member in self.members if member.name]
        for depth in (1, 2):
            for member in started:
                if self.waiting and len(member.tasks) < depth:
                    if not member.tasks:
                        member.row, member.moved = 0, time.monotonic()
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
        member.started = member.moved = time.monotonic()
        self.started = self.started or member.started
        self.startup_failures = 0

    def _on_done(self, member: _Member, value: Any) -> None:
        shard = member.tasks.popleft().shard
        self.finished.append(Finished(value, member.number, member.started))
        self.failed_in_a_row = 0
        self._move(member, len(shard.examples))
        member.row = 0

    def _on_place(self, member: _Member, place: tuple[int, int]) -> None:
        number, row = place
        member.asked = False
        if member.tasks and member.tasks[0].shard.number == number and row > member.row:
            self._move(member, row)

    def _move(self, member: _Member, row: int) -> None:
        self.advance(row - member.row)
        member.row = row
        member.moved = self.noted = time.monotonic()

    def _watch(self) -> None:
        now = time.monotonic()
        if now - self.watched < WATCH_SECONDS:
            return
        self.watched = now
        for member in list(self.members):
            if not member.tasks:
                continue
            if now - member.moved > self.patience:
                why = f"no {self.modality.noun} was done in {self.patience:g} s"
                self._replace(member, "stalled", why)
            elif not member.asked:
                member.asked = True
                self._ask(member, member.actor.place.remote(), self._on_place)
        if now - self.noted > QUIET_SECONDS:
            self.noted = now
            self._note_what_is_slow(now)

    def _note_what_is_slow(self, now: float) -> None:
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
            self.startup_failures += 1
            if self.startup_failures == MAX_STARTUP_FAILURES:
                raise self.job.stopped(
                    f"{MAX_STARTUP_FAILURES} workers died one after the other as they started: "
                    f"{why}\n  Check the memory of the machines, what is installed on them, and "
                    "Ray's logs."
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
        if self.marks is None:
            self.marks = ray.remote(num_cpus=0)(_Marks).remote()
        if task.losses < TRIES:
            self.waiting.appendleft(task)
        elif len(task.shard.examples) == 1:
            self._give_up(task.shard, how, why)
        else:
            self.waiting.extendleft(reversed(self._split(task)))

    def _split(self, task: _Task) -> list[_Task]:
        """Around the row that the last worker was at, if that is known, else in halves."""
        import ray

        shard = task.shard
        size = len(shard.examples)
        try:
            at = ray.get(self.marks.read.remote(shard.number))
        except ray.exceptions.RayError:  # its machine was lost as well
            at, self.marks = None, ray.remote(num_cpus=0)(_Marks).remote()
        cuts = [0, size // 2, size] if at is None else sorted({0, at, at + 1, size})
        pieces = []
        for start, end in pairwise(cuts):
            piece = Shard(self.next_number, shard.examples.slice(start, end - start))
            self.next_number += 1
            pieces.append(_Task(piece, 1 if start == at else 0))
        return pieces

    def _give_up(self, shard: Shard, how: str, why: str) -> None:
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
                f"{self.failed_in_a_row} {self.modality.plural} one after the other ended their "
                f"workers, the last is {_example(shard, 0)}: {why}\n  Check the graph's file, and "
                "the memory of the machines: fewer --workers have more each."
            )

    def _stopped(self, member: _Member, error: Any) -> HeadstartError:
        cause = getattr(error, "cause", None)
        where = ""
        if member.tasks and not isinstance(cause, StorageError):
            shard = member.tasks[0].shard
            ids = shard.examples["id"]
            where = (
                f"shard {shard.number} ({len(ids)} examples, {ids[0].as_py()} to "
                f"{ids[-1].as_py()}) failed: "
            )
        return self.job.stopped(where + str(cause or error).strip())


def _example(shard: Shard, row: int) -> str:
    return repr(shard.examples["id"][min(row, len(shard.examples) - 1)].as_py())


def _cause_of_death(error: Exception) -> str:
    """What Ray knows of a death, in few words."""
    import ray

    if isinstance(error, ray.exceptions.OutOfMemoryError) or "memory monitor" in str(error):
        return "Ray ended it, since its machine was short of memory"
    if isinstance(error, ray.exceptions.NodeDiedError) or "node has died" in str(error).lower():
        return "its machine was lost"
    if "creation task" in str(error):  # a package that its machine lacks, most often
        return last_line(error)
    return "its process was killed or crashed; short memory is the usual cause"


def _end_at_crashes() -> None:
    """Let a crash end this process at once. Ray's handler writes a trace first, and in 7 of 25
    crashes beside OpenVINO's threads it never came to an end."""
    libc = ctypes.CDLL(None)
    for number in CRASHES:
        libc.signal(number, None)  # SIG_DFL; Python's own `signal` wants the main thread


class _Marks:
    """The row that is at work in each shard over which a worker was lost."""

    def __init__(self) -> None:
        self.rows: dict[int, int | None] = {}

    def write(self, shard: int, row: int | None) -> None:
        self.rows[shard] = row

    def read(self, shard: int) -> int | None:
        return self.rows.get(shard)


def _actor(job: Job) -> Any:
    import ray

    class RayWorker:
        failure: Exception | None = None

        def start(self, content: list[Any]) -> str:
            _end_at_crashes()
            self.worker = job.worker(ray.get(content[0]))
            return f"worker {os.getpid()} on {socket.gethostname()}"

        def work(self, shard: Shard, marks: Any) -> Any:
            if self.failure:  # such as a full disk: what waits here would only fail as well
                raise self.failure

            def mark(row: int | None) -> None:
                ray.get(marks.write.remote(shard.number, row))

            try:
                return self.worker.work(shard, mark if marks else None)
            except Exception as error:
                self.failure = error
                raise

        @ray.method(concurrency_group="watch")
        def place(self) -> tuple[int, int]:
            return self.worker.place

    options: Any = {
        "num_cpus": 1,
        "num_gpus": job.gpu,
        "max_restarts": 0,
        "concurrency_groups": {"watch": 1},
    }
    return ray.remote(**options)(RayWorker).remote()
