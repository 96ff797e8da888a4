"""`headstart`, and `python -m headstart`."""

import signal
import sys

if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends what follows without a traceback

import typer

from headstart.data.common import console
from headstart.data.common.application.running import run_process


def _app() -> typer.Typer:
    from headstart.cli import app  # all rooms, while a spinner is shown

    return app


def main() -> None:
    """Entry point of the command `headstart`."""
    console.hints_as_typed(sys.argv[0])
    run_process(_app, console.front_door())


if __name__ == "__main__":
    main()
