"""Corrections of labels: their file, and what training and extraction make of it."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from browser import downloads, open_fresh, resize
from conftest import Outcome
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import Select, WebDriverWait

from headstart.classify.scores.evaluation import evaluate
from headstart.classify.splits.splitting import SplitOptions
from headstart.classify.training import RunOptions, train
from headstart.data.common.errors import InputError
from headstart.data.contracts.corrections import (
    Correction,
    correct,
    merged,
    read_corrections,
    to_csv,
)
from headstart.data.contracts.model import CORRECTIONS, REPORT, SUSPECTS, Model
from headstart.data.contracts.store import FeatureStore

IDS = pa.chunked_array([["a.png", 'b,"c".png', "d.png", "e.png"]])
CLASSES = ("cat", "dog")
SOME = (
    Correction("a.png", "keep"),
    Correction('b,"c".png', "change", "dog"),
    Correction("d.png", "remove"),
)


def read(tmp_path: Path, content: str | bytes, earlier: tuple[Correction, ...] = ()) -> object:
    path = tmp_path / "corrections.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_corrections(path, IDS, CLASSES, earlier)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    assert read(tmp_path, to_csv(SOME)) == SOME


def test_what_a_spreadsheet_saves_is_read(tmp_path: Path) -> None:
    text = (
        "\ufeffid;path;label;suggestion;score;action;change_to\r\n"
        "a.png;x;cat;dog;-0.9;Keep;\r\n"
        '"b,""c"".png";x;cat;dog;-0.8;change ;dog\r\n'
        "e.png;x;cat;dog;-0.7;;\r\n"
        "d.png;x;cat;dog;-0.6;remove;\r\n"
    )
    assert read(tmp_path, text) == SOME


def test_all_mistakes_are_named_at_once(tmp_path: Path) -> None:
    text = (
        "id,action,change_to\na.png,change,wolf\ngone.png,keep,\nd.png,burn,\ne.png,change,\n"
        "d.png,remove,cat\n"
    )
    with pytest.raises(InputError) as caught:
        read(tmp_path, text)
    assert caught.value.message == (
        f"{tmp_path}/corrections.csv has 7 mistakes:\n"
        "  line 2: 'wolf' is not a class to change 'a.png' to\n"
        "  line 3: there is no example 'gone.png'\n"
        "  line 4: 'd.png' is there 2 times\n"
        "  line 4: the action 'burn' is none of keep, change, remove\n"
        "  line 5: it says no class in change_to\n"
        "  line 6: 'd.png' is there 2 times\n"
        "  line 6: 'remove' takes no class, and change_to is 'cat'"
    )
    assert caught.value.fix.startswith("The classes are 'cat', 'dog'. Save one from report.html")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"id,action\n\xff,keep\n", "is not text in UTF-8"),
        ("id,label\na.png,cat\n", "has no column 'action'"),
        ("", "has no column 'id' and no column 'action'"),
        ('id,action\n"a.png,keep\n', "is not valid CSV at line 2: unexpected end of data"),
    ],
)
def test_what_is_no_such_file(tmp_path: Path, content: str | bytes, said: str) -> None:
    with pytest.raises(InputError) as caught:
        read(tmp_path, content)
    assert said in caught.value.message
    with pytest.raises(InputError, match="no such file of corrections"):
        read_corrections(tmp_path / "nowhere.csv", IDS, CLASSES)


def test_those_removed_before_may_be_named_again(tmp_path: Path) -> None:
    earlier = (Correction("gone.png", "remove"),)
    assert read(tmp_path, to_csv(earlier), earlier) == earlier
    both = merged(earlier, (Correction("gone.png", "keep"), *SOME))
    assert both == (Correction("gone.png", "keep"), *SOME)


def test_labels_after_corrections() -> None:
    labels = pa.chunked_array([["cat", None, "dog", "dog"]])
    found = correct(IDS, labels, (*SOME, Correction("e.png", "change", "dog")))
    assert found.labels.to_pylist() == ["cat", "dog", "dog", "dog"]
    assert found.kept.tolist() == [True, True, False, True]
    assert (found.changed, found.removed) == (1, 1)


def relabel(features: Path, labels: Mapping[str, str | None]) -> None:
    """Give some examples of a store other labels, as if their source had them."""
    for part in features.glob("part-*.parquet"):
        table = pq.read_table(part)
        both = zip(table["id"].to_pylist(), table["label"].to_pylist(), strict=True)
        new = pa.array([labels.get(id, label) for id, label in both], pa.string())
        place = table.schema.get_field_index("label")
        pq.write_table(table.set_column(place, "label", new), part)


CHANGED, REMOVED, KEPT = "blue/03.png", "green/04.png", "red/05.png"


@pytest.fixture
def corrections(tmp_path: Path) -> Path:
    path = tmp_path / "mine.csv"
    path.write_bytes(
        to_csv(
            [
                Correction(CHANGED, "change", "red"),
                Correction(REMOVED, "remove"),
                Correction(KEPT, "keep"),
            ]
        )
    )
    return path


@pytest.mark.parametrize("memory", [None, 1])
def test_training_takes_them(
    memory: int | None, features: Path, corrections: Path, tmp_path: Path
) -> None:
    run = RunOptions(memory=memory, corrections=corrections)
    trained = train(features, tmp_path / "corrected", run=run)
    examples = trained.model.examples()
    label = dict(zip(examples["id"].to_pylist(), examples["label"].to_pylist(), strict=True))
    assert label[CHANGED] == "red"
    assert REMOVED not in label
    assert len(label) == 59
    opened = Model.open(tmp_path / "corrected")
    assert opened.card.corrections == {"changed": 1, "removed": 1}
    assert opened.corrections() == read_corrections(
        corrections, FeatureStore.open(features).read(["id"])["id"], opened.card.classes
    )
    suspects = (tmp_path / "corrected" / SUSPECTS).read_text()
    found = [row["id"] for row in csv.DictReader(suspects.splitlines())]
    assert not {CHANGED, REMOVED, KEPT} & set(found)
    assert suspects.splitlines()[0] == (
        '"id","path","label","suggestion","score","action","change_to"'
    )
    # The same labels are scored again, and what was removed is not tested.
    evaluation = evaluate(tmp_path / "corrected", features)
    assert evaluation.scores.accuracy == trained.scores.accuracy
    assert evaluation.scores.examples == trained.scores.examples
    assert evaluation.left_out + evaluation.scores.examples == 59


def test_the_command_says_what_they_did(
    command: Callable[..., Outcome], features: Path, corrections: Path, tmp_path: Path
) -> None:
    arguments = ("classify", "train", features, "-o", tmp_path / "m", "--corrections", corrections)
    told = command(*arguments, "--no-report")
    assert told.code == 0
    assert "corrections: 1 label changed, 1 example removed" in told.err
    corrections.write_text("id,action\nnobody.png,keep\n")
    refused = command(*arguments, "--overwrite")
    assert refused.code == 2
    assert "there is no example 'nobody.png'" in refused.err


def test_extraction_takes_them_and_keeps_them(
    command: Callable[..., Outcome],
    features: Path,
    photos: Path,
    tiny_backbone: Path,
    corrections: Path,
    tmp_path: Path,
) -> None:
    arguments = ("extract", photos, "--backbone", tiny_backbone, "-o", features)
    told = command(*arguments, "--corrections", corrections)
    assert told.code == 0
    assert "corrections: 1 label changed, 1 example removed" in told.err
    assert "embedded" not in told.out

    def labels() -> dict[str, str]:
        table = FeatureStore.open(features).read(["id", "label"])
        return dict(zip(table["id"].to_pylist(), table["label"].to_pylist(), strict=True))

    assert labels()[CHANGED] == "red"
    assert REMOVED not in labels()
    manifest = FeatureStore.open(features).manifest
    assert [each.id for each in manifest.corrections] == [CHANGED, REMOVED, KEPT]
    assert manifest.inferences == 60
    again = command(*arguments)
    assert "nothing to do: all 59 examples" in again.out
    # The report's file names those of the store again; the removed one is known.
    trained = train(features, tmp_path / "m", run=RunOptions(corrections=corrections))
    assert trained.model.card.corrections == {"changed": 0, "removed": 0}
    report = (tmp_path / "m" / "report.html").read_text()
    data = json.loads(report.split('id="report-data">')[1].split("</")[0])
    assert [row[:2] for row in data["earlier"]] == [
        [CHANGED, "change"],
        [REMOVED, "remove"],
        [KEPT, "keep"],
    ]
    assert (tmp_path / "m" / CORRECTIONS).exists()
    # A file without rows ends them.
    corrections.write_text("id,action,change_to\n")
    ended = command(*arguments, "--corrections", corrections)
    assert ended.code == 0
    assert (labels()[CHANGED], labels()[REMOVED]) == ("blue", "green")
    assert FeatureStore.open(features).manifest.corrections == ()


def test_an_example_without_a_label_gets_one(features: Path, tmp_path: Path) -> None:
    relabel(features, {"blue/07.png": None})
    path = tmp_path / "mine.csv"
    path.write_bytes(to_csv([Correction("blue/07.png", "change", "blue")]))
    trained = train(features, tmp_path / "m", run=RunOptions(report=False))
    assert trained.unlabelled == 1
    trained = train(features, tmp_path / "n", run=RunOptions(report=False, corrections=path))
    assert trained.unlabelled == 0


PLANTED = 0.05  # of the training labels


def test_planted_label_errors_are_found_ticked_and_corrected(
    browser: webdriver.Chrome, digits_job: Path, tmp_path: Path
) -> None:
    """A person who can read digits goes through the suspects; the test labels are right."""
    features, saved = tmp_path / "features", tmp_path / "corrections.csv"
    shutil.copytree(digits_job / "features", features)
    known = Model.open(digits_job / "model").examples().to_pylist()
    truth = {row["id"]: row["label"] for row in known}
    training = [row["id"] for row in known if row["split"] == "train"]
    random = np.random.default_rng(0)
    wrong = random.choice(training, round(PLANTED * len(training)), replace=False).tolist()
    others = {id: sorted(set(truth.values()) - {truth[id]}) for id in wrong}
    relabel(features, {id: str(random.choice(others[id])) for id in wrong})
    splits = SplitOptions(split_of=str(digits_job / "model"))
    planted = train(features, tmp_path / "planted", splits=splits)

    resize(browser, 1280)
    open_fresh(browser, (tmp_path / "planted" / REPORT).as_uri())
    downloads(browser, tmp_path)
    found = []
    for question in browser.find_elements(By.CSS_SELECTOR, "#suspects .question"):
        id = question.get_attribute("data-id") or ""
        found.append(id)
        browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", question)
        select = Select(question.find_element(By.TAG_NAME, "select"))
        if id not in wrong:
            question.find_element(By.CSS_SELECTOR, "[value=keep]").click()
        elif select.first_selected_option.text == truth[id]:
            question.find_element(By.CSS_SELECTOR, "[value=change]").click()
        else:
            question.find_element(By.TAG_NAME, "select").click()
            select.select_by_value(truth[id])
    browser.find_element(By.ID, "save").click()
    WebDriverWait(browser, 60).until(lambda _: saved.exists())
    assert browser.get_log("browser") == []

    run = RunOptions(report=False, corrections=saved)
    corrected = train(features, tmp_path / "corrected", splits=splits, run=run)
    assert corrected.model.card.corrections["changed"] == len(set(found) & set(wrong))
    assert len(set(found) & set(wrong)) >= 0.7 * len(wrong)
    assert len(found) <= 1.5 * len(wrong)
    assert corrected.scores.accuracy > planted.scores.accuracy
    assert corrected.scores.log_loss < planted.scores.log_loss
    figures = {
        "planted": len(wrong),
        "suspects": len(found),
        "found": len(set(found) & set(wrong)),
        "before": planted.scores.accuracy,
        "after": corrected.scores.accuracy,
        "log loss": (planted.scores.log_loss, corrected.scores.log_loss),
    }
    print(figures)
