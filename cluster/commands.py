"""A command that a cluster is to run: what it writes, which files it names, which secrets."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from headstart.data.common.errors import Checklist, InputError
from headstart.data.storage.addresses import has_secret, without_secret

ROOMS = ("extract", "classify", "export", "data")
FRONT = "headstart"  # `headstart extract ...` is the same as `python -m extract ...`
OUTPUTS = ("-o", "--output")
NOT_READ = (*OUTPUTS, "--moved-from", "--cache-folder")  # what these name need not exist


def as_program(command: Sequence[str]) -> list[str]:
    """The command as a shell would start it: `extract ...` becomes `python -m extract ...`.

    Raises
    ------
    InputError
        If the command is empty, or an address in it contains a secret.
    """
    if not command:
        raise InputError(
            "there is no command to run on the cluster",
            "Put it after --, as in: -- extract s3://bucket/photos ...",
        )
    check_no_secrets(command)
    return ["python", "-m", *command] if command[0] in ROOMS else list(command)


def is_ours(command: Sequence[str]) -> bool:
    """Whether it runs a command of headstart's, whose options we know."""
    return any(word.rpartition("/")[2] in (FRONT, *ROOMS) for word in command)


def values(command: Sequence[str]) -> Iterator[tuple[str, str]]:
    """What stands behind the room's name in a command of ours: option (or nothing) and value.

    Which options are flags is not known here: what stands behind one counts as its value.
    """
    start = next((at for at, word in enumerate(command) if word in ROOMS), len(command))
    option = ""
    for word in command[start + 1 :]:
        name, equals, value = word.partition("=")
        if option in OUTPUTS or not word.startswith("-"):
            yield option, word
            option = ""
        elif word in OUTPUTS or (word.startswith("--") and not equals):
            option = word
        elif word.startswith("--"):
            yield name, value
            option = ""
        elif word.startswith("-o"):
            yield "-o", word[2:].removeprefix("=")
            option = ""


def outputs(command: Sequence[str]) -> list[str]:
    """The places that a command of ours writes to."""
    return [value for option, value in values(command) if option in OUTPUTS]


def inputs(command: Sequence[str]) -> list[str]:
    """What may be the name of something that a command of ours reads."""
    return [value for option, value in values(command) if option not in NOT_READ]


def check_outputs(command: Sequence[str]) -> None:
    """Refuse outputs of our commands that a job would write to its own folder.

    Raises
    ------
    InputError
        If one is a relative path: Ray runs the job in a copy of the folder, and removes it.
    """
    checks = Checklist()
    for value in outputs(command):
        with checks.item():
            if not value.startswith(("/", "~")) and "://" not in value:
                raise InputError(
                    f"the output {value!r} is a relative path: the job would write it to its own "
                    "folder, which Ray removes",
                    f"Give a whole path, such as {Path.cwd() / value}, or an address in object "
                    "storage, which the cluster's machines can reach.",
                )
    checks.finish()


def check_remote_outputs(command: Sequence[str]) -> None:
    """Refuse outputs of our commands that are not in object storage.

    Raises
    ------
    InputError
        If one is a local path: a pod's files are deleted with it.
    """
    checks = Checklist()
    for value in outputs(command):
        with checks.item():
            if "://" not in value or value.startswith("file://"):
                raise InputError(
                    f"the output {value!r} would be in a pod, whose files are deleted with it",
                    "Give an address in object storage, such as s3://bucket/"
                    f"{Path(value).name or 'features'}.",
                )
    checks.finish()


def check_no_secrets(command: Sequence[str]) -> None:
    """Refuse a command with a secret in an address: jobs and manifests are stored and shown.

    Raises
    ------
    InputError
        If an address contains one; the message does not.
    """
    checks = Checklist()
    for word in command:
        option, equals, value = word.partition("=")
        address = value if equals and option.startswith("-") else word
        with checks.item():
            if has_secret(address):
                raise InputError(
                    f"the address {without_secret(address)} contains a secret, which would be "
                    "stored with the command and shown to everybody who can see the job",
                    "Leave it out, and let the cluster's machines have the credentials in their "
                    "environment.",
                )
    checks.finish()
