"""Workers get a CPU each, and a share of a GPU if they need one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from ipaddress import ip_address
from pathlib import Path

import psutil
import pytest
import ray

from headstart.data.common import ray_session as session
from headstart.data.common.errors import InputError
from headstart.data.common.ray_session import PER_GPU, capacity, share_of_gpu
from headstart.data.storage.temporary import PREFIX, temporary_folder
from headstart.extract.options import ExtractOptions

SHORT = "/tmp"  # noqa: S108  (as the system's own, not `TMPDIR`)

ON_GPUS = """
import os, sys
os.environ["RAY_AUTH_MODE"] = "token"
import ray
from headstart.data.common.errors import HeadstartError
from headstart.data.common.ray_session import ray_session, share_of_gpu
from headstart.extract import job
from headstart.extract.options import ExtractOptions

ray.init(address="local", num_cpus=3, num_gpus=1, include_dashboard=False,
         _node_ip_address="127.0.0.1", log_to_driver=False)
with ray_session(None, None, gpu=True) as workers:
    print(workers, round(share_of_gpu(workers), 3))
    placed = ray.remote(num_cpus=1, num_gpus=share_of_gpu(workers))(lambda: ray.get_gpu_ids())
    print(ray.get([placed.remote() for _ in range(workers)], timeout=60))
    other = ray.remote(num_cpus=0, num_gpus=0.5)(type("Other", (), {})).remote()
    ray.get(other.__ray_ready__.remote())
    print(share_of_gpu(workers))
    ray.kill(other)
job.extract(*sys.argv[1:3], sys.argv[3] + "-on-cpus", ExtractOptions(workers=1))
for asked in (4, 3):
    try:
        job.extract(*sys.argv[1:], ExtractOptions(engine="cuda", workers=asked))
    except HeadstartError as error:
        print(error)
"""


@pytest.mark.parametrize(
    ("machines", "per_gpu", "fit"),
    [
        ([(4, 0), (8, 1)], None, 12),
        ([(4, 0), (8, 1)], 16, 8),  # the first has no GPU
        ([(64, 1), (4, 2)], 16, 20),
        ([(0, 1)], 16, 0),
        ([], 16, 0),
    ],
)
def test_capacity_of_machines(
    machines: list[tuple[int, int]], per_gpu: int | None, fit: int
) -> None:
    assert capacity(machines, per_gpu) == fit


@pytest.mark.parametrize(
    ("machines", "workers", "of_each"),
    [
        ([(16, 1)], 16, 16),
        ([(16, 1)], 1, 1),
        ([(16, 4)], 16, 4),  # every GPU has the same work
        ([(16, 4)], 5, 2),
        ([(64, 1), (4, 2)], 20, 16),  # the second has only two CPUs for each of its GPUs
    ],
)
def test_workers_share_gpus_evenly(
    machines: list[tuple[int, int]], workers: int, of_each: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "_machines", lambda: machines)
    gpus = float(sum(gpus for _, gpus in machines))
    monkeypatch.setattr(ray, "available_resources", lambda: {"GPU": gpus})
    share = share_of_gpu(workers)
    assert share == 1 / of_each
    assert capacity(machines, of_each) >= workers
    assert of_each <= PER_GPU


def test_ray_has_a_place_for_each_worker_that_shares_a_gpu(
    photos: Path, tiny_backbone: Path, tmp_path: Path
) -> None:
    """A cluster with a GPU that exists only in its settings: enough to place workers."""
    done = subprocess.run(
        [sys.executable, "-c", ON_GPUS, str(photos), str(tiny_backbone), str(tmp_path / "f")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines() == [
        "3 0.333",
        "[[0], [0], [0]]",
        "0.16666666666666666",
        "4 workers need as many CPUs beside a GPU, but the cluster has 3 (16 workers share one at "
        "most)",
        "  Ask for --workers 3 or fewer.",
        "the installed ONNX Runtime has no CUDAExecutionProvider",
        "  Replace onnxruntime by onnxruntime-gpu where the workers run, or choose "
        "another --engine.",
        "  What is done is kept. Run the same command again to continue.",
    ], done.stderr
    assert done.stderr.count("left idle") == 1, done.stderr  # not where they are used
    assert (
        "the cluster's GPUs (1) are left idle: --engine cuda uses them, where onnxruntime-gpu is "
        "installed\n"
    ) in done.stderr


LOCAL = """
import json, time
from pathlib import Path
from socket import SOCK_DGRAM
import psutil, ray
from headstart.data.common.ray_session import ray_session

with ray_session(None, 1):
    ray.get(ray.remote(num_cpus=1)(lambda: 1).remote())  # so that a worker is up
    ours = [psutil.Process(), *psutil.Process().children(recursive=True)]
    listening = {
        (each.name(), socket.laddr.ip, socket.laddr.port)
        for each in ours
        for socket in each.net_connections("inet")
        if socket.status == psutil.CONN_LISTEN or socket.type == SOCK_DGRAM
    }
    folder = Path(ray._private.worker._global_node.get_temp_dir_path()).parent
    print(json.dumps({
        "processes": [each.pid for each in ours[1:]],
        "listening": sorted(listening),
        "folder": str(folder),
        "mode": oct(folder.stat().st_mode & 0o777),
    }), flush=True)
    time.sleep(600)
"""


def test_a_local_session_is_closed_to_others_and_ends_with_its_process(tmp_path: Path) -> None:
    """With a `TMPDIR` too long for Ray's sockets, and a home folder that cannot be written."""
    long = tmp_path / "some-user-name" / "job_12345678_2026-11-28"
    long.mkdir(parents=True)
    environment = os.environ | {"TMPDIR": str(long), "HOME": "/dev/null/none"}
    process = subprocess.Popen(
        [sys.executable, "-c", LOCAL], stdout=subprocess.PIPE, text=True, env=environment
    )
    try:
        assert process.stdout
        said = json.loads(process.stdout.readline())
        assert said["mode"] == "0o700"
        addresses = {ip_address(ip) for _, ip, _ in said["listening"]}
        assert len(said["listening"]) >= 6  # of driver, GCS, raylet, agents and worker
        assert all((getattr(a, "ipv4_mapped", None) or a).is_loopback for a in addresses), said
    finally:
        process.kill()
        process.wait()
    deadline = time.monotonic() + 8
    while left := [pid for pid in said["processes"] if is_running(pid)]:
        assert time.monotonic() < deadline, [psutil.Process(pid) for pid in left]
        time.sleep(0.2)
    folder = Path(said["folder"])
    assert folder.exists()  # nobody was left to remove it
    with temporary_folder(len(str(folder))):
        assert not folder.exists()


def is_running(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_sigterm_stops_in_words(photos: Path, tiny_backbone: Path, tmp_path: Path) -> None:
    out = tmp_path / "features"
    command = ("-m", "extract", photos, "--backbone", tiny_backbone, "-o", out, "--workers", "1")
    for index in range(3000):  # enough for the signal to come while it works
        os.link(photos / "red" / "00.png", photos / "red" / f"more{index}.png")
    process = subprocess.Popen(
        [sys.executable, *map(str, command)], stderr=subprocess.PIPE, text=True
    )
    while not list(out.glob("_records/*.begun-*")):
        assert process.poll() is None
        time.sleep(0.05)
    process.terminate()
    _, said = process.communicate()
    assert said.endswith(
        "error: stopped by SIGTERM; what is done is kept\n  Run the same command again to go on.\n"
    )
    assert "***" not in said, said  # where Ray prints stacks
    assert process.returncode == 143


def test_temporary_folders(monkeypatch: pytest.MonkeyPatch) -> None:
    with tempfile.TemporaryDirectory(dir=SHORT) as place:
        monkeypatch.setenv("RAY_TMPDIR", place)
        left = Path(place, f"{PREFIX}deadbeef")
        (left / "r").mkdir(parents=True)
        others = Path(place, f"{PREFIX}deadbeef-of-others")
        others.mkdir()
        with temporary_folder(60) as one, temporary_folder(60) as two:
            assert one.parent == two.parent == Path(place)
            assert one != two
            assert one.stat().st_mode & 0o777 == 0o700
            assert others.exists()
            assert not left.exists()
        assert not one.exists()
        with pytest.raises(RuntimeError), temporary_folder(60) as kept:
            raise RuntimeError
        assert kept.exists()
        with temporary_folder(len(f"{SHORT}/{PREFIX}") + 8) as short:
            assert short.parent == Path(SHORT)  # the other place's path is too long
        with pytest.raises(InputError) as caught, temporary_folder(20):
            pass
        assert str(caught.value).startswith(
            f"there is no place for Ray's temporary files: {place} has too long a path; "
        )


@pytest.mark.parametrize(
    ("given", "environment", "chosen"),
    [
        (None, None, None),
        (None, "b:1", "b:1"),
        ("a:1", "b:1", "a:1"),
        ("local", "b:1", None),
        (None, "local", None),
    ],
)
def test_an_explicit_address_goes_before_the_environment(
    given: str | None, environment: str | None, chosen: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if environment:
        monkeypatch.setenv("RAY_ADDRESS", environment)
    assert session.chosen_address(given) == chosen
    assert ExtractOptions(address=given).local == (chosen is None)


def test_who_named_an_address_that_does_not_answer_is_said(
    photos: Path, tiny_backbone: Path, tmp_path: Path
) -> None:
    extract = (sys.executable, "-m", "extract", photos, "--backbone", tiny_backbone, "-o")
    answer = subprocess.run(
        [*map(str, extract), str(tmp_path / "f")],
        capture_output=True,
        text=True,
        env=os.environ | {"RAY_ADDRESS": "127.0.0.1:9"},
    )
    assert answer.returncode == 2
    assert answer.stderr == (
        "error: no Ray cluster answers at 127.0.0.1:9, which RAY_ADDRESS names: "
        "[Errno 111] Connection refused\n"
        "  Start one with `ray start --head`, or unset RAY_ADDRESS to work on this machine.\n"
    )


def test_what_ray_began_is_ended_if_its_start_is_interrupted() -> None:
    begun: list[subprocess.Popen] = []

    def start() -> None:
        with session._ends_what_it_began():
            begun.append(subprocess.Popen(["sleep", "60"]))
            raise KeyboardInterrupt

    before = subprocess.Popen(["sleep", "60"])
    try:
        with pytest.raises(KeyboardInterrupt):
            start()
        assert begun[0].wait(20) == -signal.SIGKILL
        assert before.poll() is None
    finally:
        before.kill()
        before.wait()
