"""`python -m data`."""

from headstart.data.cli import app
from headstart.data.common.application.running import run_process

run_process(app, "python -m data")
