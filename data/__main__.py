"""`python -m data`."""

from data.cli import app
from data.console import run

run(app, "python -m data")
