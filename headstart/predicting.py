"""Answers for one or some files, at once: an edge model, or a model folder with its backbone."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

import pyarrow as pa

from headstart.backbones import find_backbone
from headstart.classify.prediction.edge import PredictOptions, answer_source
from headstart.classify.prediction.features import is_edge_model
from headstart.data.common.errors import Checklist, InputError, SourceError
from headstart.data.contracts.edge import Edge, load_edge, read_edge
from headstart.data.contracts.model import Model
from headstart.data.contracts.store import is_store
from headstart.data.examples.opening import FILES, open_source, split_source
from headstart.data.examples.source import COLUMNS, Source
from headstart.data.modalities.modality import Modality
from headstart.data.source_options import SourceOptions
from headstart.data.storage.folder import Folder
from headstart.data.storage.local import LocalFolder
from headstart.data.storage.places import folder_at, folder_holding

SMALL = 256  # examples that are classified sooner than workers have started
ROOT = LocalFolder("/")


def open_classifier(model: str | Path | Model, backbone: str | Path | None = None) -> Edge:
    """What takes files and answers: an edge model, or a model folder joined with its backbone.

    Parameters
    ----------
    backbone
        The backbone file of a model folder; looked for if not given, see `find_backbone`.

    Raises
    ------
    BackboneError, ModelError
        If there is no such model, its backbone is not found, or is given for an edge model.
    """
    if isinstance(model, Model) or not is_edge_model(model):
        from headstart.export.edge.classifier import fuse

        opened = model if isinstance(model, Model) else Model.open(model)
        return read_edge(str(opened.folder), fuse(find_backbone(opened, backbone), opened))
    if backbone is not None:
        raise InputError(
            f"--backbone cannot be used with the edge model {model}, which has its own inside",
            "Leave it out.",
        )
    return load_edge(model)


def answer(
    edge: Edge,
    inputs: Sequence[str | Path | Source],
    options: PredictOptions = PredictOptions(),
) -> pa.Table:
    """The predictions for files and sources, in their order.

    Up to `SMALL` examples are classified in this process; more go to workers, as they do if
    `options` names workers or a cluster.

    Parameters
    ----------
    inputs
        Files of the edge model's modality; folders, manifests, archives and Parquet files of such;
        opened sources.

    Returns
    -------
    pa.Table
        As of `classify.prediction.edge.predict_examples`; the `id` of a file is its path as given.

    Raises
    ------
    InputError
        With everything that is wrong with the inputs, before any work.
    PredictionError, StorageError, StoppedError
        If the work cannot go on, or the user stopped it.
    """
    sources = list(_sources(edge.spec.modality, inputs))
    total = sum(map(len, sources))
    here = total <= SMALL and options.workers is None and options.address is None
    return pa.concat_tables([answer_source(edge, each, options, here) for each in sources])


def _sources(modality: Modality, inputs: Sequence[str | Path | Source]) -> Iterator[Source]:
    """Consecutive files of one folder become one source."""
    checks = Checklist()
    found: list[Source | tuple[Folder, str, str]] = []
    for each in inputs:
        with checks.item():
            found.append(each if isinstance(each, Source) else _named(modality, each))
    checks.finish()
    if not found:
        raise InputError(f"no {modality.plural} were named", f"Name a {modality.noun}.")
    files: list[tuple[Folder, str, str]] = []
    for one in found:
        if files and (isinstance(one, Source) or one[0] != files[0][0]):
            yield _of_files(modality, files)
            files = []
        if isinstance(one, Source):
            yield one
        else:
            files.append(one)
    if files:
        yield _of_files(modality, files)


def _named(modality: Modality, path: str | Path) -> Source | tuple[Folder, str, str]:
    """A source, or a file: its folder, its name there, and its id."""
    place, options = split_source(path)
    folder, name = folder_holding(place)
    if name and folder.is_file(name):
        if PurePosixPath(name).suffix.lower() in FILES or options != SourceOptions():
            return open_source(path, allow_unlabelled=True, modality=modality)
        if isinstance(folder, LocalFolder):
            return ROOT, str(folder.path(name)).lstrip("/"), os.fspath(path)
        return folder, name, os.fspath(path)
    inside = folder_at(place)
    if not inside.exists():
        raise SourceError(
            f"{place}: no such {modality.noun}, folder or manifest", "Check the path."
        )
    if is_store(inside):
        raise InputError(
            f"{path} is a feature store, not {modality.plural}",
            f"Use it with a model folder: python -m classify predict MODEL {path} -o OUTPUT",
        )
    return open_source(path, allow_unlabelled=True, modality=modality)


def _of_files(modality: Modality, files: Sequence[tuple[Folder, str, str]]) -> Source:
    nothing = pa.nulls(len(files), pa.string())
    columns = [[id for *_, id in files], [name for _, name, _ in files], nothing, nothing, nothing]
    return Source(
        path=str(files[0][0]),
        folder=files[0][0],
        examples=pa.table([pa.array(each, pa.string()) for each in columns], list(COLUMNS)),
        left_out={},
        modality=modality,
    )
