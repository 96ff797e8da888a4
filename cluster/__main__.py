"""`python -m cluster`."""

from headstart.cluster.cli import app
from headstart.data.common.application.running import run_process

run_process(app, "python -m cluster")
