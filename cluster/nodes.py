"""A cluster in; its nodes out, and what would run on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from headstart.cluster.commands import as_program, is_ours, values
from headstart.cluster.connection import ADDRESSES, connect, environment_without
from headstart.cluster.jobs import Job, jobs
from headstart.data.common.errors import InputError, first_line
from headstart.data.common.ray_session import GPU_ENGINE, PER_GPU, capacity
from headstart.data.storage.addresses import without_secret


@dataclass(frozen=True)
class Node:
    """A machine of a cluster: its address, and what Ray may use of it."""

    address: str
    head: bool
    cpus: int
    gpus: int
    memory: int


@dataclass(frozen=True)
class ClusterStatus:
    """A cluster's address and version of Ray, its nodes and its jobs."""

    address: str
    ray_version: str
    nodes: list[Node]
    jobs: list[Job]


def status(address: str | None) -> ClusterStatus:
    """What a cluster has, the head node first."""
    client = connect(address)  # before Ray is imported
    from ray.util.state import list_nodes
    from ray.util.state.exception import RayStateApiException

    try:
        with environment_without(ADDRESSES):
            found = list_nodes(address=client.get_address())
    except RayStateApiException as error:
        raise InputError(
            f"the cluster does not list its nodes: {first_line(error)}",
            "Wait until it is up, and try again.",
        ) from None
    nodes = [
        Node(
            each.node_ip,
            each.is_head_node,
            int(each.resources_total.get("CPU", 0)),
            int(each.resources_total.get("GPU", 0)),
            int(each.resources_total.get("memory", 0)),
        )
        for each in found
        if each.state == "ALIVE"
    ]
    nodes.sort(key=lambda node: not node.head)
    shown = without_secret(client.get_address())
    ray = client._server_ray_version or "?"  # nothing public has it
    return ClusterStatus(shown, ray, nodes, jobs(address))


def placement(command: Sequence[str], nodes: Sequence[Node]) -> tuple[list[int], int]:
    """How many workers of a command each node has room for, and how many there would be in all.

    Everything else of a command runs on the head node.

    Raises
    ------
    InputError
        If the nodes have no room for the workers, or the command is empty.
    """
    program = as_program(command)
    if not is_ours(program) or not _has_workers(program):
        return [0] * len(nodes), 0
    options = dict(values(program))
    per_gpu = PER_GPU if options.get("--engine") == GPU_ENGINE else None
    room = [capacity([(node.cpus, node.gpus)], per_gpu) for node in nodes]
    what = "CPUs beside a GPU" if per_gpu else "CPUs"
    asked = options.get("--workers", "")
    wanted = int(asked) if asked.isdigit() else sum(room)
    if not sum(room) or wanted > sum(room):
        raise InputError(
            f"{max(wanted, 1)} worker{'s' * (wanted > 1)} need as many {what}, but the cluster "
            f"has {sum(room)}",
            f"Ask for --workers {sum(room)} or fewer."
            if sum(room)
            else "Add a node that has them, or choose another engine with --engine.",
        )
    return room, wanted


def _has_workers(program: Sequence[str]) -> bool:
    """Whether it is `extract`, or `classify predict`."""
    words = [word.rpartition("/")[2] for word in program]
    return "extract" in words or {"classify", "predict"} <= set(words)
