"""A model folder is replaced as a whole: wherever its writing stops, one whole model is there."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from headstart.data.common.errors import ModelError
from headstart.data.contracts import model as module
from headstart.data.contracts.fingerprint import Fingerprint
from headstart.data.contracts.model import (
    Model,
    ModelCard,
    ModelFiles,
    prepare_model_folder,
    write_model,
)
from headstart.data.storage.local import LocalFolder

PRINT = Fingerprint("tiny", "0" * 64, "8x8 squash", "fp32", 12)


class Killed(BaseException):
    """The process ends here."""


def write(path: Path, name: str, overwrite: bool = False, estimator: str = "head.skops") -> None:
    table = pa.table({"id": ["a"], "label": [name]})
    card = ModelCard((name, "other"), PRINT, "features", "photos", {}, "by hand")
    files = ModelFiles(name.encode(), estimator, name.encode(), table, name.encode())
    write_model(prepare_model_folder(path, overwrite), card, files)


def held(path: Path) -> str:
    """Which model is there; all its files must be of it."""
    found = Model.open(path)
    (name,) = found.examples()["label"].to_pylist()
    assert found.card.classes[0] == name
    assert found.head == found.estimator == found.folder.read("report.html") == name.encode()
    return str(name)


def test_a_write_that_dies_anywhere_leaves_a_whole_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = set()
    for stop in range(100):
        path = tmp_path / str(stop) / "m"
        write(path, "old")
        (path / "notes.txt").write_text("mine")
        calls = 0

        def dies(call: Any, stop: int = stop) -> Any:
            def counted(*arguments: Any, **keywords: Any) -> Any:
                nonlocal calls
                calls += 1
                if calls == stop + 1:
                    raise Killed
                return call(*arguments, **keywords)

            return counted

        with monkeypatch.context() as patch:
            for owner, name in (
                (os, "rename"),
                (os, "replace"),
                (os, "unlink"),
                (os, "rmdir"),
                (module.LocalFolder, "write"),
            ):
                patch.setattr(owner, name, dies(getattr(owner, name)))
            try:
                write(path, "new", overwrite=True, estimator="head.keras")
                killed = False
            except Killed:
                killed = True
        name = held(path)
        seen.add(name)
        write(path, "third", overwrite=True)
        assert held(path) == "third"
        assert (path / "notes.txt").read_text() == "mine"
        assert os.listdir(path.parent) == ["m"]
        if not killed:
            assert name == "new"
            break
    assert seen == {"old", "new"}


def test_the_first_write_may_die_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "m"
    path.mkdir()

    def full(*arguments: Any) -> None:
        raise OSError("no space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(module.ModelCard, "to_bytes", full)
        with pytest.raises(OSError, match="no space"):
            write(path, "first")
    write(path, "first")
    assert held(path) == "first"


def test_a_link_to_a_model_stays_a_link(tmp_path: Path) -> None:
    write(tmp_path / "real", "old")
    (tmp_path / "link").symlink_to("real")
    write(tmp_path / "link", "new", overwrite=True)
    assert (tmp_path / "link").is_symlink()
    assert held(tmp_path / "real") == held(tmp_path / "link") == "new"


def test_a_folder_that_cannot_be_renamed_is_refused_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os.path, "ismount", lambda path: True)
    path = tmp_path / "m"
    path.mkdir()
    write(path, "old")
    with pytest.raises(ModelError) as caught:
        write(path, "new", overwrite=True)
    assert str(caught.value) == (
        f"the model {path} cannot be replaced: its folder cannot be renamed, since it is a mount "
        "point or the folder above it is read-only\n  Choose another folder with -o."
    )
    assert held(path) == "old"
    assert LocalFolder.at(path).names() == [
        *("examples.parquet", "head.onnx", "head.skops", "model.json", "report.html")
    ]
