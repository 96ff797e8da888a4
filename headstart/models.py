"""Models in Python: `train`, `fit`, `load`, and the objects that they return."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from headstart.arrays import array_store, rows_of
from headstart.backbones import find_backbone
from headstart.cache import cache_folder, key_of
from headstart.classify import training
from headstart.classify.heads.calibration import AnswerOptions
from headstart.classify.heads.estimators import HeadOptions
from headstart.classify.heads.fitting import FitOptions
from headstart.classify.prediction.edge import PredictOptions
from headstart.classify.prediction.features import answer_rows, answer_store, is_edge_model
from headstart.classify.splits.splitting import SplitOptions
from headstart.data.common.errors import Checklist, ModelError
from headstart.data.contracts import model as contract
from headstart.data.contracts.edge import Edge, load_edge
from headstart.data.contracts.store import MANIFEST
from headstart.data.examples.source import Source
from headstart.data.source_options import SourceOptions
from headstart.data.storage.files import digest
from headstart.data.storage.places import folder_at
from headstart.export.edge.classifier import export_classifier
from headstart.export.options import EdgeOptions, GateOptions
from headstart.features import Features, features_of
from headstart.parameters import public
from headstart.predicting import answer, open_classifier
from headstart.results import Confusion, Predictions, Scores
from headstart.tables import as_source, is_table
from headstart.work_folder import digest_of


class EdgeModel:
    """An edge model, opened: backbone and head in one ONNX file.

    Attributes
    ----------
    edge
        As the rooms use it.
    """

    def __init__(self, edge: Edge) -> None:
        self.edge = edge

    @property
    def path(self) -> str:
        """Where it is."""
        return self.edge.path

    @property
    def classes(self) -> tuple[str, ...]:
        """In the order of the probabilities."""
        return self.edge.classes

    @public
    def predict(
        self,
        source: Any,
        *,
        workers: int | None = None,
        address: str | None = None,
        **reading: Any,
    ) -> Predictions:
        """Classify files.

        Parameters
        ----------
        source
            A file, a folder, a manifest, an archive, a Parquet file, a list of these, or a table.
        workers, address
            To use Ray; by default it is used for many files only.
        reading
            `text_column`, `path_column`, `label_column`, `root`, `allow_outside`, as for `extract`.

        Returns
        -------
        Predictions
            A row for each example; `to_arrow()`, `to_pandas()`, `to_polars()`, `to_dataset()`.

        Raises
        ------
        InputError
            With everything that is wrong with the source, before any work.
        PredictionError
            If the work cannot go on.
        """
        options = PredictOptions(address=address, workers=workers)
        return Predictions(answer(self.edge, _inputs(source, self.edge, reading), options))

    def __repr__(self) -> str:
        """Backbone, classes, size and place."""
        size = len(self.edge.content) / 1e6
        return (
            f"EdgeModel({self.edge.spec.name}, {len(self.classes)} classes, {size:.1f} MB, "
            f"in {self.path})"
        )


def _inputs(source: Any, edge: Edge, reading: Mapping[str, Any]) -> list[Any]:
    options = SourceOptions(**reading)
    if is_table(source):
        return [as_source(source, True, edge.spec.modality, options)]
    named = source if isinstance(source, list | tuple) else [source]
    return [each if isinstance(each, Source) else options.address(each) for each in named]


class Model:
    """A model folder, opened: a head with its scores.

    Attributes
    ----------
    opened
        As the rooms use it.
    backbone
        The backbone file of its features, if it is known here; looked for otherwise.
    """

    def __init__(self, opened: contract.Model, backbone: Path | None = None) -> None:
        self.opened, self.backbone = opened, backbone
        self._joined: Edge | None = None

    @property
    def folder(self) -> str:
        """Where it is."""
        return str(self.opened.folder)

    @property
    def classes(self) -> tuple[str, ...]:
        """In the order of the probabilities."""
        return self.opened.card.classes

    @property
    def report(self) -> Path | None:
        """The report for people, an HTML file, if it was written."""
        path = Path(self.opened.folder.path(contract.REPORT))
        return path if path.exists() else None

    @property
    def scores(self) -> Scores:
        """Scores on the held-out examples."""
        return Scores.from_json(self.opened.card.metrics["test"])

    @property
    def confusion(self) -> Confusion:
        """Confusion matrix on the held-out examples, counts int64 `[classes, classes]`."""
        counts = np.array(self.opened.card.metrics["test"]["confusion"], np.int64)
        return Confusion(self.classes, counts if counts.size else np.zeros((0, 0), np.int64))

    def examples(self) -> pa.Table:
        """All examples with their split, and the answers for those that were not trained on."""
        return self.opened.examples()

    @public
    def predict(
        self,
        source: Any,
        *,
        backbone: str | Path | None = None,
        workers: int | None = None,
        address: str | None = None,
        **reading: Any,
    ) -> Predictions:
        """Classify embeddings or files.

        Parameters
        ----------
        source
            An array of embeddings, float `[examples, dim]`; `Features`, or the path of a feature
            store; or what `EdgeModel.predict` takes.
        backbone
            For files: the backbone file of the features; found by its fingerprint beside model and
            features, in the current folder or in the cache if not given.
        workers, address, reading
            For files: see `EdgeModel.predict`.

        Returns
        -------
        Predictions
            As of `EdgeModel.predict`; without `error` for embeddings.

        Raises
        ------
        InputError
            If the source cannot be used, was made with another backbone, or the backbone is not
            found.
        """
        if isinstance(source, np.ndarray):
            rows = rows_of(source, self.opened.card.fingerprint.dim)
            return Predictions(answer_rows(self.opened, rows))
        if isinstance(source, Features) or _is_store(source):
            store = features_of(source).store
            self.opened.require(
                store.fingerprint,
                f"the features {store.folder}",
                "Train on these features, or extract with the backbone of the model.",
            )
            return Predictions(answer_store(self.opened, store))
        if self._joined is None or backbone is not None:
            self._joined = open_classifier(self.opened, backbone or self._known())
        options = PredictOptions(address=address, workers=workers)
        return Predictions(answer(self._joined, _inputs(source, self._joined, reading), options))

    def _known(self) -> Path | None:
        return self.backbone if self.backbone and self.backbone.exists() else None

    @public
    def export(
        self,
        output: str | Path,
        *,
        backbone: str | Path | None = None,
        any_size: bool = False,
        top: int = 0,
        examples: int = 128,
        tolerance: float = 1e-3,
        most_changed: int = 0,
        source: str | Path | None = None,
        overwrite: bool = False,
    ) -> EdgeModel:
        """Write backbone and head as one ONNX file, compared with training before it appears.

        Parameters
        ----------
        output
            The file; `NAME.labels.json` is written beside it.
        backbone
            As for `predict`.
        any_size, top, examples, tolerance, most_changed, source, overwrite
            As for `python -m export classifier`.

        Raises
        ------
        InputError
            If model, backbone, output and options do not fit.
        ParityError
            If it differs from training; nothing is written.
        """
        found = find_backbone(self.opened, backbone or self._known())
        edge = export_classifier(
            self.folder,
            found.path,
            output,
            EdgeOptions(any_size, top, overwrite),
            GateOptions(examples, tolerance, most_changed, source),
        )
        return EdgeModel(load_edge(edge.path))

    def __repr__(self) -> str:
        """Head, classes, accuracy and place."""
        scores = self.scores
        return (
            f"Model({self.opened.card.head['name']}, {len(self.classes)} classes, accuracy "
            f"{scores.accuracy:.4f} on {scores.examples:,} held-out examples, in {self.folder})"
        )

    def _repr_html_(self) -> str:
        from html import escape

        return f"<p>{escape(repr(self))}</p>{self.scores._repr_html_()}"


def _is_store(source: Any) -> bool:
    return isinstance(source, str | os.PathLike) and folder_at(os.fspath(source)).exists(MANIFEST)


@public
def train(
    features: Features | str | Path,
    head: str = "logistic",
    output: str | Path | None = None,
    *,
    param: Mapping[str, float | int | str] | None = None,
    class_weight: str | None = None,
    calibration: str = "temperature",
    precision: float | None = None,
    coverage: float | None = None,
    test_size: float = 0.25,
    repeats: int = 0,
    samples_per_class: int | None = None,
    group: str = "",
    split_of: str = "",
    seed: int = 0,
    report: bool = True,
    memory: float | None = None,
    corrections: str | Path | None = None,
    backbone: str | Path | None = None,
    overwrite: bool = False,
) -> Model:
    """Train a head on features, and score it once on held-out examples.

    Parameters
    ----------
    features
        Or the path or address of a feature store.
    head
        `logistic`, `linear-svm`, `rbf-svm`, `knn`, `ridge`, `lda`, `boosting` or `keras`; `auto`
        tries all; `package.module:factory` is a scikit-learn classifier of yours.
    output
        Model folder; in the cache, by features and options, if not given: then the same training is
        not done twice.
    param
        Parameters of the head by name, such as `{"c": 0.1}`.
    class_weight, calibration, precision, coverage
        Of the head and its answers, as for `python -m classify train`.
    test_size, repeats, samples_per_class, group, split_of, seed
        Of the split.
    report, memory, corrections, overwrite
        As for `python -m classify train`; `memory` in gigabytes.
    backbone
        The backbone file of the features (`features.backbone`), if the report is to show where the
        head looked in photographs; this takes up to half a minute.

    Raises
    ------
    InputError
        If features, labels, options or output cannot be used.
    ParityError
        If the head's ONNX form differs from the estimator.
    """
    checks = Checklist()
    with checks.item():
        heads = HeadOptions(head, dict(param or {}), class_weight)
    with checks.item():
        answers = AnswerOptions(calibration, precision, coverage)
    with checks.item():
        splits = SplitOptions(test_size, seed, repeats, samples_per_class, group, str(split_of))
    kept = output is None
    with checks.item():
        bytes_ = None if memory is None else int(memory * 1e9)
        run = training.RunOptions(overwrite or kept, report, bytes_, corrections, backbone)
    with checks.item():
        given = features_of(features)
    checks.finish()
    options = FitOptions(heads, answers, seed)
    if output is None:
        state = digest(given.store.folder.read(MANIFEST))
        more = [] if corrections is None else [digest_of(Path(corrections))]
        more += [] if backbone is None else ["looks"]
        key = key_of(given.folder, state, options, splits, report, *more)
        output = cache_folder("models", key)
        if not overwrite and (known := _opened(output)):
            return Model(known, given.backbone)
    trained = training.train(given.folder, output, options, splits, run)
    return Model(trained.model, given.backbone)


def _opened(path: Path) -> contract.Model | None:
    """The model at a place of the cache, if there is a whole one."""
    try:
        return contract.Model.open(path)
    except ModelError:
        return None


@public
def fit(
    X: Any,
    y: Any,
    groups: Any = None,
    head: str = "logistic",
    output: str | Path | None = None,
    **options: Any,
) -> Model:
    """Train a head on arrays that are there already, as `train` does on features.

    Parameters
    ----------
    X
        Numbers `[examples, dim]`, such as embeddings of another program; taken as float32.
    y
        Labels `[examples]`, text or numbers; None for an example to predict.
    groups
        Examples of one group are never on both sides of a split: `[examples]`, if there are any.
    head, output, options
        As for `train`; there is no report, since there is nothing to show of the examples.

    Raises
    ------
    InputError
        If the arrays do not fit each other, or cannot be trained on.
    """
    store = array_store(X, y, groups)
    trained: Model = train(Features(store), head, output, report=False, **options)
    return trained


@public
def load(path: str | Path) -> Model | EdgeModel | Features:
    """Open what headstart has written: a model folder, an edge model, or a feature store.

    Raises
    ------
    ModelError, StoreError
        If there is none of them, or it is damaged.
    """
    if is_edge_model(path):
        return EdgeModel(load_edge(path))
    if _is_store(path):
        return features_of(path)
    return Model(contract.Model.open(path))
