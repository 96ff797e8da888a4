"""`python -m export`."""

from data.console import run
from export.cli import app

run(app, "python -m export")
