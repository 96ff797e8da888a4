"""Jobs on a real Ray cluster: dashboard on loopback, token authentication on."""

from __future__ import annotations

import http.client
import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from importlib.metadata import version
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

import grpc
import psutil
import pytest

from headstart.cluster import local
from headstart.cluster.commands import check_outputs
from headstart.cluster.probe import Versions
from headstart.data.common.errors import InputError
from headstart.data.contracts.store import FeatureStore
from headstart.data.storage.places import folder_at

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def gcs_port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def cluster(gcs_port: int) -> Iterator[str]:
    """A cluster by `cluster up`, and ended by `cluster down`; the address of its dashboard."""
    port = free_port()
    ports = ("--port", gcs_port, "--dashboard-port", port)
    up = run("-m", "cluster", "up", "--cpus", 2, *ports)
    assert up.returncode == 0, up.stderr
    address = f"http://127.0.0.1:{port}"
    assert up.stdout == f"cluster  {address}\nray      127.0.0.1:{gcs_port}\n"
    started = local.started()
    assert started
    assert started.address == address
    family = [head := psutil.Process(started.pid), *head.children(recursive=True)]
    yield address
    assert run("-m", "cluster", "down").stdout == f"ended the cluster at {address}\n"
    assert not [each for each in family if local.runs(each)]
    assert not Path(started.folder).exists()
    nothing = run("-m", "cluster", "down")
    assert (nothing.returncode, nothing.stderr) == (
        2,
        "ending Ray ...\n"
        "error: no cluster runs here that `python -m cluster up` started\n"
        "  One that was started otherwise is ended by `ray stop`.\n",
    )


def jobs(address: str) -> dict[str, str]:
    """The status of each job."""
    listed = run("-m", "cluster", "list", "--address", address, "--json")
    return {each["job"]: each["status"] for each in json.loads(listed.stdout)}


# As docs/security.md says of a cluster of one machine.
os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"


def run(*arguments: object, program: Path = Path(sys.executable)) -> subprocess.CompletedProcess:
    return subprocess.run(
        [program, *map(str, arguments)], capture_output=True, text=True, cwd=ROOT, check=False
    )


def test_ray_job_submit_runs_an_extraction(
    cluster: str, photos: Path, tiny_backbone: Path, tmp_path: Path
) -> None:
    """Word for word as in docs/cluster.md, but for the places; with a token, as there."""
    text = (ROOT / "docs" / "cluster.md").read_text()
    (start,) = re.findall(r"^ray job submit .*?(?=^```)", text, re.M | re.S)
    out = tmp_path / "features"
    places = {"/data/photos": photos, "/data/backbone.onnx": tiny_backbone, "/data/features": out}
    places["http://127.0.0.1:8265"] = cluster
    words = [str(places.pop(word, word)) for word in shlex.split(start.replace("\\\n", ""))]
    assert not places
    answer = run(*words[1:], program=BIN / words[0])
    assert answer.returncode == 0, answer.stdout + answer.stderr
    assert "embedded  60 examples" in answer.stdout
    assert FeatureStore.open(out).read().num_rows == 60


def test_extract_connects_to_an_address(
    cluster: str, gcs_port: int, photos: Path, tiny_backbone: Path, tmp_path: Path
) -> None:
    out = tmp_path / "features"
    address = f"127.0.0.1:{gcs_port}"
    extract = ("-m", "extract", photos, "--backbone", tiny_backbone, "-o", out)
    answer = run(*extract, "--address", address, "--workers", 1)
    assert answer.returncode == 0, answer.stderr
    assert "60 examples" in answer.stdout
    assert "with 1 worker" in answer.stdout
    refused = run(*extract[:-1], tmp_path / "more", "--address", address, "--workers", 3)
    # Without a network, Ray itself reports that first.
    assert refused.stderr.endswith(
        "error: 3 workers need as many CPUs, but the cluster has 2\n"
        "  Ask for --workers 2 or fewer.\n"
    )
    assert not (tmp_path / "more").exists()


def test_cluster_submit_follows_a_job_and_gives_its_outcome(
    cluster: str, photos: Path, tiny_backbone: Path, tmp_path: Path
) -> None:
    submit = ("-m", "cluster", "submit", "--address", cluster, "--", "python", "-m", "extract")
    out = tmp_path / "features"
    good = run(*submit, photos, "--backbone", tiny_backbone, "-o", out)
    assert good.returncode == 0, good.stderr
    assert "embedded  60 examples" in good.stdout
    assert FeatureStore.open(out).read().num_rows == 60
    new = tmp_path / "new"  # the finished store would start no worker
    bad = run(*submit, photos, "--backbone", tiny_backbone, "-o", new, "--workers", 99)
    assert bad.returncode == 1
    assert "99 workers need as many CPUs, but the cluster has 2" in bad.stdout
    assert "ended as FAILED" in bad.stderr
    assert "Traceback" not in bad.stderr
    before = jobs(cluster)
    assert {"SUCCEEDED", "FAILED"} <= set(before.values())
    absent = run(*submit, tmp_path / "no", "--backbone", tiny_backbone, "-o", out)
    assert absent.returncode == 2
    assert absent.stderr.endswith(
        f"error: {tmp_path / 'no'} does not exist on the cluster's 127.0.0.1\n"
        "  Put it on a disk that all nodes share, or into object storage.\n"
    )
    assert jobs(cluster) == before  # it was refused before a job


def test_a_cluster_is_up_once_with_a_private_token(cluster: str) -> None:
    token = Path.home() / ".ray" / "auth_token"
    assert token.stat().st_mode & 0o777 == 0o600
    again = run("-m", "cluster", "up")
    assert again.stderr == (
        f"starting Ray ...\nerror: a cluster is up already at {cluster}\n"
        "  Use it, or end it with `python -m cluster down`.\n"
    )


def test_status_shows_nodes_and_what_would_run(cluster: str) -> None:
    extract = ("extract", "s3://b/photos", "--backbone", "s3://b/b.onnx", "-o", "s3://b/f")
    shown = run("-m", "cluster", "status", "--", *extract).stdout.splitlines()  # that of `up`
    assert shown[0] == f"cluster  {cluster}"
    assert shown[1].startswith("ray      2.")
    assert shown[2] == "nodes    1"
    assert shown[4].split() == ["node", "CPUs", "GPUs", "memory", "room", "for", "workers"]
    assert shown[5].split()[:4] == ["127.0.0.1", "(head)", "2", "0"]
    assert shown[5].split()[-1] == "2"
    assert shown[6] == "2 workers, one CPU each; the rest runs on the head node"
    few = run("-m", "cluster", "status", "--json", "--", *extract, "--workers", 3)
    assert (few.returncode, few.stderr) == (
        2,
        "error: 3 workers need as many CPUs, but the cluster has 2\n"
        "  Ask for --workers 2 or fewer.\n",
    )


def test_a_detached_job_is_shown_and_stopped(cluster: str, tmp_path: Path) -> None:
    submit = ("-m", "cluster", "submit", "--detach", "--working-dir", tmp_path, "--")
    done = run(*submit, "sh", "-c", "echo begun; sleep 600")
    job = done.stdout.split()[1]
    assert done.stdout == f"job {job} was submitted\n"
    assert done.stderr == f"uploads 0 files (0 B) from {tmp_path}\njob {job}\n"
    deadline = time.monotonic() + 60
    while "begun" not in run("-m", "cluster", "logs", job).stdout:
        assert time.monotonic() < deadline
    assert jobs(cluster)[job] == "RUNNING"
    assert run("-m", "cluster", "stop", job).stdout == f"job {job} ended as STOPPED\n"
    followed = run("-m", "cluster", "logs", "--follow", job)
    assert followed.returncode == 1
    assert f"error: job {job} ended as STOPPED: " in followed.stderr
    unknown = run("-m", "cluster", "stop", "raysubmit_x")
    assert (unknown.returncode, unknown.stderr) == (
        2,
        f"error: there is no job raysubmit_x on the cluster at {cluster}\n"
        "  See: python -m cluster list\n",
    )


@pytest.mark.parametrize("wanted", ["ask", "stop"])
def test_ctrl_c_detaches_or_stops(cluster: str, tmp_path: Path, wanted: str) -> None:
    """Without a terminal nobody can be asked: the job goes on."""
    submit = ("-m", "cluster", "submit", "--working-dir", tmp_path, "--on-interrupt", wanted)
    command = [sys.executable, *map(str, submit), "--", "sh", "-c", "echo begun; sleep 600"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT
    ) as process:
        assert process.stdout
        assert any("begun" in line for line in process.stdout)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    job = next(line.split()[1] for line in said.splitlines() if line.startswith("job "))
    if wanted == "stop":
        assert said.endswith(
            f"error: job {job} ended as STOPPED; what it wrote whole is kept\n"
            "  Submit the same command again to go on.\n"
        )
        assert jobs(cluster)[job] == "STOPPED"
        return
    assert said.endswith(
        f"error: job {job} goes on, and is no longer followed\n"
        f"  python -m cluster logs --follow {job} shows it, python -m cluster stop {job} "
        "stops it.\n"
    )
    assert jobs(cluster)[job] == "RUNNING"
    assert run("-m", "cluster", "stop", job).returncode == 0


def test_other_versions_are_refused_before_the_job(
    cluster: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from headstart.cluster import jobs as module

    monkeypatch.setattr(module, "our_versions", lambda: Versions("2.7", "1.9.0", "0.1.0"))
    before = jobs(cluster)
    there = f"{sys.version_info[0]}.{sys.version_info[1]}"
    with pytest.raises(InputError) as caught:
        module.submit(
            module.Submission(["true"], cluster, str(tmp_path)), print, print, lambda: "stop"
        )
    fix = "  Install the same version on both; `ray job submit` does not compare them."
    assert str(caught.value) == (
        f"1. the cluster has Ray {version('ray')}, and this machine Ray 1.9.0\n{fix}\n"
        f"2. the cluster has Python {there}, and this machine Python 2.7\n{fix}"
    )
    assert jobs(cluster) == before


def test_a_wrong_token_is_refused(cluster: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", "0" * 64)
    answer = run("-m", "cluster", "list", "--address", cluster)
    assert (answer.returncode, answer.stderr) == (
        2,
        f"error: the cluster at {cluster} refuses our token\n"
        "  Copy the cluster's to ~/.ray/auth_token, or set RAY_AUTH_TOKEN_PATH to it.\n",
    )


# A call of each of Ray's gRPC servers that only reads.
CALLS = (
    "ray.rpc.JobInfoGcsService/GetAllJobInfo",
    "ray.rpc.NodeInfoGcsService/GetAllNodeInfo",
    "ray.rpc.NodeManagerService/GetNodeStats",
    "ray.rpc.NodeManagerService/GetSystemConfig",
    "ray.rpc.CoreWorkerService/GetCoreWorkerStats",
    "ray.rpc.ReporterService/GetTraceback",
    "ray.rpc.LogService/ListLogs",
)


def grpc_answer(port: int, call: str, token: str | None) -> str:
    """The status that a call without arguments gets."""
    metadata = [("authorization", f"Bearer {token}")] if token else []
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        try:
            channel.unary_unary(f"/{call}")(b"", timeout=10, metadata=metadata)
        except grpc.RpcError as error:
            return str(error.code().name)
    return "OK"


def http_answer(port: int, token: str | None) -> int | str | None:
    """The status of a request for the list of jobs; none if the port is not for HTTP.

    The server of metrics gives its one page, which needs no token, for every path.
    """
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    request = urllib.request.Request(f"http://127.0.0.1:{port}/api/jobs/", headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            prometheus = "version=" in answer.headers.get("Content-Type", "")
            return "metrics" if prometheus else int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
    except (OSError, http.client.HTTPException):
        return None


def test_a_cluster_of_one_machine_requires_a_token_and_is_on_loopback_only(cluster: str) -> None:
    """At each port that answers: HTTP and gRPC, without a token and with a wrong one."""
    started = local.started()
    assert started
    head = psutil.Process(started.pid)
    listening = {
        (each.name(), *socket.laddr)
        for each in (head, *head.children(recursive=True))
        for socket in each.net_connections("inet")
        if socket.status == psutil.CONN_LISTEN
    }
    assert len(listening) >= 5, listening
    assert {ip for _, ip, _ in listening} <= {"127.0.0.1", "::ffff:127.0.0.1"}, listening
    own = (Path.home() / ".ray" / "auth_token").read_text()
    assert http_answer(urlsplit(cluster).port or 0, own) == 200
    answers: dict[int, set[str | int | None]] = {}
    for _, _, port in listening:
        for token in (None, "0" * 64):
            found = answers.setdefault(port, set())
            found.add(http_answer(port, token))
            found |= {grpc_answer(port, call, token) for call in CALLS}
    assert answers[urlsplit(cluster).port or 0] >= {401}
    refused = [port for port, found in answers.items() if found & {401, 403, "UNAUTHENTICATED"}]
    assert len(refused) >= 5, answers
    for found in answers.values():
        assert not found & {"OK", *range(200, 400)}, answers


def test_what_listens_beyond_loopback_is_named_in_the_documentation(tmp_path: Path) -> None:
    """Of `ray start` as in docs/cluster.md, without the setting that keeps it on loopback."""
    named = set(re.findall(r"^ *\| `([\w:]+)` \|", (ROOT / "docs/security.md").read_text(), re.M))
    environment = os.environ | {"RAY_AUTH_TOKEN": "1" * 64}
    del environment["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"]
    folder = tempfile.mkdtemp(prefix="hs-", dir="/tmp")
    start = (*(sys.executable, "-c", local.RAY, "start", "--head", "--block", "--num-cpus=1"),)
    ports = [f"--{name}={free_port()}" for name in ("port", "dashboard-port")]
    ports.append(f"--dashboard-agent-listen-port={free_port()}")
    process = subprocess.Popen(
        [
            *start,
            "--dashboard-host=127.0.0.1",
            "--disable-usage-stats",
            f"--temp-dir={folder}",
            *ports,
        ],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    head = psutil.Process(process.pid)
    found: set[str] = set()
    deadline = time.monotonic() + 240
    try:
        while found < named:
            assert process.poll() is None
            assert time.monotonic() < deadline, found
            with suppress(psutil.Error):
                found |= {
                    each.name()
                    for each in head.children(recursive=True)
                    for socket in each.net_connections("inet")
                    if socket.status == psutil.CONN_LISTEN
                    and not ip_address(socket.laddr.ip.removeprefix("::ffff:")).is_loopback
                }
            time.sleep(0.5)
    finally:
        family = head.children(recursive=True)
        process.terminate()
        psutil.wait_procs(family, 20)
        for each in family:
            with suppress(psutil.Error):
                each.kill()
        process.wait()
        shutil.rmtree(folder, ignore_errors=True)
    assert found == named == {"gcs_server", "raylet", "ray::DashboardAgent", "ray::RuntimeEnvAgent"}


def test_a_missing_token_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    answer = run("-m", "cluster", "status")
    assert (answer.returncode, answer.stderr) == (
        2,
        "error: there is no token for the cluster at http://127.0.0.1:8265\n"
        "  Create one with `ray get-auth-token --generate` before you start a cluster, or copy the "
        "cluster's to ~/.ray/auth_token.\n",
    )


def test_bad_input_is_reported(tmp_path: Path) -> None:
    nobody = f"http://127.0.0.1:{free_port()}"
    answer = run("-m", "cluster", "status", "--address", nobody)
    assert answer.returncode == 2
    assert answer.stderr.startswith(f"error: no Ray cluster accepts jobs at {nobody}: ")
    assert answer.stderr.endswith(
        "  Start one with `python -m cluster up`, or name it with --address.\n"
    )
    answer = run("-m", "cluster", "submit", "--address", nobody)
    assert answer.stderr == (
        "error: there is no command to run on the cluster\n"
        "  Put it after --, as in: -- extract s3://bucket/photos ...\n"
    )
    answer = run("-m", "cluster", "submit", "--working-dir", tmp_path / "no", "--", "true")
    assert answer.stderr == f"error: {tmp_path / 'no'}: no such folder\n  Check --working-dir.\n"


@pytest.mark.parametrize("variable", ["RAY_ADDRESS", "RAY_API_SERVER_ADDRESS"])
def test_an_explicit_address_goes_before_the_environment(
    variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, other = (f"http://127.0.0.1:{free_port()}" for _ in range(2))
    monkeypatch.setenv(variable, other)
    monkeypatch.setenv("RAY_AUTH_TOKEN", "0" * 64)
    for given, named in (((), f"{other}, which {variable} names"), (("--address", asked), asked)):
        answer = run("-m", "cluster", "status", *given)
        assert answer.stderr.startswith(f"error: no Ray cluster accepts jobs at {named}: ")
        assert (other in answer.stderr) == (not given)


@pytest.mark.parametrize("output", [("-o", "f"), ("-of",), ("--output", "f"), ("--output=f",)])
def test_relative_outputs_of_a_job_are_refused(output: tuple[str, ...], tmp_path: Path) -> None:
    """Before it starts; and in the job itself, however it was submitted."""
    for program in (("python", "-m", "extract"), ("/x/headstart", "extract")):
        with pytest.raises(InputError) as caught:
            check_outputs([*program, "photos", *output])
        assert str(caught.value) == (
            "the output 'f' is a relative path: the job would write it to its own folder, which "
            f"Ray removes\n  Give a whole path, such as {Path.cwd() / 'f'}, or an address in "
            "object storage, which the cluster's machines can reach."
        )
    check_outputs(["cc", "x.c", *output])  # not ours
    for place in ("/scratch/f", "~/f", "s3://bucket/f"):
        check_outputs(["python", "-m", "extract", "photos", "-o", place])
    job = tmp_path / "runtime_resources" / "working_dir_files" / "_ray_pkg_1" / "features"
    with pytest.raises(InputError) as caught:
        folder_at(job).check()
    assert str(caught.value) == (
        f"{job} is in the folder of a job, which Ray removes\n"
        "  Give a whole path outside, or an address in object storage."
    )


def test_a_secret_in_an_address_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", "0" * 64)
    port = free_port()
    answer = run("-m", "cluster", "list", "--address", f"http://me:hush@127.0.0.1:{port}")
    shown = f"http://***@127.0.0.1:{port}"
    assert answer.returncode == 2
    assert answer.stderr.startswith(f"error: no Ray cluster accepts jobs at {shown}: ")
    assert "hush" not in answer.stdout + answer.stderr
