"""What is found in the data beside near-duplicates and label errors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from conftest import paint

from headstart.classify.diagnosis.copies import find_copies
from headstart.classify.diagnosis.label_next import Unlabelled, label_next, margin_of
from headstart.classify.diagnosis.mistakes import neighbours, worst_mistakes
from headstart.classify.diagnosis.near_duplicates import near_duplicates
from headstart.classify.diagnosis.occlusion import backbone_for_looking, looks
from headstart.classify.features.loading import InMemory
from headstart.classify.splits.held_out import Answers
from headstart.classify.splits.splitting import Labelled
from headstart.data.common.errors import BackboneError
from headstart.data.contracts.backbone import load_backbone
from headstart.data.contracts.model import Model
from headstart.data.storage.places import folder_at


def labelled(ids: list[str], contents: str, labels: list[int]) -> Labelled:
    columns = {"id": ids, "path": ids, "content": list(contents)}
    table = pa.table({name: pa.chunked_array([column]) for name, column in columns.items()})
    return Labelled(table, ("cat", "dog"), np.array(labels), None)


def test_copies_with_two_labels_come_first() -> None:
    ids = ["a", "b", "c", "d", "e", "f", "g"]
    found = find_copies(labelled(ids, "xyxyxzw", [0, 0, 0, 1, 0, 0, 1]))
    assert [rows.tolist() for rows in found.rows] == [[1, 3], [0, 2, 4]]
    assert found.two_labels == 1


def test_windows_of_one_recording_are_no_copies() -> None:
    ids = ["a.wav#t=0+1", "a.wav#t=1+1", "b.wav#t=0+1", "c.wav"]
    assert [rows.tolist() for rows in find_copies(labelled(ids, "xxxy", [0] * 4)).rows] == [[0, 2]]
    assert find_copies(labelled(ids[:2], "xx", [0, 0])).rows == ()


def test_near_duplicates_within_training_are_not_the_examples_themselves() -> None:
    random = np.random.default_rng(0)
    train = random.normal(size=(400, 24)).astype(np.float32)
    train[200:210] = train[:10] + 0.001 * random.normal(size=(10, 24))
    found = near_duplicates(train, train, own=np.arange(400))
    pairs = {tuple(sorted(pair)) for pair in zip(found.test, found.train, strict=True)}
    assert pairs >= {(row, row + 200) for row in range(10)}
    assert len(pairs) <= 12
    assert (found.test != found.train).all()


def test_the_most_similar_training_examples_of_the_worst_mistakes() -> None:
    random = np.random.default_rng(0)
    train = random.normal(size=(90, 8)).astype(np.float32)
    test = train[:40] + 0.01
    labels = np.arange(40) % 2
    probabilities = np.eye(2)[labels] * 0.8 + 0.1
    probabilities[[3, 7]] = [[0.95, 0.05], [0.3, 0.7]]
    labels[[3, 7]] = 1, 0
    answers = Answers(labels, labels, probabilities, probabilities)
    assert worst_mistakes(labels, probabilities).tolist() == [3, 7]
    found = neighbours(answers, train, test)
    assert found.test.tolist() == [3, 7]
    assert found.train.shape == found.similarity.shape == (2, 3)
    assert found.train[:, 0].tolist() == [3, 7]
    assert (np.diff(found.similarity, axis=1) <= 0).all()


def test_what_to_label_next_is_unsure_and_varied() -> None:
    random = np.random.default_rng(0)
    # 3,000 sure ones; 290 unsure ones of one scene, and 10 unsure ones that differ.
    embeddings = random.normal(size=(3300, 16)).astype(np.float32)
    embeddings[3000:3290] = embeddings[3000] + 0.01 * random.normal(size=(290, 16))
    unsure = random.uniform(0.501, 0.52, 290), random.uniform(0.5, 0.501, 10)
    sure = np.concatenate([random.uniform(0.9, 1, 3000), *unsure])
    probabilities = np.stack([1 - sure, sure], axis=1)
    answers = Unlabelled(
        probabilities.argmax(axis=1),
        sure,
        margin_of(probabilities),
        lambda some: np.eye(2)[[1] * len(some)],
    )
    found = label_next(answers, InMemory(embeddings))
    assert found is not None
    assert len(set(found.rows.tolist())) == len(found.rows) == 24
    assert set(range(3290, 3300)) <= set(found.rows.tolist())
    assert found.margin[0] == answers.margin.min()
    assert (found.best == 1).all()
    assert (found.second == 0).all()
    none = Unlabelled(np.zeros(0, int), np.zeros(0), np.zeros(0), lambda some: some)
    assert label_next(none, InMemory(embeddings[:0])) is None


def test_where_the_head_looked(model: Path, tiny_backbone: Path, tmp_path: Path) -> None:
    """In a photograph that is red in one corner alone, it looks there."""
    from PIL import Image

    paint(tmp_path / "looked" / "a.png", (200, 60, 60), 1, 64)
    picture = Image.open(tmp_path / "looked" / "a.png")
    picture.paste((70, 70, 70), (0, 0, 64, 64))
    picture.paste((255, 0, 0), (40, 40, 64, 64))
    picture.save(tmp_path / "looked" / "a.png")
    opened = Model.open(model)
    backbone = load_backbone(tiny_backbone)
    root = folder_at(tmp_path / "looked")
    found = looks(backbone, opened.head, root, ["a.png", "gone.png"])
    assert list(found) == ["a.png"]
    look = found["a.png"]
    assert look.pixels.shape == (8, 8, 3)
    assert 0 < look.most <= 1


def test_another_backbone_is_refused(model: Path, tiny_backbone: Path, tmp_path: Path) -> None:
    from conftest import write_tiny_backbone

    fingerprint = Model.open(model).card.fingerprint
    assert backbone_for_looking(tiny_backbone, fingerprint).path == str(tiny_backbone)
    write_tiny_backbone(tmp_path / "other.onnx", seed=5)
    with pytest.raises(BackboneError, match="did not make these features"):
        backbone_for_looking(tmp_path / "other.onnx", fingerprint)
