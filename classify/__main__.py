"""`python -m classify`."""

from headstart.classify.cli import app
from headstart.data.common.application.running import run

run(app, "python -m classify")
