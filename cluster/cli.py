"""`python -m cluster`: parse, call, print."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import Annotated

import typer

from headstart.cluster.manifests.cli import app as manifest
from headstart.data.common import console

app = console.new_app("Run commands on a Ray cluster.")
app.add_typer(manifest, name="manifest")

Address = Annotated[
    str | None, typer.Option(help="The cluster's dashboard; default: http://127.0.0.1:8265.")
]


@app.command()
def submit(
    command: Annotated[list[str] | None, typer.Argument(help="What to run, after --.")] = None,
    address: Address = None,
    working_dir: Annotated[str, typer.Option(help="Folder of code that the job runs in.")] = ".",
) -> None:
    """Run COMMAND as a job of a Ray cluster and follow its output to the end."""
    from headstart.cluster.jobs import submit

    job = submit(command or [], address, working_dir, sys.stdout.write)
    console.out.print(f"job {job} succeeded")


@app.command()
def status(
    address: Address = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Show the jobs of a Ray cluster."""
    from headstart.cluster.jobs import status

    found = status(address)
    if as_json:
        console.show_json(asdict(found))
        return
    console.show({"cluster": found.address, "ray": found.ray_version, "jobs": len(found.jobs)})
    for job, state in found.jobs.items():
        console.say(f"  {job}  {state}")
