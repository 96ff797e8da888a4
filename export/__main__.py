"""`python -m export`."""

from headstart.data.common.console import run
from headstart.export.cli import app

run(app, "python -m export")
