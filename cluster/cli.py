"""`python -m cluster`: parse, call, print."""

from __future__ import annotations

from dataclasses import asdict
from enum import Enum
from typing import Annotated

import typer

from headstart.cluster.manifests.cli import app as manifest
from headstart.data.common import console
from headstart.data.common.application.arguments import AsJson
from headstart.data.common.application.interrupts import settle
from headstart.data.common.console import counted

app = console.new_app("Run commands on a Ray cluster.")
app.add_typer(manifest, name="manifest")

Address = Annotated[
    str | None,
    typer.Option(help="The cluster's dashboard; default: that of `up`, or http://127.0.0.1:8265."),
]
JobId = Annotated[str, typer.Argument(metavar="JOB", help="A job's id, as `list` shows it.")]


class OnInterrupt(str, Enum):
    """What Ctrl-C does to a job that is followed."""

    ask = "ask"
    detach = "detach"
    stop = "stop"


@app.command()
def up(
    cpus: Annotated[int | None, typer.Option(min=1, help="CPUs to use; default: all.")] = None,
    gpus: Annotated[int | None, typer.Option(min=0, help="GPUs to use; default: all.")] = None,
    port: Annotated[int, typer.Option(help="Port of Ray.")] = 6379,
    dashboard_port: Annotated[int, typer.Option(help="Port of the dashboard.")] = 8265,
    as_json: AsJson = False,
) -> None:
    """Start a cluster on this machine: on loopback only, and with a token."""
    from headstart.cluster import local

    with console.status("starting Ray"):
        cluster = local.up(cpus, gpus, port, dashboard_port)
    about = {"cluster": cluster.address, "ray": cluster.ray_address}
    if as_json:
        console.show_json(about)
        return
    console.show(about)
    settings = " ".join(f"{name}={value}" for name, value in local.ENVIRONMENT.items())
    console.note(
        "Submit to it with `python -m cluster submit -- extract ...`, and end it with "
        "`python -m cluster down`.\n"
        f"For `--address {cluster.ray_address}` outside of a job: export {settings}"
    )


@app.command()
def down(as_json: AsJson = False) -> None:
    """End the cluster that `up` started, and nothing else."""
    from headstart.cluster import local

    with console.status("ending Ray"):
        cluster = local.down()
    if as_json:
        console.show_json({"ended": cluster.address})
    else:
        console.say(f"ended the cluster at {cluster.address}")


@app.command()
def submit(
    command: Annotated[list[str] | None, typer.Argument(help="What to run, after --.")] = None,
    address: Address = None,
    working_dir: Annotated[str, typer.Option(help="Folder of code that the job runs in.")] = ".",
    detach: Annotated[bool, typer.Option("--detach", help="Do not follow the job.")] = False,
    on_interrupt: Annotated[
        OnInterrupt,
        typer.Option(help="What Ctrl-C does to the job; `ask` detaches without a terminal."),
    ] = OnInterrupt.ask,
    as_json: AsJson = False,
) -> None:
    """Run COMMAND as a job of a Ray cluster and follow its output to the end.

    Before it starts, the files that it names, what is uploaded, and the cluster's versions are
    checked.
    """
    from headstart.cluster.jobs import Submission, submit

    def when_interrupted() -> str:
        if on_interrupt != OnInterrupt.ask:
            return on_interrupt.value
        if not console.err.is_terminal:
            return OnInterrupt.detach.value
        settle()
        console.waiting.hide()
        try:
            stops = typer.confirm("Stop the job? Otherwise it goes on.", err=True)
        except typer.Abort:
            stops = False
        return (OnInterrupt.stop if stops else OnInterrupt.detach).value

    submission = Submission(command or [], address, working_dir, detach)
    lines: list[str] = []
    log = lines.append if as_json else console.write
    job = submit(submission, log, console.note, when_interrupted)
    status = "submitted" if detach else "succeeded"
    if as_json:
        console.show_json({"job": job, "status": status, "log": "".join(lines)})
    else:
        console.say(f"job {job} {'was submitted' if detach else status}")


@app.command()
def logs(
    job: JobId,
    address: Address = None,
    follow: Annotated[bool, typer.Option("--follow", help="Go on to the job's end.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show a job's output."""
    from headstart.cluster.jobs import logs

    lines: list[str] = []
    logs(job, address, follow, lines.append if as_json else console.write)
    if as_json:
        console.show_json({"job": job, "log": "".join(lines)})


@app.command()
def stop(job: JobId, address: Address = None, as_json: AsJson = False) -> None:
    """Stop a job; what it wrote whole is kept."""
    from headstart.cluster.jobs import stop

    status = stop(job, address)
    if as_json:
        console.show_json({"job": job, "status": status})
    else:
        console.say(f"job {job} ended as {status}")


@app.command("list")
def list_jobs(address: Address = None, as_json: AsJson = False) -> None:
    """Show the jobs of a cluster, the newest first."""
    from headstart.cluster.jobs import jobs

    found = jobs(address)
    if as_json:
        console.show_json([asdict(each) for each in found])
        return
    for each in found:
        console.say(f"{each.job}  {each.status:<9}  {each.command}")
    if not found:
        console.say("no jobs")


@app.command()
def status(
    command: Annotated[
        list[str] | None, typer.Argument(help="After --: what would run where.")
    ] = None,
    address: Address = None,
    as_json: AsJson = False,
) -> None:
    """Show the nodes of a Ray cluster, and what of COMMAND would run on each."""
    from headstart.cluster.nodes import placement, status

    found = status(address)
    room, workers = placement(command, found.nodes) if command else ([], 0)
    if as_json:
        planned = {"workers": workers, "room": room} if command else {}
        console.show_json(asdict(found) | planned)
        return
    console.show(
        {
            "cluster": found.address,
            "ray": found.ray_version,
            "nodes": len(found.nodes),
            "jobs": len(found.jobs),
        }
    )
    columns = ["node", "CPUs", "GPUs", "memory"]
    rows: list[list[object]] = [
        [
            f"{node.address}{' (head)' * node.head}",
            node.cpus,
            node.gpus,
            console.human_bytes(node.memory),
        ]
        for node in found.nodes
    ]
    if command:
        columns.append("room for workers")
        rows = [[*row, here] for row, here in zip(rows, room, strict=True)]
    console.show_table(columns, rows)
    if command:
        runs = f"{counted(workers, 'worker')}, one CPU each; the rest" if workers else "all of it"
        console.say(f"{runs} runs on the head node")
