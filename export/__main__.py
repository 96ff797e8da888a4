"""`python -m export`."""

from headstart.data.common.application.running import run_process
from headstart.export.cli import app

run_process(app, "python -m export")
