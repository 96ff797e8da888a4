"""`python -m classify`."""

from headstart.classify.cli import app
from headstart.data.common.application.running import run_process

run_process(app, "python -m classify")
