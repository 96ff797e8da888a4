"""The rooms: which may import which, which need no TensorFlow, and how many modules they have."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterable
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


NETWORKS = ("headstart.export.networks.", "headstart.export.options.")


def is_finetuning(path: Path) -> bool:
    return ROOT / "classify" / "finetune" in path.parents


def files(room: str) -> list[Path]:
    found = sorted((ROOT / room).rglob("*.py"))
    assert found
    return found


def imports(path: Path) -> set[str]:
    """The full names of all modules that a file imports, also inside of functions."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def packages(path: Path) -> set[str]:
    """The top-level names of what a file imports."""
    return {name.split(".")[0] for name in imports(path)}


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_what_it_may(room: str) -> None:
    """Fine-tuning alone reaches into another room: it trains the networks that `export` builds."""
    for path in files(room):
        named = {name for name in imports(path) if name.startswith("headstart.")}
        if is_finetuning(path):
            named = {name for name in named if not name.startswith(NETWORKS)}
        ours = {name.split(".")[1] for name in named}
        assert ours - {room} <= MAY_IMPORT[room], f"{path} imports {ours - MAY_IMPORT[room]}"
        assert not packages(path) & set(ROOMS), f"{path} takes what a user may have for ours"


def test_no_circle_of_imports() -> None:
    """Not even through imports inside of functions; what only type checkers see counts as well."""
    modules = {
        ".".join(("headstart", *path.relative_to(ROOT).with_suffix("").parts)): path
        for room in ROOMS
        for path in files(room)
    }
    waiting = {name: {each for each in imports_of(path, modules)} for name, path in modules.items()}
    while free := [name for name, needed in waiting.items() if not needed & waiting.keys()]:
        for name in free:
            del waiting[name]
    assert not waiting, f"a circle, or what needs one: {sorted(waiting)}"


def imports_of(path: Path, modules: Iterable[str]) -> set[str]:
    """Those of the modules that a file imports, or imports something from."""
    found = imports(path)
    return {name for each in found for name in (each, each.rpartition(".")[0]) if name in modules}


@pytest.mark.parametrize("room", ["data", "extract", "cluster", "classify"])
def test_only_export_imports_tensorflow(room: str) -> None:
    """The exceptions are the Keras head and fine-tuning, which import it inside functions."""
    for path in files(room):
        if is_finetuning(path):
            assert packages(path) & HEAVY <= {"torch", "torchvision"}, path
            continue
        own = path == ROOT / "classify" / "heads" / "keras_head.py"
        assert packages(path) & HEAVY == ({"tensorflow", "tf2onnx"} if own else set()), path


@pytest.mark.parametrize("room", ROOMS)
def test_every_module_has_a_docstring(room: str) -> None:
    for path in files(room):
        assert ast.get_docstring(ast.parse(path.read_text())), f"{path} has no docstring"


@pytest.mark.parametrize("room", ROOMS)
def test_no_folder_has_too_many_modules(room: str) -> None:
    """A dozen modules side by side are enough."""
    for folder in {path.parent for path in files(room)}:
        assert len([path for path in folder.glob("[!_]*.py")]) <= 12, folder


def test_no_pickle_is_loaded() -> None:
    """The one exception is the restricted reader of PyTorch weights, which builds tensors only."""
    for room in ROOMS:
        for path in files(room):
            found = packages(path) & {"pickle", "joblib", "cloudpickle", "dill", "shelve"}
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
        assert (
            front.stdout.replace(f"python -m headstart {room}", f"python -m {room}") == side.stdout
        )
