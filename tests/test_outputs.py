"""Outputs are tried before the work, and storage that fails is reported in words."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from headstart.data.common.errors import ExtractionError, StorageError
from headstart.data.storage.files import write_whole
from headstart.extract import job

LOCKED = "/sys"  # not even root may write here


@pytest.mark.parametrize(
    ("words", "output"),
    [
        (("classify", "train", "features"), "model"),
        (("classify", "predict", "model", "features"), "p.csv"),
        (("classify", "pareto", "features", "features"), "p.png"),
        (("export", "classifier", "model", "--backbone", "tiny.onnx"), "edge.onnx"),
        (("export", "backbone", "efficientnet_lite0"), "b.onnx"),
        (("export", "demo", "edge.onnx"), "site"),
        (("export", "code", "edge.onnx"), "code"),
    ],
)
def test_an_output_that_cannot_be_written_is_refused_before_the_work(
    words: tuple[str, ...], output: str, edge: Path, tmp_path: Path, command: Callable
) -> None:
    arguments = [tmp_path / word if (tmp_path / word).exists() else word for word in words]
    for place in (f"{LOCKED}/{output}", f"{LOCKED}/new/{output}"):
        answer = command(*arguments, "-o", place)
        assert answer.code == 2, answer.err
        assert place in answer.err
        assert answer.err.endswith(
            " cannot be written: Permission denied\n"
            "  Make room, change the permissions, or choose another place.\n"
        )


def test_a_disk_that_becomes_full_is_reported_in_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(number: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    path = tmp_path / "p.csv"
    path.write_text("before")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError) as caught:
        write_whole(path, b"after")
    assert str(caught.value) == (
        f"{path} cannot be written: No space left on device\n"
        "  Make room, or change the permissions, and run the same command again."
    )
    assert [each.read_text() for each in tmp_path.iterdir()] == ["before"]


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (
            OSError(errno.EMFILE, "Too many open files"),
            ExtractionError,
            "the extraction stopped: OSError(24, 'Too many open files')\n"
            "  What is done is kept. Run the same command again to continue.",
        ),
        (
            StorageError("f cannot be written: No space left on device", "Make room."),
            StorageError,
            "f cannot be written: No space left on device\n  What is done is kept. Make room.",
        ),
    ],
)
def test_only_errors_of_the_store_are_blamed_on_it(
    error: Exception,
    kind: type[Exception],
    words: str,
    photos: Path,
    tiny_backbone: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fails(*arguments: object) -> None:
        raise error

    monkeypatch.setattr(job.Work, "done", fails)
    with pytest.raises(kind) as caught:
        job.extract(photos, tiny_backbone, tmp_path / "f")
    assert str(caught.value) == words
