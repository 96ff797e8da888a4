"""KubeRay's `RayJob` and `RayCluster` for a command: nothing runs as root or writes to its image.

Every pod has one writable place, an empty `/tmp`, where Ray keeps its files as well. The token is
in a Secret that the user creates; KubeRay hands it to Ray (`authOptions`, KubeRay 1.5.1 or newer).
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from headstart.cluster.commands import as_program, check_remote_outputs
from headstart.data.common.errors import Checklist, InputError
from headstart.data.common.ray_session import GPU_ENGINE

API = "ray.io/v1"
USER = 1000  # of the images in cluster/docker
LONGEST_NAME = 47  # KubeRay appends to it
NAME = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")  # a DNS label (RFC 1035)
CPUS = re.compile(r"[1-9][0-9]*")  # whole ones: a worker has a CPU
MEMORY = re.compile(r"[1-9][0-9]*(k|M|G|T|Ki|Mi|Gi|Ti)?")
TMP = "/tmp"  # noqa: S108 - a pod's own
GPU = "nvidia.com/gpu"
RETRIES = 2  # with a new cluster each: what is in the store is not embedded again
KEEP_SECONDS = 600  # for which a finished job's cluster can be looked at
IDLE_SECONDS = 120  # after which the autoscaler removes a node


@dataclass(frozen=True)
class Group:
    """Pods of one kind: how many, and what each has."""

    replicas: int
    at_least: int
    at_most: int
    cpus: str = "4"
    memory: str = "8Gi"
    gpus: int = 0

    @property
    def scales(self) -> bool:
        """Whether the autoscaler has something to do."""
        return self.at_least != self.at_most


@dataclass(frozen=True)
class ClusterOptions:
    """What a cluster consists of, and where its secrets are.

    Parameters
    ----------
    name
        Of the job or the cluster.
    image
        With headstart in it, such as one made from `cluster/docker`.
    gpu_image
        For the pods with a GPU; without one, `image`.
    cpu, gpu
        The workers; a group of at most 0 pods is left out.
    token_secret
        The Secret whose key `auth_token` is Ray's token.
    storage_secret
        The Secret whose keys become environment variables, such as `AWS_ACCESS_KEY_ID`.
    service_account
        For access to storage without keys.
    """

    name: str
    image: str
    gpu_image: str | None = None
    cpu: Group = Group(2, 2, 2)
    gpu: Group = Group(0, 0, 0, gpus=1)
    token_secret: str = "headstart-token"  # noqa: S105 - a name
    storage_secret: str | None = None
    service_account: str | None = None

    @property
    def groups(self) -> dict[str, Group]:
        """The groups that exist, by name."""
        return {
            name: group for name, group in (("cpu", self.cpu), ("gpu", self.gpu)) if group.at_most
        }

    @property
    def autoscaling(self) -> bool:
        """Whether a group may change its size."""
        return any(group.scales for group in self.groups.values())


def rayjob(command: Sequence[str], options: ClusterOptions) -> dict[str, Any]:
    """A `RayJob`: a cluster that lives as long as the command runs.

    Raises
    ------
    InputError
        If an option has no valid value, an output is not in object storage, an address contains a
        secret, or the command needs a GPU and no pod has one.
    """
    program = _checked(command, options)
    return {
        "apiVersion": API,
        "kind": "RayJob",
        "metadata": {"name": options.name},
        "spec": {
            "entrypoint": shlex.join(program),
            "backoffLimit": RETRIES,
            "shutdownAfterJobFinishes": True,
            "ttlSecondsAfterFinished": KEEP_SECONDS,
            "submissionMode": "K8sJobMode",
            "submitterConfig": {"backoffLimit": RETRIES},
            "submitterPodTemplate": _submitter(options),
            "rayClusterSpec": _cluster(options),
        },
    }


def raycluster(command: Sequence[str], options: ClusterOptions) -> dict[str, Any]:
    """A `RayCluster` on which the command can run, and stays until it is deleted.

    Raises
    ------
    InputError
        As for `rayjob`; the command may be empty.
    """
    _checked(command or ["true"], options)
    return {
        "apiVersion": API,
        "kind": "RayCluster",
        "metadata": {"name": options.name},
        "spec": _cluster(options),
    }


def to_yaml(manifest: dict[str, Any]) -> str:
    """The text of a manifest, as `kubectl apply -f` reads it."""
    import yaml  # comes with Ray

    return yaml.safe_dump(manifest, sort_keys=False, width=1_000)


def _checked(command: Sequence[str], options: ClusterOptions) -> list[str]:
    checks = Checklist()
    program = list(command)
    with checks.item():
        program = as_program(command)
    with checks.item():
        check_remote_outputs(program)
    with checks.item():
        _check_name("--name", options.name)
        if len(options.name) > LONGEST_NAME:
            raise InputError(
                f"--name {options.name} has {len(options.name)} characters",
                f"KubeRay appends to it: give one of at most {LONGEST_NAME}.",
            )
    for option, name in (
        ("--token-secret", options.token_secret),
        ("--storage-secret", options.storage_secret),
        ("--service-account", options.service_account),
    ):
        with checks.item():
            if name is not None:
                _check_name(option, name)
    for prefix, group in (("", options.cpu), ("gpu-", options.gpu)):
        with checks.item():
            _check_group(prefix, group)
    with checks.item():
        if not options.groups:
            raise InputError(
                "the cluster would have no workers", "Give --replicas or --gpu-replicas."
            )
    with checks.item():
        on_gpu = any(word.split("=")[-1] == GPU_ENGINE for word in program)
        if on_gpu and not options.gpu.at_most:
            raise InputError(
                f"the command asks for the engine {GPU_ENGINE}, but no pod has a GPU",
                "Give --gpu-replicas 1, or choose an engine for CPUs.",
            )
    checks.finish()
    return program


def _check_name(option: str, name: str) -> None:
    if not NAME.fullmatch(name):
        raise InputError(
            f"{option} {name} is not a valid name in Kubernetes",
            "Use small letters, digits and -; begin with a letter, and do not end with -.",
        )


def _check_group(prefix: str, group: Group) -> None:
    if not 0 <= group.at_least <= group.replicas <= group.at_most:
        raise InputError(
            f"--{prefix}replicas {group.replicas} is not between --{prefix}min-replicas "
            f"{group.at_least} and --{prefix}max-replicas {group.at_most}",
            "Give numbers in that order, from 0 on.",
        )
    if not CPUS.fullmatch(group.cpus):
        raise InputError(
            f"--{prefix}cpus {group.cpus} is not a whole number of CPUs",
            "Each worker takes one: give 1 or more.",
        )
    if not MEMORY.fullmatch(group.memory):
        raise InputError(
            f"--{prefix}memory {group.memory} is not a size in Kubernetes", "Give one such as 8Gi."
        )


def _cluster(options: ClusterOptions) -> dict[str, Any]:
    from importlib.metadata import version

    # The head schedules and plans; without CPUs of Ray's, no worker competes with it.
    head = Group(1, 1, 1, cpus="2", memory="8Gi")
    spec = {
        "rayVersion": version("ray"),
        "authOptions": {"mode": "token", "secretName": options.token_secret},
        "enableInTreeAutoscaling": options.autoscaling,
        "headGroupSpec": {
            "rayStartParams": {"num-cpus": "0"},
            "template": _pod("ray-head", head, options),
        },
        "workerGroupSpecs": [
            {
                "groupName": name,
                "replicas": group.replicas,
                "minReplicas": group.at_least,
                "maxReplicas": group.at_most,
                "rayStartParams": {},
                "template": _pod("ray-worker", group, options),
            }
            for name, group in options.groups.items()
        ],
    }
    if options.autoscaling:
        spec["autoscalerOptions"] = {
            "version": "v2",
            "idleTimeoutSeconds": IDLE_SECONDS,
            # It has Ray's folder of logs, which KubeRay mounts, and nothing else to write to.
            "env": [{"name": "HOME", "value": f"{TMP}/ray"}],
            "securityContext": _restricted(),
            "resources": _resources("500m", "1Gi"),
        }
    return spec


def _pod(container: str, group: Group, options: ClusterOptions) -> dict[str, Any]:
    image = (options.gpu_image if group.gpus else None) or options.image
    spec: dict[str, Any] = {
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [_container(container, image, group, options)],
        "volumes": [{"name": "tmp", "emptyDir": {}}],
    }
    if options.service_account:
        spec["serviceAccountName"] = options.service_account
    if container != "ray-head" or not options.autoscaling:  # which asks Kubernetes for pods
        spec["automountServiceAccountToken"] = False
    if options.autoscaling:
        spec["restartPolicy"] = "Never"  # the autoscaler replaces a pod
    if group.gpus:
        spec["tolerations"] = [{"key": GPU, "operator": "Exists", "effect": "NoSchedule"}]
    return {"spec": spec}


def _submitter(options: ClusterOptions) -> dict[str, Any]:
    pod = _pod("ray-job-submitter", Group(1, 1, 1, cpus="1", memory="1Gi"), options)
    pod["spec"]["restartPolicy"] = "Never"
    return pod


def _container(name: str, image: str, group: Group, options: ClusterOptions) -> dict[str, Any]:
    container: dict[str, Any] = {
        "name": name,
        "image": image,
        "env": [{"name": "HOME", "value": TMP}],
        "resources": _resources(group.cpus, group.memory, group.gpus),
        "securityContext": _restricted(),
        "volumeMounts": [{"name": "tmp", "mountPath": TMP}],
    }
    if options.storage_secret:
        container["envFrom"] = [{"secretRef": {"name": options.storage_secret}}]
    return container


def _resources(cpus: str, memory: str, gpus: int = 0) -> dict[str, dict[str, str]]:
    """Limits that are requested as well: Ray takes the limits for what it has."""
    each = {"cpu": cpus, "memory": memory} | ({GPU: str(gpus)} if gpus else {})
    return {"limits": dict(each), "requests": dict(each)}


def _restricted() -> dict[str, Any]:
    return {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "runAsNonRoot": True,
        "capabilities": {"drop": ["ALL"]},
    }
