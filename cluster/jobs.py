"""Run a command as a job of a Ray cluster, and list its jobs."""

from __future__ import annotations

import asyncio
import os
import shlex
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from headstart.cluster.commands import check_outputs
from headstart.data.common.errors import HeadstartError, InputError, first_line
from headstart.data.storage.files import local_path

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

DEFAULT_ADDRESS = "http://127.0.0.1:8265"
ADDRESSES = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")  # environment variables, in Ray's order
# Large files that are not code, which Ray would upload to every node (at most 100 MiB in all).
EXCLUDES = [".git", ".venv", "*.onnx", "*.parquet", "*.skops"]


class JobFailedError(HeadstartError):
    """The job failed or was stopped."""


@dataclass(frozen=True)
class ClusterStatus:
    """A cluster's address and Ray version, and the status of its jobs."""

    address: str
    ray_version: str
    jobs: dict[str, str]


def connect(address: str | None) -> JobSubmissionClient:
    """A client for the jobs of a cluster, by default the one on this machine.

    Raises
    ------
    InputError
        If no cluster answers, or our token is missing.
    """
    os.environ.setdefault("RAY_AUTH_MODE", "token")  # must be set before Ray is imported
    from ray.exceptions import AuthenticationError
    from ray.job_submission import JobSubmissionClient

    named = next((name for name in ADDRESSES if not address and os.environ.get(name)), None)
    address = address or (os.environ[named] if named else DEFAULT_ADDRESS)
    place = f"{address}, which {named} names" if named else address
    try:
        with _environment_without(ADDRESSES):  # Ray takes these before what it is given
            return JobSubmissionClient(address)
    except AuthenticationError:
        raise InputError(
            f"there is no token for the cluster at {place}",
            "Create one with `ray get-auth-token --generate` before you start a cluster, or copy "
            "the cluster's to ~/.ray/auth_token.",
        ) from None
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise InputError(
            f"no Ray cluster accepts jobs at {place}: {first_line(error)}",
            "Start one with `RAY_AUTH_MODE=token ray start --head`, or name it with --address.",
        ) from None


@contextmanager
def _environment_without(names: Sequence[str]) -> Iterator[None]:
    before = {name: os.environ.pop(name) for name in names if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(before)


def submit(
    command: list[str], address: str | None, working_dir: str, log: Callable[[str], object]
) -> str:
    """Run a command on a cluster, pass its output to `log`, and return the job's id at its end.

    Raises
    ------
    InputError
        If the command is empty, an output is a relative path, or the folder or the cluster does
        not exist.
    JobFailedError
        If the job fails or is stopped.
    """
    if not command:
        raise InputError(
            "there is no command to submit",
            "Put it after --, as in: python -m cluster submit -- python -m extract ...",
        )
    check_outputs(command)
    folder = local_path(working_dir)
    if not folder.is_dir():
        raise InputError(f"{working_dir}: no such folder", "Check --working-dir.")
    client = connect(address)
    try:
        job = client.submit_job(
            entrypoint=shlex.join(command),
            runtime_env={"working_dir": str(folder), "excludes": EXCLUDES},
        )
    except (RuntimeError, ValueError) as error:  # too large a folder, no agent, ...
        raise JobFailedError(
            f"the cluster did not accept the job: {error}",
            "Give a smaller --working-dir, or wait until the cluster is up.",
        ) from None

    async def follow() -> None:
        async for text in client.tail_job_logs(job):
            log(text)

    asyncio.run(follow())
    status = client.get_job_status(job)
    if status != "SUCCEEDED":
        info = client.get_job_info(job)
        raise JobFailedError(
            f"job {job} ended as {status}: {info.message}", f"See: ray job logs {job}"
        )
    return job


def status(address: str | None) -> ClusterStatus:
    """The version and the jobs of a cluster."""
    client = connect(address)
    jobs = {job.submission_id or job.job_id or "?": str(job.status) for job in client.list_jobs()}
    return ClusterStatus(client.get_address(), client.get_version(), jobs)
