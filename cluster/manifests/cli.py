"""`python -m cluster manifest`: parse, call, write."""

from __future__ import annotations

import shlex
from typing import Annotated, Any

import typer

from headstart.cluster.commands import check_no_secrets
from headstart.cluster.manifests.kuberay import ClusterOptions, Group, raycluster, rayjob, to_yaml
from headstart.data.common import console
from headstart.data.common.application.arguments import AsJson
from headstart.data.common.errors import InputError
from headstart.data.common.packages import import_packages
from headstart.data.storage.files import check_parent, local_path

app = console.new_app("Write what runs on Kubernetes as a file: KubeRay, Kubeflow.")

Command = Annotated[list[str] | None, typer.Argument(help="What to run, after --.")]
Image = Annotated[str, typer.Option(help="Container image with headstart (see cluster/docker).")]
Name = Annotated[str, typer.Option(help="Name of the job or the cluster.")]
GpuImage = Annotated[str | None, typer.Option(help="Image of the pods with a GPU; default: IMAGE.")]
Replicas = Annotated[int, typer.Option(help="Pods of this group at the start.")]
Least = Annotated[int | None, typer.Option(help="Fewest pods; default: as many as at the start.")]
Most = Annotated[int | None, typer.Option(help="Most pods; default: as many as at the start.")]
Cpus = Annotated[str, typer.Option(help="CPUs of a pod.")]
Memory = Annotated[str, typer.Option(help="Memory of a pod, such as 8Gi.")]
Gpus = Annotated[int, typer.Option(min=1, help="GPUs of a pod of the GPU group.")]
Token = Annotated[str, typer.Option(help="Secret whose key auth_token is Ray's token.")]
Storage = Annotated[
    str | None, typer.Option(help="Secret whose keys are set as environment variables.")
]
Account = Annotated[str | None, typer.Option(help="Service account of the pods.")]
Output = Annotated[
    str | None, typer.Option("-o", "--output", help="YAML file to write; default: stdout.")
]


def _group(
    replicas: int, least: int | None, most: int | None, cpus: str, memory: str, gpus: int = 0
) -> Group:
    least, most = (replicas if given is None else given for given in (least, most))
    return Group(replicas, least, most, cpus, memory, gpus)


def _write(text: str, output: str | None, as_json: bool, content: Any = None) -> None:
    if as_json:
        console.show_json((content or {"manifest": text}) if output is None else {"wrote": output})
    if output is None:
        if not as_json:
            console.write(text)
        return
    path = local_path(output)
    check_parent(path)
    if path.is_dir():
        raise InputError(f"{path} is a folder", "Give the name of a file.")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    if not as_json:
        console.say(f"wrote {console.place(path)}")


@app.command("rayjob", help="Write a RayJob: a cluster that lives as long as COMMAND runs.")
@app.command("raycluster", help="Write a RayCluster, which stays; COMMAND is checked, if given.")
def kuberay(
    context: typer.Context,
    image: Image,
    command: Command = None,
    name: Name = "headstart",
    gpu_image: GpuImage = None,
    replicas: Replicas = 2,
    min_replicas: Least = None,
    max_replicas: Most = None,
    cpus: Cpus = "4",
    memory: Memory = "8Gi",
    gpu_replicas: Replicas = 0,
    gpu_min_replicas: Least = None,
    gpu_max_replicas: Most = None,
    gpu_cpus: Cpus = "8",
    gpu_memory: Memory = "32Gi",
    gpus: Gpus = 1,
    token_secret: Token = "headstart-token",  # noqa: S107 - a name
    storage_secret: Storage = None,
    service_account: Account = None,
    output: Output = None,
    as_json: AsJson = False,
) -> None:
    """Write KubeRay's file of the kind that the command is called by."""
    options = ClusterOptions(
        name=name,
        image=image,
        gpu_image=gpu_image,
        cpu=_group(replicas, min_replicas, max_replicas, cpus, memory),
        gpu=_group(gpu_replicas, gpu_min_replicas, gpu_max_replicas, gpu_cpus, gpu_memory, gpus),
        token_secret=token_secret,
        storage_secret=storage_secret,
        service_account=service_account,
    )
    is_job = context.info_name == "rayjob"
    manifest = (rayjob if is_job else raycluster)(command or [], options)
    _write(to_yaml(manifest), output, as_json, manifest)
    console.note(
        "Create the token once, and then apply the file:\n"
        f"  kubectl create secret generic {token_secret} "
        "--from-file=auth_token=$HOME/.ray/auth_token\n"
        f"  kubectl apply -f {shlex.quote(output or 'FILE')}"
    )
    if not is_job:
        console.note(
            "Then forward its port, and submit from another terminal:\n"
            f"  kubectl port-forward service/{name}-head-svc 8265:8265\n"
            f"  python -m cluster submit -- {shlex.join(command or ['COMMAND'])}"
        )


@app.command()
def kubeflow(
    image: Image,
    data_path: Annotated[
        str, typer.Option(help="A source that every pod reaches, or a sample set.")
    ] = "digits",
    model_file: Annotated[
        str, typer.Option(help="Where the edge model goes as well, such as on a mounted volume.")
    ] = "",
    backbone: Annotated[
        str, typer.Option(help="A backbone file, or a network as for `export backbone`.")
    ] = "efficientnet_lite0",
    predict: Annotated[
        str, typer.Option(help="File to classify at the end: its name within the data, or whole.")
    ] = "0/scan0000.png",
    head: Annotated[str, typer.Option(help="Kind of head, as for `classify train`.")] = "logistic",
    output: Output = None,
    as_json: AsJson = False,
) -> None:
    """Write a Kubeflow pipeline: load data, extract, train, evaluate, export, predict.

    The options are the defaults of the pipeline's parameters.
    """
    parameters = {"data_path": data_path, "model_file": model_file, "backbone": backbone}
    parameters |= {"image": predict, "head": head}
    check_no_secrets([*parameters.values()])
    import_packages(("kfp",), "a pipeline is written by Kubeflow's SDK", "kubeflow")
    from headstart.cluster.pipelines.kubeflow import pipeline_yaml

    _write(pipeline_yaml(image, parameters), output, as_json)
    console.note("Upload the file in Kubeflow's page of pipelines, or run it by kfp.Client.")
