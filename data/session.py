"""Ray: a local cluster on loopback, or one that is running already."""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from data import console
from data.errors import ExtractionError, InputError

KNOCK_SECONDS = 5
SETTLE_SECONDS = 3  # for the CPUs of workers that have just ended to be counted as free again


@contextmanager
def ray_session(address: str | None, workers: int | None, resource: str = "CPU") -> Iterator[int]:
    """Connect to Ray and yield the number of workers to use, one CPU or GPU each.

    Parameters
    ----------
    address
        Of a running cluster (`auto`, `HOST:PORT` or `ray://HOST:PORT`). Without one, the cluster
        that a submitted job runs on (`RAY_ADDRESS`), or else a local one that ends with us.
    workers
        As many as asked for, or one for every CPU or GPU that is free.
    resource
        What a worker takes one of: `CPU` or `GPU`.

    Raises
    ------
    InputError
        If the cluster cannot be reached, has no GPU, or has fewer than workers are asked for.
    ExtractionError
        If none is free.
    """
    os.environ.setdefault("RAY_AUTH_MODE", "token")  # must be set before Ray is imported
    import ray

    ours = not ray.is_initialized()
    if ours:
        _start(address or os.environ.get("RAY_ADDRESS"))
    try:
        yield _free_workers(workers, resource)
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
        except Exception as error:  # Ray raises bare ones where its processes do not come up
            raise ExtractionError(
                f"Ray does not start on this machine: {error}",
                "Often the machine is too busy, or short of memory or disk: look, and run the same "
                "command again.",
            ) from error
        return
    try:
        _knock(address)
        with console.status(f"connecting to Ray at {address}"):
            ray.init(address=address, **quiet)
    except (OSError, ValueError, RuntimeError) as error:
        raise InputError(
            f"no Ray cluster answers at {address}: {error}",
            "Start one with `ray start --head`, or leave --address out to work on this machine.",
        ) from None


def _knock(address: str) -> None:
    """Raise `OSError` where nobody listens: Ray itself would keep trying for minutes, silently."""
    place = urlsplit(address if "://" in address else f"//{address}")
    if place.hostname and place.port:
        socket.create_connection((place.hostname, place.port), timeout=KNOCK_SECONDS).close()


def _free_workers(workers: int | None, resource: str) -> int:
    import ray

    total = int(ray.cluster_resources().get(resource, 0))
    if not total and resource != "CPU":
        raise InputError(
            f"no machine of the cluster has a {resource}",
            "Start Ray where there is one, or choose an engine for CPUs with --engine.",
        )
    if workers and workers > total:
        raise InputError(
            f"{workers} workers need as many {resource}s, but the cluster has {total}",
            f"Ask for --workers {max(total, 1)} or fewer.",
        )
    deadline = time.monotonic() + SETTLE_SECONDS
    while (free := int(ray.available_resources().get(resource, 0))) < (workers or total):
        if time.monotonic() > deadline:
            break
        time.sleep(0.1)
    if free < (workers or 1):
        raise ExtractionError(
            f"{workers or 1} of the cluster's {total} {resource}s are needed, but only {free} are "
            "free",
            "Wait for the other work to end, or ask for fewer with --workers.",
        )
    return workers or free


def cpus_per_worker(workers: int) -> int:
    """How many of the CPUs that are free each of some workers can have beside its GPU."""
    import ray

    return max(1, int(ray.available_resources().get("CPU", 0)) // workers)
