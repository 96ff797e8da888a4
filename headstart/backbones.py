"""Backbones by what a person names (a file, or a network to export), or by their fingerprint."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from headstart.cache import cache_folder, key_of
from headstart.data.common import console
from headstart.data.common.errors import BackboneError, InputError, ModelError
from headstart.data.contracts.backbone import (
    EXPORT_COMMAND,
    KIND,
    PREFIX,
    Backbone,
    load_backbone,
    parse_onnx,
    read_content,
    read_metadata,
)
from headstart.data.contracts.model import Model
from headstart.data.storage.files import digest, local_path, write_whole
from headstart.export.options import ExportOptions, PrecisionOptions
from headstart.work_folder import digest_of

CHOSEN = "efficientnet_lite0"  # where nobody chooses
ENDING = ".onnx"
MOST_FILES = 200  # ONNX files of a folder that are looked at


def backbone_file(reference: str, options: ExportOptions = ExportOptions()) -> Backbone | None:
    """The backbone file that is named; None if a network is, which has to be exported.

    Raises
    ------
    InputError
        If the file is missing or not one that we can run, options are given that it cannot have, or
        those of the network are wrong.
    """
    if reference.lower().endswith(ENDING):
        path, content = read_content(reference, "backbone file", EXPORT_COMMAND, BackboneError)
        kind = read_metadata(parse_onnx(path, content)).get(PREFIX + "kind")
        if kind is not None:  # else a network in ONNX
            loaded = load_backbone(reference)
            if kind == KIND and options != ExportOptions():
                raise BackboneError(
                    f"{reference} is a backbone file, which is used as it was exported",
                    "Leave out the options of the network, such as --size, or name the network.",
                )
            return loaded
    from headstart.export.backbone.build import check_options

    check_options(reference, options.network, options.features, options.precision, options.sound)
    return None


def calibrated_on(reference: str, options: ExportOptions, source: Any) -> ExportOptions:
    """The options, with int8 calibrated on a source where nothing else is named."""
    precision = options.precision
    named = isinstance(source, str | os.PathLike)
    if precision.precision != "int8" or precision.calibrate is not None or not named:
        return options
    from headstart.export.text.build import is_text

    if is_text(reference):  # which needs none
        return options
    return replace(options, precision=replace(precision, calibrate=os.fspath(source)))


def made_from(reference: str, options: ExportOptions, given: Backbone | None) -> dict[str, Any]:
    """What decides the contents of a backbone file: names, options, and digests of files."""
    if given:
        return {"backbone": given.fingerprint.sha256}
    place = Path(reference.removeprefix("words:"))
    files = [place] if place.exists() else []
    if options.network.weights_file:
        files.append(options.network.weights_file)
    named = place.name if place.exists() else reference
    chosen: list[Any] = [options.network, options.features]
    if (options.precision, options.sound) != (PrecisionOptions(), None):
        chosen += [options.precision, options.sound]
    return {"network": named, "files": digest_of(*files), "options": chosen}


def write_backbone(
    path: Path, reference: str, options: ExportOptions, given: Backbone | None
) -> None:
    """Write a backbone file: a copy of the given one, or the network exported."""
    if given:
        write_whole(path, given.content)
        return
    from headstart.export.backbone.build import export_backbone

    with console.status(f"building, converting and checking {reference}"):
        written = export_backbone(
            *(path, reference, options.network, options.features, options.precision),
            overwrite=True,
            sound=options.sound,
        )
    for warning in written.warnings:
        console.note(f"warning: {warning}")


def cached_backbone(reference: str, options: ExportOptions) -> Backbone:
    """The backbone file that is named, or the named network's, exported once and kept."""
    given = backbone_file(reference, options)
    if given:
        return given
    key = key_of(made_from(reference, options, given))
    path = cache_folder("backbones", f"{key}{ENDING}")
    if not path.exists():  # it was written whole, and under a name that says what it is
        write_backbone(path, reference, options, given)
    return load_backbone(path)


def find_backbone(model: Model, given: str | Path | None = None) -> Backbone:
    """The backbone of a model: the given file, or one near the model with its fingerprint.

    Looked for beside the model and its features, in both, in the current folder and in the cache.

    Raises
    ------
    BackboneError, ModelError
        If the given file is not it, or none is found.
    """
    wanted = model.card.fingerprint
    if given is not None:
        loaded = load_backbone(given)
        model.require(
            wanted if wanted in loaded.makes else loaded.fingerprint,
            f"the backbone {given}",
            "Name the backbone that the features were extracted with.",
        )
        return loaded
    folders = _near(model)
    for file in _onnx_files(folders):
        if digest(file.read_bytes()) == wanted.sha256:
            return load_backbone(file)
    looked = ", ".join(console.place(folder) or "." for folder in folders)
    raise ModelError(
        f"the backbone of {model.folder} was not found: {wanted}",
        f"Name it: --backbone FILE. There is none of this fingerprint in {looked}.",
    )


def _near(model: Model) -> list[Path]:
    own = Path(model.folder.path())
    folders = [own.parent, own]
    try:
        features = local_path(model.card.features)
    except InputError:  # in object storage
        features = None
    if features:
        folders += [features.parent, features]
    folders += [Path.cwd(), cache_folder("backbones")]
    return [folder for folder in dict.fromkeys(folders) if folder.is_dir()]


def _onnx_files(folders: Iterable[Path]) -> Iterable[Path]:
    for folder in folders:
        yield from sorted(folder.glob(f"*{ENDING}"))[:MOST_FILES]
