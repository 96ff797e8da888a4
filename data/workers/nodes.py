"""Before the work: whether the machines of a cluster see the files that this one sees."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable
from typing import Any

from headstart.data.common.console import counted, first_few
from headstart.data.common.errors import InputError, StorageError
from headstart.data.examples.reading import container_of
from headstart.data.storage.folder import Folder
from headstart.data.storage.local import LocalFolder

PROBE = ".headstart-probe"  # hidden: nobody lists it
ANSWER_SECONDS = 120  # for a disk that has to be mounted first


def check_shared(source: Folder, paths: Iterable[str], output: Folder | None = None) -> None:
    """Refuse folders on a disk that the nodes with CPUs do not share with this process.

    A file that is written here is read on each node, and one that is written there is read here; of
    the source, the first file must be there.

    Parameters
    ----------
    paths
        Of examples, as in the source.
    output
        Where workers write; none if they only answer.

    Raises
    ------
    InputError
        With the addresses of the nodes that see another disk.
    """
    nodes = _nodes()
    if len(nodes) < 2 and not _is_client():
        return
    first = next((container_of(path) for path in paths), None)
    if isinstance(source, LocalFolder) and first and source.exists(first):
        answers = _answers_of(nodes, lambda node: (_sees, source, first))
        if without := [node for node, sees in answers if not sees]:
            raise InputError(
                f"{source.where(first)} does not exist on {_named(without)}",
                "Put the source on a disk that all nodes share, or into object storage.",
            )
    if isinstance(output, LocalFolder):
        _check_output(nodes, output)


def _check_output(nodes: list[dict[str, Any]], output: Folder) -> None:
    folder, word = f"{PROBE}-{secrets.token_hex(6)}", secrets.token_bytes(16)
    try:
        output.write(f"{folder}/here", word)
        answers = _answers_of(
            nodes, lambda node: (_reads_and_writes, output, folder, word, node["NodeID"])
        )
        without = [
            node
            for node, wrote in answers
            if not wrote or not _sees(output, f"{folder}/{node['NodeID']}")
        ]
    finally:
        output.remove_all(folder)
    if without:
        raise InputError(
            f"the output {output} is on a disk that {_named(without)} "
            f"{'does' if len(without) == 1 else 'do'} not share with this process",
            "Choose a folder on a disk that all nodes share, or an address in object storage, "
            "with -o.",
        )


def _sees(folder: Folder, name: str) -> bool:
    try:
        return folder.exists(name)
    except OSError:
        return False


def _reads_and_writes(folder: Folder, probe: str, word: bytes, name: str) -> bool:
    """Whether a node reads what was written, and could write its answer beside it."""
    try:
        if folder.read(f"{probe}/here") != word:
            return False
        folder.write(f"{probe}/{name}", word)
    except (OSError, StorageError):
        return False
    return True


def _answers_of(
    nodes: list[dict[str, Any]], call: Callable[[dict[str, Any]], tuple[Any, ...]]
) -> list[tuple[dict[str, Any], bool]]:
    """What a function returns on each node, but on those that are lost meanwhile."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy as On

    asked = []
    for node in nodes:
        function, *arguments = call(node)
        there: Any = {"num_cpus": 0, "scheduling_strategy": On(node["NodeID"], soft=False)}
        asked.append(ray.remote(**there)(function).remote(*arguments))
    found = []
    for node, answer in zip(nodes, asked, strict=True):
        try:
            found.append((node, ray.get(answer, timeout=ANSWER_SECONDS)))
        except ray.exceptions.GetTimeoutError:
            found.append((node, False))
        except (ray.exceptions.NodeDiedError, ray.exceptions.TaskUnschedulableError):
            continue
    return found


def _nodes() -> list[dict[str, Any]]:
    """The nodes that may have workers."""
    import ray

    return [each for each in ray.nodes() if each["Alive"] and each["Resources"].get("CPU")]


def _is_client() -> bool:
    """Whether this process is connected by `ray://`, and may be on none of the nodes."""
    from ray.util.client import ray as client

    return bool(client.is_connected())


def _named(nodes: list[dict[str, Any]]) -> str:
    addresses = sorted(f"{each['NodeManagerAddress']}" for each in nodes)
    return f"{counted(len(nodes), 'node')} of the cluster ({first_few(addresses)})"
