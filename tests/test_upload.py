"""What a job takes with it: as Ray has it, and what the command names and would be missing."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Outcome

from headstart.cluster.commands import as_program, inputs, outputs
from headstart.cluster.probe import Answer, Versions, check_answer
from headstart.cluster.upload import EXCLUDES, plan_upload
from headstart.data.common.errors import InputError

OURS = Versions("3.11", "2.60.0", "0.1.0")
FIX = "  Give a whole path that the cluster's machines have, or an address in object storage."
Command = Callable[..., Outcome]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Code, with files that git, Ray or we leave out."""
    files = {
        ".gitignore": "*.csv\n/cache/\n!kept.csv\n",
        ".rayignore": "secret.txt\n",
        "code.py": "1",
        "secret.txt": "x",
        "labels.csv": "path",
        "kept.csv": "path",
        "backbone.onnx": "x",
        "cache/big": "x",
        "photos/a/1.png": "x",
        "photos/a/2.png": "x",
        "photos/.gitignore": "2.png\n",
        "whole/a/1.png": "x",
        "__pycache__/code.pyc": "x",
    }
    root = tmp_path / "work"
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def test_the_plan_is_what_ray_uploads(folder: Path, tmp_path: Path) -> None:
    from ray._private.runtime_env import packaging

    packaging.create_package(
        str(folder), tmp_path / "package.zip", include_gitignore=True, excludes=EXCLUDES
    )
    with zipfile.ZipFile(tmp_path / "package.zip") as package:
        files = {each.filename: each.file_size for each in package.infolist() if not each.is_dir()}
    upload = plan_upload(folder)
    assert upload.sizes == files
    assert set(files) == {
        *(".gitignore", ".rayignore", "code.py", "kept.csv", "whole/a/1.png"),
        *("photos/.gitignore", "photos/a/1.png"),
    }
    assert upload.describe() == (
        f"uploads 7 files ({upload.size} B) from {folder}\n"
        "leaves out __pycache__/, backbone.onnx, cache/, labels.csv, photos/a/2.png and 1 more "
        f"(.gitignore, .rayignore, or one of {', '.join(EXCLUDES)})"
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ("whole", "--backbone", "backbone.onnx"),
            "backbone.onnx would not be uploaded: *.onnx is always left out",
        ),
        (
            ("labels.csv",),
            "labels.csv would not be uploaded: .gitignore or .rayignore leaves it out",
        ),
        (
            ("cache",),
            "cache would not be uploaded: .gitignore or .rayignore leaves it out",
        ),
        (
            ("photos",),
            "photos would not be uploaded whole: photos/a/2.png would be left out",
        ),
        (("whole", "--backbone=no.onnx"), "no.onnx does not exist in {folder}"),
        (("../work2",), "../work2 is outside {folder}, which alone is uploaded"),
    ],
)
def test_a_file_that_would_be_missing_is_an_error(
    words: tuple, message: str, folder: Path, command: Command
) -> None:
    (folder.parent / "work2").mkdir()
    submit = ("cluster", "submit", "--working-dir", folder, "--", "extract", *words)
    done = command(*submit, "-o", "/data/features")
    expected = f"error: {message.format(folder=folder)}\n{FIX}\n"
    assert (done.code, done.out, done.err) == (2, "", expected)


def test_a_folder_that_is_too_large_names_its_largest_files(folder: Path, command: Command) -> None:
    for number in range(1, 7):
        with (folder / f"video{number}.mp4").open("wb") as file:
            file.truncate(number * 10_000_000)
    done = command("cluster", "submit", "--working-dir", folder, "--", "true")
    named = ", ".join(f"video{each}.mp4 ({each}0.0 MB)" for each in (6, 5, 4, 3, 2))
    assert (done.code, done.err) == (
        2,
        f"error: {folder} has 210.0 MB to upload, and Ray accepts 104.9 MB; the largest files are "
        f"{named}\n  Name them in .rayignore, or give a folder of code alone with "
        "--working-dir.\n",
    )


def test_a_secret_is_not_shown(folder: Path, command: Command) -> None:
    words = ("extract", "s3://key:hush@b/photos", "--backbone=https://h/b?sig=hush", "-o", "/f")
    done = command("cluster", "submit", "--working-dir", folder, "--", *words)
    assert done.code == 2
    assert "s3://***@b/photos contains a secret" in done.err
    assert "https://h/b?sig=*** contains a secret" in done.err
    assert "hush" not in done.err


def test_words_of_a_command() -> None:
    command = ["extract", "a", "--backbone", "b.onnx", "--prune", "-ofeatures"]
    assert as_program(command) == ["python", "-m", *command]
    assert as_program(["sh", "-c", "true"]) == ["sh", "-c", "true"]
    assert inputs(command) == ["a", "b.onnx"]
    assert outputs(command) == ["features"]
    more = ["headstart", "extract", "a", "--output=f", "--moved-from", "/old", "--engine=cuda"]
    assert (inputs(more), outputs(more)) == (["a", "cuda"], ["f"])
    assert inputs(["cc", "x.c"]) == []


@pytest.mark.parametrize(
    ("theirs", "brings", "message"),
    [
        (
            Versions("3.11", "2.55.1", None),
            None,
            "the cluster has Ray 2.55.1, and this machine Ray 2.60.0",
        ),
        (
            Versions("3.12", "2.60.0", None),
            True,
            "the cluster has Python 3.12, and this machine Python 3.11",
        ),
        (
            Versions("3.11", "2.60.0", "0.2.0"),
            False,
            "the cluster has headstart 0.2.0, and this machine headstart 0.1.0",
        ),
        (
            Versions("3.11", "2.60.0", None),
            False,
            "the cluster has no headstart, and this machine headstart 0.1.0",
        ),
    ],
)
def test_versions_are_compared(theirs: Versions, brings: bool | None, message: str) -> None:
    check_answer(Answer(OURS, {}), OURS, brings)
    with pytest.raises(InputError) as caught:
        check_answer(Answer(theirs, {}), OURS, brings)
    assert caught.value.message == message


def test_paths_that_nodes_lack_are_named() -> None:
    with pytest.raises(InputError) as caught:
        check_answer(Answer(OURS, {"/data/a": ["10.0.0.2", "10.0.0.3"]}), OURS, None)
    assert caught.value.message == "/data/a does not exist on the cluster's 10.0.0.2, 10.0.0.3"
