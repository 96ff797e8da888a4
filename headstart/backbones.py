"""Backbones by what a person names (a file, or a network to export), or by their fingerprint."""

from __future__ import annotations

from collections.abc import Iterable
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
from headstart.export.options import BackboneOptions, FeatureOptions
from headstart.work_folder import digest_of

CHOSEN = "efficientnet_lite0"  # where nobody chooses
ENDING = ".onnx"
MOST_FILES = 200  # ONNX files of a folder that are looked at


def backbone_file(
    reference: str,
    network: BackboneOptions = BackboneOptions(),
    embedding: FeatureOptions = FeatureOptions(),
) -> Backbone | None:
    """The backbone file that is named; None if a network is, which has to be exported.

    Raises
    ------
    BackboneError
        If the file is missing or not one that we can run, or options are given that it cannot have.
    """
    if not reference.lower().endswith(ENDING):
        network.check()
        embedding.check()
        return None
    path, content = read_content(reference, "backbone file", EXPORT_COMMAND, BackboneError)
    kind = read_metadata(parse_onnx(path, content)).get(PREFIX + "kind")
    if kind is None:  # a network in ONNX
        network.check()
        embedding.check()
        return None
    loaded = load_backbone(reference)
    if kind == KIND and (network, embedding) != (BackboneOptions(), FeatureOptions()):
        raise BackboneError(
            f"{reference} is a backbone file, which is used as it was exported",
            "Leave out the options of the network, such as --size, or name the network.",
        )
    return loaded


def made_from(
    reference: str, network: BackboneOptions, embedding: FeatureOptions, given: Backbone | None
) -> dict[str, Any]:
    """What decides the contents of a backbone file: names, options, and digests of files."""
    if given:
        return {"backbone": given.fingerprint.sha256}
    files = [Path(reference)] if Path(reference).exists() else []
    if network.weights_file:
        files.append(network.weights_file)
    named = reference if not Path(reference).exists() else Path(reference).name
    return {"network": named, "files": digest_of(*files), "options": [network, embedding]}


def write_backbone(
    path: Path,
    reference: str,
    network: BackboneOptions,
    embedding: FeatureOptions,
    given: Backbone | None,
) -> None:
    """Write a backbone file: a copy of the given one, or the network exported."""
    if given:
        write_whole(path, given.content)
        return
    from headstart.export.backbone.build import export_backbone

    with console.status(f"building, converting and checking {reference}"):
        written = export_backbone(path, reference, network, embedding, overwrite=True)
    for warning in written.warnings:
        console.note(f"warning: {warning}")


def cached_backbone(
    reference: str, network: BackboneOptions, embedding: FeatureOptions
) -> Backbone:
    """The backbone file that is named, or the named network's, exported once and kept."""
    given = backbone_file(reference, network, embedding)
    if given:
        return given
    key = key_of(made_from(reference, network, embedding, given))
    path = cache_folder("backbones", f"{key}{ENDING}")
    if not path.exists():  # it was written whole, and under a name that says what it is
        write_backbone(path, reference, network, embedding, given)
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
