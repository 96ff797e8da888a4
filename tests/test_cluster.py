"""Jobs on a real Ray cluster: dashboard on loopback, token authentication on."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from headstart.cluster.commands import check_outputs
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
def cluster(tmp_path_factory: pytest.TempPathFactory, gcs_port: int) -> Iterator[str]:
    """A head node started as a user would; the address of its dashboard."""
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    arguments = (
        *("start", "--head", "--block", "--node-ip-address=127.0.0.1", f"--port={gcs_port}"),
        *("--dashboard-host=127.0.0.1", f"--dashboard-port={port}", "--num-cpus=2"),
        # A free port: another Ray on this machine may have the default one.
        *(f"--dashboard-agent-listen-port={free_port()}", "--disable-usage-stats"),
    )
    environment = os.environ | {"PATH": f"{BIN}:{os.environ['PATH']}"}
    subprocess.run([BIN / "ray", "get-auth-token", "--generate"], check=True, capture_output=True)
    log = (tmp_path_factory.mktemp("cluster") / "log").open("wb")
    head = subprocess.Popen([BIN / "ray", *arguments], env=environment, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 120
        while run("-m", "cluster", "status", "--address", address).returncode:
            assert head.poll() is None, Path(log.name).read_text()
            assert time.monotonic() < deadline, Path(log.name).read_text()
            time.sleep(1)
        yield address
    finally:
        head.terminate()
        head.wait(60)


# As docs/security.md says of a cluster of one machine.
os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"


def run(*arguments: object, program: Path = Path(sys.executable)) -> subprocess.CompletedProcess:
    return subprocess.run(
        [program, *map(str, arguments)], capture_output=True, text=True, cwd=ROOT, check=False
    )


def test_ray_job_submit_runs_an_extraction(
    cluster: str, photos: Path, tiny_backbone: Path, tmp_path: Path
) -> None:
    out = tmp_path / "features"
    extract = ("python", "-m", "extract", photos, "--backbone", tiny_backbone, "-o", out)
    submit = ("job", "submit", "--address", cluster, "--working-dir", ".", "--", *extract)
    answer = run(*submit, program=BIN / "ray")
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
    bad = run(*submit, tmp_path / "no", "--backbone", tiny_backbone, "-o", out)
    assert bad.returncode == 1
    assert f"{tmp_path / 'no'}: no such folder or manifest" in bad.stdout
    assert "ended as FAILED" in bad.stderr
    assert "Traceback" not in bad.stderr
    status = json.loads(run("-m", "cluster", "status", "--address", cluster, "--json").stdout)
    assert {"SUCCEEDED", "FAILED"} <= set(status["jobs"].values())


def test_a_cluster_of_one_machine_requires_a_token_and_is_on_loopback_only(cluster: str) -> None:
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(f"{cluster}/api/jobs/")
    assert caught.value.code == 401
    port = int(cluster.rsplit(":", 1)[1])
    (head,) = (
        each for each in psutil.Process().children() if f"--dashboard-port={port}" in each.cmdline()
    )
    listening = {
        (each.name(), socket.laddr.ip)
        for each in (head, *head.children(recursive=True))
        for socket in each.net_connections("inet")
        if socket.status == psutil.CONN_LISTEN
    }
    assert len(listening) >= 5, listening
    assert {ip for _, ip in listening} <= {"127.0.0.1", "::ffff:127.0.0.1"}, listening


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
        "  Start one with `RAY_AUTH_MODE=token ray start --head`, or name it with --address.\n"
    )
    answer = run("-m", "cluster", "submit", "--address", nobody)
    assert answer.stderr == (
        "error: there is no command to submit\n"
        "  Put it after --, as in: python -m cluster submit -- python -m extract ...\n"
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
