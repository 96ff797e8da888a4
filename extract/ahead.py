"""Starts the processes of a small job ahead: they import what they need while it is planned.

Imports little itself.
"""

from __future__ import annotations

import os

from headstart.data.common.ray_session import chosen_address, is_running
from headstart.data.workers.process import Ahead, cpus_here, has_gpu

MODULES = ("headstart.extract.worker",)


def without_ray(address: str | None, workers: int | None, on_gpu: bool) -> int:
    """How many processes of this machine a job may use instead of Ray; 0 if it has to be on Ray."""
    size = workers or cpus_here()
    needs_ray = address or chosen_address(None) or is_running() or on_gpu or has_gpu()
    return 0 if needs_ray or size > cpus_here() else size


def started(size: int) -> Ahead:
    """So many processes, in which a worker of an extraction can be created."""
    return Ahead(size, MODULES)


def started_for(output: str, size: int) -> Ahead:
    """The same if a job will need them for certain: there is no store yet."""
    return started(0 if "://" in output or os.path.exists(output) else size)
