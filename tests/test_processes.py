"""Small jobs run in processes without Ray; what a lost process leaves is done on Ray."""

from __future__ import annotations

import csv
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import fragile
import psutil
import pytest
from conftest import as_if_no_ray_were_there, paint
from ray import cloudpickle

from headstart.data.common.errors import ExtractionError
from headstart.data.contracts.store import FeatureStore
from headstart.data.workers import process
from headstart.data.workers.pool import KILLED
from headstart.extract.job import extract
from headstart.extract.options import ExtractOptions


@pytest.fixture
def without_ray(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Begin as if the tests' Ray were not there; what is left is for that one."""
    cloudpickle.register_pickle_by_value(fragile)  # its workers do not have this folder
    as_if_no_ray_were_there(monkeypatch)
    monkeypatch.setattr("headstart.extract.working.EmbeddingJob", fragile.FragileJob)
    monkeypatch.setattr("headstart.classify.prediction.edge.EdgeJob", fragile.FragileEdgeJob)
    yield
    cloudpickle.unregister_pickle_by_value(fragile)


@pytest.mark.usefixtures("without_ray", "local_ray")
def test_a_photograph_that_kills_its_process_ends_alone_in_errors(
    photos: Path, tiny_backbone: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    out = tmp_path / "f"
    for number in range(100):
        paint(photos / "red" / f"more{number:03d}.png", (200, 60, 60), number)
    ids = {path.relative_to(photos).as_posix() for path in photos.rglob("*.png")}
    (photos / "red" / "more050.png").write_bytes(b"poison")
    done = extract(photos, tiny_backbone, out)
    assert (done.embedded, done.failed, done.errors) == (159, 1, {"worker/died": 1})
    said = rf"worker \d+ on {socket.gethostname()} died near '.*': {KILLED}; (.*)\n"
    assert re.findall(said, capsys.readouterr().err) == [
        "what it leaves is done on Ray",
        *["it is replaced"] * 3,
    ]
    assert 160 < done.inferences <= 160 + 4 * 64
    (error,) = FeatureStore.open(out).read_errors().to_pylist()
    assert error["id"] == "red/more050.png"
    stored = FeatureStore.open(out).read(["id"])["id"].to_pylist()
    assert sorted([*stored, error["id"]]) == sorted(ids)
    assert extract(photos, tiny_backbone, out).inferences == 0


@pytest.mark.alone  # beside other tests, a sound photograph may take seconds as well
@pytest.mark.usefixtures("without_ray", "local_ray")
def test_a_process_that_stalls_is_given_up(
    photos: Path,
    tiny_backbone: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    monkeypatch.setenv(fragile.STALLS, "yes")
    (photos / "red" / "07.png").write_bytes(b"endless")
    done = extract(photos, tiny_backbone, tmp_path / "f", ExtractOptions(stall_after=3))
    assert (done.embedded, done.failed) == (59, 1)
    why = "no photograph was done in 3 s; what it leaves is done on Ray"
    assert re.search(rf"worker \d+ on .* stalled near '.*': {why}", capsys.readouterr().err)


@pytest.mark.usefixtures("without_ray")
def test_a_process_that_cannot_write_stops_the_job(
    photos: Path, tiny_backbone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is said as on Ray, and running it again goes on; nothing of Ray is imported."""
    monkeypatch.setattr("headstart.extract.working.ray_session", None)
    out = tmp_path / "f"
    (photos / "red" / "00.png").write_bytes(b"broken")
    broken = "headstart.extract.working.begin"
    begin = __import__("headstart.extract.working", fromlist=["begin"]).begin

    def blocked(folder: object, *arguments: object, **named: object) -> None:
        begin(folder, *arguments, **named)
        (out / "_errors").write_text("in the way")

    monkeypatch.setattr(broken, blocked)
    with pytest.raises(ExtractionError) as caught:
        extract(photos, tiny_backbone, out)
    assert f"{out / '_errors'}" in str(caught.value)
    assert "What is done is kept. Run the same command again to continue." in str(caught.value)
    monkeypatch.setattr(broken, begin)
    (out / "_errors").unlink()
    done = extract(photos, tiny_backbone, out)
    assert (done.counts.kept + done.embedded, done.failed) == (59, 1)
    assert "start Ray" not in done.seconds


STARTED = """
import time
from headstart.extract.ahead import started
with started(2) as ahead:
    print(*(each.process.pid for each in ahead.started), flush=True)
    time.sleep(600)
"""


def test_processes_end_with_the_one_that_started_them() -> None:
    driver = subprocess.Popen(
        [sys.executable, "-c", STARTED], stdout=subprocess.PIPE, text=True, env=os.environ
    )
    assert driver.stdout
    pids = [int(each) for each in driver.stdout.readline().split()]
    driver.kill()
    driver.wait()
    deadline = time.monotonic() + 20
    while any(map(_lives, pids)):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def _lives(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.mark.parametrize(("limit", "cpus"), [("max 100000", 7), ("150000 100000", 1), ("", 7)])
def test_cpus_that_a_container_may_use(
    limit: str, cpus: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(7)))
    monkeypatch.setattr(process, "CGROUP_CPUS", tmp_path / "cpu.max")
    if limit:
        (tmp_path / "cpu.max").write_text(limit)
    assert process.cpus_here() == cpus


@pytest.mark.usefixtures("local_ray")
def test_an_address_or_a_large_job_needs_ray(
    photos: Path,
    tiny_backbone: Path,
    tmp_path: Path,
    command: Callable,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    as_if_no_ray_were_there(monkeypatch)
    arguments = ("extract", photos, "--backbone", tiny_backbone, "-o")
    assert "start Ray" in command(*arguments, tmp_path / "a", "--address", "local").out
    monkeypatch.setattr("headstart.extract.working.SMALL", 59)
    assert "start Ray" in command(*arguments, tmp_path / "b").out


@pytest.mark.usefixtures("local_ray")
def test_predictions_by_processes_are_those_on_ray(
    edge: Path, photos: Path, tmp_path: Path, command: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    (photos / "red" / "07.png").write_bytes(b"broken")
    asked = ("classify", "predict", edge, photos, "-o")
    on_ray = command(*asked, tmp_path / "ray.csv")
    as_if_no_ray_were_there(monkeypatch)
    monkeypatch.setattr("headstart.classify.prediction.edge.ray_session", None)
    here = command(*asked, tmp_path / "here.csv")
    assert (on_ray.code, here.code) == (0, 0), here.err
    assert (tmp_path / "here.csv").read_bytes() == (tmp_path / "ray.csv").read_bytes()


@pytest.mark.usefixtures("without_ray", "local_ray")
def test_predictions_that_a_lost_process_leaves_are_done_on_ray(
    edge: Path, photos: Path, tmp_path: Path, command: Callable
) -> None:
    (photos / "red" / "07.png").write_bytes(b"poison")
    answer = command("classify", "predict", edge, photos, "-o", tmp_path / "p.csv")
    assert answer.code == 0, answer.err
    said = rf"worker \d+ on {socket.gethostname()} died near '.*': {KILLED}; (.*)\n"
    assert re.findall(said, answer.err)[:2] == ["what it leaves is done on Ray", "it is replaced"]
    rows = list(csv.DictReader((tmp_path / "p.csv").open()))
    assert [row["id"] for row in rows if row["error"]] == ["red/07.png"]
    assert len(rows) == 60


TERMINATED = """
import os, signal
from headstart.__main__ import main
from headstart.classify.prediction import edge
edge._take = lambda *_: os.kill(os.getpid(), signal.SIGTERM)
main()
"""


def test_sigterm_ends_a_prediction_that_writes_nothing(
    edge: Path, photos: Path, tmp_path: Path
) -> None:
    """In a process of its own, whose main thread takes the signal."""
    asked = ("classify", "predict", edge, photos, "-o", tmp_path / "p.csv")
    command = [sys.executable, "-c", TERMINATED, *map(str, asked)]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (answer.returncode, answer.stderr.splitlines()[-1]) == (
        143,
        "error: stopped by SIGTERM; no predictions were written",
    )
    assert not (tmp_path / "p.csv").exists()
