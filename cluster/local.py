"""A cluster of this machine alone: started, and ended again, with nothing else of Ray's touched."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from headstart.cluster.connection import state_file
from headstart.cluster.nodes import status
from headstart.data.common.errors import HeadstartError, InputError
from headstart.data.common.ray_session import TOKEN, TOKEN_FILE

LOOPBACK = "127.0.0.1"
START_SECONDS, END_SECONDS = 120, 30
# Ray listens on loopback alone where it takes clusters of several machines for not supported.
ENVIRONMENT = {"RAY_AUTH_MODE": "token", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
LOG_LINES = 5
# `ray` without the server of `ray://`, which nobody here uses: if it is late, Ray ends as a whole.
RAY = """
from ray.scripts import scripts
scripts.get_ray_client_dependency_error = lambda: "not wanted"
scripts.main()
"""


class LocalClusterError(HeadstartError):
    """A cluster of this machine did not start."""


@dataclass(frozen=True)
class LocalCluster:
    """What `up` started: its first process, its addresses, and the folder of its files."""

    pid: int
    created: float
    address: str
    ray_address: str
    folder: str


def _noted() -> LocalCluster | None:
    try:
        return LocalCluster(**json.loads(state_file().read_text()))
    except (OSError, ValueError, TypeError):
        return None


def started() -> LocalCluster | None:
    """The cluster that `up` started, if it runs."""
    found = _noted()
    return found if found and _process(found) else None


def _process(cluster: LocalCluster) -> Any:
    import psutil  # comes with Ray

    with suppress(psutil.Error):
        process = psutil.Process(cluster.pid)
        if process.create_time() == cluster.created and runs(process):
            return process
    return None


def up(cpus: int | None, gpus: int | None, port: int, dashboard_port: int) -> LocalCluster:
    """Start a cluster on loopback, with a token that only this user can read.

    Raises
    ------
    InputError
        If one is up, or a port is in use.
    LocalClusterError
        If it does not start.
    """
    if running := started():
        raise InputError(
            f"a cluster is up already at {running.address}",
            "Use it, or end it with `python -m cluster down`.",
        )
    for option, number in (("--port", port), ("--dashboard-port", dashboard_port)):
        if not _is_free(number):
            raise InputError(
                f"port {number} of this machine is in use",
                f"Another Ray may run here; give another port with {option}.",
            )
    _private_token()
    folder = Path(tempfile.mkdtemp(prefix="headstart-up-", dir=os.environ.get("RAY_TMPDIR")))
    address = f"http://{LOOPBACK}:{dashboard_port}"
    log = folder / "log"
    with log.open("wb") as file:
        process = subprocess.Popen(  # noqa: S603 - no shell
            [
                *(sys.executable, "-c", RAY, "start", "--head", "--block"),
                *(f"--node-ip-address={LOOPBACK}", f"--port={port}", "--disable-usage-stats"),
                *(f"--dashboard-host={LOOPBACK}", f"--dashboard-port={dashboard_port}"),
                f"--temp-dir={folder}/r",
                f"--dashboard-agent-listen-port={_free_port()}",
                *((f"--num-cpus={cpus}",) if cpus is not None else ()),
                *((f"--num-gpus={gpus}",) if gpus is not None else ()),
            ],
            env=os.environ | ENVIRONMENT | {"PATH": _path()},
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            start_new_session=True,
        )
    import psutil

    created = psutil.Process(process.pid).create_time()
    cluster = LocalCluster(process.pid, created, address, f"{LOOPBACK}:{port}", str(folder))
    deadline = time.monotonic() + START_SECONDS
    while not _answers(address):
        if process.poll() is not None or time.monotonic() > deadline:
            said = "\n  ".join(log.read_text().strip().splitlines()[-LOG_LINES:])
            _end(cluster)
            raise LocalClusterError(f"Ray did not start on this machine:\n  {said}")
        time.sleep(0.5)
    state = state_file()
    state.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    state.write_text(json.dumps(asdict(cluster)))
    return cluster


def _path() -> str:
    """The search path with this Python first: jobs run `python`."""
    return f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"


def _answers(address: str) -> bool:
    """Whether the dashboard lists jobs, and a node that is alive: the dashboard is up before it."""
    try:
        return bool(status(address).nodes)
    except (InputError, OSError, RuntimeError):
        return False


def down() -> LocalCluster:
    """End what `up` started, and remove its files.

    Raises
    ------
    InputError
        If there is nothing to end.
    """
    cluster = started()
    if not cluster:
        if ended := _noted():
            shutil.rmtree(ended.folder, ignore_errors=True)
        state_file().unlink(missing_ok=True)
        raise InputError(
            "no cluster runs here that `python -m cluster up` started",
            "One that was started otherwise is ended by `ray stop`.",
        )
    _end(cluster)
    state_file().unlink(missing_ok=True)
    return cluster


def _end(cluster: LocalCluster) -> None:
    import psutil

    if process := _process(cluster):
        family = [process, *process.children(recursive=True)]
        process.terminate()  # Ray ends the others
        deadline = time.monotonic() + END_SECONDS
        while (left := [each for each in family if runs(each)]) and time.monotonic() < deadline:
            time.sleep(0.1)
        for each in left:
            with suppress(psutil.Error):
                each.kill()
    shutil.rmtree(cluster.folder, ignore_errors=True)


def runs(process: Any) -> bool:
    """Whether a process runs; one that has ended and was not waited for does not."""
    import psutil

    with suppress(psutil.Error):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


def _private_token() -> None:
    """Have a token in a file that only this user can read: Ray's own would be readable by all."""
    if os.environ.get(TOKEN):
        return
    path = Path(os.environ.get(TOKEN_FILE) or "~/.ray/auth_token").expanduser()
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        with suppress(FileExistsError):
            number = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(number, "w") as file:
                file.write(secrets.token_hex(32))
        if stat.S_IMODE(path.stat().st_mode) & 0o077:
            path.chmod(0o600)
    except OSError as error:
        raise InputError(
            f"the token {path} cannot be written, or closed to others: {error.strerror}",
            f"Set {TOKEN_FILE} to a file of yours.",
        ) from None
