"""A command as a job of a Ray cluster: submitted, followed, stopped, listed."""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from headstart.cluster.commands import as_program, check_outputs, is_ours
from headstart.cluster.connection import connect, wait_for_end
from headstart.cluster.probe import ask, check_answer, our_versions
from headstart.cluster.upload import EXCLUDES, Upload, check_upload, paths_on_nodes, plan_upload
from headstart.data.common.errors import (
    Checklist,
    HeadstartError,
    InputError,
    StoppedError,
    first_line,
)
from headstart.data.storage.addresses import without_secret
from headstart.data.storage.files import local_path

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

Log = Callable[[str], object]
DETACH, STOP = "detach", "stop"


class JobFailedError(HeadstartError):
    """The job failed or was stopped."""


@dataclass(frozen=True)
class Job:
    """A job of a cluster: its id, its status, and its command."""

    job: str
    status: str
    command: str


@dataclass(frozen=True)
class Submission:
    """How a command is submitted.

    Parameters
    ----------
    command
        What to run; that of a room may leave `python -m` out.
    address
        Of the cluster's dashboard.
    working_dir
        The folder of code that the job runs in a copy of.
    detach
        Return once it is submitted.
    """

    command: Sequence[str]
    address: str | None = None
    working_dir: str = "."
    detach: bool = False


def submit(submission: Submission, log: Log, note: Log, when_interrupted: Callable[[], str]) -> str:
    """Run a command on a cluster, pass its output to `log`, and return the job's id at its end.

    Parameters
    ----------
    note
        Takes what is uploaded, and the job's id once it has one.
    when_interrupted
        Says what Ctrl-C shall do: `detach` or `stop`.

    Raises
    ------
    InputError
        Before the job starts: if the command is empty, an output is a relative path, a file that it
        names would not be where it runs, the folder is missing or too large, no cluster answers, or
        it has other versions of Ray, Python or headstart.
    JobFailedError
        If the job fails or is stopped.
    StoppedError
        On Ctrl-C: the job goes on or was stopped, as `when_interrupted` said.
    """
    command = as_program(submission.command)
    upload = _checked(command, submission.working_dir)
    for line in upload.describe().splitlines():
        note(line)
    client = connect(submission.address)
    ours = is_ours(command)
    has_headstart = "headstart/__init__.py" in upload.sizes if ours else None
    answer = ask(client, paths_on_nodes(command) if ours else [])
    check_answer(answer, our_versions(), has_headstart)
    try:
        job = client.submit_job(
            entrypoint=shlex.join(command),
            runtime_env={"working_dir": str(upload.folder), "excludes": EXCLUDES},
        )
    except (RuntimeError, ValueError) as error:  # no agent, ...
        raise JobFailedError(
            f"the cluster did not accept the job: {first_line(error)}", "Wait until it is up."
        ) from None
    note(f"job {job}")
    if not submission.detach:
        try:
            _follow(client, job, log)
        except KeyboardInterrupt:
            _interrupted(client, job, when_interrupted())
        _check_success(client, job)
    return job


def _checked(command: Sequence[str], working_dir: str) -> Upload:
    checks = Checklist()
    folder = local_path(working_dir)
    upload = Upload(folder, {}, [])
    with checks.item():
        check_outputs(command)
    with checks.item():
        if not folder.is_dir():
            raise InputError(f"{working_dir}: no such folder", "Check --working-dir.")
        upload = plan_upload(folder)
        check_upload(upload, command)
    checks.finish()
    return upload


def _follow(client: JobSubmissionClient, job: str, log: Log) -> None:
    async def follow() -> None:
        async for text in client.tail_job_logs(job):
            log(text)

    asyncio.run(follow())


def _interrupted(client: JobSubmissionClient, job: str, wanted: str) -> None:
    if wanted == STOP:
        client.stop_job(job)
        status = wait_for_end(client, job)
        raise StoppedError(
            f"job {job} ended as {status}; what it wrote whole is kept",
            "Submit the same command again to go on.",
        )
    raise StoppedError(
        f"job {job} goes on, and is no longer followed",
        f"python -m cluster logs --follow {job} shows it, python -m cluster stop {job} stops it.",
    )


def _check_success(client: JobSubmissionClient, job: str) -> None:
    status = wait_for_end(client, job)
    if status != "SUCCEEDED":
        info = client.get_job_info(job)
        raise JobFailedError(
            f"job {job} ended as {status}: {info.message}", f"See: python -m cluster logs {job}"
        )


def _client_of(job: str, address: str | None) -> JobSubmissionClient:
    client = connect(address)
    try:
        client.get_job_info(job)
    except RuntimeError:
        raise InputError(
            f"there is no job {job} on the cluster at {without_secret(client.get_address())}",
            "See: python -m cluster list",
        ) from None
    return client


def logs(job: str, address: str | None, follow: bool, log: Log) -> None:
    """Pass a job's output to `log`: what there is, or all of it to the job's end.

    Raises
    ------
    InputError
        If the cluster has no such job.
    JobFailedError
        If a job that is followed fails or is stopped.
    """
    client = _client_of(job, address)
    if not follow:
        log(client.get_job_logs(job))
        return
    _follow(client, job, log)
    _check_success(client, job)


def stop(job: str, address: str | None) -> str:
    """Stop a job, and return its status at the end.

    Raises
    ------
    InputError
        If the cluster has no such job.
    """
    client = _client_of(job, address)
    client.stop_job(job)
    return wait_for_end(client, job)


def jobs(address: str | None) -> list[Job]:
    """The jobs of a cluster, the newest first."""
    found = sorted(connect(address).list_jobs(), key=lambda job: -(job.start_time or 0))
    return [
        Job(each.submission_id or each.job_id or "?", str(each.status), each.entrypoint)
        for each in found
    ]
