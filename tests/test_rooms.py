"""The rooms: who may import whom, and who must do without TensorFlow."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ("data", "extract", "classify", "export", "cluster")
MAY_IMPORT: dict[str, set[str]] = {
    "data": set(),
    "extract": {"data"},
    "classify": {"data"},
    "export": {"data"},
    "cluster": set(ROOMS),
}
HEAVY = {"tensorflow", "keras", "tf2onnx", "torch", "torchvision", "timm", "transformers"}
LONGEST = 400  # lines of a file


def files(room: str) -> list[Path]:
    found = sorted((ROOT / room).rglob("*.py"))
    assert found
    return found


def imports(path: Path) -> set[str]:
    """The top-level names of all modules that a file imports, also inside of functions."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names.add((node.module or "").split(".")[0])
    return names


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_what_it_may(room: str) -> None:
    for path in files(room):
        others = imports(path) & set(ROOMS) - {room}
        assert others <= MAY_IMPORT[room], f"{path} imports {others - MAY_IMPORT[room]}"


@pytest.mark.parametrize("room", ["data", "extract", "cluster", "classify"])
def test_only_export_knows_tensorflow(room: str) -> None:
    """But for the one head that is a Keras model, which imports it inside of its functions."""
    for path in files(room):
        own = path == ROOT / "classify" / "keras_head.py"
        assert imports(path) & HEAVY == ({"tensorflow", "tf2onnx"} if own else set()), path


@pytest.mark.parametrize("room", ROOMS)
def test_files_stay_short_and_say_what_they_are(room: str) -> None:
    for path in files(room):
        text = path.read_text()
        assert len(text.splitlines()) <= LONGEST, path
        if path.name != "__init__.py":
            assert ast.get_docstring(ast.parse(text)), f"{path} has no docstring"


def test_no_pickle_is_loaded() -> None:
    """The one exception is the restricted reader of PyTorch weights, which builds tensors only."""
    for room in ROOMS:
        for path in files(room):
            found = imports(path) & {"pickle", "joblib", "cloudpickle", "dill", "shelve"}
            assert not found or path.name == "pth.py", path


@pytest.mark.parametrize("room", ROOMS)
def test_python_m_room_helps_without_heavy_imports(room: str) -> None:
    script = (
        f"import sys, runpy; sys.argv = ['{room}', '--help']\n"
        f"try: runpy.run_module('{room}', run_name='__main__')\n"
        "except SystemExit as stop: assert not stop.code\n"
        "heavy = {'ray', 'tensorflow', 'sklearn', 'onnxruntime', 'keras'}\n"
        "print('heavy:', heavy & set(sys.modules))"
    )
    answer = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert f"python -m {room}" in answer.stdout
    assert answer.stdout.endswith("heavy: set()\n")


def test_one_front_door() -> None:
    for room in ROOMS:
        front = subprocess.run(
            [sys.executable, "-m", "headstart", room, "--help"],
            capture_output=True,
            text=True,
            check=True,
        )
        side = subprocess.run(
            [sys.executable, "-m", room, "--help"], capture_output=True, text=True, check=True
        )
        assert front.stdout.replace(f"headstart {room}", f"python -m {room}") == side.stdout
