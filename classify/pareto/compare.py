"""Compare backbones, layers and precisions: feature stores of the same examples, by the accuracy of
a light head and the cost of the embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from headstart.classify.features.batches import check_finite
from headstart.classify.features.loading import COLUMNS, memory_budget, memory_needed
from headstart.classify.heads.estimators import HeadOptions
from headstart.classify.heads.folds import fit_head
from headstart.classify.pareto.candidates import Candidate, Cost, Pareto, pareto_optimal
from headstart.classify.splits.held_out import Training
from headstart.classify.splits.splitting import (
    Labelled,
    Split,
    SplitOptions,
    labelled,
    stratified_splits,
)
from headstart.data.common import console
from headstart.data.common.errors import Checklist, InputError, StoreError
from headstart.data.common.speed import images_per_second
from headstart.data.contracts.backbone import Backbone, load_backbone
from headstart.data.contracts.store import FeatureStore, embeddings_of, open_part
from headstart.data.storage.files import check_output, local_path

REPEATS = 5
SECONDS = 2.0  # of timing each backbone
PLOTS = (".png", ".svg", ".html")
SAME = ("id", "label", "content")  # columns that must be the same in all stores
EXTRACT_AGAIN = "Extract both from the same source; if examples failed, again with --retry-failed."


def pareto(
    stores: Sequence[str | Path],
    backbones: Sequence[str | Path] = (),
    seed: int = 0,
    output: str | Path | None = None,
    overwrite: bool = False,
) -> Pareto:
    """Score the default head on each store, over the same five stratified 75/25 splits.

    The accuracy equals that of `classify train --repeats 5`, except for the order of the examples.

    Parameters
    ----------
    backbones
        The backbone files that the stores were extracted with, in any order; of all stores or none.
    output
        A plot to write: `.png`, `.svg` or `.html`.

    Raises
    ------
    InputError
        If a store or backbone cannot be used, the stores hold different examples or labels,
        a backbone does not match any store, or the plot cannot be written.
    """
    checks = Checklist()
    with checks.item():
        splits = SplitOptions(seed=seed, repeats=REPEATS)
    with checks.item():
        path = None if output is None else plot_path(output, overwrite)
    opened, files = [], []
    for place in stores:
        with checks.item():
            opened.append(open_store(place))
    for place in backbones:
        with checks.item():
            files.append(load_backbone(place))
    if len(opened) == len(stores) and len(files) == len(backbones):
        with checks.item():
            matched = _match(stores, opened, backbones, files)
    checks.finish()
    found, data, how = score_stores(stores, opened, splits)
    if backbones:
        found = _with_costs(found, matched)
    if path is not None:
        from headstart.classify.pareto.plot import write_plot  # takes a second to import

    result = Pareto(_ranked(found), len(data.labels), len(data.classes), REPEATS, how)
    if path is not None:
        write_plot(result, path)
    return result


def score_stores(
    places: Sequence[str | Path], stores: Sequence[FeatureStore], splits: SplitOptions
) -> tuple[list[Candidate], Labelled, str]:
    """The accuracy of the default head on stores of the same examples, over the same splits.

    Returns
    -------
    The candidates, the examples that all have, and how they were divided, as text.

    Raises
    ------
    StoreError
        If the stores do not hold the same labelled examples.
    """
    data = _common_examples(places, stores)
    divided = list(stratified_splits(data, splits, REPEATS))
    return _score(places, stores, data, divided), data, divided[0].how


def plot_path(output: str | Path, overwrite: bool) -> Path:
    """Where a plot is written; raises `InputError` if it cannot be."""
    path = local_path(output)
    if path.suffix.lower() not in PLOTS:
        raise InputError(
            f"{output} is not a plot that can be written", f"Choose from {', '.join(PLOTS)}."
        )
    check_output(path, overwrite)
    return path


def open_store(path: str | Path) -> FeatureStore:
    """A store that fits into memory; raises `StoreError`."""
    store = FeatureStore.open(path)
    if memory_needed(store) > memory_budget():
        raise StoreError(
            f"comparing {path} takes {console.human_bytes(memory_needed(store))} of memory, and "
            f"there are {console.human_bytes(memory_budget())}",
            "Extract a part of the examples for the comparison.",
        )
    return store


def _match(
    places: Sequence[str | Path],
    stores: Sequence[FeatureStore],
    names: Sequence[str | Path],
    files: Sequence[Backbone],
) -> list[Backbone]:
    """The backbone of each store; empty if no backbones are given."""
    if not files:
        return []
    by_fingerprint = {fingerprint: file for file in files for fingerprint in file.makes}
    made = {store.fingerprint for store in stores}
    checks = Checklist()
    for name, file in zip(names, files, strict=True):
        with checks.item():
            if made.isdisjoint(file.makes):
                raise InputError(
                    f"no store was made with the backbone {name}: {file.fingerprint}",
                    "Leave it out, or name the store.",
                )
    for place, store in zip(places, stores, strict=True):
        with checks.item():
            if store.fingerprint not in by_fingerprint:
                raise InputError(
                    f"the backbone of {place} is not given: {store.fingerprint}",
                    "Name it with --backbone, or leave all of them out: a store without a speed "
                    "cannot be compared.",
                )
    checks.finish()
    return [by_fingerprint[store.fingerprint] for store in stores]


def _common_examples(places: Sequence[str | Path], stores: Sequence[FeatureStore]) -> Labelled:
    """The labelled examples, sorted by id so that all stores get the same splits."""
    first = None
    checks = Checklist()
    for place, store in zip(places, stores, strict=True):
        table = store.read(list(COLUMNS))
        table = table.filter(pc.is_valid(table["label"])).sort_by("id")
        if first is None:
            first = table
            continue
        with checks.item():
            if differences := _differences(first.select(SAME), table.select(SAME)):
                raise StoreError(
                    f"{places[0]} and {place} do not hold the same labelled examples: "
                    f"{'; '.join(differences)}",
                    EXTRACT_AGAIN,
                )
    checks.finish()
    return labelled(first)


def _differences(first: pa.Table, other: pa.Table) -> list[str]:
    if first.equals(other):
        return []
    a, b = (
        {row["id"]: (row["label"], row["content"]) for row in table.to_pylist()}
        for table in (first, other)
    )
    both = sorted(a.keys() & b.keys())
    kinds = {
        "only in the first": sorted(a.keys() - b.keys()),
        "only in the second": sorted(b.keys() - a.keys()),
        "with another label": [name for name in both if a[name][0] != b[name][0]],
        "with other bytes": [name for name in both if a[name][1] != b[name][1]],
    }
    return [
        f"{len(names):,} {what}, such as {names[0]!r}" for what, names in kinds.items() if names
    ]


def _score(
    places: Sequence[str | Path],
    stores: Sequence[FeatureStore],
    data: Labelled,
    splits: Sequence[Split],
) -> list[Candidate]:
    head, found, unfinished = HeadOptions(), [], []
    with console.progress("training", len(stores) * len(splits)) as advance:
        for place, store in zip(places, stores, strict=True):
            everything = Training(data.classes, _embeddings(store), data.labels, data.groups)
            scores = []
            for number, split in enumerate(splits):
                estimator, converged = fit_head(head, everything.take(split.train), number)
                test = everything.take(split.test)
                scores.append(float((estimator.predict(test.embeddings) == test.labels).mean()))
                unfinished += [] if converged else [str(place)]
                advance(1)
            found.append(
                Candidate(
                    store=str(place),
                    fingerprint=store.fingerprint,
                    accuracy=float(np.mean(scores)),
                    std=float(np.std(scores, ddof=1)),
                    bytes_per_example=_bytes(store) / store.manifest.rows,
                )
            )
    for place in dict.fromkeys(unfinished):
        console.note(f"the head on {place} did not converge in every split")
    return found


def _embeddings(store: FeatureStore) -> np.ndarray:
    """Embeddings of the labelled examples, sorted by id, float32 `[examples, dim]`."""
    table = store.read(["id", "label", "embedding"])
    table = table.filter(pc.is_valid(table["label"]))
    embeddings = embeddings_of(table)[pc.sort_indices(table["id"]).to_numpy()]
    check_finite(store, embeddings)
    return embeddings


def _bytes(store: FeatureStore) -> int:
    """Bytes of the embeddings in the store's files."""
    total = 0
    for part in store.manifest.parts:
        if (file := part.rows_file) is None:
            continue
        about = store.folder.attempt(partial(_footer, store, file))
        for group in map(about.row_group, range(about.num_row_groups)):
            columns = map(group.column, range(group.num_columns))
            total += sum(
                column.total_compressed_size
                for column in columns
                if column.path_in_schema.split(".")[0] == "embedding"
            )
    return total


def _footer(store: FeatureStore, file: str) -> pq.FileMetaData:
    return pq.read_metadata(open_part(store.folder, file))


def _with_costs(found: list[Candidate], matched: Sequence[Backbone]) -> list[Candidate]:
    """Candidates with size and speed of their backbones; each backbone is timed once."""
    distinct = list({file.fingerprint: file for file in matched}.values())
    with console.status(f"timing {len(distinct)} backbones on one thread"):
        contents = [file.content for file in distinct]
        speeds = images_per_second(contents, SECONDS * len(distinct))
    costs = {
        file.fingerprint: Cost(
            file.path, file.spec.layers, file.spec.pooling, len(file.content), speed
        )
        for file, speed in zip(distinct, speeds, strict=True)
    }
    pairs = zip(found, matched, strict=True)
    return [replace(each, cost=costs[file.fingerprint]) for each, file in pairs]


def _ranked(found: Sequence[Candidate]) -> tuple[Candidate, ...]:
    """Sorted by accuracy, the highest first, with the Pareto-optimal ones marked."""
    order = sorted(found, key=lambda each: each.merits, reverse=True)
    best = pareto_optimal([each.merits for each in order])
    return tuple(replace(each, best=mark) for each, mark in zip(order, best, strict=True))
