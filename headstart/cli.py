"""The front door: the whole job, and the rooms: `headstart ROOM ...` is `python -m ROOM ...`."""

from typing import Annotated

import typer

from headstart import commands
from headstart.classify.cli import app as classify
from headstart.cluster.cli import app as cluster
from headstart.data.cli import app as data
from headstart.data.common import console
from headstart.data.common.application.arguments import GroupedCommand
from headstart.export.cli import app as export
from headstart.extract.cli import extract

app = console.new_app("From a pile of labelled files to a classifier that runs anywhere.", True)


def _version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        console.say(f"headstart {version('headstart')}")
        raise typer.Exit


@app.callback()
def front(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    """From a pile of labelled files to a classifier that runs anywhere."""


app.command(cls=GroupedCommand)(commands.build)
app.command()(commands.predict)
app.command()(commands.serve)
app.add_typer(data, name="data")
app.add_typer(export, name="export")
app.command(cls=GroupedCommand)(extract)
app.add_typer(classify, name="classify")
app.add_typer(cluster, name="cluster")
