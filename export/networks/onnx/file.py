"""Opens an ONNX file from any source safely: nothing outside its folder, nothing too large."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headstart.data.common.errors import BackboneError
from headstart.data.common.onnx_graphs import graphs_of
from headstart.data.contracts.backbone import PREFIX, parse_onnx
from headstart.export.networks.network import Weights
from headstart.export.networks.onnx.network import OnnxNetwork
from headstart.export.networks.onnx.surgery import LARGEST_FILE, MOST_BYTES, check_limits
from headstart.export.options import BackboneOptions

if TYPE_CHECKING:
    import onnx

EXPORT_AGAIN = "Export it again, or copy it again with all its files."


def open_onnx(path: Path, options: BackboneOptions) -> OnnxNetwork:
    """Open an ONNX file of a network for pictures; raises as `read_onnx`."""
    return OnnxNetwork(read_onnx(path), path.stem, Weights.of_file(path), options)


def read_onnx(path: Path) -> onnx.ModelProto:
    """Read an ONNX file, including the tensors that it stores in other files of its folder.

    Raises
    ------
    BackboneError
        If it is damaged, too large, a file of headstart's, or refers to files elsewhere.
    """
    size = path.stat().st_size
    if size >= LARGEST_FILE:
        raise BackboneError(
            f"{path} has {size / 1e9:.1f} GB; an ONNX file holds at most 2.1 GB",
            "Save its tensors in a separate file (onnx.save with save_as_external_data=True).",
        )
    proto = parse_onnx(path, path.read_bytes(), EXPORT_AGAIN)
    check_limits(proto, str(path))
    if any(entry.key == PREFIX + "kind" for entry in proto.metadata_props):
        raise BackboneError(
            f"{path} was already written by headstart", "Name the network that it was made from."
        )
    _load_external_tensors(proto, path)
    return proto


def _load_external_tensors(proto: Any, path: Path) -> None:
    """Load the tensors stored in other files; only files in the same folder are opened."""
    import onnx

    folder = path.parent.resolve()
    total = 0
    for tensor in _tensors(proto.graph):
        if tensor.data_location != onnx.TensorProto.EXTERNAL:
            continue
        about = {entry.key: entry.value for entry in tensor.external_data}
        location = about.get("location", "")
        file = Path(os.path.realpath(folder / location))
        if not location or os.path.isabs(location) or folder not in file.parents:
            raise BackboneError(
                f"{path} refers to {location!r}, which is not in its folder",
                "All files of a network must be in one folder. " + EXPORT_AGAIN,
            )
        if not file.is_file():
            raise BackboneError(
                f"{path} stores tensors in {location}, which does not exist", EXPORT_AGAIN
            )
        end = int(about.get("offset", 0)) + int(about.get("length", 0) or 0)
        if end > file.stat().st_size:
            raise BackboneError(
                f"{path} stores tensors in {location}, which is truncated", EXPORT_AGAIN
            )
        total += int(about.get("length", 0) or file.stat().st_size)
    if total > MOST_BYTES:
        raise BackboneError(
            f"{path} has {total / 1e9:.0f} GB of tensors; the limit is {MOST_BYTES / 1e9:.0f}",
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
