"""From a tuned network to an edge model, by the commands that a user would type."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from headstart.classify.finetune.finetuning import Finetuned
from headstart.data.common import console
from headstart.data.common.errors import ExtractionError

BACKBONE, FEATURES, MODEL, EDGE = "backbone.onnx", "features", "model", "edge.onnx"


def export_all(source: str | Path, tuned: Finetuned) -> None:
    """Write the backbone, its features, a model with the same split, and the edge model.

    Raises
    ------
    ExtractionError
        If one of the commands fails; it has said why.
    """
    folder = Path(str(tuned.tuned.folder))
    backbone, features, model = folder / BACKBONE, folder / FEATURES, folder / MODEL
    commands = (
        ("export", "backbone", folder, "-o", backbone, "--overwrite"),
        ("extract", source, "--backbone", backbone, "-o", features, "--prune"),
        ("classify", "train", features, "-o", model, "--split-of", folder, "--overwrite"),
        (
            *("export", "classifier", model, "--backbone", backbone),
            *("-o", folder / EDGE, "--overwrite"),
        ),
    )
    for command in commands:
        words = [str(word) for word in command]
        console.note(f"\nheadstart {' '.join(words)}")
        ended = subprocess.run([sys.executable, "-m", "headstart", *words], check=False)  # noqa: S603
        if ended.returncode:
            raise ExtractionError(
                f"`headstart {' '.join(words[:2])}` failed",
                f"The tuned network {folder} is complete; run the command again by hand.",
            )
