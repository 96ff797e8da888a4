"""Writes a backbone and a head as one ONNX file: the edge model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from headstart.data.common.errors import Checklist, InputError
from headstart.data.common.onnx_graphs import BATCH, IR_VERSION, rename_values
from headstart.data.contracts import backbone as backbone_contract
from headstart.data.contracts import model as model_contract
from headstart.data.contracts.backbone import Backbone, load_backbone, parse_onnx, refuse_files
from headstart.data.contracts.edge import LABELS, edge_metadata, read_edge
from headstart.data.contracts.model import PROBABILITIES, Model
from headstart.data.storage.files import check_output, local_path, write_whole
from headstart.data.storage.places import folder_holding
from headstart.export.edge.any_size import accept_any_size, check_any_size
from headstart.export.edge.parity import Parity, compare
from headstart.export.options import EdgeOptions, GateOptions


@dataclass(frozen=True)
class EdgeExport:
    """An edge model that was written, and how it compares with training.

    Parameters
    ----------
    trained_in
        The precision of the features, if the edge model computes in another one.
    """

    path: str
    labels: str
    size: int
    parity: Parity
    trained_in: str | None = None


def export_classifier(
    model: str | Path,
    backbone: str | Path,
    output: str | Path,
    options: EdgeOptions = EdgeOptions(),
    gate: GateOptions = GateOptions(),
) -> EdgeExport:
    """Write an edge model and `NAME.labels.json` beside it, if it agrees with training.

    Raises
    ------
    InputError
        If model, backbone, output and options do not fit, or too few photographs can be found.
    ParityError
        If it differs by more than the gate accepts; nothing is written.
    """
    checks = Checklist()
    with checks.item():
        path = local_path(output)
        labels = path.with_suffix(LABELS)
        check_output(path, options.overwrite)
        check_output(labels, options.overwrite)
        folder, name = folder_holding(backbone)
        if str(path) == folder.where(name) or local_path(model) in path.parents:
            raise InputError(
                f"{output} would replace what the edge model is made from", "Choose another file."
            )
    with checks.item():
        trained = Model.open(model)
    with checks.item():
        loaded = load_backbone(backbone)
        if options.any_size:
            check_any_size(loaded.spec.preprocessing)
    checks.finish()
    own_files = loaded.spec.preprocessing.files()
    beside = {path.with_suffix(end): data for end, data in own_files.items()}
    for each in beside:
        with checks.item():
            check_output(each, options.overwrite)
    checks.finish()
    made, own = trained.card.fingerprint, loaded.fingerprint
    trained.require(
        made if made in loaded.makes else own,
        f"the backbone {backbone}",
        "Name the backbone that the features were extracted with, or extract and train again.",
    )
    options.check_top(len(trained.card.classes))
    content = fuse(loaded, trained, options)
    parity = compare(content, loaded, trained, gate)
    parity.check(gate)
    for file, data in {labels: read_edge(str(path), content).labels(), **beside}.items():
        write_whole(file, data)
    write_whole(path, content)
    made_in = None if made == own else made.precision
    return EdgeExport(str(path), str(labels), len(content), parity, made_in)


def fuse(backbone: Backbone, model: Model, options: EdgeOptions = EdgeOptions()) -> bytes:
    """One ONNX file from the backbone's inputs to `label` and `probabilities`."""
    import onnx

    first = parse_onnx(backbone.path, backbone.content)
    head = model.folder.path(model_contract.HEAD)
    second = parse_onnx(head, model.head)
    refuse_files(head, second)
    for proto in (first, second):
        proto.ir_version = IR_VERSION
        _clean_opset_imports(proto)
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
    if options.top:
        _add_top(fused, options.top)
    if options.any_size:
        fused = accept_any_size(fused, backbone.spec.preprocessing)
    onnx.helper.set_model_props(fused, edge_metadata(backbone.spec, model.card))
    fused.producer_name, fused.doc_string, fused.graph.name = "headstart", "", "classifier"
    onnx.checker.check_model(fused)
    return fused.SerializeToString()


def _add_top(model: Any, count: int) -> None:
    """The most probable classes, best first: `top_labels`, `top_probabilities` `[batch, count]`."""
    import onnx

    values, indices = "top_probabilities", "top_labels"
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array([count]), "top_count"))
    model.graph.node.append(
        onnx.helper.make_node("TopK", [PROBABILITIES, "top_count"], [values, indices], axis=1)
    )
    for name, kind in ((indices, onnx.TensorProto.INT64), (values, onnx.TensorProto.FLOAT)):
        model.graph.output.append(onnx.helper.make_tensor_value_info(name, kind, [BATCH, count]))


def _clean_opset_imports(proto: Any) -> None:
    """List each domain once, and only if it is used, as `merge_models` needs it."""
    used = {node.domain for node in proto.graph.node}
    versions = {entry.domain: entry.version for entry in proto.opset_import}
    del proto.opset_import[:]
    for domain in sorted(used):
        proto.opset_import.add(domain=domain, version=versions[domain])
