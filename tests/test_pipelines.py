"""Kubeflow and MLflow: the pipeline and the project for real, on digits, with a store on disk."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from conftest import Outcome, write_tiny_backbone

from headstart.data.contracts.edge import load_edge
from headstart.data.contracts.tuned import TunedCard
from headstart.data.tracking import track_tuned

ROOT = Path(__file__).parents[1]
KFP = ROOT / ".venv-kfp" / "bin" / "python"  # `make test` makes it
PIPELINE = ROOT / "cluster" / "pipelines" / "kubeflow.yaml"
IMAGE = "registry.example/headstart:0.1.0"
# Kubeflow's packages come before those of the tests, since it pins some.
START = "import sys; sys.path.append(sys.argv.pop(1))\n"
LOCAL = """
import json
from kfp import local
from headstart.cluster.pipelines.kubeflow import pipeline
root, parameters = sys.argv[1:]
local.init(local.SubprocessRunner(use_venv=False), pipeline_root=root)
done = pipeline("python:3.11")(**json.loads(parameters))
print("\\nANSWER", done.output)
"""
FRONT = """
from headstart.__main__ import main
sys.argv[0] = "headstart"
main()
"""
Command = Callable[..., Outcome]


def in_kfp(program: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run a program in the environment of Kubeflow's SDK, with our command on its path."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        [KFP, "-c", START + program, sysconfig.get_path("purelib"), *map(str, arguments)],
        env=os.environ | {"PATH": path, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def backbone(tmp_path: Path) -> Path:
    path = tmp_path / "random.onnx"
    write_tiny_backbone(path, dim=96)
    return path


@pytest.mark.timeout(900)
def test_the_pipeline_runs_on_digits(backbone: Path, tmp_path: Path) -> None:
    edge = tmp_path / "out" / "digits.onnx"
    parameters = {"data_path": "digits", "backbone": str(backbone), "model_file": str(edge)}
    done = in_kfp(LOCAL, tmp_path / "root", json.dumps(parameters | {"image": "3/scan0003.png"}))
    assert done.returncode == 0, done.stdout + done.stderr
    answer = done.stdout.splitlines()[-1].removeprefix("ANSWER ")
    assert answer in load_edge(edge).classes
    assert edge.with_suffix(".labels.json").exists()
    (scan,) = (tmp_path / "root").rglob("3/scan0003.png")
    own = subprocess.run(
        [sys.executable, "-m", "headstart", "predict", edge, scan, "--json"],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    assert json.loads(own.stdout)[0]["prediction"] == answer
    (report,) = (tmp_path / "root").rglob("train/report")
    assert "<html" in report.read_text()
    # Metrics are printed in any order, as protobuf's maps are: accuracy may be the last of them.
    printed = re.search(r"['\"]accuracy['\"]: ([0-9.]+)", done.stdout)
    assert printed is not None, done.stdout
    assert float(printed[1]) > 0.85


def test_the_pipelines_file_is_what_the_code_compiles(tmp_path: Path) -> None:
    manifest = ("cluster", "manifest", "kubeflow", "--image", IMAGE)
    done = in_kfp(FRONT, *manifest, "-o", tmp_path / "new" / "pipeline.yaml")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "new" / "pipeline.yaml").read_text() == PIPELINE.read_text()
    given = ("--data-path", "s3://b/cells", "--backbone", "s3://b/b.onnx", "--predict", "a/1.png")
    other = in_kfp(FRONT, *manifest, *given).stdout
    for value in ("s3://b/cells", "s3://b/b.onnx", "a/1.png"):
        assert f"defaultValue: {value}\n" in other


def test_what_is_not_written_as_a_pipeline(command: Command) -> None:
    manifest = ("cluster", "manifest", "kubeflow", "--image", IMAGE)
    done = command(*manifest)
    assert (done.code, done.out, done.err) == (
        2,
        "",
        "error: a pipeline is written by Kubeflow's SDK, but kfp is not installed\n"
        "  Install it with: pip install 'headstart[kubeflow]'\n",
    )
    done = command(*manifest, "--data-path", "s3://me:hush@b/cells")
    assert done.code == 2
    assert "s3://***@b/cells contains a secret" in done.err
    assert "hush" not in done.err


@pytest.mark.timeout(900)
def test_mlflow_run_trains_and_stores_a_model(
    backbone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store := f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    values = {"samples_per_class": 50, "retrained_conv_layers": 0, "use_early_stop": 1}
    values |= {"max_epochs": 20, "backbone": backbone, "output": tmp_path / "work"}
    done = subprocess.run(
        [
            *(sys.executable, "-m", "mlflow", "run", ROOT, "--env-manager", "local"),
            *(word for name, value in values.items() for word in ("-P", f"{name}={value}")),
        ],
        cwd=tmp_path,
        env=os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    import mlflow
    import mlflow.onnx

    mlflow.set_tracking_uri(store)
    (run,) = mlflow.search_runs(output_format="list", search_all_experiments=True)
    assert run.info.status == "FINISHED"
    assert (
        run.data.params.items()
        >= {
            **{name: str(value) for name, value in values.items() if name != "output"},
            **{
                "data": "digits",
                "model.head": "keras",
                "model.epochs": "20",
                "model.early_stop": "1",
            },
        }.items()
    )
    assert run.data.metrics["accuracy"] > 0.7
    files = {each.path for each in mlflow.MlflowClient().list_artifacts(run.info.run_id, "model")}
    assert files >= {"model/model.json", "model/head.onnx", "model/report.html"}

    edge = load_edge(tmp_path / "work" / "digits" / "edge.onnx")
    uri = f"runs:/{run.info.run_id}/edge"
    model = mlflow.onnx.load_model(uri)
    pictures = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3), np.uint8)
    answers = [
        onnxruntime.InferenceSession(content).run(None, {"image": pictures})
        for content in (model.SerializeToString(), edge.content)
    ]
    np.testing.assert_array_equal(answers[0][0], answers[1][0])
    np.testing.assert_allclose(answers[0][1], answers[1][1], rtol=0, atol=1e-6)
    served = mlflow.pyfunc.load_model(uri)
    np.testing.assert_array_equal(served.predict({"image": pictures})["label"], answers[1][0])
    described = served.metadata.signature
    assert described.inputs.to_dict() == [
        {
            "name": "image",
            "type": "tensor",
            "tensor-spec": {"dtype": "uint8", "shape": (-1, 8, 8, 3)},
        }
    ]
    assert described.outputs.input_names() == ["label", "probabilities"]


def test_a_tuned_network_is_tracked_with_its_epochs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The parts that are too large for a run, such as a cache below it, stay where they are."""
    monkeypatch.chdir(tmp_path)  # where MLflow keeps the files of a store on disk
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store := f"sqlite:///{tmp_path}/mlflow.db")
    card = TunedCard(
        network="lite0",
        name="lite0_tuned",
        weights="weights.safetensors",
        origin="none",
        licence="none",
        size=32,
        resize="squash",
        interpolation="bilinear",
        classes=("a", "b"),
        blocks=("last",),
        root=".",
        recipe={"epochs": 2},
        history=({"epoch": 1, "loss": 0.5}, {"epoch": 2, "loss": 0.25}),
        metrics={"test": {"accuracy": 0.9}, "comparison": {"examples": 10}},
    )
    (tmp_path / "tuned" / "cache").mkdir(parents=True)
    (tmp_path / "tuned" / "weights.safetensors").write_bytes(b"weights")
    (tmp_path / "tuned" / "tuned.json").write_bytes(card.to_bytes())
    options = {"source": "s3://me:hush@b/cells", "sweep": ["dropout=0.2,0.3"], "network": None}
    track_tuned("mlflow", tmp_path / "tuned", options)
    import mlflow

    (run,) = mlflow.search_runs(output_format="list", search_all_experiments=True)
    client = mlflow.MlflowClient(store)
    epochs = client.get_metric_history(run.info.run_id, "tuned/loss")
    assert [(each.step, each.value) for each in epochs] == [(1, 0.5), (2, 0.25)]
    assert run.data.metrics["tuned/test/accuracy"] == 0.9
    assert run.data.params == {
        **{"source": "s3://***@b/cells", "sweep": "dropout=0.2,0.3", "tuned.network": "lite0"},
        **{"tuned.blocks": "1", "tuned.size": "32", "tuned.epochs": "2"},
    }
    files = [each.path for each in client.list_artifacts(run.info.run_id, "tuned")]
    assert files == ["tuned/tuned.json", "tuned/weights.safetensors"]


def test_an_mlflow_that_does_not_answer_is_said_once(
    features: Path, command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:hush@127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    for name in ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"):
        monkeypatch.setenv(name, "")
    train = ("classify", "train", features, "-o", tmp_path / "m", "--no-report")
    done = command(*train, "--track", "mlflow")
    assert done.code == 0
    assert done.out.endswith(f"wrote {tmp_path / 'm'}\n")
    told = "MLflow at http://***@127.0.0.1:9 did not take the run, and all else is done: "
    assert done.err.count(told) == done.err.count("MLflow") == 1
    assert "hush" not in done.out + done.err
    assert os.environ["MLFLOW_TRACKING_PASSWORD"] == "hush"  # noqa: S105 - MLflow sends it


def test_tracking_that_cannot_be_is_refused_before_the_work(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = ("classify", "train", tmp_path, "-o", tmp_path / "m", "--track")
    assert "unknown --track 'wandb'\n" in command(*train, "wandb").err
    monkeypatch.setattr("headstart.data.tracking.find_spec", lambda name: None)
    done = command("build", tmp_path, "-o", tmp_path / "w", "--track", "mlflow")
    assert (done.code, done.err) == (
        2,
        "error: --track mlflow needs MLflow, which is not installed\n"
        "  Install it with: pip install 'headstart[mlflow]'\n",
    )


def test_the_project_is_started_as_documented() -> None:
    text = (ROOT / "docs" / "tracking.md").read_text()
    line = next(each for each in text.splitlines() if each.startswith("mlflow run . "))
    assert f"# {line}" in (ROOT / "MLproject").read_text()
