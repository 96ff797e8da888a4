"""Embeddings in Python: `extract`, and the object that it returns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from headstart.backbones import CHOSEN, cached_backbone, calibrated_on
from headstart.cache import cache_folder, key_of
from headstart.data.contracts.backbone import Backbone
from headstart.data.contracts.store import FeatureStore, embeddings_of
from headstart.data.source_options import SourceOptions
from headstart.data.storage.files import write_whole
from headstart.export.arguments import NetworkArguments, SoundArguments
from headstart.export.options import ExportOptions
from headstart.extract import job
from headstart.extract.cli import ExtractArguments
from headstart.parameters import public, taken
from headstart.results import Rows
from headstart.tables import as_source


class Features(Rows):
    """A feature store, opened: the embeddings of a source, and what belongs to them.

    Attributes
    ----------
    store
        As the rooms use it.
    backbone
        The backbone file that made them, if it is known here.
    """

    def __init__(self, store: FeatureStore, backbone: Path | None = None) -> None:
        self.store, self.backbone = store, backbone
        self._table: pa.Table | None = None

    @property
    def folder(self) -> str:
        """Where it is."""
        return str(self.store.folder)

    @property
    def classes(self) -> tuple[str, ...]:
        """The distinct labels, sorted."""
        return self.store.manifest.classes

    @property
    def dim(self) -> int:
        """Width of the embeddings."""
        return self.store.fingerprint.dim

    def __len__(self) -> int:
        """How many examples have an embedding."""
        return self.store.manifest.rows

    def to_arrow(self) -> pa.Table:
        """All rows: `id`, `path`, `content`, `label`, `split`, `group`, `embedding` and more."""
        if self._table is None:
            self._table = self.store.read()
        return self._table

    @property
    def embeddings(self) -> np.ndarray:
        """Float32 `[examples, dim]`."""
        return embeddings_of(self.to_arrow())

    @property
    def labels(self) -> np.ndarray:
        """Text, object `[examples]`; None for an example without a label."""
        return self.to_arrow()["label"].to_numpy(zero_copy_only=False)

    @property
    def errors(self) -> pa.Table:
        """Examples that failed: `id`, `stage`, `reason`, `message`, `stamp`, `path`."""
        return self.store.read_errors()

    def __repr__(self) -> str:
        """Counts, backbone and place."""
        failed = self.store.manifest.errors
        return (
            f"Features({len(self):,} x {self.dim} by {self.store.fingerprint.backbone}, "
            f"{len(self.classes)} classes, {failed:,} failed, in {self.folder})"
        )


@public
def extract(
    source: Any,
    backbone: str | Path = CHOSEN,
    output: str | Path | None = None,
    *,
    words: str | Path | None = None,
    weights: str = "imagenet",
    layer: Sequence[str] = (),
    pool: Sequence[str] = (),
    power: bool = False,
    views: str = "none",
    size: int | None = None,
    resize: str | None = None,
    interpolation: str | None = None,
    crop_fraction: float | None = None,
    include_top: bool = False,
    scaling: str | None = None,
    input: str | None = None,
    trust: bool = False,
    tokens: int | None = None,
    most_words: int | None = None,
    backbone_precision: str = "fp32",
    calibrate: str | None = None,
    sound: str | None = None,
    rate: int | None = None,
    window: float | None = None,
    hop: float | None = None,
    short: str | None = None,
    silence: float | None = None,
    frame: float | None = None,
    step: float | None = None,
    bands: int | None = None,
    text_column: str | None = None,
    path_column: str | None = None,
    label_column: str | None = None,
    root: str | Path | None = None,
    allow_outside: bool = False,
    workers: int | None = None,
    address: str | None = None,
    batch_size: int = 16,
    precision: str | None = None,
    engine: str | None = None,
    stall_after: float = 300,
    max_bad: float = 0.05,
    allow_unlabelled: bool = False,
    corrections: str | Path | None = None,
    retry_failed: bool = False,
    prune: bool | None = None,
    rehash: bool = False,
    moved_from: str | None = None,
) -> Features:
    """Embed the files of a source; nothing is embedded twice.

    Parameters
    ----------
    source
        A folder with a folder for each class, a manifest, an archive or a Parquet file, by path or
        address; or a table of pandas, Polars, Arrow or datasets, with a column `path`, or with
        pictures.
    backbone
        A backbone file, or a network as `export backbone` takes it, which is exported once and
        kept in the cache.
    output
        Folder of the feature store; in the cache, by source and backbone, if not given.
    words
        A file of word vectors, instead of a backbone.
    weights, layer, pool, power, views, size, resize, interpolation, crop_fraction, include_top
        Of a network, as for `python -m export backbone`.
    scaling, input, trust, tokens, most_words
        The same, for files and for texts.
    sound, rate, window, hop, short, silence, frame, step, bands
        The same, for recordings.
    backbone_precision, calibrate
        Precision of the backbone file, the `precision` of `export backbone`; int8 is calibrated on
        the source if nothing else is named.
    text_column, path_column, label_column, root, allow_outside
        Where the source has its columns and files, as for `python -m extract`.
    max_bad, allow_unlabelled, corrections, retry_failed, rehash, moved_from
        As for `python -m extract`.
    workers, address, batch_size, precision, engine, stall_after
        Where and how it runs, as for `python -m extract`.
    prune
        Drop examples that the source no longer has; by default only in the cache.

    Raises
    ------
    InputError
        With everything that is wrong with source, backbone and output, before any work.
    TooManyBadError
        If a larger share than `max_bad` failed; the features are kept.
    ExtractionError
        If the work cannot continue; what was done is kept.
    """
    given = locals()  # by the names that the commands have
    kept = output is None
    reading = taken(SourceOptions, given | {"root": None if root is None else str(root)})
    networks = taken(NetworkArguments, given)
    arguments = taken(ExtractArguments, given | {"prune": kept if prune is None else prune})
    chosen = None if words and backbone == CHOSEN else str(backbone)
    named = networks.named(chosen, "backbone")
    export = ExportOptions(
        networks.network,
        networks.embedding,
        networks.lower(backbone_precision),
        taken(SoundArguments, given).options(),
    )
    options = replace(arguments.options(precision), corrections=corrections)
    made = cached_backbone(named, calibrated_on(named, export, source))
    opened = as_source(source, allow_unlabelled, made.spec.modality, reading)
    if output is None:
        key = key_of(opened.path, made.fingerprint.sha256, precision)
        output = cache_folder("features", key)
        _keep(made)
    job.extract(opened, made.path, output, options, arguments.update).check(max_bad)
    return Features(FeatureStore.open(output), Path(made.path))


def _keep(made: Backbone) -> None:
    """Keep the backbone of cached features, so that models find it wherever it came from."""
    path = cache_folder("backbones", f"{made.fingerprint.sha256}.onnx")
    if not path.exists() and Path(made.path).parent != path.parent:
        write_whole(path, made.content)


def features_of(value: Any) -> Features:
    """Features as they are, or opened from the path or address of a feature store."""
    return value if isinstance(value, Features) else Features(FeatureStore.open(value))
