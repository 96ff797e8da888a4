"""Runs a command: what Ctrl-C does to it, what is shown while it works, and how its errors end.

With `--json`, stdout has one JSON document: the result, or an object with `error`, `fix` and
`exit_code` if the command fails. What a failing command found out stands beside these keys if it is
an object, or else under `result`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any

import typer

from headstart.data.common import console
from headstart.data.common.application.interrupts import Interrupts
from headstart.data.common.errors import HeadstartError, TerminatedError

INTERRUPTED = 130  # the usual exit code after Ctrl-C
STOPPED = "stopped; what was written whole is kept"


def run(app: typer.Typer | Callable[[], typer.Typer], name: str) -> None:
    """Run an application; our errors are printed on stderr and become an exit code.

    Parameters
    ----------
    app
        Or what imports it, so that Ctrl-C is answered meanwhile.
    name
        How the user started it.
    """
    machine = wants_json(sys.argv[1:])
    console.results.clear()

    def fail(message: str, fix: str, code: int) -> None:
        if machine:
            console.print_json(_failure(message, fix, code))

    def give_up() -> None:
        console.note(STOPPED)
        fail(STOPPED, "", INTERRUPTED)
        sys.stdout.flush()
        os._exit(INTERRUPTED)

    try:
        with Interrupts(console.note, give_up), console.waiting.shown():
            (app if isinstance(app, typer.Typer) else app())(prog_name=name)
    except HeadstartError as error:
        console.error(str(error))
        fail(error.message, error.fix, error.exit_code)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        console.note(STOPPED)
        fail(STOPPED, "", INTERRUPTED)
        sys.exit(INTERRUPTED)
    except SystemExit as stop:  # typer ends every command so
        if stop.code == INTERRUPTED:  # typer turns Ctrl-C into this, and prints nothing
            console.note(STOPPED)
            fail(STOPPED, "", INTERRUPTED)
        elif stop.code:
            wrong = getattr(stop.__context__, "format_message", lambda: "it failed")()
            fail(wrong, f"{name} --help shows the options.", int(stop.code))
        else:
            for result in console.results:
                console.print_json(result)
        raise
    except Exception as error:
        fail(f"{type(error).__name__}: {error}", "This is a mistake in headstart.", 1)
        raise


def run_process(app: typer.Typer | Callable[[], typer.Typer], name: str) -> None:
    """`run` in a process of its own, which ends at once after Ctrl-C or `SIGTERM`.

    All of ours is cleaned up then. The exit handlers of Ray and other libraries are not run: if
    they were interrupted as they started, these may crash (`SIGSEGV` instead of 130).
    """
    try:
        run(app, name)
    except SystemExit as stop:
        if stop.code not in (INTERRUPTED, TerminatedError.exit_code):
            raise
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(stop.code)


def wants_json(arguments: list[str]) -> bool:
    """Whether the command was asked for JSON; what is behind `--` is for another one."""
    own = arguments[: arguments.index("--")] if "--" in arguments else arguments
    return "--json" in own


def _failure(message: str, fix: str, code: int) -> dict[str, Any]:
    found = console.results[0] if console.results else {}
    known = found if isinstance(found, dict) else {"result": found}
    return known | {"error": message, "fix": fix, "exit_code": code}
