"""What a benchmark plays on: a broker, topics of its own, workers; left, it ends what it started.

In: options of the command line. Out: a `Stage`.
Must not know: what is measured. Rule: a worker is told nothing that an operator would not tell it.
"""

from __future__ import annotations

import argparse
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from load_tests.kafka.orders import delete_topics
from load_tests.kafka.ours import settings
from load_tests.kafka.processes import cpu_s, listener, machine_cpu_s
from load_tests.kafka.state import StateTopic
from load_tests.kafka.worker import Worker
from streams.kafka.broker import LocalBroker
from streams.kafka.broker_properties import free_port
from streams.kafka.ledger import STATE_TOPIC
from streams.kafka.settings import KafkaSettings
from streams.kafka.topics import apply, topic_specs

ROOT = Path(__file__).parents[2]


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    return {
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "machine": platform.machine(),
        "commit": commit.stdout.strip() or None,
        "load": os.getloadavg()[0],
    }


@contextmanager
def broker(bootstrap: str | None, home: Path) -> Iterator[tuple[str, Path | None]]:
    """Where Kafka is, and the folder of its logs: the one named, or one of our own for as long as this lasts."""
    if bootstrap is not None:
        yield bootstrap, None
        return
    local = LocalBroker(home / "broker", free_port(), heap="1g", java_options=())  # Java's own defaults, as in earnest
    local.up()
    try:
        yield local.bootstrap, local.folder / "data"
    finally:
        local.down()


def arguments(about: str | None) -> argparse.ArgumentParser:
    """A parser with the options that all benchmarks on a stage have."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--partitions", type=int, default=4)
    parser.add_argument("--bootstrap", help="a Kafka that runs, as host:port; otherwise one is started")
    parser.add_argument("--home", type=Path, help="keep logs of the workers in this folder")
    parser.add_argument("--small", action="store_true", help="seconds instead of minutes: shows that it works")
    parser.add_argument("--json", action="store_true")
    return parser


@dataclass
class Stage:
    """A broker with topics of one application.

    Attributes
    ----------
    kafka
        Where, under a prefix of its own.
    home
        Folder for logs.
    data
        Folder of the broker's logs, where it is ours.
    """

    kafka: KafkaSettings
    home: Path
    data: Path | None
    workers: list[Worker] = field(default_factory=list)

    @property
    def broker_pid(self) -> int | None:
        """The broker's process, where it runs on this machine."""
        return listener(int(self.kafka.bootstrap_servers.rpartition(":")[2]))

    def start(self, instance: str = "w0", **told: object) -> Worker:
        """Start a worker; `told` are settings of ``[worker]``."""
        env = settings(self.kafka)
        told = {"clock": "wall", "log_format": "json", "instance_id": instance, **told}
        env |= {f"SHELFTIDE_WORKER__{name.upper()}": str(value) for name, value in told.items()}
        worker = Worker(env, self.home / f"{instance}-{len(self.workers)}")
        self.workers.append(worker)
        return worker

    def state(self) -> StateTopic:
        """What workers commit, from the first record on."""
        return StateTopic(self.kafka.bootstrap_servers, self.kafka.topic(STATE_TOPIC), self.kafka.partitions + 1)

    def state_bytes_on_disk(self) -> int | None:
        """Bytes of the state topic's files, where the broker is ours."""
        if self.data is None:
            return None
        folders = self.data.glob(f"{self.kafka.topic(STATE_TOPIC)}-*")
        files = (file for folder in folders for file in folder.iterdir() if file.suffix == ".log")
        return sum(_size(file) for file in files)


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except OSError:  # compacted away just now
        return 0


@contextmanager
def stage(args: argparse.Namespace, name: str) -> Iterator[Stage]:
    """A stage for as long as this lasts.

    Parameters
    ----------
    args
        As parsed by `arguments`.
    name
        Of the benchmark.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # by way of what ends the broker
    with ExitStack() as left:
        scratch = Path(left.enter_context(tempfile.TemporaryDirectory(prefix=f"shelftide-{name}-")))
        bootstrap, data = left.enter_context(broker(args.bootstrap, scratch))
        prefix = f"{name}{time.time_ns() // 1_000_000:x}."
        kafka = KafkaSettings(
            bootstrap_servers=bootstrap, application_id=prefix.rstrip("."), topic_prefix=prefix,
            partitions=args.partitions,
        )  # fmt: skip
        apply(kafka)
        made = Stage(kafka, args.home or scratch, data)
        try:
            yield made
        finally:
            for worker in made.workers:
                worker.kill()
            if data is None:
                delete_topics(bootstrap, [spec.name for spec in topic_specs(kafka)])


class Share:
    """What of the machine's work was neither this process's, nor its children's, nor the broker's.

    Examples
    --------
    >>> 0 <= Share(None).foreign() <= 1
    True
    """

    def __init__(self, broker_pid: int | None) -> None:
        self._broker = broker_pid or 0
        self._began = (time.monotonic(), machine_cpu_s(), self._own_s())

    def _own_s(self) -> float:
        return cpu_s(os.getpid()) + cpu_s(self._broker)

    def foreign(self) -> float:
        """Share of all cores' time since this was made that strangers took."""
        at_s, all_s, own_s = self._began
        seconds = (time.monotonic() - at_s) * (os.cpu_count() or 1)
        strangers_s = machine_cpu_s() - all_s - (self._own_s() - own_s)
        return round(min(1.0, max(0.0, strangers_s / seconds)), 3) if seconds > 0 else 0.0
