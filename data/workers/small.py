"""Which jobs are small: processes of this machine do them before Ray would have started."""

from __future__ import annotations

from headstart.data.common.ray_session import chosen_address, is_running
from headstart.data.workers.process import cpus_here, has_gpu

SMALL = 20_000  # examples: docs/speed.md


def without_ray(address: str | None, workers: int | None, on_gpu: bool = False) -> int:
    """How many processes of this machine a job may use instead of Ray; 0 if it has to be on Ray."""
    size = workers or cpus_here()
    needs_ray = address or chosen_address(None) or is_running() or on_gpu or has_gpu()
    return 0 if needs_ray or size > cpus_here() else size
