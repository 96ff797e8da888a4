"""`python -m cluster`."""

from headstart.cluster.cli import app
from headstart.data.common.application.running import run

run(app, "python -m cluster")
