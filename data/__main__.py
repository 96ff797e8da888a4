"""`python -m data`."""

from headstart.data.cli import app
from headstart.data.common.application.running import run

run(app, "python -m data")
