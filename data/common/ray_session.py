"""Ray: a local cluster on loopback, or one that is running already."""

from __future__ import annotations

import logging
import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import Any
from urllib.parse import urlsplit

from headstart.data.common import console
from headstart.data.common.errors import ExtractionError, InputError, TerminatedError
from headstart.data.storage.temporary import temporary_folder

CONNECT_SECONDS = 5
GPU_ENGINE = "cuda"  # the engine that runs on GPUs
PER_GPU = 16  # workers that share one GPU, at most: each takes some of its memory
SETTLE_SECONDS = 3  # for the CPUs of workers that have just ended to be counted as free again
# What Ray appends to the path of a temporary folder, at most, and what a system allows in all.
SOCKET = "/r/session_2026-01-01_00-00-00_000000_1234567/sockets/plasma_store"
LONGEST_SOCKET = 107 if sys.platform == "linux" else 103
TOKEN, TOKEN_FILE = "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"
QUIET: Any = {"logging_level": logging.ERROR, "log_to_driver": False}


def chosen_address(address: str | None) -> str | None:
    """The cluster to work on, none for this machine; `RAY_ADDRESS` counts if nothing is given."""
    found = address or os.environ.get("RAY_ADDRESS")
    return None if found == "local" else found


def is_running() -> bool:
    """Whether this process is connected to Ray already; does not import it."""
    return "ray" in sys.modules and bool(sys.modules["ray"].is_initialized())


@contextmanager
def ray_session(address: str | None, workers: int | None, gpu: bool = False) -> Iterator[int]:
    """Connect to Ray and yield the number of workers to use, one CPU each.

    Parameters
    ----------
    address
        Of a running cluster (`auto`, `HOST:PORT` or `ray://HOST:PORT`), or `local`. Without one,
        the cluster that a submitted job runs on (`RAY_ADDRESS`), or else a local one, stopped at
        the end.
    workers
        How many are wanted; without a number, one for every free CPU.
    gpu
        Whether they need a GPU: then only CPUs of machines with a GPU count, at most `PER_GPU` for
        each GPU.

    Raises
    ------
    InputError
        If the cluster cannot be reached, has no GPU, or has too few CPUs for the workers.
    ExtractionError
        If too few are free, or Ray cannot be started.
    TerminatedError
        If the process is asked to end (`SIGTERM`).
    """
    os.environ.setdefault("RAY_AUTH_MODE", "token")  # must be set before Ray is imported
    with console.spinner("starting Ray"):
        import ray

    with ExitStack() as stack:
        if not ray.is_initialized():
            take_sigterm = stack.enter_context(stopped_by_sigterm())
            place = chosen_address(address)
            stack.enter_context(_connected(place, not address) if place else _started())
            take_sigterm()  # from Ray
        yield _free_workers(workers, PER_GPU if gpu else None)


@contextmanager
def _connected(address: str, from_environment: bool) -> Iterator[None]:
    import ray

    named, fix = address, "leave --address out"
    if from_environment:
        named, fix = f"{address}, which RAY_ADDRESS names", "unset RAY_ADDRESS"
    try:
        _check_reachable(address)
        with console.status(f"connecting to Ray at {address}"):
            ray.init(address=address, **QUIET)
    except (OSError, ValueError, RuntimeError) as error:
        raise InputError(
            f"no Ray cluster answers at {named}: {error}",
            f"Start one with `ray start --head`, or {fix} to work on this machine.",
        ) from None
    try:
        yield
    finally:
        ray.shutdown()


@contextmanager
def _started() -> Iterator[None]:
    """A cluster of this process: on loopback, with files that only this user can read."""
    import ray

    with (
        _token(),
        temporary_folder(LONGEST_SOCKET - len(SOCKET)) as folder,
        _small_and_local(),
    ):
        try:
            with console.spinner("starting Ray"), _ends_what_it_began():
                # Ray opens its own folder to all users: it lies in ours.
                ray.init(
                    address="local",
                    include_dashboard=False,
                    _node_ip_address="127.0.0.1",
                    _temp_dir=str(folder / "r"),
                    **QUIET,
                )
        except Exception as error:  # Ray raises plain ones if its processes do not start
            raise ExtractionError(
                f"Ray cannot be started on this machine: {error}",
                f"Its own messages are in {folder}/r/session_latest/logs, until Ray is started the "
                "next time.",
            ) from error
        try:
            with _agents_end_with_us():
                yield
        except ExtractionError:
            console.note(f"Ray's logs are in {folder}/r/session_latest/logs until the next run")
            raise
        finally:
            _stop()


@contextmanager
def _ends_what_it_began() -> Iterator[None]:
    """End the processes that were started in the block if it is interrupted."""
    import psutil  # comes with Ray

    own = psutil.Process()
    before = set(own.children(recursive=True))
    try:
        yield
    except BaseException:
        for process in set(own.children(recursive=True)) - before:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        raise


@contextmanager
def _token() -> Iterator[None]:
    """Let a local cluster have a token of its own if Ray cannot write one to the home folder."""
    from ray._raylet import AuthenticationTokenLoader  # type: ignore[attr-defined]  # compiled

    if os.environ.keys() & {TOKEN, TOKEN_FILE} or _has_token():
        yield
        return
    os.environ[TOKEN] = secrets.token_hex(32)
    AuthenticationTokenLoader.instance().reset_cache()
    try:
        yield
    finally:
        del os.environ[TOKEN]
        AuthenticationTokenLoader.instance().reset_cache()


def _has_token() -> bool:
    """Whether the user's token can be read, or Ray can create it."""
    place = os.path.expanduser("~/.ray")
    file = f"{place}/auth_token"
    try:
        os.makedirs(place, exist_ok=True)
    except OSError:
        return False
    return os.access(file, os.R_OK) if os.path.exists(file) else os.access(place, os.W_OK)


@contextmanager
def _replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    """Give an attribute of Ray another value for a while."""
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


@contextmanager
def _small_and_local() -> Iterator[None]:
    """Let Ray listen on loopback alone, and start no process that nothing here uses.

    It takes 127.0.0.1 for this machine's address in the network, and then listens on all of them,
    except where it supports no clusters of several machines. The autoscaler, the log monitor and
    the API server are a Python process each, and the agent that a node waits for has a web server
    unless its packages are missing: half of the CPU time and of the seconds that a start takes.
    """
    from ray._private import ray_constants, utils
    from ray._private.node import Node

    with ExitStack() as stack:
        stack.enter_context(_replaced(ray_constants, "ENABLE_RAY_CLUSTER", False))
        for name in ("start_monitor", "start_log_monitor", "start_api_server"):
            stack.enter_context(_replaced(Node, name, lambda self, **options: None))
        without = _replaced(utils, "get_dashboard_dependency_error", lambda: ImportError("unused"))
        stack.enter_context(without)
        yield


def _stop() -> None:
    """Stop Ray at once: the work is done, and its raylet would take a second to end by itself."""
    import psutil
    import ray
    from ray._private import worker

    node = worker._global_node
    if node is None:
        return
    (raylet,) = node.all_processes["raylet"]
    try:
        left = psutil.Process(raylet.process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        left = []
    kill = node.kill_all_processes
    with _replaced(node, "kill_all_processes", lambda **options: kill(check_alive=False)):
        ray.shutdown()
    for process in left:
        with suppress(psutil.NoSuchProcess):
            process.kill()


@contextmanager
def _agents_end_with_us() -> Iterator[None]:
    """End Ray's agents if this process is killed: they would stay for a minute.

    The kernel ends the other processes of Ray. A shell waits for the end of this process, which
    closes the pipe that it reads.
    """
    import psutil  # comes with Ray

    agents = [each for each in psutil.Process().children(recursive=True) if _is_agent(each)]
    command = ["/bin/sh", "-c", 'read _; kill -9 "$@"', "sh", *(str(each.pid) for each in agents)]
    with subprocess.Popen(  # noqa: S603 - numbers only
        command, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True
    ) as watch:
        try:
            yield
        finally:
            watch.kill()


def _is_agent(process: Any) -> bool:
    name = " ".join(process.cmdline())
    return any(word in name for word in ("Agent", "agent.py", "agent/main.py"))


@contextmanager
def stopped_by_sigterm() -> Iterator[Callable[[], None]]:
    """Let `SIGTERM` stop the work as Ctrl-C does; yields what sets the handler again.

    Ray replaces it as it starts, and its own prints the stacks of all threads.
    """
    main = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGTERM) or signal.SIG_DFL
    came = threading.Event()

    def stop(number: int, frame: object) -> None:
        came.set()
        raise KeyboardInterrupt  # Ray's calls let no other exception through

    def take() -> None:
        if main:
            signal.signal(signal.SIGTERM, stop)

    take()
    try:
        yield take
    except (KeyboardInterrupt, SystemExit) as error:  # the latter by Ray's own, as it starts
        if came.is_set() or isinstance(error, SystemExit):
            raise TerminatedError(
                "stopped by SIGTERM; what is done is kept", "Run the same command again to go on."
            ) from None
        raise
    finally:
        if main:
            signal.signal(signal.SIGTERM, before)


def _check_reachable(address: str) -> None:
    """Raise `OSError` if the port is closed: Ray would keep trying for minutes, silently."""
    place = urlsplit(address if "://" in address else f"//{address}")
    if place.hostname and place.port:
        socket.create_connection((place.hostname, place.port), timeout=CONNECT_SECONDS).close()


def _free_workers(workers: int | None, per_gpu: int | None) -> int:
    total = capacity(_machines(), per_gpu)
    what = "CPUs beside a GPU" if per_gpu else "CPUs"
    if not total and per_gpu:
        raise InputError(
            "no machine of the cluster has a GPU and a CPU beside it",
            "Start Ray where there is one, or choose an engine for CPUs with --engine.",
        )
    if workers and workers > total:
        most = f" ({per_gpu} workers share one at most)" if per_gpu else ""
        raise InputError(
            f"{workers} workers need as many {what}, but the cluster has {total}{most}",
            f"Ask for --workers {max(total, 1)} or fewer.",
        )
    deadline = time.monotonic() + SETTLE_SECONDS
    while (free := _free(total, per_gpu)) < (workers or total):
        if time.monotonic() > deadline:
            break
        time.sleep(0.1)
    if free < (workers or 1):
        raise ExtractionError(
            f"{workers or 1} of the cluster's {total} {what} are needed, but only {free} are free",
            "Wait for the other work to end, or ask for fewer with --workers.",
        )
    return workers or free


def _machines() -> list[tuple[int, int]]:
    """The CPUs and GPUs of each machine."""
    import ray

    found = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return [(int(each.get("CPU", 0)), int(each.get("GPU", 0))) for each in found]


def _free(total: int, per_gpu: int | None) -> int:
    import ray

    free = ray.available_resources()
    most = min(total, int(free.get("CPU", 0)))
    return most if per_gpu is None else min(most, int(free.get("GPU", 0) * per_gpu))


def capacity(machines: Sequence[tuple[float, float]], per_gpu: int | None) -> int:
    """How many workers fit on machines, given as (CPUs, GPUs): one per CPU, `per_gpu` per GPU."""
    return sum(
        int(cpus if per_gpu is None else min(cpus, per_gpu * gpus)) for cpus, gpus in machines
    )


def room_for(gpu: float) -> int:
    """How many more workers, with that share of a GPU each, the cluster has room for now."""
    import ray

    free = ray.available_resources()
    cpus = int(free.get("CPU", 0))
    return min(cpus, int(free.get("GPU", 0) / gpu + 1e-6)) if gpu else cpus


def gpus() -> int:
    """The number of GPUs in the cluster."""
    return sum(here for _, here in _machines())


def share_of_gpu(workers: int) -> float:
    """The largest share of a GPU, 1 divided by a whole number, that allows that many workers.

    GPUs that other work uses are counted as if spread evenly over the machines.
    """
    import ray

    machines = _machines()
    free = ray.available_resources().get("GPU", 0) / sum(here for _, here in machines)
    left = [(cpus, here * free) for cpus, here in machines]
    fit = (each for each in range(1, PER_GPU) if capacity(left, each) >= workers)
    return 1 / next(fit, PER_GPU)
