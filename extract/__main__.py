"""`python -m extract`."""

from headstart.data.common.application.running import run_process
from headstart.extract.cli import app

run_process(app, "python -m extract")
