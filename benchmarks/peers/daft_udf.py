"""Daft: read, decode and resize as expressions, the backbone as a class that is a UDF."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import daft
import numpy as np
import onnxruntime
from daft import DataType, col

folder, backbone, out = map(Path, sys.argv[1:4])
EMBEDDING = DataType.list(DataType.float32())


@daft.cls
class Embed:
    """A session on all cores: Daft runs one instance a process."""

    def __init__(self, path: str) -> None:
        self.session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

    @daft.method.batch(return_dtype=EMBEDDING, batch_size=32)
    def __call__(self, images: Any) -> Any:
        """Embeddings of a batch."""
        (found,) = self.session.run(None, {"image": np.stack(images.to_pylist())})
        return [row.tolist() for row in found]


shape = (
    onnxruntime.InferenceSession(backbone, providers=["CPUExecutionProvider"]).get_inputs()[0].shape
)
height, width = shape[1:3]
embed = Embed(str(backbone))
photographs = daft.from_glob_path(str(folder / "*" / "*.jpg"))
decoded = col("path").download().decode_image(mode="RGB").resize(width, height)
rows = photographs.select(col("path").alias("id"), embed(decoded).alias("embedding"))
rows.write_parquet(str(out))
