"""An address in; a client of the cluster there out, or why there is none."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from headstart.data.common.errors import InputError, first_line
from headstart.data.storage.addresses import hide_secret, without_secret

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

DEFAULT_ADDRESS = "http://127.0.0.1:8265"
ADDRESSES = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")  # environment variables, in Ray's order
# Ray's loggers that tell what is uploaded, which we say ourselves; some have levels of their own.
CHATTY = ("ray", "ray.dashboard.modules.job.sdk", "ray.dashboard.modules.dashboard_sdk")
REFUSED = "Authentication failed"  # in Ray's words for a wrong token
END_SECONDS = 60  # in which a job has a status of its end, once it has ended or is stopped


def state_file() -> Path:
    """Where `cluster up` notes what it started."""
    place = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    return Path(place).expanduser() / "headstart" / "cluster.json"


def use_tokens() -> None:
    """Let Ray use tokens: it reads that once, as it is imported."""
    os.environ.setdefault("RAY_AUTH_MODE", "token")


def _started_here() -> str | None:
    try:
        return str(json.loads(state_file().read_text())["address"])
    except (OSError, ValueError, KeyError):
        return None


def connect(address: str | None) -> JobSubmissionClient:
    """A client for a cluster, by default the one on this machine.

    Raises
    ------
    InputError
        If no cluster answers, our token is missing, or the cluster refuses it. A secret in the
        address is not shown.
    """
    use_tokens()
    from ray.exceptions import AuthenticationError
    from ray.job_submission import JobSubmissionClient

    for logger in CHATTY:
        logging.getLogger(logger).setLevel(logging.ERROR)
    named = next((name for name in ADDRESSES if not address and os.environ.get(name)), None)
    address = address or (os.environ[named] if named else _started_here() or DEFAULT_ADDRESS)
    shown = without_secret(address)
    place = f"{shown}, which {named} names" if named else shown
    try:
        with environment_without(ADDRESSES):  # Ray takes these before what it is given
            return JobSubmissionClient(address)
    except AuthenticationError as error:
        if REFUSED in str(error):
            raise InputError(
                f"the cluster at {place} refuses our token",
                "Copy the cluster's to ~/.ray/auth_token, or set RAY_AUTH_TOKEN_PATH to it.",
            ) from None
        raise InputError(
            f"there is no token for the cluster at {place}",
            "Create one with `ray get-auth-token --generate` before you start a cluster, or copy "
            "the cluster's to ~/.ray/auth_token.",
        ) from None
    except (ConnectionError, RuntimeError, ValueError) as error:
        said = hide_secret(first_line(error), address)
        raise InputError(
            f"no Ray cluster accepts jobs at {place}: {said}",
            "Start one with `python -m cluster up`, or name it with --address.",
        ) from None


def wait_for_end(client: JobSubmissionClient, job: str) -> str:
    """The status of a job that is about to end; that of a running one if it does not."""
    deadline = time.monotonic() + END_SECONDS
    while True:
        status = client.get_job_status(job)
        if status.is_terminal() or time.monotonic() > deadline:
            return str(status)
        time.sleep(0.2)


@contextmanager
def environment_without(names: Sequence[str]) -> Iterator[None]:
    """Run without these environment variables, and have them back afterwards."""
    before = {name: os.environ.pop(name) for name in names if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(before)
