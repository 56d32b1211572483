"""The commands `broker up`, `broker status` and `broker down`: a real Kafka on this machine, for trying things out.

In: options. Out: a broker that outlives the command, or its end; what is known of it on stdout.
Must not know: how a broker is run. Rule: the three choose the same broker when they are given the same options.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from shelftide.report import Json, note, print_json, print_table, working

if TYPE_CHECKING:
    from streams.kafka.broker import BrokerStatus, LocalBroker
    from streams.kafka.broker_compose import ComposeBroker

app = typer.Typer(
    help="Run a real Kafka on this machine: one node, on loopback.", no_args_is_help=True, rich_markup_mode="markdown"
)

NOT_RUNNING, NOT_SERVING = 1, 3

_PORT, _HEAP = 9092, "512m"
_Way = Literal["compose", "jars"]
Folder = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        help="Where its data, log and pid lie, if not in a container. Default: shelftide/broker in the user's folder "
        "of state.",
    ),
]
Port = Annotated[int, typer.Option(metavar="N", min=1, max=65535, help="Where clients connect, on 127.0.0.1.")]
Heap = Annotated[str, typer.Option(metavar="SIZE", help="Most memory of its Java objects, such as 512m or 2g.")]
With = Annotated[
    _Way | None,
    typer.Option(
        "--with",
        help="Run it in a container (compose), or from its jars with Java 17. Without: compose where a Docker engine "
        "runs and no --folder is given, else jars.",
    ),
]


@app.command("up")
def up(folder: Folder = None, port: Port = _PORT, heap: Heap = _HEAP, way: With = None, json: Json = False) -> None:
    """Start Kafka and wait until it serves; it stays when this command ends.

    Reads nothing. The first start fetches the image, or by Maven the jars (43 MB, into the user's cache).

    Writes DIR: `data/`, `broker.log`, `server.properties`, `pid`; or, with compose, a volume of Docker.
    """
    chosen = _broker(folder, way, port, heap)
    with working("starting Kafka"):
        started = chosen.up()
    status = chosen.status()
    _print("Kafka runs" if started else "Kafka ran already", status, json, started=started)
    if not json:
        where = f" --folder {folder}" if folder is not None else ""
        note(f"stop it with `shelftide broker down{where}`; its data stay")


@app.command("status")
def status(folder: Folder = None, way: With = None, json: Json = False) -> int:
    """Say whether Kafka runs and serves.

    Reads DIR, or asks Docker. Writes nothing.

    Exit codes: 0 it serves, 1 it does not run, 3 it runs and does not accept connections.
    """
    found = _broker(folder, way).status()
    state = "Kafka serves" if found.serving else "Kafka runs, and accepts no connections" if found.running else ""
    _print(state or "Kafka does not run", found, json)
    return 0 if found.serving else NOT_SERVING if found.running else NOT_RUNNING


@app.command("down")
def down(folder: Folder = None, way: With = None, json: Json = False) -> None:
    """Stop Kafka in order; its data stay for the next start.

    Reads DIR, or asks Docker. Writes nothing.
    """
    chosen = _broker(folder, way)
    with working("stopping Kafka"):
        stopped = chosen.down()
    _print("Kafka has stopped" if stopped else "no Kafka ran", chosen.status(), json, stopped=stopped)


def _broker(folder: Path | None, way: _Way | None, port: int = _PORT, heap: str = _HEAP) -> LocalBroker | ComposeBroker:
    """The broker that these options mean."""
    from streams.kafka.broker import LocalBroker
    from streams.kafka.broker_compose import ComposeBroker
    from streams.kafka.settings import state_folder

    if way == "compose" and folder is not None:
        raise typer.BadParameter("a container keeps its data in a volume; leave --folder out", param_hint="--folder")
    local = LocalBroker(folder or state_folder() / "broker", port, heap=heap)
    if way == "jars" or folder is not None:
        return local
    container = ComposeBroker(port, heap)
    if way == "compose":
        return container
    return local if local.status().running or container.missing() is not None else container


def _print(state: str, status: BrokerStatus, json: bool, **done: Any) -> None:
    if json:
        print_json({**done, "with": "compose" if status.folder is None else "jars", **_plain(status)})
        return
    rows = [("clients connect to", status.bootstrap)] if status.running else []
    if status.folder is not None:
        rows += [("data", str(status.folder)), ("log", str(status.log))]
    if status.pid is not None:
        rows.append(("process", str(status.pid)))
    print_table(state, rows)


def _plain(status: BrokerStatus) -> dict[str, Any]:
    from dataclasses import asdict

    return {name: str(value) if isinstance(value, Path) else value for name, value in asdict(status).items()}
