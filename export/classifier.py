"""Backbone and head become one ONNX file: the edge model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data import backbone as backbone_contract
from data import model as model_contract
from data.backbone import Backbone, load_backbone, parse_onnx
from data.edge import edge_metadata
from data.errors import Checklist, InputError
from data.files import check_output, local_path, write_whole
from data.folders import Folder
from data.graph import rename_values
from data.model import Model
from export.parity import Parity, compare

IR_VERSION = 8  # the one of opset 18; older runtimes refuse newer ones


@dataclass(frozen=True)
class EdgeExport:
    """An edge model that was written, and how it was found to answer."""

    path: str
    size: int
    parity: Parity


def export_classifier(
    model: str | Path,
    backbone: str | Path,
    output: str | Path,
    source: str | Path | None = None,
    overwrite: bool = False,
) -> EdgeExport:
    """Write an edge model; it appears once it answers as training did.

    Parameters
    ----------
    source
        The folder with the photographs, where it is not the one recorded in the features.

    Raises
    ------
    InputError
        If model, backbone and output do not fit, or too few photographs can be found.
    ParityError
        If a probability differs by more than 1e-3 or a label at all; nothing is written.
    """
    checks = Checklist()
    with checks.item():
        path = local_path(output)
        check_output(path, overwrite)
        folder, name = Folder.holding(backbone)
        if str(path) == folder.where(name) or local_path(model) in path.parents:
            raise InputError(
                f"{output} would replace what the edge model is made from", "Choose another file."
            )
    with checks.item():
        trained = Model.open(model)
    with checks.item():
        loaded = load_backbone(backbone)
    checks.finish()
    trained.require(
        loaded.fingerprint,
        f"the backbone {backbone}",
        "Name the backbone that the features were extracted with, or extract and train again.",
    )
    content = fuse(loaded, trained)
    parity = compare(content, loaded, trained, source)
    parity.check()
    write_whole(path, content)
    return EdgeExport(str(path), len(content), parity)


def fuse(backbone: Backbone, model: Model) -> bytes:
    """One ONNX file from `image` to `label` and `probabilities`."""
    import onnx

    first = parse_onnx(backbone.path, backbone.content)
    second = parse_onnx(model.folder.path(model_contract.HEAD), model.head)
    for proto in (first, second):
        proto.ir_version = IR_VERSION
        _unite_opsets(proto)
        del proto.metadata_props[:]
    fused = onnx.compose.merge_models(
        first,
        second,
        io_map=[(backbone_contract.OUTPUT, model_contract.INPUT)],
        prefix1="backbone/",
        prefix2="head/",
    )
    signature = (value.name for value in (*fused.graph.input, *fused.graph.output))
    rename_values(fused, {name: name.split("/", 1)[1] for name in signature})
    onnx.helper.set_model_props(fused, edge_metadata(backbone.spec, model.card))
    fused.producer_name, fused.doc_string, fused.graph.name = "headstart", "", "classifier"
    onnx.checker.check_model(fused)
    return fused.SerializeToString()


def _unite_opsets(proto: Any) -> None:
    """Name each domain once and only if it is used: converters do neither, the merge asks both."""
    used = {node.domain for node in proto.graph.node}
    versions = {entry.domain: entry.version for entry in proto.opset_import}
    del proto.opset_import[:]
    for domain in sorted(used):
        proto.opset_import.add(domain=domain, version=versions[domain])
