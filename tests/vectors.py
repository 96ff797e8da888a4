"""Another modality, only for the tests: files of numbers. It is this file and a table entry."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from headstart.data.contracts.backbone import BackboneSpec
from headstart.data.modalities.modality import DecodeError, InputSpec, Modality, Preview


@dataclass(frozen=True)
class Numbers(InputSpec):
    """A fixed number of numbers, as float32."""

    modality = "vector"
    input = "vector"
    dtype = np.float32

    size: int

    @property
    def shape(self) -> tuple[int]:
        return (self.size,)

    def decode(self, content: bytes, fast: bool = True) -> np.ndarray:
        return numbers(content, self.size)

    def to_metadata(self) -> dict[str, str]:
        return {"size": str(self.size)}

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def __str__(self) -> str:
        return f"{self.size} numbers"


def numbers(content: bytes, size: int | None = None) -> np.ndarray:
    try:
        found = np.array(content.decode().split(), np.float32)
    except ValueError as error:
        raise DecodeError("not_numbers", str(error)) from None
    if size is not None and len(found) != size:
        raise DecodeError("wrong_size", f"{len(found)} numbers instead of {size}")
    return found


class Vectors(Modality):
    """Files of numbers."""

    name = "vector"
    noun, plural = "vector", "vectors"
    extensions = frozenset({".vec"})

    def input_spec(self, metadata: Mapping[str, str]) -> Numbers:
        return Numbers(int(metadata["size"]))

    def size_of(self, content: bytes) -> str:
        return str(len(numbers(content)))

    def preview(self, content: bytes) -> Preview:
        return Preview(
            "text/plain", " ".join(f"{value:.1f}" for value in numbers(content)).encode()
        )


def write_vectors(folder: Path, each: int = 20, size: int = 4) -> Path:
    """One folder per class, with vectors around its own centre."""
    random = np.random.default_rng(0)
    for label, centre in (("high", 2.0), ("low", -2.0)):
        (folder / label).mkdir(parents=True)
        for number in range(each):
            text = " ".join(map(str, centre + random.normal(size=size)))
            (folder / label / f"{number:02d}.vec").write_text(text)
    return folder


def write_vector_backbone(path: Path, size: int = 4, dim: int = 6) -> Path:
    """A backbone file for vectors: a random projection, then ReLU."""
    weights = np.random.default_rng(0).normal(size=(size, dim)).astype(np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["vector", "weights"], ["projected"]),
            helper.make_node("Relu", ["projected"], ["embedding"]),
        ],
        "vectors",
        [helper.make_tensor_value_info("vector", TensorProto.FLOAT, ["batch", size])],
        [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["batch", dim])],
        [numpy_helper.from_array(weights, "weights")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    spec = BackboneSpec(
        name="projection",
        preprocessing=Numbers(size),
        layers=("projected",),
        pooling="none",
        dim=dim,
        weights="none (random)",
        licence="Apache-2.0",
    )
    onnx.helper.set_model_props(model, spec.to_metadata())
    path.write_bytes(model.SerializeToString())
    return path
