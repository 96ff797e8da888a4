"""`python -m classify`."""

from classify.cli import app
from data.console import run

run(app, "python -m classify")
