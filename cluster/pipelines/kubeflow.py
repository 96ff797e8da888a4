"""headstart as a pipeline of Kubeflow: each component calls headstart's own commands.

Components are functions that Kubeflow's SDK copies into the pipeline's file; they run where that
copy is, in a container with headstart or on this machine, and so import what they need themselves.
An artifact is a file or folder of the run, or stands for something outside of it, which its
metadata names as `place`.
"""

from pathlib import Path
from tempfile import TemporaryDirectory

# By name: how the SDK recognizes what goes in and out.
from kfp.compiler import Compiler
from kfp.dsl import HTML, Artifact, ClassificationMetrics, Dataset, Input, Metrics, Model, Output
from kfp.dsl import component as as_component
from kfp.dsl import pipeline as as_pipeline

NAME = "headstart"


def run(*command: str) -> str:
    """Run a command of headstart's; returns what it prints on stdout."""
    import subprocess

    print("headstart", *command, flush=True)
    done = subprocess.run(["headstart", *command], stdout=subprocess.PIPE, text=True, check=False)
    print(done.stdout, flush=True)
    if done.returncode:
        raise SystemExit(done.returncode)
    return done.stdout


def place(artifact: Artifact) -> str:
    """Where an artifact is, or what it stands for."""
    return str(artifact.metadata.get("place") or artifact.path)


def load_data(data_path: str, data: Output[Dataset]) -> None:
    """Check a source: a folder, manifest or archive, an address, or the name of a sample set."""
    import os

    if "/" in data_path or os.path.exists(data_path):
        data.metadata["place"] = data_path if "://" in data_path else os.path.abspath(data_path)
    else:
        run("data", "sample", data_path, data.path)
    run("data", "inspect", place(data))


def extract(
    data: Input[Dataset],
    backbone: str,
    backbone_file: Output[Artifact],
    features: Output[Dataset],
) -> None:
    """Embed all examples by a backbone file, or by a network that `export backbone` knows."""
    if backbone.endswith(".onnx"):
        backbone_file.metadata["place"] = backbone
    else:
        run("export", "backbone", backbone, "-o", backbone_file.path)
    run("extract", place(data), "--backbone", place(backbone_file), "-o", features.path)


def train(features: Input[Dataset], head: str, model: Output[Model], report: Output[HTML]) -> None:
    """Train a head, and show its report."""
    import os
    import shutil

    run("classify", "train", features.path, "-o", model.path, "--head", head)
    shutil.copy(os.path.join(model.path, "report.html"), report.path)


def evaluate(
    features: Input[Dataset],
    model: Input[Model],
    metrics: Output[Metrics],
    confusion: Output[ClassificationMetrics],
) -> float:
    """Score the model on the examples that it was not trained on; returns the accuracy."""
    import json

    scores = json.loads(run("classify", "evaluate", model.path, features.path, "--json"))
    for name in ("examples", "accuracy", "balanced_accuracy", "macro_f1", "log_loss"):
        metrics.log_metric(name, float(scores[name]))
    names = [each["name"] for each in scores["per_class"]]
    confusion.log_confusion_matrix(names, scores["confusion"])
    return float(scores["accuracy"])


def export(
    data: Input[Dataset],
    backbone_file: Input[Artifact],
    model: Input[Model],
    model_file: str,
    edge: Output[Model],
) -> None:
    """Write the edge model, checked against training; beside the run as `model_file`, if given."""
    import os
    import shutil

    file = os.path.join(edge.path, os.path.basename(model_file) or "edge.onnx")
    os.makedirs(edge.path, exist_ok=True)
    backbone = ("--backbone", place(backbone_file))
    run("export", "classifier", model.path, *backbone, "--source", place(data), "-o", file)
    edge.metadata["file"] = os.path.basename(file)
    if model_file:
        folder = os.path.dirname(os.path.abspath(model_file))
        shutil.copytree(edge.path, folder, dirs_exist_ok=True)


def predict(data: Input[Dataset], edge: Input[Model], image: str) -> str:
    """Classify one file, named by its whole path, its address, or its name within the data."""
    import json
    import os

    within = not (os.path.isabs(image) or "://" in image)
    path = f"{place(data).rstrip('/')}/{image}" if within else image
    file = os.path.join(edge.path, edge.metadata["file"])
    (answer,) = json.loads(run("predict", file, path, "--json"))
    return str(answer["prediction"])


def pipeline(image: str):  # type: ignore[no-untyped-def]
    """The pipeline, whose components run in a container image with headstart and `kfp`."""
    components = {
        function.__name__: as_component(
            function,
            base_image=image,
            install_kfp_package=False,  # it is in the image, whose file system is read-only
            additional_funcs=[run, place],
        )
        for function in (load_data, extract, train, evaluate, export, predict)
    }

    @as_pipeline(name=NAME, description="From labelled files to a classifier that runs anywhere.")
    def headstart(
        data_path: str = "digits",
        model_file: str = "",
        backbone: str = "efficientnet_lite0",
        image: str = "0/scan0000.png",
        head: str = "logistic",
    ) -> str:
        loaded = components["load_data"](data_path=data_path)
        loaded.set_caching_options(False)  # the address may be the same, and what is there new
        data = loaded.outputs["data"]
        embedded = components["extract"](data=data, backbone=backbone)
        features = embedded.outputs["features"]
        file = embedded.outputs["backbone_file"]
        trained = components["train"](features=features, head=head)
        model = trained.outputs["model"]
        components["evaluate"](features=features, model=model)
        exported = components["export"](
            data=data, backbone_file=file, model=model, model_file=model_file
        )
        predicted = components["predict"](data=data, edge=exported.outputs["edge"], image=image)
        return predicted.output

    return headstart


def pipeline_yaml(image: str, parameters: dict[str, str]) -> str:
    """The pipeline's file, with these values of its parameters as defaults."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "pipeline.yaml"
        Compiler().compile(pipeline(image), str(path), pipeline_parameters=parameters)
        return path.read_text()
