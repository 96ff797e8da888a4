"""Ray: a local cluster on loopback, or one that is running already."""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from headstart.data.common import console
from headstart.data.common.errors import ExtractionError, InputError

CONNECT_SECONDS = 5
PER_GPU = 16  # workers that share one GPU, at most: each takes some of its memory
SETTLE_SECONDS = 3  # for the CPUs of workers that have just ended to be counted as free again


@contextmanager
def ray_session(address: str | None, workers: int | None, gpu: bool = False) -> Iterator[int]:
    """Connect to Ray and yield the number of workers to use, one CPU each.

    Parameters
    ----------
    address
        Of a running cluster (`auto`, `HOST:PORT` or `ray://HOST:PORT`). Without one, the cluster
        that a submitted job runs on (`RAY_ADDRESS`), or else a local one, stopped at the end.
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
        If too few are free.
    """
    os.environ.setdefault("RAY_AUTH_MODE", "token")  # must be set before Ray is imported
    import ray

    ours = not ray.is_initialized()
    if ours:
        _start(address or os.environ.get("RAY_ADDRESS"))
    try:
        yield _free_workers(workers, PER_GPU if gpu else None)
    finally:
        if ours:
            ray.shutdown()


def _start(address: str | None) -> None:
    import ray

    quiet: Any = {"logging_level": logging.ERROR, "log_to_driver": False}
    if not address or address == "local":
        try:
            ray.init(
                address="local", include_dashboard=False, _node_ip_address="127.0.0.1", **quiet
            )
        except Exception as error:  # Ray raises plain ones if its processes do not start
            raise ExtractionError(
                f"Ray cannot be started on this machine: {error}",
                "Often the machine is too busy, or short of memory or disk space: check these, and "
                "run the same command again.",
            ) from error
        return
    try:
        _check_reachable(address)
        with console.status(f"connecting to Ray at {address}"):
            ray.init(address=address, **quiet)
    except (OSError, ValueError, RuntimeError) as error:
        raise InputError(
            f"no Ray cluster answers at {address}: {error}",
            "Start one with `ray start --head`, or leave --address out to work on this machine.",
        ) from None


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
