"""Lower precision: fp16, or int8 calibrated on photographs; `text.build` has that of texts."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from headstart.data.common.cosine import cosines
from headstart.data.common.errors import BackboneError
from headstart.data.common.onnx_graphs import BATCH as BATCH_AXIS
from headstart.data.common.onnx_runtime import open_session, save_optimized
from headstart.data.common.speed import BATCH, images_per_second, random_rows
from headstart.data.contracts.backbone import OUTPUT, BackboneSpec
from headstart.data.examples.opening import open_source
from headstart.data.examples.parts import in_parts
from headstart.data.examples.reading import Reader
from headstart.data.modalities.known import MODALITIES
from headstart.data.modalities.modality import DecodeError, InputSpec
from headstart.export.backbone.embedding import OWN, SPECTROGRAM
from headstart.export.options import PrecisionOptions

PHOTOGRAPHS, FEWEST = 128, 8
SEED = 0
POOR = 0.9  # cosine to fp32 below which there is a warning


@dataclass(frozen=True)
class Quantized:
    """A graph of lower precision, compared with its fp32 form.

    Parameters
    ----------
    content
        The ONNX file.
    fp32_bytes
        Size of the fp32 form.
    speed, fp32_speed
        Images per second on this machine: ONNX Runtime, one thread, measured alternately.
    cosine_mean, cosine_worst
        Between the embeddings and fp32's, over `photographs` images.
    photographs
        How many images were compared; `random` if they were noise, not photographs.
    """

    content: bytes
    fp32_bytes: int
    speed: float
    fp32_speed: float
    cosine_mean: float
    cosine_worst: float
    photographs: int
    random: bool

    @property
    def ratio(self) -> float:
        """How many times as fast as fp32."""
        return self.speed / self.fp32_speed

    def to_json(self) -> dict[str, Any]:
        """Everything but the file, as a JSON object."""
        about = {name: value for name, value in vars(self).items() if name != "content"}
        return about | {"ratio": self.ratio}

    def warnings(self, spec: BackboneSpec) -> list[str]:
        """What a user should know before using it."""
        found = []
        if spec.precision == "int8" and self.ratio < 1:
            found.append(
                f"int8 is slower than fp32 on this machine ({self.ratio:.2f} times as fast). "
                "This is common for networks with swish or squeeze-and-excitation, and on CPUs "
                "without int8 instructions (VNNI); networks designed for int8, such as "
                "efficientnet_lite0, are faster."
            )
        if spec.precision == "fp16" and self.ratio < 1:
            found.append(
                f"fp16 is slower than fp32 on this machine ({self.ratio:.2f} times as fast): "
                "it is meant for GPUs, and for files of half the size."
            )
        if self.cosine_worst < POOR:
            found.append(
                f"the embedding of at least one photograph differs much from fp32's (cosine "
                f"{self.cosine_worst:.3f}). Calibrate on photographs like those you will extract, "
                "and compare the accuracy of heads trained on both."
            )
        return found


def read_calibration(options: PrecisionOptions, preprocessing: InputSpec) -> np.ndarray | None:
    """Photographs to calibrate on, uint8 `[count, height, width, 3]`; none if none are named.

    Raises
    ------
    InputError
        If there is no such source, or fewer than 8 of its photographs can be read.
    """
    if options.calibrate is None:
        return None
    modality = MODALITIES[preprocessing.modality]
    source = open_source(options.calibrate, True, modality)
    source = in_parts(source, preprocessing).source
    paths = source.examples["path"].to_pylist()
    images, reader = [], Reader(source.folder)
    for number in np.random.default_rng(SEED).permutation(len(paths)):
        try:
            rule = preprocessing.at(paths[number])
            images.append(rule.decode(reader.read(paths[number])))
        except (OSError, DecodeError):
            continue  # an error below, if too few are left
        if len(images) == PHOTOGRAPHS:
            break
    if len(images) < FEWEST:
        raise BackboneError(
            f"{options.calibrate} has {len(images)} {modality.plural} that can be read; int8 "
            f"calibration needs at least {FEWEST}, and {PHOTOGRAPHS} are better",
            "Name another --calibrate SOURCE.",
        )
    return np.stack(images)


def quantize(
    proto: Any, spec: BackboneSpec, precision: str, photographs: np.ndarray | None
) -> Quantized:
    """Convert a checked fp32 backbone graph to a lower precision, and compare the two.

    The result's metadata has its precision; input, output and pooling do not change.
    """
    import onnx

    spec = replace(spec, precision=precision)
    before = bytes(proto.SerializeToString())
    lower = _to_int8(before, photographs) if photographs is not None else to_fp16(proto)
    del lower.metadata_props[:]
    onnx.helper.set_model_props(lower, spec.to_metadata())
    lower.producer_name, lower.producer_version = "headstart", ""
    lower.ir_version = proto.ir_version
    content = bytes(lower.SerializeToString())
    images, random = photographs, photographs is None
    if images is None:
        images = random_rows(spec.preprocessing.shape, BATCH)
    found = cosines(_embed(before, images), _embed(content, images))
    fp32_speed, speed = images_per_second([before, content])
    return Quantized(
        content=content,
        fp32_bytes=len(before),
        speed=speed,
        fp32_speed=fp32_speed,
        cosine_mean=float(found.mean()),
        cosine_worst=float(found.min()),
        photographs=len(images),
        random=random,
    )


def _embed(content: bytes, images: np.ndarray) -> np.ndarray:
    session = open_session(content, 1)
    parts = [
        session.run([OUTPUT], {_input(session): images[start : start + BATCH]})[0]
        for start in range(0, len(images), BATCH)
    ]
    return np.concatenate(parts)


def _input(session: Any) -> str:
    return str(session.get_inputs()[0].name)


def _own_nodes(proto: Any) -> list[str]:
    """Scaling, pooling and views: they stay in fp32."""
    return [node.name for node in proto.graph.node if node.name.startswith(OWN)]


def to_fp16(proto: Any) -> Any:
    """A graph in fp16, but for its inputs and outputs, our own nodes, and a spectrogram.

    A spectrogram is set aside, since its constants would be rounded.
    """
    import onnx
    from onnxruntime.transformers.float16 import convert_float_to_float16
    from onnxruntime.transformers.onnx_model import OnnxModel

    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    graph, inputs = copy.graph, list(copy.graph.input)
    nodes = _take_spectrogram(graph.node)
    constants = _take_spectrogram(graph.initializer)
    if nodes:
        picture = nodes[-1].output[0]
        element = onnx.TensorProto.UINT8 if nodes[-1].op_type == "Cast" else onnx.TensorProto.FLOAT
        del graph.input[:]
        shape = [BATCH_AXIS, None, None, 3]
        graph.input.append(onnx.helper.make_tensor_value_info(picture, element, shape))
    half = convert_float_to_float16(
        copy,
        keep_io_types=True,
        node_block_list=_own_nodes(copy),
        disable_shape_infer=False,
    )
    # The converter casts a value once for each reader, every time under the same name.
    after = list({node.output[0]: node for node in half.graph.node}.values())
    for field, whole in (
        (half.graph.node, [*nodes, *after]),
        (half.graph.input, inputs),
        (half.graph.initializer, [*half.graph.initializer, *constants]),
    ):
        del field[:]
        field.extend(whole)
    OnnxModel.graph_topological_sort(half.graph)  # ONNX wants it; the converter appends its casts
    return half


def _take_spectrogram(field: Any) -> list[Any]:
    """Remove the spectrogram's own from a repeated field, and return it."""
    taken = [each for each in field if each.name.startswith(SPECTROGRAM)]
    others = [each for each in field if not each.name.startswith(SPECTROGRAM)]
    del field[:]
    field.extend(others)
    return taken


@contextmanager
def quiet() -> Iterator[None]:
    """Silence the quantizer, which logs advice through the root logger."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.setLevel(level)


def _to_int8(content: bytes, photographs: np.ndarray) -> Any:
    """Static QDQ, weights per channel."""
    import onnx
    from onnxruntime.quantization import (
        CalibrationDataReader,
        QuantFormat,
        QuantType,
        quantize_static,
    )

    class Photographs(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.left: Iterator[np.ndarray] = iter(
                np.array_split(photographs, -(-len(photographs) // BATCH))
            )

        def get_next(self) -> dict[str, np.ndarray] | None:
            images = next(self.left, None)
            return None if images is None else {name: images}

    with tempfile.TemporaryDirectory() as folder, quiet():
        folded, lower = Path(folder, "folded.onnx"), Path(folder, "int8.onnx")
        # Batch normalization is folded into convolutions first: left beside them it stays fp32.
        save_optimized(content, folded)
        proto = onnx.load(folded)
        name = proto.graph.input[0].name
        quantize_static(
            folded,
            lower,
            Photographs(),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            reduce_range=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=_own_nodes(proto),
        )
        return onnx.load(lower)
