"""`python -m extract`."""

from headstart.data.common.application.running import run
from headstart.extract.cli import app

run(app, "python -m extract")
