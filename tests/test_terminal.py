"""What a person sees on a narrow terminal, types wrong, or stops."""

from __future__ import annotations

import io
import json
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path

import pytest
import typer
from rich.console import Console

import headstart.cli
from headstart.classify.cli import HEAD_HELP
from headstart.classify.heads.estimators import KNOWN
from headstart.classify.scores.confusion import confusion_table
from headstart.data.common import console
from headstart.data.common.application.arguments import AsJson
from headstart.data.common.application.running import STOPPED, run, wants_json
from headstart.data.common.errors import TooManyBadError

# The main thread waits for itself, in C: it cannot answer.
ASKED = """
import signal, time
from contextlib import suppress
from headstart.data.common.application import interrupts
signal.signal(signal.SIGINT, signal.default_int_handler)  # whatever it was inherited as
interrupts.ANSWER = interrupts.GIVE_UP = 0.05
said = []
def interrupt():
    with suppress(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
        raise SystemExit("Ctrl-C did not raise")
with interrupts.Interrupts(said.append, lambda: said.append("the end")):
    interrupt()
    interrupts.settle()
    time.sleep(0.5)
    cut_off = "the end" in said
    said.clear()
    interrupt()
    time.sleep(0.5)
print(cut_off, said[:2])
"""
CRASHING = """
import atexit, os, signal, sys
from headstart.data.common import console
from headstart.data.common.application.running import run_process
app = console.new_app("Crashing.")
@app.command()
def work() -> None:
    atexit.register(os.kill, os.getpid(), signal.SIGSEGV)
    print("half done")
    raise KeyboardInterrupt
@app.command()
def rest() -> None: ...
sys.argv = ["crashing", "work"]
run_process(app, "crashing")
"""
BUSY = """
import ctypes, signal, sys, threading
from headstart.data.common import console
from headstart.data.common.application.running import run
signal.signal(signal.SIGINT, signal.default_int_handler)  # whatever it was inherited as
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
    ("typed", "meant"), [(("biuld",), "'build'"), (("classify", "trian"), "'train', 'trend'")]
)
def test_did_you_mean(command: Callable, typed: tuple[str, ...], meant: str) -> None:
    said = command(*typed)
    assert said.code == 2
    assert f"No such command '{typed[-1]}'. Did you mean {meant}?" in said.err


def test_hints_are_in_the_form_that_was_typed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console, "_typed", console._typed)
    hint = "Train one with: python -m classify train FEATURES -o MODEL"
    console.hints_as_typed("__main__.py")
    assert (console.escape(hint), console.front_door()) == (hint, "python -m headstart")
    console.hints_as_typed("headstart")
    assert console.escape(hint) == "Train one with: headstart classify train FEATURES -o MODEL"
    assert console.front_door() == "headstart"


def commands(app: typer.Typer, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Every command of an application, with its options."""
    for each in app.registered_commands:
        name = each.name or each.callback.__name__  # type: ignore[union-attr]
        yield (*path, name)
    for group in app.registered_groups:
        assert group.typer_instance
        yield from commands(group.typer_instance, (*path, str(group.name)))


EVERY = sorted(commands(headstart.cli.app))


def test_every_command_has_json(command: Callable) -> None:
    assert len(EVERY) > 20
    for words in EVERY:
        assert "--json" in command(*words, "--help").out, words


@pytest.mark.parametrize(
    ("words", "code", "error", "fix"),
    [
        (("data", "inspect", "none"), 2, "none: no such folder or manifest", "Check the path."),
        (("data", "inspct"), 2, "No such command 'inspct'. Did you mean 'inspect'?", None),
        (("extract", "photos"), 2, "Missing option '--backbone'.", None),
        (
            ("extract", "x", "-o", "y", "--backbone", "b", "--workers", "z"),
            2,
            "Invalid value",
            None,
        ),
    ],
)
def test_an_error_is_one_json_object(
    command: Callable,
    words: tuple[str, ...],
    code: int,
    error: str,
    fix: str | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    said = command(*words, "--json")
    found = json.loads(said.out)
    assert (said.code, found["exit_code"]) == (code, code)
    assert found["error"].startswith(error)
    assert found["fix"] == (fix or "headstart --help shows the options.")
    assert found["error"] in said.err


def test_a_failing_command_says_what_it_found_as_well(
    capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = console.new_app("Finds something, and fails.")

    @app.command()
    def objects(as_json: AsJson = False) -> None:
        console.show_json({"found": 1})
        raise TooManyBadError("too many", "Look.")

    @app.command()
    def lists(as_json: AsJson = False) -> None:
        console.show_json([1, 2])
        raise KeyboardInterrupt

    wrong = {"error": "too many", "fix": "Look.", "exit_code": 3}
    stopped = {"error": STOPPED, "fix": "", "exit_code": 130}
    for name, expected in (
        ("objects", {"found": 1} | wrong),
        ("lists", {"result": [1, 2]} | stopped),
    ):
        monkeypatch.setattr("sys.argv", ["x", name, "--json"])
        with pytest.raises(SystemExit) as stop:
            run(app, "x")
        assert json.loads(capsys.readouterr().out) == expected
        assert stop.value.code == expected["exit_code"]


def test_json_behind_two_dashes_is_for_another_command() -> None:
    assert wants_json(["cluster", "submit", "--json", "--", "extract"])
    assert not wants_json(["cluster", "submit", "--", "extract", "--json"])


def test_options_of_a_dataclass_are_options_of_the_command(command: Callable) -> None:
    for words in (("extract",), ("build",), ("predict",), ("data", "inspect")):
        said = command(*words, "--help").out
        for flag in ("text-column", "path-column", "label-column", "root", "allow-outside"):
            assert f"--{flag} " in said, (words, flag)
    both = command("data", "inspect", ".", "--text-column", "a", "--root", ".")
    assert "error: --text-column cannot be used with --root" in both.err


def test_shells_complete_commands_and_options(tmp_path: Path) -> None:
    def completed(line: str) -> list[str]:
        words = {"COMP_WORDS": line, "COMP_CWORD": str(line.count(" "))}
        told = subprocess.run(
            [sys.executable, "-c", COMPLETE],
            env=os.environ | words | {"_HEADSTART_COMPLETE": "complete_bash"},
            capture_output=True,
            text=True,
            check=True,
        )
        return told.stdout.split()

    assert completed("headstart cl") == ["classify", "cluster"]
    assert completed("headstart extract --path") == ["--path-column"]


COMPLETE = """
import sys
sys.argv = ["headstart"]
from headstart.__main__ import main
main()
"""
SLOW = """
import time, sys
from headstart.data.common import console
from headstart.data.common.application.running import run
app = console.new_app("Slow.")
@app.command()
def work() -> None:
    time.sleep(2)
    with console.spinner("starting Ray"):
        time.sleep(1)
    console.say("a result")
@app.command()
def rest() -> None: ...
sys.argv = ["slow", "work"]
run(app, "slow")
"""


def test_a_terminal_shows_that_a_command_works(tmp_path: Path) -> None:
    """Until it says something itself; what a pipe gets has no trace of it."""
    main, terminal = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-c", SLOW], stdout=subprocess.PIPE, stderr=terminal
    ) as process:
        os.close(terminal)
        shown = b""
        while True:
            try:
                got = os.read(main, 4096)
            except OSError:  # how Linux says that the other side was closed
                break
            if not got:
                break
            shown += got
        assert process.stdout
        assert process.stdout.read() == b"a result\n"
    os.close(main)
    assert process.returncode == 0
    assert 0 < shown.index(b"working") < shown.index(b"starting Ray")


def test_a_question_after_ctrl_c_is_not_cut_off() -> None:
    """Who is asked what to do has as long as they like."""
    found = subprocess.run(
        [sys.executable, "-c", ASKED], capture_output=True, text=True, check=False
    )
    assert (found.returncode, found.stderr) == (0, "")
    assert found.stdout == "False ['stopping ... (Ctrl-C again ends it at once)', 'the end']\n"


def test_no_exit_handler_of_another_library_is_run_after_ctrl_c() -> None:
    """Those of Ray crashed in one of four tries, when it was interrupted as it started."""
    found = subprocess.run(
        [sys.executable, "-c", CRASHING], capture_output=True, text=True, check=False
    )
    assert (found.returncode, found.stdout) == (130, "half done\n")
    assert found.stderr == "stopped; what was written whole is kept\n"


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
