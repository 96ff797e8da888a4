"""Workers die, stall and are killed by single photographs; the job continues and reports it."""

from __future__ import annotations

import ctypes
import os
import re
import socket
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import ray
from conftest import paint, write_tiny_backbone

from headstart.data.common.errors import ExtractionError
from headstart.data.contracts.store import FeatureStore
from headstart.data.workers.pool import KILLED, _cause_of_death
from headstart.extract.job import extract as run
from headstart.extract.options import ExtractOptions
from headstart.extract.worker import EmbeddingJob, EmbeddingWorker

pytestmark = pytest.mark.usefixtures("two_workers")


def use(monkeypatch: pytest.MonkeyPatch, worker: type[EmbeddingWorker]) -> None:
    """Extract with workers of the given class, which is sent to Ray's processes by value."""

    class OurJob(EmbeddingJob):
        def worker(self, content: bytes) -> EmbeddingWorker:
            return worker(self, content)

    monkeypatch.setattr("headstart.extract.working.EmbeddingJob", OurJob)


@pytest.fixture
def fragile_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers that crash or hang on files with certain bytes, as with a bug in a decoder."""
    # A real fault: a signal sent by os.kill may reach another thread, and this one would continue.
    crash, sleep, match = lambda: ctypes.string_at(0), time.sleep, re.match

    class Fragile(EmbeddingWorker):
        def work(self, *task):  # type: ignore[no-untyped-def]
            import headstart.data.modalities.image.preprocessing as module

            decode = module.decode

            def fragile(content: bytes, preprocessing: object, fast: bool) -> np.ndarray:
                if content == b"poison":
                    crash()
                if content == b"endless":
                    sleep(1000)
                if content == b"endless in C":  # the regular expression holds the GIL
                    match(r"(a+)+$", "a" * 60 + "b")
                return decode(content, preprocessing, fast)

            module.decode = fragile
            try:
                return super().work(*task)
            finally:
                module.decode = decode

    use(monkeypatch, Fragile)


def many(photos: Path) -> set[str]:
    for number in range(240):
        paint(photos / "red" / f"more{number:03d}.png", (200, 60, 60), number)
    return {path.relative_to(photos).as_posix() for path in photos.rglob("*.png")}


@pytest.mark.usefixtures("fragile_workers", "local_ray")
def test_a_photograph_that_kills_its_worker_ends_alone_in_errors(
    photos: Path, tiny_backbone: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    ids, out = many(photos), tmp_path / "f"
    poison = photos / "red" / "more100.png"
    poison.write_bytes(b"poison")
    done = run(photos, tiny_backbone, out)
    assert (done.embedded, done.failed, done.errors) == (299, 1, {"worker/died": 1})
    (error,) = FeatureStore.open(out).read_errors().to_pylist()
    assert error["id"] == "red/more100.png"
    why = "its process was killed or crashed; short memory is the usual cause"
    assert (
        error["message"]
        == f"its workers died at this photograph, the last one with it alone: {why}"
    )
    stored = FeatureStore.open(out).read(["id"])["id"].to_pylist()
    assert sorted([*stored, error["id"]]) == sorted(ids)
    said = rf"worker \d+ on {socket.gethostname()} died near '.*': {why}; it is replaced\n"
    assert re.search(said, capsys.readouterr().err)
    again = run(photos, tiny_backbone, out)
    assert again.inferences == 0
    paint(poison, (200, 60, 60), 100)
    assert run(photos, tiny_backbone, out).rows == 300


@pytest.mark.alone  # beside other tests, a sound photograph may take seconds as well
@pytest.mark.parametrize("how", [b"endless", b"endless in C"])
@pytest.mark.usefixtures("fragile_workers", "local_ray")
def test_a_photograph_that_stalls_its_worker_is_named_and_ends_alone_in_errors(
    photos: Path, tiny_backbone: Path, tmp_path: Path, how: bytes, command: Callable
) -> None:
    out = tmp_path / "f"
    (photos / "red" / "07.png").write_bytes(how)
    arguments = ("--backbone", tiny_backbone, "-o", out, "--stall-after", "2")
    answer = command("extract", photos, *arguments)
    assert answer.code == 0, answer.err
    (error,) = FeatureStore.open(out).read_errors().to_pylist()
    why = "no photograph was done in 2 s"
    assert error == error | {
        "id": "red/07.png",
        "stage": "worker",
        "reason": "stalled",
        "message": f"its workers stalled at this photograph, the last one with it alone: {why}",
    }
    assert FeatureStore.open(out).manifest.rows == 59
    assert re.search(rf"worker \d+ on .* stalled near '.*': {why}; it is replaced", answer.err)


@pytest.mark.usefixtures("local_ray")
def test_a_worker_that_is_killed_once_costs_its_shard_once_more_and_nothing_else(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    ids, mark = many(photos), tmp_path / "killed"
    write_tiny_backbone(tmp_path / "b.onnx")
    kill, pid = os.kill, os.getpid

    class Mortal(EmbeddingWorker):
        def work(self, *task):  # type: ignore[no-untyped-def]
            record = super().work(*task)  # written, but never reported
            try:
                mark.touch(exist_ok=False)  # by one worker, even if two finish at once
            except FileExistsError:
                return record
            kill(pid(), 9)

    use(monkeypatch, Mortal)
    done = run(photos, tmp_path / "b.onnx", tmp_path / "f")
    assert (done.embedded, done.errors, mark.exists()) == (300, {}, True)
    assert 300 < done.inferences <= 300 + 64
    store = FeatureStore.open(tmp_path / "f")
    assert store.manifest.inferences == done.inferences
    stored = store.read(["id"])["id"].to_pylist()
    assert sorted(stored) == sorted(ids)
    assert sorted(path.name for path in (tmp_path / "f").glob("part-*.parquet")) == [
        part.rows_file for part in store.manifest.parts
    ]
    assert capsys.readouterr().err.count("it is replaced") == 1


@pytest.mark.usefixtures("local_ray")
def test_workers_that_never_start_stop_the_job(
    photos: Path, tiny_backbone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kill, pid = os.kill, os.getpid

    class DiesAtStart(EmbeddingWorker):
        def __init__(self, *arguments: object) -> None:
            kill(pid(), 9)

    use(monkeypatch, DiesAtStart)
    with pytest.raises(ExtractionError) as caught:
        run(photos, tiny_backbone, tmp_path / "f")
    assert str(caught.value) == (
        "3 workers in a row died while starting: its process was killed or crashed; "
        "short memory is the usual cause\n  Check the memory of the machines, what is installed on "
        "them, and Ray's logs.\n"
        "  What is done is kept. Run the same command again to continue."
    )


@pytest.mark.usefixtures("local_ray")
def test_a_waiting_job_says_what_it_waits_for(
    photos: Path,
    tiny_backbone: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    monkeypatch.setattr("headstart.data.workers.pool.QUIET_SECONDS", 1.0)

    class Slow(EmbeddingWorker):
        def work(self, *task):  # type: ignore[no-untyped-def]
            if task[0].number == 0:
                self.position = (0, 3)
                time.sleep(4)
            return super().work(*task)

    use(monkeypatch, Slow)
    assert run(photos, tiny_backbone, tmp_path / "f", ExtractOptions(workers=1)).embedded == 60
    assert re.search(r"worker \d+ on \S+: at 'blue/03.png' for \d s\n", capsys.readouterr().err)


@pytest.mark.usefixtures("fragile_workers", "local_ray")
def test_examples_in_a_row_that_end_their_workers_stop_the_job(
    photos: Path, tiny_backbone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The job stops early if every photograph ends its worker."""
    monkeypatch.setattr("headstart.data.workers.pool.MAX_DIED_IN_A_ROW", 2)
    for path in photos.rglob("*.png"):
        path.write_bytes(b"poison")
    with pytest.raises(ExtractionError) as caught:
        run(photos, tiny_backbone, tmp_path / "f")
    assert re.fullmatch(
        r"2 photographs in a row ended their workers, the last one is '\S+': its process "
        r"was killed or crashed; short memory is the usual cause\n  Check the graph's file, and "
        r"the memory of the machines: fewer --workers have more each\.\n  What is done is kept\. "
        r"Run the same command again to continue\.",
        str(caught.value),
    )


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (ray.exceptions.ActorDiedError(), KILLED),
        (ray.exceptions.WorkerCrashedError(), KILLED),
        (ray.exceptions.RuntimeEnvSetupError("no such package"), "no such package"),
        (ray.exceptions.ObjectStoreFullError(), "object store is full"),
        (ray.exceptions.OutOfDiskError(), "disk's utilization is over capacity"),
    ],
)
def test_only_a_lost_process_is_blamed_on_memory(error: Exception, cause: str) -> None:
    assert cause in _cause_of_death(error)
    assert ("short memory" in _cause_of_death(error)) == (cause == KILLED)
