"""What a person sees on a narrow terminal, types wrong, or stops."""

from __future__ import annotations

import io
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.metadata import version

import pytest
from rich.console import Console

from headstart.classify.cli import HEAD_HELP
from headstart.classify.heads.estimators import KNOWN
from headstart.classify.scores.confusion import confusion_table
from headstart.data.common import console

# The main thread waits for itself, in C: it cannot answer.
BUSY = """
import ctypes, sys, threading
from headstart.data.common import console
from headstart.data.common.application.running import run
app = console.new_app("Busy.")
@app.command()
def work() -> None:
    threading.Timer(2, print, ["working"], {"flush": True}).start()
    mutex, lock = ctypes.create_string_buffer(64), ctypes.CDLL(None).pthread_mutex_lock
    lock(mutex), lock(mutex)
@app.command()
def rest() -> None: ...
sys.argv = ["busy", "work"]
run(app, "busy")
"""


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> Console:
    """A terminal of 80 columns."""
    terminal = Console(file=io.StringIO(), force_terminal=True, width=80, color_system=None)
    monkeypatch.setattr(console, "out", terminal)
    return terminal


def test_no_number_is_lost_at_80_columns(narrow: Console) -> None:
    long = "a class whose name is as long as the names of classes sometimes are, or longer"
    console.show_table(["class", *("number",) * 7], [[long, *range(1_000_000, 1_000_007)]])
    first, second = narrow.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert second.startswith("a class whose na…  1000000")
    assert second.split()[-7:] == [str(number) for number in range(1_000_000, 1_000_007)]
    assert len(second) <= 80
    assert first.count("number") == 7


def matrix(classes: int) -> list[list[int]]:
    return [[100 * (row == column) + row for column in range(classes)] for row in range(classes)]


def test_a_confusion_matrix_of_any_width() -> None:
    columns, rows = confusion_table(["cat", "dog"], matrix(2), 80)
    assert columns == ["true \\ predicted", "cat", "dog"]
    assert rows == [["cat", 100, 0], ["dog", 1, 101]]
    names = [f"a class with the number {place}" for place in range(12)]
    columns, rows = confusion_table(names, matrix(12), 80)
    assert columns == ["true \\ predicted", *map(str, range(1, 13))]
    assert [row[0] for row in rows] == [f"{place + 1:>2} {n}" for place, n in enumerate(names)]
    columns, rows = confusion_table(names, matrix(12), 60)
    assert columns == ["worst confusions (true -> predicted)", "examples"]
    assert rows[0] == [f"{names[11]} -> {names[0]}", 11]
    assert len(rows) == 15
    assert confusion_table(["cat", "dog"], [[3, 0], [0, 4]], 10)[1] == []


@pytest.mark.parametrize("asked", ["--version", "-h", "--help"])
def test_the_front_door_says_what_it_is(command: Callable, asked: str) -> None:
    said = command(asked)
    assert said.code == 0
    if asked == "--version":
        assert said.out == f"headstart {version('headstart')}\n"
        return
    for name in ("build", "predict", "serve", "data", "extract", "classify", "export", "cluster"):
        assert f"\n  {name} " in said.out


def test_help_is_short_for_every_command(command: Callable) -> None:
    for words in (("extract",), ("classify", "train"), ("build",), ("predict",)):
        assert command(*words, "-h").out == command(*words, "--help").out != ""
    help = " ".join(command("classify", "train", "--help").out.split())
    assert all(name in HEAD_HELP for name in KNOWN)
    assert "knn, ridge" in help


@pytest.mark.parametrize(
    ("typed", "meant"), [(("biuld",), "build"), (("classify", "trian"), "train")]
)
def test_did_you_mean(command: Callable, typed: tuple[str, ...], meant: str) -> None:
    said = command(*typed)
    assert said.code == 2
    assert f"No such command '{typed[-1]}'. Did you mean '{meant}'?" in said.err


def test_hints_are_in_the_form_that_was_typed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console, "_typed", console._typed)
    hint = "Train one with: python -m classify train FEATURES -o MODEL"
    console.hints_as_typed("__main__.py")
    assert (console.escape(hint), console.front_door()) == (hint, "python -m headstart")
    console.hints_as_typed("headstart")
    assert console.escape(hint) == "Train one with: headstart classify train FEATURES -o MODEL"
    assert console.front_door() == "headstart"


def test_ctrl_c_is_answered_while_the_main_thread_cannot() -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", BUSY], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout
    assert process.stderr
    assert process.stdout.readline() == b"working\n"
    sent = time.monotonic()
    process.send_signal(signal.SIGINT)
    assert process.stderr.readline() == b"stopping ... (Ctrl-C again ends it at once)\n"
    assert time.monotonic() - sent < 5  # half a second, where nothing else runs
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 130
    assert process.stderr.read() == b"stopped; what was written whole is kept\n"
