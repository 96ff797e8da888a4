"""Daft: read, decode and resize as expressions, the backbone as a class that is a UDF."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

os.environ.setdefault("DO_NOT_TRACK", "1")  # otherwise it may wait half a minute for a network
import daft
import numpy as np
from daft import DataType, col
from peer_session import input_size, open_session

folder, backbone, out = map(Path, sys.argv[1:4])
EMBEDDING = DataType.list(DataType.float32())


@daft.cls
class Embed:
    """A session on all cores: Daft runs one instance a process."""

    def __init__(self, path: str) -> None:
        self.session = open_session(Path(path))

    @daft.method.batch(return_dtype=EMBEDDING, batch_size=32)
    def __call__(self, images: Any) -> Any:
        """Embeddings of a batch."""
        (found,) = self.session.run(None, {"image": np.stack(images.to_pylist())})
        return [row.tolist() for row in found]


height, width = input_size(backbone)
embed = Embed(str(backbone))
photographs = daft.from_glob_path(str(folder / "*" / "*.jpg"))
decoded = col("path").download().decode_image(mode="RGB").resize(width, height)
rows = photographs.select(col("path").alias("id"), embed(decoded).alias("embedding"))
rows.write_parquet(str(out))
