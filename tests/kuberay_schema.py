"""The fields of KubeRay's files that we write, and nothing else: a misspelt one is refused.

`KUBERAY_CRDS`, a folder with KubeRay's own `ray.io_rayjobs.yaml` and `ray.io_rayclusters.yaml`,
takes its place where it is set.
"""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import yaml

Schema = dict[str, Any]
CRDS = "KUBERAY_CRDS"
TEXT: Schema = {"type": "string"}
YES_OR_NO: Schema = {"type": "boolean"}
COUNT: Schema = {"type": "integer", "minimum": 0}
TEXTS: Schema = {"type": "object", "additionalProperties": TEXT}


def of(required: str = "", /, **properties: Schema) -> Schema:
    """An object with these fields and no others."""
    return {
        "type": "object",
        "properties": properties,
        "required": required.split(),
        "additionalProperties": False,
    }


def many(items: Schema) -> Schema:
    return {"type": "array", "items": items}


def closed(schema: Any) -> Any:
    """A CRD's schema, which lets unknown fields pass, without doing so."""
    if isinstance(schema, list):
        return [closed(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    result = {name: closed(value) for name, value in schema.items()}
    if result.get("x-kubernetes-preserve-unknown-fields") is True:
        return result
    if isinstance(result.get("properties"), dict) and result.get("type") == "object":
        result.setdefault("additionalProperties", False)
    return result


RESTRICTED = of(
    allowPrivilegeEscalation=YES_OR_NO,
    readOnlyRootFilesystem=YES_OR_NO,
    runAsNonRoot=YES_OR_NO,
    capabilities=of(drop=many(TEXT)),
)
ENVIRONMENT = many(of("name", name=TEXT, value=TEXT))
RESOURCES = of(limits=TEXTS, requests=TEXTS)
CONTAINER = of(
    "name image",
    name=TEXT,
    image=TEXT,
    env=ENVIRONMENT,
    envFrom=many(of(secretRef=of("name", name=TEXT))),
    resources=RESOURCES,
    securityContext=RESTRICTED,
    volumeMounts=many(of("name mountPath", name=TEXT, mountPath=TEXT)),
)
POD = of(
    "spec",
    spec=of(
        "containers",
        automountServiceAccountToken=YES_OR_NO,
        containers=many(CONTAINER),
        restartPolicy={"enum": ["Always", "OnFailure", "Never"]},
        securityContext=of(
            runAsNonRoot=YES_OR_NO,
            runAsUser=COUNT,
            runAsGroup=COUNT,
            fsGroup=COUNT,
            seccompProfile=of("type", type=TEXT),
        ),
        serviceAccountName=TEXT,
        tolerations=many(of(key=TEXT, operator=TEXT, effect=TEXT)),
        volumes=many(of("name", name=TEXT, emptyDir=of())),
    ),
)
CLUSTER = of(
    "headGroupSpec",
    rayVersion=TEXT,
    authOptions=of(mode={"enum": ["disabled", "token"]}, secretName=TEXT),
    autoscalerOptions=of(
        env=ENVIRONMENT,
        idleTimeoutSeconds=COUNT,
        resources=RESOURCES,
        securityContext=RESTRICTED,
        version={"enum": ["v1", "v2"]},
    ),
    enableInTreeAutoscaling=YES_OR_NO,
    headGroupSpec=of("template", rayStartParams=TEXTS, template=POD),
    workerGroupSpecs=many(
        of(
            "groupName maxReplicas minReplicas template",
            groupName=TEXT,
            replicas=COUNT,
            minReplicas=COUNT,
            maxReplicas=COUNT,
            rayStartParams=TEXTS,
            template=POD,
        )
    ),
)
JOB = of(
    entrypoint=TEXT,
    backoffLimit=COUNT,
    shutdownAfterJobFinishes=YES_OR_NO,
    ttlSecondsAfterFinished=COUNT,
    submissionMode={"enum": ["K8sJobMode", "HTTPMode", "SidecarMode", "InteractiveMode"]},
    submitterConfig=of(backoffLimit=COUNT),
    submitterPodTemplate=POD,
    rayClusterSpec=CLUSTER,
)
SPECS = {"RayJob": JOB, "RayCluster": CLUSTER}


@cache
def spec_schema(kind: str) -> Schema:
    """The schema of a kind's `spec`."""
    if not (folder := os.environ.get(CRDS)):
        return SPECS[kind]
    text = Path(folder, f"ray.io_{kind.lower()}s.yaml").read_text()
    definition = yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506 - safe ones
    (found,) = (each for each in definition["spec"]["versions"] if each["name"] == "v1")
    return closed(found["schema"]["openAPIV3Schema"]["properties"]["spec"])


def validate(manifest: dict[str, Any]) -> None:
    """Raise `jsonschema.ValidationError` for a manifest that KubeRay would not take as it is."""
    kind = manifest["kind"]
    whole = of(
        "apiVersion kind metadata spec",
        apiVersion={"const": "ray.io/v1"},
        kind={"const": kind},
        metadata=of("name", name=TEXT),
        spec=spec_schema(kind),
    )
    jsonschema.Draft202012Validator(whole).validate(manifest)
