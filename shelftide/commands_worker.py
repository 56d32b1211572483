"""The command `worker`: one Faust worker of the application.

In: options. Out: an exit code; logs on stderr.
Must not know: how a worker works. Rule: two workers on one machine never take the same instance id.
"""

from __future__ import annotations

import fcntl
import os
import socket
from pathlib import Path
from typing import IO, Annotated, Any

import typer

from shelftide.options import Bootstrap, Partitions, Prefix, SettingsFile, kafka_options

MOST_INSTANCES = 1_024

Instance = Annotated[
    str | None,
    typer.Option(
        "--instance",
        help="Name of this worker in its group, kept over restarts. Default: the machine's name and the least number "
        "that no other worker here has.",
        metavar="ID",
        show_default=False,
    ),
]
Processes = Annotated[
    int,
    typer.Option(
        "--processes",
        help="Run so many workers, each in a process of its own: one for each core that Kafka leaves. Metrics are on "
        "as many ports in a row.",
        metavar="N",
        min=1,
        max=64,
    ),
]


Model = Annotated[
    str | None,
    typer.Option(
        "--model",
        help="Who forecasts: `pretrained`, `champion`, `baseline`, or a model of the registry.",
        metavar="NAME",
        show_default="model.name of the settings: pretrained",
    ),
]


def worker(
    settings: SettingsFile = None,
    bootstrap: Bootstrap = None,
    prefix: Prefix = None,
    partitions: Partitions = None,
    instance: Instance = None,
    model: Model = None,
    processes: Processes = 1,
) -> int:
    """Run one worker: events from Kafka, decisions to Kafka, until SIGTERM or Ctrl-C.

    Reads the item topics' partitions that its group gives it, the calendar, commands and acknowledgements.

    Writes forecasts, alerts, triggers, dead letters, and its state, in transactions: whatever happens to the process,
    nothing is lost and nothing is counted twice. More workers share the partitions.

    Serves metrics, /ready and /live on a loopback port. Exit codes: 0 stopped, 1 could not go on, 2 wrong settings.
    """
    from shelftide.settings_sources import read_settings
    from streams.kafka.logs import set_up
    from streams.kafka.service import serve_worker
    from streams.kafka.worker import WorkerConfig

    chosen = read_settings(
        settings,
        {**kafka_options(bootstrap, prefix, partitions), "worker": {"instance_id": instance}, "model": {"name": model}},
    )
    if processes > 1:
        from shelftide.worker_processes import run_processes

        options = {"--settings": settings, "--bootstrap": bootstrap, "--prefix": prefix, "--partitions": partitions,
                   "--model": model}  # fmt: skip
        given = [text for name, value in options.items() if value is not None for text in (name, str(value))]
        return run_processes(processes, given, chosen.worker.instance_id, chosen.worker.metrics_port)
    set_up(chosen.worker.log_format, chosen.worker.log_level)
    config = WorkerConfig(
        chosen.engine(), chosen.kafka, chosen.worker, chosen.partitioner, chosen.forecaster(), chosen.find_model
    )
    name, lock = chosen.worker.instance_id, None
    if name is None:
        name, lock = free_instance(chosen.worker.state_folder, chosen.kafka.application_id)
    try:
        serve_worker(config, name)
    finally:
        if lock is not None:
            lock.close()
    return 0


def free_instance(folder: Path, application_id: str) -> tuple[str, IO[Any]]:
    """The least instance id of this machine that nobody holds, and the file whose lock holds it.

    A worker that was killed gets its id back, and with it, at once, its shards.
    """
    place = folder / "instances"
    place.mkdir(parents=True, exist_ok=True)
    for number in range(MOST_INSTANCES):
        file = (place / f"{application_id}-{number}.lock").open("a")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.close()
            continue
        return f"{_host()}-{number}", file
    raise typer.BadParameter(f"{MOST_INSTANCES} workers hold the instance ids in {place}", param_hint="--instance")


def _host() -> str:
    name = socket.gethostname() or str(os.getuid())
    return "".join(c if c.isalnum() or c in "._-" else "-" for c in name)[:100]
