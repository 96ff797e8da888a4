"""Training larger than memory: the same answers as scikit-learn's from all rows at once."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, TypeVar

import numpy as np
import pyarrow as pa
import pytest
import skops.io
from sklearn.base import BaseEstimator
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from headstart.classify.features.batches import Batches
from headstart.classify.features.loading import memory_needed
from headstart.classify.streamed.logistic import LogisticOptions, fit_logistic
from headstart.classify.streamed.moments import fit_lda, fit_ridge
from headstart.data.common.errors import InputError
from headstart.data.contracts.fingerprint import Fingerprint
from headstart.data.contracts.records import PartContent, begin, finish, write_part
from headstart.data.contracts.store import ERROR_SCHEMA, FeatureStore, StoreManifest, part_schema
from headstart.data.storage.local import LocalFolder
from headstart.data.storage.places import folder_at

Result = TypeVar("Result")

DIM = 12
PRINT = Fingerprint("tiny", "ab" * 32, "8x8 squash bilinear", "fp32", DIM)
PARTS = (150, 0, 37, 400, 1, 212)  # rows; one part is empty, one larger than a batch
SIZE = 64  # of a batch


def words(call: Callable[[], object]) -> str:
    with pytest.raises(InputError) as caught:
        call()
    return str(caught.value)


def write_store(path: Path, embeddings: np.ndarray, parts: tuple[int, ...] = PARTS) -> FeatureStore:
    """A store of the embeddings in parts of these sizes; an empty part has one error."""
    folder, schema = folder_at(path), part_schema(DIM, [])
    begin(folder, PRINT, "/photos")
    records, start = [], 0
    for number, rows in enumerate(parts):
        ids = pa.array([f"{start + row}" for row in range(rows)])
        nothing = pa.nulls(rows, pa.string())
        flat = pa.array(embeddings[start : start + rows].ravel())
        embedding = pa.FixedSizeListArray.from_arrays(flat, type=schema.field("embedding").type)
        columns = [ids, ids, ids, nothing, nothing, nothing, nothing, embedding]
        errors = ERROR_SCHEMA.empty_table()
        if not rows:
            errors = pa.table(
                [["bad"], ["read"], ["missing"], ["gone"], [None], ["bad"]], ERROR_SCHEMA
            )
        name = f"part-{number:05d}-{number:012x}"
        content = PartContent(PRINT, pa.table(columns, schema=schema), errors)
        records.append(write_part(folder, name, content))
        start += rows
    finish(
        folder,
        StoreManifest(
            fingerprint=PRINT,
            source="/photos",
            root="/photos",
            classes=(),
            parts=tuple(records),
        ),
    )
    return FeatureStore.open(path)


@dataclass(frozen=True)
class Data:
    """A store, what it was made of, and the rows to train on."""

    store: FeatureStore
    embeddings: np.ndarray
    labels: np.ndarray
    chosen: np.ndarray
    classes: tuple[str, ...]

    @property
    def batches(self) -> Batches:
        return Batches(self.store, self.chosen, size=SIZE)

    @property
    def train(self) -> tuple[np.ndarray, np.ndarray]:
        return self.embeddings[self.chosen], self.labels[self.chosen]


def make(path: Path, classes: int, seed: int = 0) -> Data:
    """Classes that overlap, of unequal sizes; features of unlike scales, one of them constant."""
    random = np.random.default_rng(seed)
    rows = sum(PARTS)
    shares = np.arange(classes, 0, -1) / np.arange(classes + 1).sum()
    labels = random.choice(classes, rows, p=shares)
    means = random.normal(size=(classes, DIM))
    mixing = random.normal(size=(DIM, DIM)) * np.geomspace(0.01, 10, DIM)
    embeddings = (means[labels] + random.normal(size=(rows, DIM))) @ mixing + 3
    embeddings[:, 4] = 0.7
    embeddings = embeddings.astype(np.float32)
    chosen = random.uniform(size=rows) < 0.8
    chosen[187:300] = False  # batches in the largest part, and all of the next but one
    chosen[587:588] = False
    names = tuple(f"class {index}" for index in range(classes))
    return Data(write_store(path, embeddings), embeddings, labels, chosen, names)


@pytest.fixture(params=[2, 5], ids=["2 classes", "5 classes"])
def data(request: pytest.FixtureRequest, tmp_path: Path) -> Data:
    return make(tmp_path / "features", request.param)


# Batches


@pytest.mark.parametrize("size", [1, SIZE, 0])
def test_batches_give_the_chosen_rows_in_the_order_of_the_parts(data: Data, size: int) -> None:
    batches = Batches(data.store, data.chosen, size=size)
    for _ in range(2):
        rows, embeddings = zip(*batches, strict=True)
        assert all(0 < len(piece) <= (size or 400) for piece in rows)
        assert np.array_equal(np.concatenate(rows), np.flatnonzero(data.chosen))
        assert np.array_equal(np.concatenate(embeddings), data.embeddings[data.chosen])
        assert embeddings[0].dtype == np.float32
    assert batches.rows == data.chosen.sum()


def test_batches_are_divided_by_parts(data: Data) -> None:
    for count in (1, 2, 4, 50):
        pieces = data.batches.divided(count)
        assert len(pieces) == min(count, len(PARTS))
        rows = [row for piece in pieces for batch, _ in piece for row in batch]
        assert rows == np.flatnonzero(data.chosen).tolist()
        assert sum(piece.rows for piece in pieces) == len(rows)
    again = data.batches.divided(2)[1].divided(2)
    assert [(piece.first, piece.last) for piece in again] == [(3, 4), (4, 6)]


def test_parts_without_a_chosen_row_are_not_read(data: Data) -> None:
    Path(str(data.store.folder), "part-00003-000000000003.parquet").write_bytes(b"damaged")
    chosen = data.chosen.copy()
    chosen[187:587] = False
    rows = np.concatenate([rows for rows, _ in Batches(data.store, chosen)])
    assert np.array_equal(rows, np.flatnonzero(chosen))


def test_batches_can_be_left_early(data: Data) -> None:
    assert len(next(iter(data.batches))[0]) <= SIZE


def test_damaged_parts_are_named(data: Data) -> None:
    path = Path(str(data.store.folder), "part-00003-000000000003.parquet")
    fix = f"\n  Set it aside with: python -m data verify {data.store.folder} --repair"

    path.write_bytes(Path(str(data.store.folder), "part-00000-000000000000.parquet").read_bytes())
    assert words(lambda: list(data.batches)) == f"{path} is damaged: 150 rows instead of 400{fix}"
    path.write_bytes(
        Path(str(data.store.folder), "part-00005-000000000005.parquet").read_bytes()[:99]
    )
    assert words(lambda: list(data.batches)).startswith(f"{path} is damaged: ")


class TornFile(io.FileIO):
    """A file whose storage fails at the first read beyond its middle."""

    torn: ClassVar[list[str]] = []

    def read(self, size: int | None = -1) -> bytes:
        middle = Path(str(self.name)).stat().st_size // 2
        if self.tell() < middle < self.tell() + (size or 0) < 2 * middle and not self.torn:
            self.torn.append(str(self.name))
            raise OSError("connection reset")
        return super().read(size)


@dataclass(frozen=True)
class TornFolder(LocalFolder):
    """A folder of such files; what fails is tried again."""

    def open(self, name: str) -> pa.NativeFile:
        return pa.PythonFile(TornFile(self.path(name)), "r")

    def attempt(self, call: Callable[[], Result]) -> Result:
        try:
            return call()
        except OSError:
            return call()


def test_a_part_is_read_on_from_where_the_storage_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headstart.classify.features.batches.READ_BYTES", 2**16)
    embeddings = np.random.default_rng(0).normal(size=(60_000, DIM)).astype(np.float32)
    whole = write_store(tmp_path / "features", embeddings, (60_000,))
    store = FeatureStore(TornFolder(str(whole.folder)), whole.manifest)
    TornFile.torn.clear()
    pieces = list(Batches(store, np.ones(60_000, bool), size=10_000))
    assert len(TornFile.torn) == 1
    assert np.array_equal(np.concatenate([rows for rows, _ in pieces]), np.arange(60_000))
    assert np.array_equal(np.concatenate([piece for _, piece in pieces]), embeddings)


def test_what_training_in_memory_needs(data: Data) -> None:
    assert memory_needed(data.store) == 800 * (
        DIM * 4 * 4 + len(data.store.manifest.classes) * 8 * 3
    )


# Heads


def in_memory(data: Data, head: BaseEstimator) -> Pipeline:
    """scikit-learn's own, in double precision."""
    train, labels = data.train
    return make_pipeline(StandardScaler(), head).fit(train.astype(np.float64), labels)


def assert_same(streamed: Pipeline, expected: Pipeline, data: Data, tolerance: float) -> None:
    """The same kind of object with the same numbers, before and after it was saved."""
    for ours, theirs in zip(streamed, expected, strict=True):
        assert vars(ours).keys() == vars(theirs).keys()
        assert ours.get_params() == theirs.get_params()
        for name, value in vars(theirs).items():
            if isinstance(value, np.ndarray) and name != "n_iter_":
                scale = np.abs(value).max()
                assert getattr(ours, name) == pytest.approx(value, rel=0, abs=tolerance * scale)
    saved = skops.io.loads(skops.io.dumps(streamed), trusted=[])
    everything = data.embeddings.astype(np.float64)
    assert np.array_equal(saved.predict(everything), expected.predict(everything))


@pytest.fixture
def no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if nobody had started Ray."""
    monkeypatch.delitem(sys.modules, "ray", raising=False)


@pytest.mark.parametrize("alpha", [1.0, 100.0])
def test_ridge_is_scikit_learns(data: Data, alpha: float, no_ray: None) -> None:
    streamed = fit_ridge(data.batches, data.labels, data.classes, alpha)
    assert_same(streamed, in_memory(data, RidgeClassifier(alpha=alpha)), data, 1e-9)


@pytest.mark.parametrize("shrinkage", [0.0, 0.3, 1.0])
def test_lda_is_scikit_learns(data: Data, shrinkage: float, no_ray: None) -> None:
    streamed = fit_lda(data.batches, data.labels, data.classes, shrinkage)
    lda = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=shrinkage)
    assert_same(streamed, in_memory(data, lda), data, 1e-6)


def test_ray_adds_up_the_same(data: Data, local_ray: None) -> None:
    streamed = fit_ridge(data.batches, data.labels, data.classes)
    assert_same(streamed, in_memory(data, RidgeClassifier()), data, 1e-9)


def test_what_a_task_of_ray_finds_wrong_is_said_as_here(data: Data, local_ray: None) -> None:
    path = Path(str(data.store.folder), "part-00005-000000000005.parquet")
    path.write_bytes(Path(str(data.store.folder), "part-00000-000000000000.parquet").read_bytes())
    assert words(lambda: fit_ridge(data.batches, data.labels, data.classes)) == (
        f"{path} is damaged: 150 rows instead of 212\n"
        f"  Set it aside with: python -m data verify {data.store.folder} --repair"
    )


# tight, since two runs that stop early at 1e-4 stop at different places
CLOSE = {"c": 0.05, "tol": 1e-6}


@pytest.mark.parametrize("balanced", [False, True])
def test_logistic_regression_is_scikit_learns(data: Data, balanced: bool) -> None:
    options = LogisticOptions(**CLOSE, balanced=balanced)
    streamed = fit_logistic(data.batches, data.labels, data.classes, options)
    weight = "balanced" if balanced else None
    head = LogisticRegression(C=0.05, tol=1e-6, max_iter=1000, class_weight=weight)
    assert_same(streamed, in_memory(data, head), data, 1e-3)


def test_correlated_features_take_few_passes(data: Data) -> None:
    options = LogisticOptions(c=100, tol=1e-5)
    head = fit_logistic(data.batches, data.labels, data.classes, options)
    alone = in_memory(data, LogisticRegression(C=100, tol=1e-5, max_iter=1000))
    assert head[1].n_iter_[0] < 0.6 * alone[1].n_iter_[0]


def test_too_few_iterations_are_said(data: Data, capsys: pytest.CaptureFixture[str]) -> None:
    options = LogisticOptions(tol=1e-6, max_iter=2)
    fit_logistic(data.batches, data.labels, data.classes, options)
    assert "the head did not converge in 2 iterations; try a smaller c\n" in (
        capsys.readouterr().err
    )


FITS = [fit_logistic, fit_ridge, fit_lda]


@pytest.mark.parametrize("fit", FITS)
def test_a_class_without_training_examples_is_named(data: Data, fit: Callable) -> None:
    assert words(lambda: fit(data.batches, data.labels, (*data.classes, "moth"))) == (
        "there are no training examples of 'moth'\n  Add examples, or change the splits."
    )
    many = (*data.classes, *map(str, range(1205)))
    assert words(lambda: fit(data.batches, data.labels, many)).startswith(
        "there are no training examples of '0', '1', '2', '3', '4' and 1,200 more\n"
    )


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_numbers_that_are_none_are_refused(tmp_path: Path, fit: Callable, value: float) -> None:
    labels = np.arange(800) % 2
    embeddings = np.random.default_rng(0).normal(size=(800, DIM)).astype(np.float32)
    embeddings[700, 3] = value
    store = write_store(tmp_path / "features", embeddings)
    batches = Batches(store, np.ones(800, bool), size=SIZE)
    assert words(lambda: fit(batches, labels, ("a", "b"))) == (
        f"{store.folder} holds embeddings with NaN or infinite numbers\n  Extract them again."
    )
