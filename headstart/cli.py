"""The front door: `headstart ROOM ...` is the same as `python -m ROOM ...`."""

from headstart.classify.cli import app as classify
from headstart.cluster.cli import app as cluster
from headstart.data.cli import app as data
from headstart.data.common import console
from headstart.export.cli import app as export
from headstart.extract.cli import extract

app = console.new_app("From a pile of labelled files to a classifier that runs anywhere.")
app.add_typer(data, name="data")
app.add_typer(export, name="export")
app.command()(extract)
app.add_typer(classify, name="classify")
app.add_typer(cluster, name="cluster")


def main() -> None:
    """Entry point of the command `headstart`."""
    console.run(app, "headstart")
