"""`python -m classify`."""

from headstart.classify.cli import app
from headstart.data.common.console import run

run(app, "python -m classify")
