"""Sample sets that are downloaded or recorded."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import packed_files
import pytest

from headstart.data.examples.opening import open_source
from headstart.data.samples import DOWNLOADS, VOICES


def test_data_sets_that_keras_downloads_are_sources(
    tmp_path: Path, command: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path / "server"
    packed_files.mnist(here)
    for name in ("cifar-10-python.tar.gz", "cifar-100-python.tar.gz"):
        files = packed_files.cifar10_python if "-10-" in name else packed_files.cifar100_python
        packed_files.write_tar(here / name, files(20))
    pixels, labels = packed_files.digits(30, 28)
    np.savez(
        here / "mnist.npz", x_train=pixels[:, 0], y_train=labels, x_test=pixels[:, 0], y_test=labels
    )
    for home in ("keras", "other"):
        (tmp_path / home).mkdir()  # Keras takes /tmp/.keras where its folder cannot be written
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    monkeypatch.setattr(
        "headstart.data.samples.DOWNLOADS",
        {
            name: tuple((f"file://{here}/{a.rpartition('/')[2]}", None) for a, _ in files)
            for name, files in DOWNLOADS.items()
        },
    )
    for name, count in {"cifar10": 80, "cifar100": 40, "mnist": 60, "fashion-mnist": 80}.items():
        answer = command("data", "sample", name, tmp_path / name)
        assert answer.code == 0, answer.err
        assert len(open_source(tmp_path / name)) == count
    (here / "cifar-10-python.tar.gz").unlink()
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "other"))
    answer = command("data", "sample", "cifar10", tmp_path / "x")
    assert answer.code == 2
    assert "cifar-10-python.tar.gz cannot be downloaded: " in answer.err
    assert "Get cifar-10-python.tar.gz elsewhere and give it to headstart" in answer.err


def test_speakers_are_recorded_or_their_package_is_named(
    tmp_path: Path, command: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    flite = tmp_path / "flite"
    flite.write_text('#!/bin/sh\necho "$2: $4" > "$6"\n')
    flite.chmod(0o755)
    monkeypatch.setattr("shutil.which", lambda name: str(flite))
    monkeypatch.setattr("headstart.data.samples.SENTENCES", 3)
    assert command("data", "sample", "speakers", tmp_path / "voices").code == 0
    table = open_source(tmp_path / "voices" / "manifest.csv").examples.to_pylist()
    assert len(table) == 12
    assert table[0] == {
        **{"id": "awb/000.wav", "path": "awb/000.wav", "label": "awb", "split": None},
        "group": "sentence 0",
    }
    said = {(tmp_path / "voices" / voice / "000.wav").read_text()[-20:] for voice in VOICES}
    assert len(said) == 1
    monkeypatch.setattr("shutil.which", lambda name: None)
    answer = command("data", "sample", "speakers", tmp_path / "x")
    assert answer.err.endswith("  Install it with: apt-get install flite\n")
