"""Writes a backbone file from any kind of network."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from headstart.data.common.errors import BackboneError, Checklist
from headstart.data.common.onnx_graphs import IR_VERSION, OPSET
from headstart.data.contracts.backbone import BackboneSpec, load_backbone
from headstart.data.modalities.image.preprocessing import Preprocessing
from headstart.data.storage.files import check_output, local_path, write_whole
from headstart.export.backbone.check import LIKENESS, check, check_photographs
from headstart.export.backbone.embedding import Recipe, assemble, plan, width
from headstart.export.backbone.encoder import encoder
from headstart.export.backbone.quantize import quantize, read_calibration
from headstart.export.backbone.spectrogram import Spectrogram
from headstart.export.backbone.wake_words import PREFIX
from headstart.export.backbone.written import BackboneExport
from headstart.export.networks.network import Original
from headstart.export.networks.onnx.surgery import check_limits, refuse_huge, to_opset
from headstart.export.networks.resolve import DEFAULT, open_original
from headstart.export.options import (
    BackboneOptions,
    FeatureOptions,
    PrecisionOptions,
    SoundOptions,
)
from headstart.export.text.build import check_text_options, export_text, is_text

FEW = 16  # numbers of an embedding, below which they may be a network's answers


def export_backbone(
    output: str | Path,
    name: str | Original = DEFAULT,
    options: BackboneOptions = BackboneOptions(),
    features: FeatureOptions = FeatureOptions(),
    precision: PrecisionOptions = PrecisionOptions(),
    overwrite: bool = False,
    sound: SoundOptions | None = None,
) -> BackboneExport:
    """Write a backbone file, after the network has been converted, loaded and checked.

    Parameters
    ----------
    name
        As `networks.resolve.open_original` takes it, `words:FILE`, or an open network, such as
        `networks.torch.network.TorchNetwork` of a module of your own.
    sound
        How recordings become its input; none for a backbone for photographs.

    Raises
    ------
    InputError
        As `open_original`, `plan` and `check`; also if `output` exists and `overwrite` is not set.
    """
    if isinstance(name, str) and is_text(name):
        return export_text(output, name, options, features, precision, sound, overwrite)
    checks = Checklist()
    with checks.item():
        path = local_path(output)
        check_output(path, overwrite)
    with checks.item():
        check_options(name, options, features, precision, sound)
    checks.finish()
    if sound is not None and sound.kind == "raw":
        content, parity, doubts = encoder(str(name), options, features, sound)
        write_whole(path, content)
        return BackboneExport(load_backbone(path), parity, None, doubts)
    original = open_original(name, options) if isinstance(name, str) else name
    recipe = plan(original, features)
    spec = describe(original, recipe, options)
    heard = None
    if sound is not None:
        heard = Spectrogram.of(sound, original.height, original.width)
        scaling = f"{heard}; {original.scaling.name}"
        spec = replace(spec, preprocessing=sound.windows, scaling=scaling)
    photographs = read_calibration(precision, spec.preprocessing)
    proto = to_backbone(original, recipe, spec, heard)
    content = serialized(proto, spec)
    parity = check(content, original, recipe, spec, heard)
    own_resize = (options.resize, options.interpolation, options.crop_fraction) == (None,) * 3
    likeness: float | None = None
    if heard is None and own_resize and options.scaling is None and not original.warnings:
        likeness = check_photographs(content, original, recipe, spec)
    quantized = None
    if precision.precision != "fp32":
        quantized = quantize(proto, spec, precision.precision, photographs)
        content = quantized.content
    write_whole(path, content)
    backbone, warnings = load_backbone(path), _doubts(recipe, spec)
    if quantized:
        warnings += quantized.warnings(backbone.spec)
    if own_resize and sound is None:
        warnings += original.warnings
    if likeness is not None and likeness < LIKENESS:
        warnings.append(
            f"photographs that are resized by {spec.preprocessing} give embeddings a little off "
            f"those by the network's own preprocessing (cosine {likeness:.3f})"
        )
    return BackboneExport(backbone, parity, quantized, tuple(warnings))


def check_options(
    name: str | Original,
    options: BackboneOptions,
    features: FeatureOptions,
    precision: PrecisionOptions,
    sound: SoundOptions | None,
) -> None:
    """Raise `InputError` with everything that is wrong with options, before a network is opened."""
    if isinstance(name, str) and is_text(name):
        check_text_options(name, options, features, precision, sound)
        return
    checks = Checklist()
    raw = sound is not None and sound.kind == "raw"  # which has scalings of its own
    for group in (replace(options, scaling=None) if raw else options, features, precision, sound):
        with checks.item():
            if group is not None:
                group.check()
    with checks.item():
        _check_sound(name, options, precision, sound)
    with checks.item():
        if options.include_top and features.layers:
            raise BackboneError(
                "--include-top keeps the last layer, --layer chooses others", "Give one of the two."
            )
    checks.finish()


def _check_sound(
    name: str | Original,
    options: BackboneOptions,
    precision: PrecisionOptions,
    sound: SoundOptions | None,
) -> None:
    if sound is None:
        return
    for flag in ("resize", "interpolation", "crop_fraction"):
        if getattr(options, flag) is not None:
            raise BackboneError(
                f"--{flag.replace('_', '-')} is for photographs; a spectrogram is always stretched "
                "to the network's size",
                "Leave it out.",
            )
    takes_samples = isinstance(name, str) and (
        name.lower().endswith(".onnx") or name.startswith(PREFIX)
    )
    if sound.kind == "raw" and not takes_samples:
        raise BackboneError(
            f"--sound raw is for an ONNX file that takes samples itself, not for {name}",
            "Pass --sound logmel to give a network for photographs a spectrogram.",
        )
    if sound.kind == "raw" and precision.precision != "fp32":
        raise BackboneError(
            f"--precision {precision.precision} is not possible with --sound raw",
            "Quantize the file before, or leave the option out.",
        )


def _doubts(recipe: Recipe, spec: BackboneSpec) -> list[str]:
    """Why an embedding may not be what it should be."""
    found = [
        f"layer {part.layer.name!r} gives class scores ({part.layer.kind}), not features"
        for part in recipe.parts
        if part.layer.kind in ("Softmax", "LogSoftmax")
    ]
    if spec.dim < FEW:
        found.append(
            f"the embedding has {spec.dim} numbers only: if these are a network's answers, name a "
            "layer before them (`python -m export layers` lists them)"
        )
    return found


def describe(original: Original, recipe: Recipe, options: BackboneOptions) -> BackboneSpec:
    """The metadata of the file in fp32."""
    stated = options.resize is not None or options.crop_fraction is not None
    return BackboneSpec(
        name=original.name,
        preprocessing=Preprocessing(
            original.height,
            original.width,
            options.resize or original.resize,
            options.interpolation or original.interpolation,
            options.crop_fraction if stated else original.crop_fraction,
            options.crop_offset or ("round" if stated else original.crop_offset),
        ),
        layers=tuple(recipe.layers),
        pooling=recipe.pooling,
        dim=width(recipe),
        weights=original.weights.origin,
        licence=original.weights.licence,
        scaling=original.scaling.name,
        power=recipe.power,
        views=recipe.views,
    )


def to_backbone(
    original: Original, recipe: Recipe, spec: BackboneSpec, spectrogram: Spectrogram | None = None
) -> Any:
    """The fp32 graph from the input to `embedding`, as an `onnx.ModelProto`."""
    import onnx

    proto = to_opset(original.to_onnx(recipe.layers), OPSET, original.name)
    check_limits(proto, original.name)
    element = proto.graph.input[0].type.tensor_type.elem_type
    assemble(proto, recipe, original.scaling, (original.height, original.width))
    if spectrogram is not None:
        spectrogram.prepend(proto, element)
    del proto.metadata_props[:]
    onnx.helper.set_model_props(proto, spec.to_metadata())
    proto.producer_name, proto.producer_version, proto.doc_string = "headstart", "", ""
    proto.ir_version, proto.graph.name = IR_VERSION, "backbone"
    return proto


def serialized(proto: Any, spec: BackboneSpec) -> bytes:
    """The bytes of a graph; raises `BackboneError` if it is larger than ONNX allows."""
    refuse_huge(proto, spec.name)
    return bytes(proto.SerializeToString())
