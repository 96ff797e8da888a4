"""Keras: a dataset from a directory, `predict`, and the rows to Parquet."""

from __future__ import annotations

import sys
from pathlib import Path

import keras
import pyarrow as pa
import pyarrow.parquet as pq

NETWORKS = {"mobilenetv2": "MobileNetV2", "resnet50": "ResNet50"}

folder, network, size, out = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), Path(sys.argv[4])
backbone = getattr(keras.applications, NETWORKS[network])(
    include_top=False, weights=None, pooling="avg", input_shape=(size, size, 3)
)
pixels = keras.Input((size, size, 3))
model = keras.Model(pixels, backbone(keras.layers.Rescaling(1 / 127.5, -1)(pixels)))
photographs = keras.utils.image_dataset_from_directory(
    folder, labels=None, image_size=(size, size), batch_size=32, shuffle=False, verbose=False
)
found = model.predict(photographs.prefetch(4), verbose=0)
out.mkdir()
table = {
    "id": [str(Path(path).relative_to(folder)) for path in photographs.file_paths],
    "embedding": pa.array(list(found), pa.list_(pa.float32())),
}
pq.write_table(pa.table(table), out / "embeddings.parquet")
