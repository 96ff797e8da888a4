"""Training as a whole: few labels, groups, no labels, a search, and more than memory holds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from sklearn.datasets import load_digits

from headstart.classify.heads.calibration import AnswerOptions
from headstart.classify.heads.estimators import HEADS, HeadOptions
from headstart.classify.heads.fitting import FitOptions
from headstart.classify.prediction.features import run_head
from headstart.classify.scores.comparison import compare
from headstart.classify.scores.evaluation import evaluate
from headstart.classify.splits.splitting import SplitOptions
from headstart.classify.training import RunOptions, Trained, train
from headstart.data.common.errors import InputError
from headstart.data.common.intervals import proportion
from headstart.data.contracts.fingerprint import Fingerprint
from headstart.data.contracts.model import Model
from headstart.data.contracts.records import PartContent, begin, finish, write_part
from headstart.data.contracts.store import ERROR_SCHEMA, StoreManifest, part_schema
from headstart.data.storage.places import folder_at

BARE = RunOptions(report=False)


def write_store(path: Path, embeddings: np.ndarray, labels: list, **columns: list) -> Path:
    """A store in three parts; columns that are not of every store come after the embedding."""
    count = len(embeddings)
    own = [name for name in columns if name not in ("content", "split", "group")]
    schema = part_schema(embeddings.shape[1], [pa.field(name, pa.string()) for name in own])
    prints = Fingerprint("none", "0" * 64, "8x8 squash bilinear", "fp32", embeddings.shape[1])
    folder, records = folder_at(path), []
    begin(folder, prints, "/photos")
    for number, rows in enumerate(np.array_split(np.arange(count), 3)):
        ids = [f"{row}.png" for row in rows]
        values: dict = {"id": ids, "path": ids, "content": ids, "label": [labels[r] for r in rows]}
        values |= {name: [column[row] for row in rows] for name, column in columns.items()}
        flat = pa.array(embeddings[rows].astype(np.float32).ravel())
        kind = schema.field("embedding").type
        arrays = [
            pa.FixedSizeListArray.from_arrays(flat, type=kind)
            if field.name == "embedding"
            else pa.array(values.get(field.name, [None] * len(rows)), field.type)
            for field in schema
        ]
        table = pa.table(arrays, schema=schema)
        name = f"part-{number:05d}-{number:012x}"
        content = PartContent(prints, table, ERROR_SCHEMA.empty_table())
        records.append(write_part(folder, name, content))
    finish(
        folder,
        StoreManifest(
            fingerprint=prints,
            source="/photos",
            root="/photos",
            classes=(),
            parts=tuple(records),
        ),
    )
    return path


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of digits' pixels: 500 with a label, 100 without, a column `writer`."""
    pixels, labels = load_digits(return_X_y=True)
    names = [str(labels[row]) if row < 500 else None for row in range(600)]
    writers = [f"w{row // 20}" for row in range(600)]
    path = tmp_path_factory.mktemp("digits") / "features"
    return write_store(path, pixels[:600], names, writer=writers)


def words(call: Callable[[], object]) -> str:
    with pytest.raises(InputError) as caught:
        call()
    return str(caught.value)


def test_examples_without_a_label_are_carried_along_and_predicted(
    digits: Path, tmp_path: Path
) -> None:
    trained = train(digits, tmp_path / "m", run=BARE)
    assert trained.unlabelled == 100
    examples = Model.open(tmp_path / "m").examples().to_pylist()
    assert len(examples) == 600
    truth = load_digits().target
    rest = [row for row in examples if row["label"] is None]
    assert all(row["split"] is None and row["probability"] is None for row in rest)
    right = [row["prediction"] == str(truth[int(row["id"][:-4])]) for row in rest]
    assert np.mean(right) > 0.7
    assert all(0 < row["confidence"] <= 1 for row in rest)
    tested = [row for row in examples if row["split"] == "test"]
    assert len(tested) == 125
    accuracy = np.mean([row["prediction"] == row["label"] for row in tested])
    assert accuracy == pytest.approx(trained.scores.accuracy)


def test_few_labels_of_each_class(digits: Path, tmp_path: Path) -> None:
    few = SplitOptions(samples_per_class=5)
    trained = train(digits, tmp_path / "m", splits=few, run=BARE)
    train_labels = [
        row["label"]
        for row in Model.open(tmp_path / "m").examples().to_pylist()
        if row["split"] == "train"
    ]
    assert {train_labels.count(label) for label in set(train_labels)} == {5}
    assert trained.scores.examples == 125
    assert trained.split.how == "stratified 75%/25%, seed 0, 5 of each class to train on"


def test_groups_are_any_column(digits: Path, tmp_path: Path) -> None:
    trained = train(digits, tmp_path / "m", splits=SplitOptions(group="writer"), run=BARE)
    writers = np.arange(500) // 20
    assert not set(writers[trained.split.train]) & set(writers[trained.split.test])
    assert "groups kept together" in trained.split.how
    assert words(lambda: train(digits, tmp_path / "m2", splits=SplitOptions(group="age"))) == (
        "--group age: the features do not have this column\n"
        "  They have id, path, content, stamp, label, split, group, writer."
    )
    said = words(lambda: train(digits, tmp_path / "m2", splits=SplitOptions(group="label")))
    assert said.startswith("the groups are the same as the labels: each of the 10 classes is one")


def test_a_store_above_the_budget_is_streamed_and_says_so(
    digits: Path, tmp_path: Path, command: Callable
) -> None:
    options = ("--memory", 0.0001, "--no-report")
    answer = command("classify", "train", digits, "-o", tmp_path / "m", *options)
    assert answer.code == 0
    assert "the embeddings stay in the store: training on them in memory takes 614.4 kB, and" in (
        answer.err.replace("\n", " ")
    )
    streamed = Model.open(tmp_path / "m")
    whole = train(digits, tmp_path / "whole", run=BARE)
    assert abs(streamed.card.metrics["test"]["accuracy"] - whole.scores.accuracy) < 0.05
    assert streamed.examples().num_rows == 600
    small = RunOptions(report=False, memory=100_000)
    for name in ("ridge", "lda"):
        given = {"shrinkage": 0.1} if name == "lda" else {}
        options = FitOptions(HeadOptions(name, given))
        assert train(digits, tmp_path / name, options, run=small).scores.accuracy > 0.8
    knn = FitOptions(HeadOptions("knn"))
    assert words(lambda: train(digits, tmp_path / "k", knn, run=small)) == (
        "the head knn needs all embeddings in memory, but training on them in memory takes "
        "614.4 kB, and --memory is 100.0 kB\n"
        "  Choose one of logistic, ridge, lda, or raise --memory."
    )


def test_auto_tries_every_head_and_reports_it(
    digits: Path,
    tmp_path: Path,
    command: Callable,
    local_ray: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    quick = {name: HEADS[name] for name in ("logistic", "knn", "ridge")}
    monkeypatch.setattr("headstart.classify.heads.search.HEADS", quick)
    options = FitOptions(HeadOptions("auto"))
    trained = train(digits, tmp_path / "m", options, SplitOptions(samples_per_class=20), BARE)
    trials = trained.fitted.trials
    assert {trial.head for trial in trials} == set(quick)
    assert [trial.chosen for trial in trials] == [True] + [False] * (len(trials) - 1)
    assert trials[0].mean == max(trial.mean for trial in trials)
    assert trained.fitted.head.name == trials[0].head
    # Three kinds as they come, then the other values of the two best.
    assert len(trials) == 3 + 2 + 2
    assert Model.open(tmp_path / "m").card.metrics["search"][0]["chosen"]


def test_two_models_are_compared(digits: Path, tmp_path: Path, command: Callable) -> None:
    train(digits, tmp_path / "a", run=BARE)
    train(digits, tmp_path / "b", FitOptions(HeadOptions("knn", {"neighbours": 150})), run=BARE)
    answer = command("classify", "compare", tmp_path / "a", tmp_path / "b")
    assert answer.code == 0
    assert "tested on      125 examples" in answer.out
    assert "A is better: +" in answer.out


def few(digits: Path, path: Path, each: int, head: str, **run: bool) -> Trained:
    """Train on that many examples of each class."""
    options = FitOptions(HeadOptions(head))
    splits = SplitOptions(samples_per_class=each)
    return train(digits, path, options, splits, RunOptions(**({"report": False} | run)))


def test_a_head_that_needs_more_examples_says_so(
    digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # Two of each class: a fold of lda has one, and the whole trains.
    trained = few(digits, tmp_path / "lda", 2, "lda")
    assert trained.fitted.answering.calibration.method == "none"
    assert (
        "the probabilities are not calibrated: the head lda cannot be trained on 10 examples of "
        "10 classes: The number of samples must be more than the number of classes.\n"
    ) in capsys.readouterr().err
    said = words(lambda: few(digits, tmp_path / "lda1", 1, "lda"))
    assert said.startswith("the head lda cannot be trained on 10 examples of 10 classes: The ")
    options = FitOptions(HeadOptions("knn", {"neighbours": 25}))
    two = SplitOptions(samples_per_class=2)
    assert words(lambda: train(digits, tmp_path / "knn", options, two)) == (
        "the head knn cannot be trained on 20 examples of 10 classes: Expected n_neighbors <= "
        "n_samples_fit, but n_neighbors = 25, n_samples_fit = 20, n_samples = 1\n"
        "  Add examples, or choose another head."
    )
    # The smallest sizes of the learning curve are too small for 25 neighbours, and are left out.
    curved = train(digits, tmp_path / "curve", options, SplitOptions(samples_per_class=20))
    assert curved.diagnosis is not None
    assert curved.diagnosis.curve is not None
    assert curved.diagnosis.curve.labels_per_class.tolist() == [5, 10]


def test_auto_leaves_out_heads_that_need_more_examples(
    digits: Path,
    tmp_path: Path,
    local_ray: None,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    quick = {name: HEADS[name] for name in ("logistic", "knn", "lda")}
    monkeypatch.setattr("headstart.classify.heads.search.HEADS", quick)
    trained = few(digits, tmp_path / "m", 2, "auto")
    assert {trial.head for trial in trained.fitted.trials} == {"logistic", "knn"}
    assert (
        "left out: the head lda cannot be trained on 10 examples of 10 classes: The number of "
        "samples must be more than the number of classes.\n"
    ) in capsys.readouterr().err
    said = words(lambda: few(digits, tmp_path / "m1", 1, "auto"))
    assert said.startswith("--head auto cannot compare heads: there are too few examples or groups")


def test_heads_whose_graph_refuses_no_rows(
    digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """skl2onnx writes ArrayFeatureExtractor here, which fails on a batch of none."""
    (tmp_path / "calibrated.py").write_text(
        "from sklearn.calibration import CalibratedClassifierCV\n"
        "from sklearn.svm import LinearSVC\n"
        "def head():\n"
        "    return CalibratedClassifierCV(LinearSVC(C=0.001), cv=3)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    options = FitOptions(HeadOptions("calibrated:head"))
    trained = train(digits, tmp_path / "m", options, run=BARE)
    labels, probabilities = run_head(trained.model.head, np.zeros((0, 64), np.float32))
    assert (labels.shape, labels.dtype) == ((0,), np.int64)
    assert (probabilities.shape, probabilities.dtype) == ((0, 10), np.float32)


def test_copies_with_two_labels_are_named(tmp_path: Path, command: Callable) -> None:
    pixels, labels = load_digits(return_X_y=True)
    pixels, labels = pixels[:500].astype(np.float32), labels[:500].copy()
    # 1 is 0 again under another label, byte for byte; 3, a test example, is nearly 2.
    pixels[3] = pixels[2] * 1.001
    contents = [str(row) for row in range(500)]
    contents[1] = "0"
    splits = ["test" if row % 4 == 3 else "train" for row in range(500)]
    names = [str(label) for label in labels]
    store = write_store(tmp_path / "f", pixels, names, content=contents, split=splits)
    answer = command("classify", "train", store, "-o", tmp_path / "m")
    assert answer.code == 0
    assert (
        "note: 1 example is there under different labels: '0.png' ('0') and '1.png' "
        "('1'), which have the same bytes. Keep the right one.\n"
    ) in answer.err
    assert "1 of these pairs, such as '3.png' ('3') and '2.png' ('2')\n" in answer.out
    page = (tmp_path / "m" / "report.html").read_text()
    assert "1 pair has two labels, and comes first: one of the labels is wrong." in page


def grouped(tmp_path: Path) -> Path:
    """Digits in groups of five that are alike, as five photographs of one object are."""
    pixels, labels = load_digits(return_X_y=True)
    random = np.random.default_rng(0)
    rows = np.repeat(np.arange(150), 5)
    noisy = pixels[rows] + random.normal(0, 4, (150, 1, 64)).repeat(5, axis=1).reshape(-1, 64)
    noisy += random.normal(0, 0.5, noisy.shape)
    names = [str(label) for label in labels[rows]]
    return write_store(tmp_path / "f", noisy, names, group=[f"g{row}" for row in rows])


def test_groups_count_in_every_interval(tmp_path: Path) -> None:
    store = grouped(tmp_path)
    small = RunOptions(report=False, memory=100_000)
    streamed = train(store, tmp_path / "streamed", run=small)
    trained = train(store, tmp_path / "m", FitOptions(HeadOptions("ridge")), run=BARE)
    table = Model.open(tmp_path / "m").examples()
    assert table["group"].to_pylist() == [f"g{row}" for row in np.repeat(np.arange(150), 5)]
    right = round(trained.scores.accuracy * trained.scores.examples)
    alone = proportion(right, trained.scores.examples)
    found = trained.scores.accuracy_interval
    assert found.high - found.low > 1.3 * (alone.high - alone.low)
    # Also when the model is evaluated or compared later.
    again = evaluate(tmp_path / "m", store).scores
    assert again.accuracy_interval.low == pytest.approx(found.low)
    assert again.intervals["log_loss"].low == pytest.approx(
        trained.scores.intervals["log_loss"].low
    )
    compared = compare(tmp_path / "streamed", tmp_path / "m")
    assert compared.groups == len(set(np.repeat(np.arange(150), 5)[trained.split.test]))
    assert compared.accuracy_b.low == pytest.approx(found.low)
    # Calibration and threshold of a streamed head use groups that it was not trained on.
    groups = np.repeat(np.arange(150), 5)[streamed.split.train]
    held = np.isin(np.arange(len(groups)), streamed.fitted.out_of_fold.rows)
    assert 0.05 <= held.mean() <= 0.2
    assert not set(groups[held]) & set(groups[~held])


def test_a_precision_that_cannot_be_promised_is_said(
    digits: Path, tmp_path: Path, command: Callable
) -> None:
    answer = command(
        "classify", "train", digits, "-o", tmp_path / "m", "--precision", 0.999, "--no-report"
    )
    assert answer.code == 0
    assert (
        "no threshold was written: a precision of 0.999 cannot be promised with 95% confidence: of "
        "the "
    ) in answer.err
    card = Model.open(tmp_path / "m").card
    assert card.threshold is None
    assert card.metrics["threshold_refused"].startswith("a precision of 0.999 cannot be promised")
    promised = FitOptions(answers=AnswerOptions(precision=0.9))
    trained = train(digits, tmp_path / "m2", promised, run=BARE)
    assert trained.fitted.threshold is not None
    assert trained.fitted.threshold.chosen_for == "a precision of 0.9, promised with 95% confidence"
    assert trained.model.card.metrics["threshold"]["precision"] >= 0.9
