"""PyTorch's DataLoader decodes in processes, ONNX Runtime embeds in the main one.

torchvision decodes and resizes; without it, Pillow does.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from peer_session import GPU, open_session
from PIL import Image
from torch.utils.data import DataLoader, Dataset

try:
    from torchvision.io import ImageReadMode, decode_jpeg, read_file
    from torchvision.transforms.v2.functional import resize
except (ImportError, RuntimeError):  # not installed, or built for another PyTorch
    decode_jpeg = None

BATCH = 128 if GPU else 32

folder, backbone, out = map(Path, sys.argv[1:4])
session = open_session(backbone)
height, width = session.get_inputs()[0].shape[1:3]


class Photographs(Dataset):
    """The photographs of a folder, uint8 `[height, width, 3]`."""

    def __init__(self) -> None:
        self.paths = sorted(folder.glob("*/*.jpg"))

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> torch.Tensor:
        if decode_jpeg:
            pixels = decode_jpeg(read_file(str(self.paths[index])), ImageReadMode.RGB)
            return resize(pixels, [height, width], antialias=True).permute(1, 2, 0)
        image = Image.open(self.paths[index]).convert("RGB")
        return torch.from_numpy(np.array(image.resize((width, height), Image.Resampling.BILINEAR)))


photographs = Photographs()
found = []
for batch in DataLoader(photographs, batch_size=BATCH, num_workers=os.cpu_count() or 1):
    found += list(session.run(None, {"image": batch.numpy()})[0])
out.mkdir()
table = {
    "id": [str(path.relative_to(folder)) for path in photographs.paths],
    "embedding": pa.array(found, pa.list_(pa.float32())),
}
pq.write_table(pa.table(table), out / "embeddings.parquet")
