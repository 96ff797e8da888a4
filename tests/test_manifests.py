"""KubeRay's files: valid, closed, and refused where the command could not run like that."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import kuberay_schema
import pytest
import yaml
from conftest import Outcome

from headstart.cluster.manifests.kuberay import TMP, ClusterOptions, Group, raycluster, rayjob
from headstart.data.storage.addresses import has_secret, without_secret

ROOT = Path(__file__).parents[1]
EXTRACT = ("extract", "s3://b/photos", "--backbone", "s3://b/b.onnx", "-o", "s3://b/features")
PLAIN = ClusterOptions("headstart", "registry.example/headstart:0.1.0")
EVERYTHING = ClusterOptions(
    name="solar-cells",
    image="registry.example/headstart:0.1.0-slim",
    gpu_image="registry.example/headstart:0.1.0",
    cpu=Group(2, 1, 8),
    gpu=Group(1, 0, 4, cpus="8", memory="32Gi", gpus=2),
    token_secret="token",  # noqa: S106 - a name
    storage_secret="storage",  # noqa: S106 - a name
    service_account="reader",
)
Command = Callable[..., Outcome]


def pods(manifest: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The pods that a manifest describes, by the name of their group."""
    spec = manifest["spec"]
    cluster = spec.get("rayClusterSpec", spec)
    found = {"head": cluster["headGroupSpec"]["template"]["spec"]}
    found |= {each["groupName"]: each["template"]["spec"] for each in cluster["workerGroupSpecs"]}
    if "submitterPodTemplate" in spec:
        found["submitter"] = spec["submitterPodTemplate"]["spec"]
    return found


@pytest.mark.parametrize("options", [PLAIN, EVERYTHING], ids=["plain", "everything"])
@pytest.mark.parametrize("write", [rayjob, raycluster])
def test_manifests_fit_the_schema(write: Callable, options: ClusterOptions) -> None:
    manifest = write(EXTRACT, options)
    kuberay_schema.validate(manifest)
    found = pods(manifest)
    assert found.keys() >= {"head", "cpu"}
    assert ("gpu" in found) == (options is EVERYTHING)
    for pod in found.values():
        assert pod["securityContext"]["runAsNonRoot"]
        assert pod["securityContext"]["runAsUser"] == 1000
        (container,) = pod["containers"]
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "runAsNonRoot": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert container["volumeMounts"] == [{"name": "tmp", "mountPath": TMP}]
        assert pod["volumes"] == [{"name": "tmp", "emptyDir": {}}]
        assert container["resources"]["limits"] == container["resources"]["requests"]


def test_a_job_has_all_that_was_asked_for() -> None:
    spec = rayjob(EXTRACT, EVERYTHING)["spec"]
    assert spec["entrypoint"] == f"python -m {' '.join(EXTRACT)}"
    cluster = spec["rayClusterSpec"]
    assert cluster["authOptions"] == {"mode": "token", "secretName": "token"}
    assert cluster["enableInTreeAutoscaling"]
    assert cluster["headGroupSpec"]["rayStartParams"] == {"num-cpus": "0"}
    sizes = [
        (each["groupName"], each["minReplicas"], each["replicas"], each["maxReplicas"])
        for each in cluster["workerGroupSpecs"]
    ]
    assert sizes == [("cpu", 1, 2, 8), ("gpu", 0, 1, 4)]
    found = pods(rayjob(EXTRACT, EVERYTHING))
    images = {name: pod["containers"][0]["image"] for name, pod in found.items()}
    slim, full = EVERYTHING.image, EVERYTHING.gpu_image
    assert images == {"head": slim, "cpu": slim, "submitter": slim, "gpu": full}
    gpu = found["gpu"]["containers"][0]
    assert gpu["resources"]["limits"] == {"cpu": "8", "memory": "32Gi", "nvidia.com/gpu": "2"}
    assert gpu["envFrom"] == [{"secretRef": {"name": "storage"}}]
    # The head's autoscaler alone talks to Kubernetes.
    assert [
        name for name, pod in found.items() if pod.get("automountServiceAccountToken", True)
    ] == ["head"]
    assert {pod["serviceAccountName"] for pod in found.values()} == {"reader"}
    plain = rayjob(EXTRACT, PLAIN)
    assert "autoscalerOptions" not in plain["spec"]["rayClusterSpec"]
    assert all(not pod["automountServiceAccountToken"] for pod in pods(plain).values())


@pytest.mark.parametrize(
    ("place", "right", "wrong"),
    [
        ((), "shutdownAfterJobFinishes", "shutdownAfterJobFinish"),
        (("rayClusterSpec",), "authOptions", "authOption"),
        (("rayClusterSpec", "authOptions"), "secretName", "secret"),
        (("rayClusterSpec", "workerGroupSpecs", 0), "maxReplicas", "maxReplica"),
        (
            ("rayClusterSpec", "headGroupSpec", "template", "spec", "containers", 0),
            "securityContext",
            "securitycontext",
        ),
    ],
)
def test_a_misspelt_field_is_caught(place: tuple, right: str, wrong: str) -> None:
    manifest = copy.deepcopy(rayjob(EXTRACT, EVERYTHING))
    inside = manifest["spec"]
    for step in place:
        inside = inside[step]
    inside[wrong] = inside.pop(right)
    with pytest.raises(jsonschema.ValidationError, match=rf"'{wrong}' was unexpected|'{right}'"):
        kuberay_schema.validate(manifest)


def test_the_command_writes_what_the_function_returns(command: Command, tmp_path: Path) -> None:
    image = ("--image", PLAIN.image)
    done = command("cluster", "manifest", "rayjob", *image, "--", *EXTRACT)
    assert done.code == 0
    assert yaml.safe_load(done.out) == rayjob(EXTRACT, PLAIN)
    assert done.err == (
        "Create the token once, and then apply the file:\n"
        "  kubectl create secret generic headstart-token "
        "--from-file=auth_token=$HOME/.ray/auth_token\n"
        "  kubectl apply -f FILE\n"
    )
    file = tmp_path / "new" / "cluster.yaml"
    scaled = ("--min-replicas", 1, "--max-replicas", 8)
    done = command("cluster", "manifest", "raycluster", *image, *scaled, "-o", file, "--", *EXTRACT)
    assert (done.code, done.out) == (0, f"wrote {file}\n")
    assert done.err.endswith(
        f"  kubectl apply -f {file}\n"
        "Then forward its port, and submit from another terminal:\n"
        "  kubectl port-forward service/headstart-head-svc 8265:8265\n"
        f"  python -m cluster submit -- {' '.join(EXTRACT)}\n"
    )
    expected = ClusterOptions(PLAIN.name, PLAIN.image, cpu=Group(2, 1, 8))
    assert yaml.safe_load(file.read_text()) == raycluster(EXTRACT, expected)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("--", "extract", "s3://b/p", "--backbone", "s3://b/b.onnx", "-o", "/data/features"),
            "the output '/data/features' would be in a pod, whose files are deleted with it\n"
            "  Give an address in object storage, such as s3://bucket/features.",
        ),
        (
            ("--", "extract", "s3://KEY:hush@b/p", "--backbone", "b.onnx", "-o", "s3://b/f"),
            "the address s3://***@b/p contains a secret, which would be stored with the command "
            "and shown to everybody who can see the job\n"
            "  Leave it out, and let the cluster's machines have the credentials in their "
            "environment.",
        ),
        (
            ("--name", "Solar_cells", "--", *EXTRACT),
            "--name Solar_cells is not a valid name in Kubernetes\n"
            "  Use small letters, digits and -; begin with a letter, and do not end with -.",
        ),
        (
            ("--name", "a" * 48, "--", *EXTRACT),
            f"--name {'a' * 48} has 48 characters\n"
            "  KubeRay appends to it: give one of at most 47.",
        ),
        (
            ("--replicas", "3", "--max-replicas", "2", "--", *EXTRACT),
            "--replicas 3 is not between --min-replicas 3 and --max-replicas 2\n"
            "  Give numbers in that order, from 0 on.",
        ),
        (
            ("--cpus", "500m", "--", *EXTRACT),
            "--cpus 500m is not a whole number of CPUs\n  Each worker takes one: give 1 or more.",
        ),
        (
            ("--gpu-memory", "much", "--", *EXTRACT),
            "--gpu-memory much is not a size in Kubernetes\n  Give one such as 8Gi.",
        ),
        (
            ("--replicas", "0", "--", *EXTRACT),
            "the cluster would have no workers\n  Give --replicas or --gpu-replicas.",
        ),
        (
            ("--", *EXTRACT, "--engine=cuda"),
            "the command asks for the engine cuda, but no pod has a GPU\n"
            "  Give --gpu-replicas 1, or choose an engine for CPUs.",
        ),
        (
            (),
            "there is no command to run on the cluster\n"
            "  Put it after --, as in: -- extract s3://bucket/photos ...",
        ),
    ],
)
def test_what_cannot_run_is_refused(arguments: tuple, message: str, command: Command) -> None:
    done = command("cluster", "manifest", "rayjob", "--image", "i:1", *arguments)
    assert (done.code, done.out, done.err) == (2, "", f"error: {message}\n")
    assert "hush" not in done.err


def test_all_mistakes_are_reported_at_once(command: Command) -> None:
    wrong = ("--name", "X", "--cpus", "0", "--", *EXTRACT[:-1], "features")
    done = command("cluster", "manifest", "raycluster", "--image", "i:1", *wrong)
    assert [line[:2] for line in done.err.removeprefix("error: ").splitlines()] == [
        *("1.", "  ", "2.", "  ", "3.", "  "),
    ]


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("s3://bucket/a", "s3://bucket/a"),
        ("/data/a@b", "/data/a@b"),
        ("s3://KEY:hush@bucket/a", "s3://***@bucket/a"),
        ("http://hush@host:8265", "http://***@host:8265"),
        ("https://h/x?X-Amz-Signature=hush&region=eu", "https://h/x?X-Amz-Signature=***&region=eu"),
        ("s3://b/x?secret_key=hush", "s3://b/x?secret_key=***"),
        ("s3://b/x?region=eu", "s3://b/x?region=eu"),
    ],
)
def test_secrets_in_addresses_are_hidden(address: str, shown: str) -> None:
    assert without_secret(address) == shown
    assert has_secret(address) == (address != shown)


@pytest.mark.parametrize("name", ["slim", "full"])
def test_images_are_pinned_and_do_not_run_as_root(name: str) -> None:
    lines = (ROOT / "cluster" / "docker" / f"Dockerfile.{name}").read_text().splitlines()
    bases = [line for line in lines if line.startswith("FROM ")]
    assert all(re.match(r"FROM python:3\.\d+\.\d+-slim-\w+( AS build)?$", line) for line in bases)
    assert lines[-2] == "USER 1000:1000"
    text = "\n".join(lines)
    assert "-c constraints.txt" in text
    assert text.count("pip install") == text.count("pip install --no-cache-dir -c constraints.txt")
    (extras,) = re.findall(r'"\.\[(.+)\]"', text)
    assert ({"keras", "torch"} <= set(extras.split(","))) == (name == "full")
    for copied in re.findall(r"^COPY (?!--from)(.+) \S+$", text, re.M):
        assert all((ROOT / each).exists() for each in copied.split()), copied
