"""Workers get a CPU each, and a share of a GPU if they need one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import ray

from headstart.data.common import ray_session as session
from headstart.data.common.ray_session import PER_GPU, capacity, share_of_gpu

ON_GPUS = """
import os, sys
os.environ["RAY_AUTH_MODE"] = "token"
import ray
from headstart.data.common.errors import HeadstartError
from headstart.data.common.ray_session import ray_session, share_of_gpu
from headstart.extract import job

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
job.extract(*sys.argv[1:3], sys.argv[3] + "-on-cpus", job.ExtractOptions(workers=1))
for asked in (4, 3):
    try:
        job.extract(*sys.argv[1:], job.ExtractOptions(engine="cuda", workers=asked))
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
