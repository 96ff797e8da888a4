"""Heads on embeddings: splits, training, scores, predictions, and the words for bad input."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import skops.io
from conftest import COLOURS, paint, write_tiny_backbone
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import balanced_accuracy_score

from headstart.classify.prediction.features import predict, run_head
from headstart.classify.scores.evaluation import evaluate
from headstart.classify.scores.metrics import reliability, score, summarize
from headstart.classify.splits.splitting import (
    SplitOptions,
    choose_split,
    labelled,
    stratified_splits,
)
from headstart.classify.training import RunOptions, train
from headstart.data.common.errors import InputError, ManyInputErrors, ModelError
from headstart.data.common.intervals import proportion
from headstart.data.contracts.calibration import scores_of
from headstart.data.contracts.model import Model
from headstart.data.contracts.store import FeatureStore, embeddings_of
from headstart.extract.job import extract


def rows(
    labels: list[str | None],
    splits: list[str | None] | None = None,
    groups: list[str | None] | None = None,
    contents: list[str | None] | None = None,
) -> pa.Table:
    nothing: list[str | None] = [None] * len(labels)
    columns = {"label": labels, "split": splits or nothing, "group": groups or nothing}
    columns["content"] = contents or [str(row) for row in range(len(labels))]
    return pa.table({name: pa.array(values, pa.string()) for name, values in columns.items()})


def words(call: Callable[[], object]) -> str:
    with pytest.raises((InputError, ManyInputErrors)) as caught:
        call()
    return str(caught.value)


# Splits


@settings(max_examples=60, deadline=None)
@given(
    counts=st.lists(st.integers(8, 60), min_size=2, max_size=5),
    test_size=st.sampled_from([0.2, 0.25, 0.5]),
    seed=st.integers(0, 1000),
)
def test_a_stratified_split_divides_every_class(
    counts: list[int], test_size: float, seed: int
) -> None:
    data = labelled(rows([f"c{i}" for i, count in enumerate(counts) for _ in range(count)]))
    split = choose_split(data, SplitOptions(test_size, seed))
    assert sorted([*split.train, *split.test]) == list(range(sum(counts)))
    for index, count in enumerate(counts):
        tested = (data.labels[split.test] == index).sum()
        assert abs(tested - count * test_size) <= 1.5
    again = choose_split(data, SplitOptions(test_size, seed))
    assert np.array_equal(split.test, again.test)


def test_groups_never_stand_on_both_sides() -> None:
    labels: list[str | None] = ["a", "b"] * 60
    groups: list[str | None] = [f"g{i // 4}" for i in range(120)]
    data = labelled(rows(labels, groups=groups))
    for split in stratified_splits(data, SplitOptions(), 4):
        assert data.groups is not None
        assert not set(data.groups[split.train]) & set(data.groups[split.test])
        assert 0.1 < len(split.test) / 120 < 0.4
        assert split.how.endswith(f"{len(split.test) / 120:.0%}, seed 0, groups kept together")


def test_copies_of_training_examples_do_not_test() -> None:
    contents: list[str | None] = [str(row // 2) for row in range(40)]
    data = labelled(rows(["a"] * 20 + ["b"] * 20, contents=contents))
    split = choose_split(data, SplitOptions())
    seen = {contents[row] for row in split.train}
    assert not seen & {contents[row] for row in split.test}
    assert split.copies == 10 - len(split.test) > 0
    assert len(split.train) == 30


def test_repeated_splits_of_two_groups_take_turns() -> None:
    groups: list[str | None] = ["mono", "poly"] * 20
    data = labelled(rows(["a", "a", "b", "b"] * 10, groups=groups))
    splits = list(stratified_splits(data, SplitOptions(test_size=0.5), 2))
    assert [set(data.examples["group"].take(split.test).to_pylist()) for split in splits] in (
        [{"mono"}, {"poly"}],
        [{"poly"}, {"mono"}],
    )


def test_declared_splits_are_kept() -> None:
    splits: list[str | None] = ["train", "test", None, "validation"] * 3
    labels: list[str | None] = ["a", "b", "b", "a"] * 3
    split = choose_split(labelled(rows(labels, splits)), SplitOptions())
    assert split.train.tolist() == [0, 2, 4, 6, 8, 10]
    assert split.test.tolist() == [1, 5, 9]
    assert split.how == "declared by the source, tested on 'test'"
    without_test = [None if name == "test" else name for name in splits]
    assert choose_split(labelled(rows(labels, without_test)), SplitOptions()).test.tolist() == [
        3,
        7,
        11,
    ]


def test_what_cannot_be_divided() -> None:
    def split(*arguments: list, **options: float) -> Callable[[], object]:
        return lambda: choose_split(labelled(rows(*arguments)), SplitOptions(**options))  # type: ignore[arg-type]

    assert words(split([None, None])) == (
        "no example has a label, so there is nothing to train on\n"
        "  Sort the files into a folder for each class, or give a manifest with a column "
        "'label', and extract again."
    )
    assert words(split(["a", "a"])) == (
        "all 2 examples are of one class, 'a'\n"
        "  A classifier needs at least two: add examples of another class and extract again."
    )
    assert words(split(["a", "b", "c"])) == (
        "no class has two examples, but one is needed to train on and one to test on\n"
        "  Add examples, or declare the splits in the manifest, and extract again."
    )
    assert words(split(["a", "b", "a", "b"], ["train", "test", "train", "test"])) == (
        "the training split has no examples of 'b'\n"
        "  Move examples of every class into it, and extract again."
    )
    assert words(
        split(["a", "b", "a", "b"], ["train", "train", "test", "test"], ["g", "h", "g", "i"])
    ) == (
        "the training split and 'test' share 1 of the groups, such as 'g': the score would be too "
        "optimistic\n  Keep every group in one split, and extract again."
    )
    assert words(split(["a", "b"] * 4, [None] * 8, ["g", "h", "g", "i"] * 2)) == (
        "the examples of class 'a' are in 1 group, but 4 are needed for a test split that keeps "
        "groups together\n"
        "  Add groups, raise --test-size, or declare the splits in the manifest."
    )
    assert words(split(["a"] * 50 + ["b"] * 50 + ["c"] * 2, test_size=0.9)) == (
        "a random split leaves no examples of 'c' to train on\n"
        "  Add examples of it, lower --test-size, or declare the splits in the manifest."
    )
    assert words(lambda: SplitOptions(test_size=1.5, repeats=1, seed=-1)) == (
        "1. --seed -1 is not possible\n  Give 0 or more.\n"
        "2. --test-size 1.5 is not possible\n  Give a share between 0 and 1.\n"
        "3. --repeats 1 is not possible\n"
        "  Give 2 or more (a standard deviation needs two), or 0 for none."
    )


def test_a_class_with_one_example_trains_and_is_not_tested() -> None:
    data = labelled(rows(["a"] * 40 + ["b"] + ["c"] * 40))
    for split in stratified_splits(data, SplitOptions(), 5):
        assert 40 in split.train
        assert len(split.test) == 20
        assert split.how == "stratified 75%/25%, seed 0"


def test_more_classes_than_a_stratified_split_can_hold() -> None:
    data = labelled(rows([f"class {number}" for number in range(50)] * 2 + ["alone"]))
    splits = list(stratified_splits(data, SplitOptions(), 3))
    for split in splits:
        assert set(data.labels[split.train]) == set(range(51))
        assert sorted([*split.train, *split.test]) == list(range(101))
        assert len(split.test) == 25
        assert split.how == "random 75%/25%, seed 0"
    assert len({tuple(split.test) for split in splits}) == 3


# Scores


def test_scores_are_those_of_their_definitions() -> None:
    labels = np.array([0, 0, 0, 1, 1, 2])
    probabilities = np.array(
        [
            [0.8, 0.1, 0.1],
            [0.5, 0.3, 0.2],
            [0.2, 0.7, 0.1],
            [0.1, 0.8, 0.1],
            [0.6, 0.3, 0.1],
            [0, 0, 1],
        ]
    )
    scores = score(labels, probabilities, ("a", "b", "c"))
    assert scores.accuracy == pytest.approx(4 / 6)
    assert scores.balanced_accuracy == pytest.approx(
        balanced_accuracy_score(labels, probabilities.argmax(axis=1))
    )
    assert scores.macro_f1 == pytest.approx((2 / 3 + 1 / 2 + 1) / 3)
    assert scores.log_loss == pytest.approx(-np.log([0.8, 0.5, 0.2, 0.8, 0.3, 1]).mean())
    assert scores.confusion == ((2, 1, 0), (1, 1, 0), (0, 0, 1))
    assert [(c.name, c.support) for c in scores.per_class] == [("a", 3), ("b", 2), ("c", 1)]


def test_a_class_that_no_test_example_has_is_left_out_of_the_averages() -> None:
    scores = score(np.array([0, 1]), np.array([[0.9, 0.1, 0], [0.1, 0.9, 0]]), ("a", "b", "c"))
    assert (scores.balanced_accuracy, scores.macro_f1) == (1, 1)
    assert scores.per_class[2].support == 0


def test_scores_over_splits() -> None:
    labels = np.array([0, 0, 0, 1])
    sure = np.array([[0.9, 0.1], [0.8, 0.2], [0.6, 0.4], [0.1, 0.9]])
    unsure = np.array([[0.9, 0.1], [0.4, 0.6], [0.4, 0.6], [0.1, 0.9]])
    found = summarize(
        [score(labels, each, ("a", "b"), threshold=0.7) for each in (sure, unsure)], 1 / 3
    )
    assert found.repeats == 2
    assert found.mean["accuracy"] == pytest.approx((1 + 0.5) / 2)
    assert found.std["accuracy"] == pytest.approx(0.125**0.5)
    # Student's t at 97.5 % with one degree of freedom, and Nadeau and Bengio's correction
    width = 12.7062 * (0.125 * (1 / 2 + 1 / 3)) ** 0.5
    assert width > 1
    assert (found.intervals["accuracy"].low, found.intervals["accuracy"].high) == (0, 1)
    wide = found.mean["log_loss"] + 12.7062 * found.std["log_loss"] * (5 / 6) ** 0.5
    assert found.intervals["log_loss"].high == pytest.approx(wide, rel=1e-5)
    assert found.mean["answered"] == pytest.approx((3 / 4 + 2 / 4) / 2)
    assert found.mean["right_of_these"] == 1


# Training, evaluating, predicting


def test_a_model_folder_holds_what_the_contract_says(model: Path, features: Path) -> None:
    opened = Model.open(model)
    assert sorted(path.name for path in model.iterdir()) == [
        "examples.parquet",
        "head.onnx",
        "head.skops",
        "model.json",
        "report.html",
        "suspects.csv",
    ]
    assert opened.card.classes == ("blue", "green", "red")
    assert opened.card.fingerprint == FeatureStore.open(features).fingerprint
    assert opened.card.split == "stratified 75%/25%, seed 0"
    assert set(opened.card.versions) >= {"headstart", "scikit-learn", "skl2onnx"}
    assert opened.card.metrics["test"]["accuracy"] == 1.0
    assert opened.examples()["split"].to_pylist().count("test") == 15
    table = FeatureStore.open(features).read()
    head = skops.io.load(model / "head.skops", trusted=[])
    _, probabilities = run_head(opened.head, embeddings_of(table))
    scores = scores_of(head, embeddings_of(table), opened.card.calibration.scores)
    assert np.abs(opened.card.calibration.probabilities(scores) - probabilities).max() < 1e-4


def test_training_prints_scores_and_spread(
    features: Path, tmp_path: Path, command: Callable
) -> None:
    options = ("--repeats", 3, "--no-report")
    answer = command("classify", "train", features, "-o", tmp_path / "m", *options)
    assert answer.code == 0
    assert "tested on   15 held-out examples" in answer.out
    assert "\naccuracy           1.0000  (95 %: 0.7820 to 1.0000)\n" in answer.out
    assert "over 3 random splits" in answer.out
    assert (
        "accuracy            1.0000 +- 0.0000  (95 % of the mean: 0.7820 to 1.0000)" in answer.out
    )
    repeats = json.loads((tmp_path / "m" / "model.json").read_text())["metrics"]["repeats"]
    assert repeats["repeats"] == 3


def test_evaluation_gives_the_scores_of_training(
    model: Path, features: Path, command: Callable
) -> None:
    answer = command("classify", "evaluate", model, features, "--json")
    evaluated = json.loads(answer.out)
    trained = Model.open(model).card.metrics["test"]
    assert evaluated.pop("left_out") == 45
    for name in ("examples", "accuracy", "balanced_accuracy", "macro_f1", "confusion"):
        assert evaluated[name] == trained[name]
    assert evaluated["log_loss"] == pytest.approx(trained["log_loss"], abs=1e-5)


def test_a_copy_of_a_training_photograph_does_not_count(
    model: Path, photos: Path, tiny_backbone: Path, tmp_path: Path, local_ray: None
) -> None:
    trained = [row for row in Model.open(model).examples().to_pylist() if row["split"] == "train"]
    fresh = tmp_path / "fresh"
    for index, row in enumerate(trained[:4]):
        (fresh / row["label"]).mkdir(parents=True, exist_ok=True)
        (fresh / row["label"] / f"copy{index}.png").write_bytes((photos / row["path"]).read_bytes())
    for name, colour in COLOURS.items():
        # The ids of training's photographs, but other pictures: these count.
        paint(fresh / name / "00.png", colour, seed=999)
    extract(fresh, tiny_backbone, tmp_path / "fresh-features")
    evaluation = evaluate(model, tmp_path / "fresh-features")
    assert (evaluation.scores.examples, evaluation.left_out) == (3, 4)


@pytest.mark.parametrize("format", ["parquet", "csv"])
def test_predictions(
    model: Path, features: Path, tmp_path: Path, format: str, command: Callable
) -> None:
    out = tmp_path / f"p.{format}"
    answer = command("classify", "predict", model, features, "-o", out)
    assert answer.code == 0, answer.err
    assert f"wrote 60 predictions to {out}" in answer.out
    if format == "csv":
        with out.open(newline="") as file:
            table = list(csv.DictReader(file))
        probabilities = [list(json.loads(row["probabilities"]).values()) for row in table]
    else:
        table = pq.read_table(out).to_pylist()
        probabilities = [list(row["probabilities"].values()) for row in table]
    assert list(table[0]) == ["id", "prediction", "confidence", "probabilities", "label"]
    assert len(table) == 60
    for row, values in zip(table, probabilities, strict=True):
        assert row["prediction"] == row["label"] == row["id"].split("/")[0]
        assert sum(values) == pytest.approx(1, abs=1e-4)
        assert float(row["confidence"]) == pytest.approx(max(values), abs=1e-5)
    kept = out.read_bytes()
    again = command("classify", "predict", model, features, "-o", out)
    assert (again.code, again.err) == (
        2,
        f"error: {out} exists already\n  Pass --overwrite to replace it.\n",
    )
    assert out.read_bytes() == kept
    assert command("classify", "predict", model, features, "-o", out, "--overwrite").code == 0


def test_prediction_needs_onnxruntime_alone(model: Path, features: Path, tmp_path: Path) -> None:
    script = (
        "import sys\n"
        "others = ['sklearn', 'skl2onnx', 'skops', 'tensorflow', 'keras', 'ray', 'onnx']\n"
        "sys.modules.update(dict.fromkeys(others))\n"
        "from headstart.classify.prediction.features import predict\n"
        "print(predict(*sys.argv[1:], False).num_rows)"
    )
    answer = subprocess.run(
        [sys.executable, "-c", script, model, features, tmp_path / "p.csv"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (answer.stdout, answer.returncode) == ("60\n", 0), answer.stderr


def test_predictions_go_to_known_formats_only(model: Path, features: Path, tmp_path: Path) -> None:
    assert words(lambda: predict(model, features, tmp_path / "p.xlsx", False)) == (
        f"predictions cannot be written to {tmp_path / 'p.xlsx'}\n"
        "  Name a file that ends in .parquet or .csv."
    )


def test_an_empty_store_is_predicted_as_nothing(
    model: Path, tiny_backbone: Path, tmp_path: Path, local_ray: None
) -> None:
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "a.png").write_bytes(b"no")
    extract(tmp_path / "bad", tiny_backbone, tmp_path / "nothing")
    assert predict(model, tmp_path / "nothing", tmp_path / "p.csv", False).num_rows == 0
    assert words(lambda: train(tmp_path / "nothing", tmp_path / "m2")) == (
        f"{tmp_path / 'nothing'} holds no embeddings: all 1 examples failed\n"
        f"  Show the reasons with: python -m data errors {tmp_path / 'nothing'}"
    )


def test_features_of_another_backbone_are_refused(
    model: Path, photos: Path, tmp_path: Path, local_ray: None
) -> None:
    other = write_tiny_backbone(tmp_path / "other.onnx", seed=1)
    extract(photos, tmp_path / "other.onnx", tmp_path / "other")
    with pytest.raises(ModelError) as caught:
        evaluate(model, tmp_path / "other")
    assert str(caught.value) == (
        f"the features {tmp_path / 'other'} and the model {model} do not match:\n"
        f"  the features {tmp_path / 'other'}: {other.fingerprint}\n"
        f"  the model was trained on: {Model.open(model).card.fingerprint}\n"
        f"  Train on these features: python -m classify train {tmp_path / 'other'} -o MODEL"
    )


def test_labels_that_the_model_does_not_know(
    model: Path, tiny_backbone: Path, tmp_path: Path, local_ray: None, command: Callable
) -> None:
    paint(tmp_path / "new" / "pink" / "a.png", (250, 100, 180), 1)
    extract(tmp_path / "new", tiny_backbone, tmp_path / "newf")
    assert words(lambda: evaluate(model, tmp_path / "newf")) == (
        f"{tmp_path / 'newf'} has no labels that are classes of the model, but 'pink'\n"
        "  The model's classes are 'blue', 'green', 'red'."
    )
    for number in range(3):
        paint(tmp_path / "new" / "red" / f"{number}.png", COLOURS["red"], 500 + number)
    extract(tmp_path / "new", tiny_backbone, tmp_path / "both")
    found = evaluate(model, tmp_path / "both")
    assert (found.scores.examples, found.scores.accuracy, found.left_out) == (3, 1, 0)
    assert found.unknown == {"pink": 1}
    answer = command("classify", "evaluate", model, tmp_path / "both")
    assert answer.code == 0
    assert "\nnot scored  1 of classes that the model does not have: 'pink' (1)\n" in answer.out


def test_nothing_of_the_users_is_overwritten(model: Path, features: Path, tmp_path: Path) -> None:
    assert words(lambda: train(features, model)) == (
        f"{model} holds a model already\n  Pass --overwrite to replace it."
    )
    for name in ("thesis.txt", "examples.parquet"):
        mine = tmp_path / name
        mine.mkdir()
        (mine / name).write_text("mine")
        assert words(lambda: train(features, mine, run=RunOptions(overwrite=True))) == (  # noqa: B023
            f"{mine} is in use by something else (it holds {name})\n"
            "  Choose an empty or new folder with -o."
        )
        assert (mine / name).read_text() == "mine"
    unread = RunOptions(overwrite=True, report=False)
    assert train(features, model, run=unread).scores.accuracy == 1


def test_mistakes_are_reported_at_once(tmp_path: Path, command: Callable) -> None:
    answer = command("classify", "evaluate", tmp_path / "m", tmp_path / "f")
    assert (answer.code, answer.err) == (
        2,
        f"error: 1. {tmp_path / 'm'}: no such model folder\n"
        "  Train one with: python -m classify train FEATURES -o MODEL\n"
        f"2. {tmp_path / 'f'}: no such feature store\n"
        "  Make one with: python -m extract SOURCE --backbone backbone.onnx -o FEATURES\n",
    )
    answer = command(
        "classify", "train", tmp_path / "f", "-o", tmp_path / "m", "--head", "logistik"
    )
    assert answer.err.startswith("error: unknown head 'logistik'\n  Did you mean logistic? Choose")


# Whether scores and probabilities can be believed


def test_the_interval_of_an_accuracy_is_exact() -> None:
    interval = proportion(9, 10)  # Clopper and Pearson's
    assert (interval.low, interval.high) == pytest.approx((0.5550, 0.9975), abs=1e-4)
    assert proportion(5, 5).high == pytest.approx(1)
    scores = score(np.array([0, 1]), np.array([[0.9, 0.1], [0.4, 0.6]]), ("a", "b"))
    assert (scores.accuracy_interval.value, scores.accuracy_interval.high) == pytest.approx((1, 1))
    assert scores.accuracy_interval.low == pytest.approx(0.1581, abs=1e-4)


def test_the_calibration_error_is_the_mean_distance_of_confidence_and_accuracy() -> None:
    labels = np.array([0, 0, 1, 1])  # three of four right at 0.8, all four in one bin
    sure = np.array([[0.8, 0.2], [0.8, 0.2], [0.2, 0.8], [0.8, 0.2]])
    assert reliability(labels, sure).expected_calibration_error == pytest.approx(0.05)
    half = np.array([[0.5, 0.5]] * 2 + [[0.0, 1.0]] * 2)  # half of those at 0.5, all of those at 1
    assert reliability(np.array([0, 1, 1, 1]), half).expected_calibration_error == 0
    random = np.random.default_rng(0)
    honest = random.uniform(0.5, 1, 50_000)
    drawn = (random.uniform(size=50_000) > honest).astype(np.int64)
    probabilities = np.stack([honest, 1 - honest], axis=1)
    assert reliability(drawn, probabilities).expected_calibration_error < 0.01
    assert reliability(drawn, np.sqrt(probabilities)).expected_calibration_error > 0.05
