"""A finished model folder or tuned network in; a run of MLflow out (`--track mlflow`).

Everything is logged once the work is done, from what was written: an MLflow that does not answer
costs a sentence and nothing else. Where: `MLFLOW_TRACKING_URI`, `MLFLOW_EXPERIMENT_NAME`, and
`MLFLOW_RUN_ID`, by which `mlflow run` makes us part of its run.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit, urlunsplit

from headstart.data.common import console
from headstart.data.common.errors import InputError, MissingPackageError, first_line
from headstart.data.contracts.model import Model
from headstart.data.contracts.tuned import Tuned
from headstart.data.storage.addresses import hide_secret, without_secret

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.models import ModelSignature
    from onnx import ModelProto, ValueInfoProto

MLFLOW = "mlflow"
ADDRESS = "MLFLOW_TRACKING_URI"
USER, PASSWORD = "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"
# MLflow tries 7 times for minutes, tells its makers what is used, and prints addresses.
SETTINGS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "GIT_PYTHON_REFRESH": "quiet",
}
LOGGERS = ("mlflow", "alembic", "urllib3.connectionpool")
NOT_PARAMETERS = ("track", "as_json", "overwrite")
NEEDED = ("numpy", "onnx", "onnxruntime")  # by an edge model
# What MLflow accepts: characters of a parameter, figures in one call.
LONGEST, MOST_FIGURES = 500, 1000


@dataclass(frozen=True)
class Record:
    """What is logged of one piece of work.

    Parameters
    ----------
    files
        Files and folders, by the folder of the run that they go to.
    curves
        For each name the values by step, such as the loss by epoch.
    edge, edge_name
        An edge model, and the name that it gets.
    """

    parameters: Mapping[str, Any]
    metrics: Mapping[str, float]
    files: Mapping[str, list[Path]]
    curves: Mapping[str, list[tuple[int, float]]] = field(default_factory=dict)
    edge: Path | None = None
    edge_name: str = "edge"


def check_tracking(system: str | None) -> None:
    """Refuse `--track` before the work if it cannot be followed.

    Raises
    ------
    InputError
        If there is no such system.
    MissingPackageError
        If its package is not installed.
    """
    if system is None:
        return
    if system != MLFLOW:
        raise InputError(f"unknown --track {system!r}", f"Give {MLFLOW}, or leave it out.")
    if find_spec(MLFLOW) is None:
        raise MissingPackageError(
            "--track mlflow needs MLflow, which is not installed",
            "Install it with: pip install 'headstart[mlflow]'",
        )


def track_model(
    system: str | None,
    folder: str | Path,
    options: Mapping[str, Any],
    edge: str | Path | None = None,
) -> None:
    """Log a model folder, its scores and learning curve, and its edge model; nothing for no system.

    Parameters
    ----------
    options
        Of the command, by name.
    """
    if system is None:
        return
    model = Model.open(folder)
    card, test = model.card, model.card.metrics["test"]
    made = card.fingerprint
    about: dict[str, Any] = {
        "backbone": made.backbone,
        "sha256": made.sha256,
        "precision": made.precision,
    }
    about |= {"dim": made.dim, "split": card.split, "classes": len(card.classes)}
    about |= {"head": card.head["name"]} | card.head["parameters"]
    parameters = {**options, **{f"model.{name}": value for name, value in about.items()}}
    metrics = dict(_numbers(test))
    for name in ("mean", "std"):
        metrics |= _numbers((card.metrics.get("repeats") or {}).get(name) or {}, f"repeats/{name}/")
    points = (card.metrics.get("diagnosis") or {}).get("learning_curve_points") or []
    curve = [(round(labels), accuracy) for labels, accuracy in points]
    _log(
        Record(
            parameters=parameters,
            metrics=metrics,
            files={"model": [Path(str(model.folder))]},
            curves={"learning_curve/accuracy": curve},
            edge=Path(edge) if edge else None,
        )
    )


def track_tuned(
    system: str | None,
    folder: str | Path,
    options: Mapping[str, Any],
    edge: str | Path | None = None,
) -> None:
    """Log a tuned network: its recipe, scores, and what each epoch gave; else as `track_model`."""
    if system is None:
        return
    tuned = Tuned.open(folder)
    card, place = tuned.card, Path(str(tuned.folder))
    about = {"network": card.network, "blocks": len(card.blocks), "size": card.size} | card.recipe
    curves: dict[str, list[tuple[int, float]]] = {}
    for epoch in card.history:
        for name, value in _numbers(epoch, "tuned/"):
            curves.setdefault(name, []).append((epoch["epoch"], value))
    curves.pop("tuned/epoch", None)
    scores = {name: card.metrics[name] for name in ("test", "comparison")}
    metrics = dict(_numbers(scores["test"], "tuned/test/"))
    metrics |= _numbers(scores["comparison"], "tuned/comparison/")
    _log(
        Record(
            parameters={**options, **{f"tuned.{name}": value for name, value in about.items()}},
            metrics=metrics,
            files={"tuned": [file for file in sorted(place.iterdir()) if file.is_file()]},
            curves=curves,
            edge=Path(edge) if edge else None,
            edge_name="tuned-edge",
        )
    )


def _numbers(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """The numbers of a JSON object and of those in it; lists are left to the files."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _numbers(value, f"{prefix}{name}/")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield f"{prefix}{name}", float(value)


def _log(record: Record) -> None:
    """Log it, or say once why not: what was tracked is there, whatever becomes of the tracking."""
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    given = os.environ.get(ADDRESS, "")
    try:
        import mlflow

        for name in LOGGERS:
            logging.getLogger(name).setLevel(logging.ERROR)
        if given:
            mlflow.set_tracking_uri(_with_credentials_apart(given))
        with mlflow.start_run() as run:
            _write(record, run)
        address = without_secret(mlflow.get_tracking_uri())
        console.note(f"tracked as run {run.info.run_name} ({run.info.run_id}) by MLflow, {address}")
    except Exception as error:  # anything of a service that the work does not depend on
        at = f" at {without_secret(given)}" if given else ""
        said = hide_secret(first_line(error), given)
        console.note(f"MLflow{at} did not take the run, and all else is done: {said}")


def _with_credentials_apart(address: str) -> str:
    """An address without user and password, which MLflow has in its environment instead."""
    parts = urlsplit(address)
    if parts.scheme not in ("http", "https") or not parts.username or not parts.password:
        return address
    os.environ[USER], os.environ[PASSWORD] = unquote(parts.username), unquote(parts.password)
    clean = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
    os.environ[ADDRESS] = clean
    return clean


def _write(record: Record, run: Run) -> None:
    import mlflow
    from mlflow.entities import Metric

    # A parameter of a run never changes: those that `mlflow run` has logged stay as they are.
    parameters = {
        name: _text(value)[:LONGEST]
        for name, value in record.parameters.items()
        if name not in (*run.data.params, *NOT_PARAMETERS) and value not in (None, "", [], ())
    }
    mlflow.log_params(parameters)
    now = int(time.time() * 1000)
    figures = [Metric(name, value, now, 0) for name, value in record.metrics.items()]
    for name, points in record.curves.items():
        figures += [Metric(name, value, now, step) for step, value in points]
    for start in range(0, len(figures), MOST_FIGURES):
        batch = figures[start : start + MOST_FIGURES]
        mlflow.MlflowClient().log_batch(run.info.run_id, metrics=batch)
    for place, paths in record.files.items():
        for path in paths:
            log = mlflow.log_artifacts if path.is_dir() else mlflow.log_artifact
            log(str(path), place)
    if record.edge:
        _log_edge(record.edge, record.edge_name)


def _text(value: Any) -> str:
    values = value if isinstance(value, list | tuple) else [value]
    return ",".join(without_secret(str(each)) for each in values)


def _log_edge(path: Path, name: str) -> None:
    import mlflow.onnx
    import onnx

    model = onnx.load(str(path))
    mlflow.onnx.log_model(
        model,
        name=name,
        signature=signature_of(model),
        # What a device needs; MLflow would load the model in another process to find out.
        pip_requirements=[f"{each}=={version(each)}" for each in NEEDED],
        save_as_external_data=False,
    )


def signature_of(model: ModelProto) -> ModelSignature:
    """MLflow's signature of an ONNX model: type and shape of each input and output."""
    from mlflow.models import ModelSignature
    from mlflow.types import Schema

    inputs, outputs = model.graph.input, model.graph.output
    return ModelSignature(Schema([*map(_tensor, inputs)]), Schema([*map(_tensor, outputs)]))


def _tensor(value: ValueInfoProto) -> Any:
    from mlflow.types import TensorSpec
    from onnx.helper import tensor_dtype_to_np_dtype

    tensor = value.type.tensor_type
    shape = tuple(each.dim_value or -1 for each in tensor.shape.dim)
    return TensorSpec(tensor_dtype_to_np_dtype(tensor.elem_type), shape, value.name)
