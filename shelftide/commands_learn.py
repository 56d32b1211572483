"""The command `learn`: nets that learn on beside the workers of a shop.

In: options. Out: models in the registry, commands to workers; logs on stderr.
Must not know: how nets are fitted or judged. Rule: one of them at a time fits for an application on a machine.
"""

from __future__ import annotations

import fcntl
import os
import signal
import time
from pathlib import Path
from typing import IO, Annotated, Any

import typer

from shelftide.options import Bootstrap, Partitions, Prefix, SettingsFile, kafka_options

NICENESS = 19
"""The lowest priority: whoever else wants the core comes first."""

EveryDays = Annotated[
    int | None,
    typer.Option("--every", min=1, metavar="DAYS", help="Days between two generations.", show_default="7"),
]
Share = Annotated[
    float | None,
    typer.Option("--core-share", min=0.01, max=1, metavar="SHARE", help="Of one core, for fits.", show_default="0.5"),
]


def learn(
    settings: SettingsFile = None,
    bootstrap: Bootstrap = None,
    prefix: Prefix = None,
    partitions: Partitions = None,
    every: EveryDays = None,
    core_share: Share = None,
) -> int:
    """Fit nets to a shop's days while it runs, and promote them where they are better, until SIGTERM or Ctrl-C.

    Reads all events of the shop that Kafka has, from the first one on, and the registry (the setting model.registry).
    Of at most 4,096 series it keeps the days. A generation of nets is fitted to all of them every few days, or when a
    change is seen; it forecasts in the shadow, and becomes the champion once it is better by a test that may be looked
    at every day. Then all shards answer with it from their next commit on.

    Writes models to the registry, the command promote to engine.command.v1, and two generations of nets to a folder in
    worker.state_folder. It runs at the lowest priority. `models rollback --live` takes a promotion back.

    Exit codes: 0 stopped, 1 could not go on, 2 wrong settings.
    """
    from shelftide.settings_sources import read_settings

    told = {"every_days": every, "core_share": core_share}
    chosen = read_settings(settings, {**kafka_options(bootstrap, prefix, partitions), "learn": told})
    if chosen.bucket == "hour":
        raise typer.BadParameter("nets are fitted to days, and the setting bucket says hour", param_hint="settings")
    from streams.kafka.logs import set_up

    set_up(chosen.worker.log_format, chosen.worker.log_level)
    folder = chosen.worker.state_folder / "learn" / chosen.kafka.application_id
    lock = _alone(folder)
    os.nice(NICENESS)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        from streams.kafka.shards import steady_ms
        from streams.kafka.worker import await_kafka, check_topics

        check_topics(chosen.kafka, await_kafka(chosen.kafka, chosen.worker.connect_timeout_s, _say))
        from models.registry import Registry  # torch takes seconds: a wrong setting, or no Kafka, is told before
        from streams.kafka.trainer import Trainer, TrainerConfig

        registry = Registry(chosen.model.registry.expanduser())
        config = TrainerConfig(
            chosen.engine(), chosen.kafka, chosen.worker, chosen.learn, chosen.partitioner, chosen.forecaster(),
            registry, folder,
        )  # fmt: skip
        Trainer(config, steady_ms).run()
    except KeyboardInterrupt:
        _say("stopped")
    finally:
        lock.close()
    return 0


def _say(text: str) -> None:
    typer.echo(f"{time.strftime('%H:%M:%S')} {text}", err=True)


def _alone(folder: Path) -> IO[Any]:
    """The open file whose lock says that somebody learns for this application here."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / "lock").open("a")
    except OSError as error:
        why = f"{str(folder)!r} cannot be written ({error.strerror}); give another worker.state_folder"
        raise typer.BadParameter(why, param_hint="settings") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        why = f"another process learns for this application in {folder}; one is enough"
        raise typer.BadParameter(why, param_hint="settings") from error
    return lock
