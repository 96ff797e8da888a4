"""`python -m cluster`."""

from cluster.cli import app
from data.console import run

run(app, "python -m cluster")
