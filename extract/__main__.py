"""`python -m extract`."""

from data.console import run
from extract.cli import app

run(app, "python -m extract")
