"""`python -m export`."""

from headstart.data.common.application.running import run
from headstart.export.cli import app

run(app, "python -m export")
