"""A named network becomes a backbone file."""

from __future__ import annotations

from pathlib import Path

from data.backbone import Backbone, load_backbone
from data.files import check_output, local_path, write_whole
from export.convert import to_onnx
from export.zoo import DEFAULT, BackboneOptions, build


def export_backbone(
    output: str | Path,
    name: str = DEFAULT,
    options: BackboneOptions = BackboneOptions(),
    overwrite: bool = False,
) -> Backbone:
    """Write a backbone file; it appears once it was converted, loaded and checked.

    Raises
    ------
    InputError
        As `build` and `to_onnx`; also if `output` exists and `overwrite` is not set.
    """
    path = local_path(output)
    check_output(path, overwrite)
    network = build(name, options)
    write_whole(path, to_onnx(network.model, network.spec))
    return load_backbone(path)
