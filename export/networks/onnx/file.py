"""An ONNX file from anywhere, read as data: nothing outside its folder, nothing too large."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from headstart.data.common.errors import BackboneError
from headstart.data.common.onnx_graphs import graphs_of
from headstart.data.contracts.backbone import PREFIX, parse_onnx
from headstart.export.networks.network import Weights
from headstart.export.networks.onnx.network import OnnxNetwork
from headstart.export.networks.onnx.surgery import LARGEST_FILE, MOST_BYTES, check_limits
from headstart.export.options import BackboneOptions

WHOLE = "Export it anew, or copy it anew with all its files."


def open_onnx(path: Path, options: BackboneOptions) -> OnnxNetwork:
    """Open an ONNX file, tensors that lie in files beside it included.

    Raises
    ------
    BackboneError
        If it is damaged, too large, ours already, or points to files elsewhere.
    """
    size = path.stat().st_size
    if size >= LARGEST_FILE:
        raise BackboneError(
            f"{path} has {size / 1e9:.1f} GB; an ONNX file holds at most 2.1 GB",
            "Save its tensors beside it (onnx.save with save_as_external_data=True).",
        )
    proto = parse_onnx(path, path.read_bytes(), WHOLE)
    check_limits(proto, str(path))
    if any(entry.key == PREFIX + "kind" for entry in proto.metadata_props):
        raise BackboneError(
            f"{path} was written by headstart already", "Name the network that it was made from."
        )
    _load_beside(proto, path)
    return OnnxNetwork(proto, path.stem, Weights.of_file(path), options)


def _load_beside(proto: Any, path: Path) -> None:
    """Load the tensors that lie in other files; only those beside the file are opened."""
    import onnx

    folder = path.parent.resolve()
    total = 0
    for tensor in _tensors(proto.graph):
        if tensor.data_location != onnx.TensorProto.EXTERNAL:
            continue
        about = {entry.key: entry.value for entry in tensor.external_data}
        location = about.get("location", "")
        beside = Path(os.path.realpath(folder / location))
        if not location or os.path.isabs(location) or folder not in beside.parents:
            raise BackboneError(
                f"{path} wants to read {location!r}, which is not beside it",
                "A network's files lie in one folder. " + WHOLE,
            )
        if not beside.is_file():
            raise BackboneError(f"{path} keeps tensors in {location}, which is not there", WHOLE)
        end = int(about.get("offset", 0)) + int(about.get("length", 0) or 0)
        if end > beside.stat().st_size:
            raise BackboneError(f"{path} keeps tensors in {location}, which is cut off", WHOLE)
        total += int(about.get("length", 0) or beside.stat().st_size)
    if total > MOST_BYTES:
        raise BackboneError(
            f"{path} has {total / 1e9:.0f} GB of tensors; we take up to {MOST_BYTES / 1e9:.0f}",
            "Choose a smaller network.",
        )
    if total:
        onnx.load_external_data_for_model(proto, str(folder))


def _tensors(whole: Any) -> Iterator[Any]:
    for graph in graphs_of(whole):
        yield from graph.initializer
        for node in graph.node:
            for attribute in node.attribute:
                if attribute.HasField("t"):
                    yield attribute.t
                yield from attribute.tensors
