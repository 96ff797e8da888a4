"""Output for people: results on stdout, progress and notes on stderr, errors as sentences."""

from __future__ import annotations

import json
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import typer
from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.live import Live
from rich.markup import escape as escape_markup
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text


class _Waiting:
    """A spinner on a terminal while a command works and nothing else is shown."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.live: Live | None = None
        self.wanted, self.others = False, 0

    @contextmanager
    def shown(self) -> Iterator[None]:
        """While the block runs, from `SIGN` seconds on."""
        if not err.is_terminal:
            yield
            return
        self.wanted = True
        timer = threading.Timer(SIGN, self._show)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            self.wanted = False
            timer.cancel()
            self.hide()

    @contextmanager
    def instead(self) -> Iterator[None]:
        """Something else is shown while the block runs."""
        with self.lock:
            self.others += 1
            self.hide()
        try:
            yield
        finally:
            with self.lock:
                self.others -= 1
                self._show()

    def hide(self) -> None:
        """Before something is written to stdout, which may be the same terminal."""
        with self.lock:
            if self.live:
                self.live.stop()
                self.live = None

    def _show(self) -> None:
        with self.lock:
            if self.wanted and not self.others and self.live is None:
                self.live = Live(
                    Spinner("dots", "working"),
                    console=err,
                    transient=True,
                    redirect_stdout=False,
                    redirect_stderr=False,
                )
                self.live.start()


class _Stdout(Console):
    def print(self, *objects: Any, **how: Any) -> None:
        waiting.hide()
        super().print(*objects, **how)


waiting = _Waiting()
out = _Stdout(highlight=False, emoji=False)
err = Console(stderr=True, highlight=False, emoji=False)
results: list[Any] = []  # of the command that runs, for machines

# C0 and C1 controls but line feed and tab, and what changes the direction of text (Unicode standard
# annex 9), by how Python writes them.
SHOWN = {
    code: ascii(chr(code))[1:-1]
    for code in (*range(32), *range(127, 160), 0x61C, 0x200E, 0x200F, *range(0x202A, 0x202F))
    if chr(code) not in "\n\t"
} | {code: ascii(chr(code))[1:-1] for code in range(0x2066, 0x206A)}
GAP = 2  # columns between two of a table
WIDEST = 10_000  # columns of a table in a pipe or a file, where nothing may be cut off
LOG_INTERVAL = 5.0  # seconds between progress lines where a bar cannot be drawn
FIRST = 12  # columns that the text of a table gets at least, however narrow the terminal is
SIGN = 0.5  # seconds until a spinner says that a command works
HELP = {"help_option_names": ["-h", "--help"]}
ROOM = re.compile(r"\bpython -m (data|extract|classify|export|cluster)\b")
_typed = "python -m headstart"


def new_app(help: str, completion: bool = False) -> typer.Typer:
    """A command-line application with our habits: help on no arguments, no decorated tracebacks."""
    return typer.Typer(
        help=help,
        no_args_is_help=True,
        add_completion=completion,
        context_settings=HELP,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )


def hints_as_typed(program: str) -> None:
    """Write commands in hints as the user starts ours: `headstart ROOM`, or `python -m ROOM`."""
    global _typed
    installed = Path(program).stem == "headstart"  # headstart.exe on Windows
    _typed = "headstart" if installed else "python -m headstart"


def front_door() -> str:
    """How the user starts headstart."""
    return _typed


def visible(text: str) -> str:
    """Text whose control and bidirectional characters are shown, and not sent to the terminal.

    A label or a file name of someone else's could move the cursor, hide text, or reverse it.
    """
    return text.translate(SHOWN)


def escape(text: str) -> str:
    """Text of the user's for a console: as it is, neither markup nor commands to the terminal."""
    if _typed == "headstart":
        text = ROOM.sub(r"headstart \1", text)
    return escape_markup(visible(text))


def say(text: str) -> None:
    """A sentence of a result, on stdout."""
    out.print(escape(text), soft_wrap=True)


def note(text: str) -> None:
    """Print a remark on stderr."""
    err.print(escape(text), soft_wrap=True)


def show(rows: dict[str, Any]) -> None:
    """Names and values, one pair a line, on stdout."""
    width = max(map(len, rows))
    for name, value in rows.items():
        out.print(f"{escape(name):<{width}}  {escape(str(value))}", soft_wrap=True)


def error(text: str) -> None:
    """Print what went wrong on stderr."""
    err.print(f"[bold red]error:[/] {escape(text)}", soft_wrap=True)


def write(text: str) -> None:
    """Pass on what another program wrote, on stdout."""
    waiting.hide()
    sys.stdout.write(text)
    sys.stdout.flush()


def show_json(value: Any) -> None:
    """A result for machines, which is printed on stdout when the command ends."""
    results.append(value)


def print_json(value: Any) -> None:
    """A JSON document on stdout."""
    write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def show_table(columns: list[str], rows: list[list[Any]]) -> None:
    """A table on stdout; the first column is text, the others are numbers.

    On a narrow terminal the text is cut, and never a number: then lines are longer than it is wide.
    """
    header, *texts = [[visible(str(cell)) for cell in row] for row in (columns, *rows)]
    others = [max(map(cell_len, column)) for column in zip(header, *texts, strict=True)][1:]
    room = max(width() - sum(others) - GAP * len(others), FIRST)
    table = Table(box=None, header_style="bold", pad_edge=False)
    for position, column in enumerate(header):
        table.add_column(
            escape(column if position else _cut(column, room)),
            justify="right" if position else "left",
            no_wrap=True,
        )
    for first, *numbers in texts:
        table.add_row(escape(_cut(first, room)), *map(escape, numbers))
    waiting.hide()
    # A console cuts at its own width, which is 80 without a terminal.
    Console(
        file=out.file,
        force_terminal=out.is_terminal,
        highlight=False,
        emoji=False,
        width=WIDEST,
    ).print(table)


def width() -> int:
    """How many columns a line on stdout may have."""
    return out.width if out.is_terminal else WIDEST


def _cut(text: str, room: int) -> str:
    return text if cell_len(text) <= room else f"{set_cell_size(text, room - 1).rstrip()}…"


def place(path: object) -> str:
    """A path as a person would write it: relative, if it is below the current folder."""
    try:
        return str(Path(str(path)).relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def counted(number: int, noun: str) -> str:
    """A number and its noun, such as `2 rows`."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def first_few(
    items: Sequence[Any], most: int = 5, show: Callable[[Any], str] = str, separator: str = ", "
) -> str:
    """The first few of many items, and how many more there are: `a, b and 3 more`.

    Parameters
    ----------
    most
        Items that are shown.
    show
        Makes text of one item, such as `repr` for text in quotes.
    """
    more = len(items) - most
    end = f"{separator.strip(', ')} and {more:,} more" if more > 0 else ""
    return separator.join(map(show, items[:most])) + end


def human_bytes(size: float) -> str:
    """A size such as `13.5 MB`, in powers of 1,000."""
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"


class Clock:
    """Seconds by the stages of a work, for its summary."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.last = time.monotonic()

    def stage(self, name: str, now: float | None = None) -> None:
        """A stage has ended, now or at another value of `time.monotonic`; again, it adds up."""
        now = time.monotonic() if now is None else now
        self.seconds[name] = self.seconds.get(name, 0.0) + now - self.last
        self.last = now


@contextmanager
def spinner(what: str) -> Iterator[None]:
    """Show on a terminal that something is going on; nothing in a log."""
    if not err.is_terminal:
        yield
        return
    with waiting.instead(), err.status(escape(what)):
        yield


@contextmanager
def quiet_unless_watched() -> Iterator[None]:
    """No progress and no remarks where nobody looks: neither a terminal nor a notebook."""
    before = err.quiet
    err.quiet = before or not (err.is_terminal or err.is_jupyter)
    try:
        yield
    finally:
        err.quiet = before


@contextmanager
def status(what: str) -> Iterator[None]:
    """Show what is going on where progress cannot be measured: a spinner, or a line in a log."""
    if not err.is_terminal:
        note(f"{what} ...")
        yield
        return
    with waiting.instead(), err.status(escape(what)):
        yield


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(f"{task.finished_speed or task.speed or 0:,.0f}/s")


@contextmanager
def progress(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """Show how far a long piece of work is; yields a function to call with each step's size.

    On a terminal that is a bar with rate and time left, elsewhere (the log of a job, a pipe) a
    line every few seconds.
    """
    if err.is_terminal:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            _Rate(),
            TimeRemainingColumn(),
            TextColumn("left"),
        )
        with waiting.instead(), Progress(*columns, console=err) as bar:
            task = bar.add_task(escape(what), total=total)
            yield lambda step: bar.advance(task, step)
        return
    start = last = time.monotonic()
    done = 0

    def advance(step: int) -> None:
        nonlocal done, last
        done += step
        now = time.monotonic()
        if now - last >= LOG_INTERVAL and 0 < done < total:
            last, rate = now, done / (now - start)
            note(
                f"{what}: {done:,} of {total:,}, {rate:,.0f}/s, {(total - done) / rate:,.0f} s left"
            )

    yield advance
