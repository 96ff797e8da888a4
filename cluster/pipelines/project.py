"""What `mlflow run` starts (`MLproject`): our own commands, tracked in one run of MLflow."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import typer

from headstart.data.common import console
from headstart.data.samples import SAMPLES


def main(
    data: str = "digits",
    backbone: str = "efficientnet_lite0",
    weights: str = "imagenet",
    head: str = "keras",
    samples_per_class: int = 300,
    retrained_conv_layers: int = 0,
    use_early_stop: int = 1,
    max_epochs: int = 20,
    output: str = "runs/mlflow",
) -> None:
    """Train a head on DATA, a source or a sample set, and retrain convolutions if asked to."""
    name = Path(data).name or Path(data).parent.name
    work, source = Path(output) / name, Path(output) / f"{name}-files"
    if data not in SAMPLES or Path(data).exists():
        source = Path(data)
    elif not source.exists():
        _run("data", "sample", data, source)
    epochs = [f"epochs={max_epochs}", f"early_stop={use_early_stop}"] if head == "keras" else []
    limit = ("--samples-per-class", samples_per_class, "--track", "mlflow")
    _run(
        *("build", source, "-o", work, "--backbone", backbone, "--head", head, *limit),
        *("--weights", weights, "--no-page", *(f"--param={each}" for each in epochs)),
    )
    if retrained_conv_layers:
        _run(
            *("classify", "finetune", source, "-o", work / "tuned", "--overwrite", *limit),
            *("--backbone", work / "backbone.onnx", "--model", work / "model", "--then-export"),
            *("--retrained-conv-layers", retrained_conv_layers),
            *("--max-epochs", max_epochs, "--use-early-stop", use_early_stop),
        )


def _run(*command: object) -> None:
    words = [str(word) for word in command]
    console.note(f"\nheadstart {shlex.join(words)}")
    ended = subprocess.run([sys.executable, "-m", "headstart", *words], check=False)  # noqa: S603
    if ended.returncode:
        raise typer.Exit(ended.returncode)


if __name__ == "__main__":
    typer.run(main)
