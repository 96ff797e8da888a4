"""A question to a cluster before a job: its versions, and whether its nodes have some paths."""

from __future__ import annotations

import asyncio
import json
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

from headstart.cluster.connection import wait_for_end
from headstart.data.common.console import first_few
from headstart.data.common.errors import Checklist, HeadstartError, InputError

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

MARK = "headstart-probe "
# Runs on the cluster without a working directory: with nothing but what is installed there.
PROGRAM = f"""
import json, os, sys
from importlib.metadata import PackageNotFoundError, version
def found(name):
    try:
        return version(name)
    except PackageNotFoundError:
        return None
def missing(paths):
    return [each for each in paths if not os.path.exists(os.path.expanduser(each))]
paths, absent = sys.argv[1:], {{}}
if paths:
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy as On
    ray.init(log_to_driver=False)
    look = ray.remote(num_cpus=0)(missing)
    nodes = [each for each in ray.nodes() if each["Alive"]]
    asked = [look.options(scheduling_strategy=On(each["NodeID"], soft=False)).remote(paths)
             for each in nodes]
    for node, lost in zip(nodes, ray.get(asked)):
        for path in lost:
            absent.setdefault(path, []).append(node["NodeManagerAddress"])
print({MARK!r} + json.dumps({{
    "python": "%d.%d" % sys.version_info[:2], "ray": found("ray"), "headstart": found("headstart"),
    "absent": absent}}), flush=True)
"""


@dataclass(frozen=True)
class Versions:
    """What is installed somewhere."""

    python: str
    ray: str | None
    headstart: str | None


@dataclass(frozen=True)
class Answer:
    """What the cluster answered: its versions, and which nodes lack which path."""

    versions: Versions
    absent: dict[str, list[str]]


class ProbeError(HeadstartError):
    """The cluster accepts jobs, but ran none."""


def our_versions() -> Versions:
    """The versions of this process."""
    try:
        headstart: str | None = version("headstart")
    except PackageNotFoundError:
        headstart = None
    return Versions(f"{sys.version_info[0]}.{sys.version_info[1]}", version("ray"), headstart)


def ask(client: JobSubmissionClient, paths: Sequence[str]) -> Answer:
    """Run the probe as a job, and remove it from the list of jobs.

    Raises
    ------
    ProbeError
        If it does not answer.
    """
    job = client.submit_job(entrypoint=shlex.join(["python", "-c", PROGRAM, *paths]))

    async def text() -> str:
        return "".join([chunk async for chunk in client.tail_job_logs(job)])

    said = asyncio.run(text())
    line = next((each for each in said.splitlines() if each.startswith(MARK)), None)
    if line is None:
        info = client.get_job_info(job)
        raise ProbeError(
            f"the cluster did not run a small job: {info.message or info.status}",
            f"See: python -m cluster logs {job}",
        )
    wait_for_end(client, job)
    client.delete_job(job)
    found = json.loads(line.removeprefix(MARK))
    absent = found.pop("absent")
    return Answer(Versions(**found), absent)


def check_answer(answer: Answer, ours: Versions, brings_headstart: bool | None) -> None:
    """Refuse a cluster with other versions, or without the paths.

    Parameters
    ----------
    brings_headstart
        Whether the working directory has headstart in it, so that the cluster's own does not
        matter; none if the command does not need it.

    Raises
    ------
    InputError
        With both versions, or with the nodes that lack a path.
    """
    checks = Checklist()
    theirs = answer.versions
    pairs = [("Ray", theirs.ray, ours.ray), ("Python", theirs.python, ours.python)]
    if brings_headstart is False:
        pairs.append(("headstart", theirs.headstart, ours.headstart))
    for name, there, here in pairs:
        with checks.item():
            if there != here:
                has = f"{name} {there}" if there else f"no {name}"
                raise InputError(
                    f"the cluster has {has}, and this machine {name} {here or 'from a folder'}",
                    "Install the same version on both; `ray job submit` does not compare them.",
                )
    for path, nodes in answer.absent.items():
        with checks.item():
            raise InputError(
                f"{path} does not exist on the cluster's {first_few(nodes)}",
                "Put it on a disk that all nodes share, or into object storage.",
            )
    checks.finish()
