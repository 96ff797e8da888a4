"""The backbone file: one ONNX file that describes itself in its metadata.

Format version 2, or 1 where the preprocessing can be described in that (version 2 added the key
`crop_fraction`, without which photographs would be resized otherwise). The inputs are its
modality's: `image`, uint8 `[batch, height, width, 3]`, RGB, 0..255, of photographs; `input_ids` and
`attention_mask`, int64 `[batch, tokens]`, of texts. Output `embedding`: float32 `[batch, dim]`. The
version is bumped when a reader of the old version would read a new file wrongly; a new optional key
does not bump it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from headstart.data.common.errors import BackboneError, InputError
from headstart.data.common.onnx_graphs import STANDARD_DOMAINS, graphs_of, inner_graphs
from headstart.data.contracts.fingerprint import Fingerprint
from headstart.data.contracts.json_reader import read_json
from headstart.data.modalities.known import MODALITIES
from headstart.data.modalities.modality import InputSpec, Modality
from headstart.data.storage.files import digest
from headstart.data.storage.places import folder_holding

if TYPE_CHECKING:
    import onnx

FORMAT_VERSION = 2
READABLE = ("1", "2")
PREFIX = "headstart."
KIND = "backbone"
INPUT, OUTPUT = "image", "embedding"
EXPORT_COMMAND = "Export one with: python -m export backbone NAME -o backbone.onnx"


@dataclass(frozen=True)
class BackboneSpec:
    """What the metadata of a backbone file says.

    Parameters
    ----------
    name
        Name of the network, such as `efficientnet_lite0`.
    preprocessing
        How an example becomes the input; it names the modality.
    layers
        Names of the layers whose output is the embedding.
    pooling
        Such as `avg` or `avg+max+std`; `none` if the layer has no height and width. If layers are
        pooled differently, one entry for each in order, separated by commas.
    dim
        Width of the embedding.
    weights, licence
        Where the weights come from, and under which licence.
    precision
        `fp32`, `fp16` or `int8`; `bf16` if a file in fp32 is run in that.
    scaling
        The scaling of pixels inside the graph, for people; empty in old files.
    power
        Whether the embedding is the signed square root of what was pooled.
    views
        Which copies of a picture are averaged in the graph: `none`, `mirror` or `flips`.
    """

    name: str
    preprocessing: InputSpec
    layers: tuple[str, ...]
    pooling: str
    dim: int
    weights: str
    licence: str
    precision: str = "fp32"
    scaling: str = ""
    power: bool = False
    views: str = "none"

    @property
    def modality(self) -> Modality:
        """What its examples are."""
        return MODALITIES[self.preprocessing.modality]

    def to_metadata(self) -> dict[str, str]:
        """As ONNX `metadata_props`."""
        values = {
            "kind": KIND,
            "format_version": str(self.preprocessing.format_version),
            "name": self.name,
            "modality": self.preprocessing.modality,
            **self.preprocessing.to_metadata(),
            "layers": json.dumps(self.layers),
            "pooling": self.pooling,
            "dim": str(self.dim),
            "precision": self.precision,
            "weights": self.weights,
            "licence": self.licence,
            "scaling": self.scaling,
            "power": "yes" if self.power else "no",
            "views": self.views,
        }
        return {PREFIX + key: value for key, value in values.items()}

    @classmethod
    def from_metadata(cls, metadata: dict[str, str]) -> BackboneSpec:
        """From ONNX `metadata_props`; raises `KeyError` or `ValueError` if they are not ours."""
        value = {key.removeprefix(PREFIX): text for key, text in metadata.items()}
        return cls(
            name=value["name"],
            preprocessing=MODALITIES[value["modality"]].input_spec(value),
            layers=read_json(value["layers"].encode(), tuple[str, ...]),
            pooling=value["pooling"],
            dim=int(value["dim"]),
            weights=value["weights"],
            licence=value["licence"],
            precision=value["precision"],
            scaling=value.get("scaling", ""),
            power=value.get("power") == "yes",
            views=value.get("views", "none"),
        )


@dataclass(frozen=True)
class Backbone:
    """A backbone file that was read and checked."""

    path: str
    content: bytes
    spec: BackboneSpec

    @cached_property
    def fingerprint(self) -> Fingerprint:
        """What embeddings of this backbone are marked with."""
        spec = self.spec
        return Fingerprint(
            spec.name, digest(self.content), str(spec.preprocessing), spec.precision, spec.dim
        )

    @property
    def makes(self) -> tuple[Fingerprint, ...]:
        """What embeddings of this file may be marked with: in its own precision, or, as `extract`
        runs it where a CPU has bf16, in that instead of fp32."""
        own = self.fingerprint
        return (own, own.run_in("bf16")) if own.precision == "fp32" else (own,)

    def run_in(self, precision: str) -> Backbone:
        """The same backbone, run in a precision: its embeddings have another fingerprint."""
        return replace(self, spec=replace(self.spec, precision=precision))


def read_metadata(model: onnx.ModelProto) -> dict[str, str]:
    """The `metadata_props` of an ONNX model as a dictionary."""
    return {entry.key: entry.value for entry in model.metadata_props}


def read_content(
    path: str | Path, what: str, fix: str, kind: type[InputError]
) -> tuple[str, bytes]:
    """A file's address and bytes; raises an error of class `kind`, with `fix`, if unreadable."""
    folder, name = folder_holding(path)
    try:
        return folder.where(name), folder.read(name)
    except FileNotFoundError:
        raise kind(f"{path}: no such {what}", fix) from None
    except OSError as error:
        raise kind(f"{path} cannot be read: {error.strerror or error}", fix) from None


def parse_onnx(
    path: str | Path,
    content: bytes,
    fix: str = EXPORT_COMMAND,
    kind: type[InputError] = BackboneError,
) -> onnx.ModelProto:
    """Parse the bytes of an ONNX file; raises an error, with `fix`, if they are not valid."""
    import onnx

    try:
        model = onnx.load_model_from_string(content)
        texts = [model.graph.name]
        texts += [value.name for value in (*model.graph.input, *model.graph.output)]
        texts += [tensor.name for tensor in model.graph.initializer]
        for node in _nodes_of(model.graph):
            texts += [node.name, node.op_type, node.domain, *node.input, *node.output]
        texts += [text for pair in read_metadata(model).items() for text in pair]
        "".join(texts)  # protobuf gives bytes where a name is not UTF-8
    except Exception:  # protobuf's DecodeError, whose class depends on its implementation
        model = None
    if model is None or not model.graph.node:
        raise kind(f"{path} is not a valid ONNX file", fix)
    return model


def refuse_files(
    path: str | Path, model: onnx.ModelProto, kind: type[InputError] = BackboneError
) -> None:
    """Raise an error if one of our ONNX files would make ONNX Runtime open others.

    Tensors in other files would be read from the current folder, whatever is there, and are not in
    the fingerprint. Of the operators, those of ONNX itself touch no files.
    """
    graphs = list(graphs_of(model.graph))
    for each in model.training_info:
        graphs += [*graphs_of(each.initialization), *graphs_of(each.algorithm)]
    nodes = [node for graph in graphs for node in graph.node]
    for function in model.functions:
        nodes += function.node
        nodes += [n for node in function.node for g in inner_graphs(node) for n in _nodes_of(g)]
    tensors = [tensor for graph in graphs for tensor in graph.initializer]
    for sparse in (each for graph in graphs for each in graph.sparse_initializer):
        tensors += [sparse.values, sparse.indices]
    for attribute in (attribute for node in nodes for attribute in node.attribute):
        tensors += [attribute.t, *attribute.tensors]
        for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
            tensors += [sparse.values, sparse.indices]
    outside = next((t for t in tensors if t.data_location or len(t.external_data)), None)
    if outside is not None:
        raise kind(
            f"{path} keeps the tensor {outside.name!r} in another file; a file of headstart's has "
            "all of them inside",
            "It was changed after it was written. Export it again.",
        )
    foreign = sorted({node.op_type for node in nodes if node.domain not in STANDARD_DOMAINS})
    if foreign:
        raise kind(
            f"{path} has operators that are not ONNX's own, and may open files: "
            f"{', '.join(foreign)}",
            "It was changed after it was written. Export it again.",
        )


def _nodes_of(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    return [node for each in graphs_of(graph) for node in each.node]


def load_backbone(path: str | Path) -> Backbone:
    """Read a backbone file and check that we can run it.

    Raises
    ------
    BackboneError
        If the file is missing, not valid ONNX, not a headstart backbone, or of a newer format, or
        its inputs and outputs are not those of the contract.
    """
    where, content = read_content(path, "backbone file", EXPORT_COMMAND, BackboneError)
    model = parse_onnx(path, content)
    metadata = read_metadata(model)
    kind = metadata.get(PREFIX + "kind")
    if kind is None:
        raise BackboneError(
            f"{path} is an ONNX file, but not a headstart backbone (it has no headstart metadata)",
            EXPORT_COMMAND,
        )
    if kind != KIND:
        raise BackboneError(f"{path} is a headstart {kind}, not a backbone", EXPORT_COMMAND)
    version = metadata.get(PREFIX + "format_version", "")
    if version not in READABLE:
        raise BackboneError(
            f"{path} is a backbone file of format {version}; this headstart reads "
            f"{' and '.join(READABLE)}",
            "Update headstart, or export the backbone again.",
        )
    modality = metadata.get(PREFIX + "modality")
    if modality and modality not in MODALITIES:
        raise BackboneError(
            f"{path} is a backbone of an unknown modality {modality!r}",
            f"Supported: {', '.join(MODALITIES)}. Update headstart, or use another backbone.",
        )
    try:
        spec = BackboneSpec.from_metadata(metadata)
    except (KeyError, ValueError, TypeError, InputError) as error:
        raise BackboneError(
            f"{path} has damaged headstart metadata: {error!r}", "Export the backbone again."
        ) from None
    refuse_files(path, model)
    _check_signature(path, model, spec)
    return Backbone(where, content, spec)


def _check_signature(path: str | Path, model: onnx.ModelProto, spec: BackboneSpec) -> None:
    constants = {tensor.name for tensor in model.graph.initializer}
    inputs = [value.name for value in model.graph.input if value.name not in constants]
    outputs = [value.name for value in model.graph.output]
    expected = spec.preprocessing
    if inputs != list(expected.signature) or outputs != [OUTPUT]:
        raise BackboneError(
            f"{path} has inputs {inputs} and outputs {outputs}; "
            f"a backbone has {list(expected.signature)} and [{OUTPUT!r}]",
            "Export the backbone again.",
        )
    for name, shape in expected.signature.items():
        (value,) = (each for each in model.graph.input if each.name == name)
        dims = [axis.dim_value for axis in value.type.tensor_type.shape.dim]
        if dims[1:] != [side or 0 for side in shape]:
            raise BackboneError(
                f"{path} takes inputs of {dims[1:]}, but its metadata says {list(shape)}",
                "Export the backbone again.",
            )
    made = width_of(model.graph.output[0])
    if made not in (None, spec.dim):
        raise BackboneError(
            f"{path} makes embeddings {made} wide, but its metadata says {spec.dim}",
            "Export the backbone again.",
        )


def width_of(output: onnx.ValueInfoProto) -> int | None:
    """The last axis of a graph's output; none where the graph does not say it."""
    axes = output.type.tensor_type.shape.dim
    return axes[-1].dim_value or None if axes else None
