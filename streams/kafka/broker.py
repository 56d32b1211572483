"""A real Kafka on this machine: one node that is broker and controller, on loopback, from its published jars.

In: a folder and a port. Out: a running broker that outlives this process, its status, its end.
Must not know: topics, settings of the engine. Rule: only the process that the pid file of the folder names is stopped,
and only after it was seen to be that broker.
"""

from __future__ import annotations

import secrets
import signal
import socket
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from streams.kafka.broker_jars import BrokerError, jar_folder, java_program

HOST = "127.0.0.1"


def free_port() -> int:
    """A port of loopback that nothing listens on.

    Below 32,768, whence systems begin to number outgoing connections: a client that dials a stopped broker's port there
    can be given that very port as its own, reach itself, and keep the broker from coming back.
    """
    first, last = 20_000, 32_767
    start = secrets.randbelow(last - first + 1)  # two callers hardly ever get the same one
    for step in range(last - first + 1):
        port = first + (start + step) % (last - first + 1)
        if _is_free(port):
            return port
    raise BrokerError("no port from 20,000 to 32,767 is free on this machine; stop something that listens")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


@dataclass
class LocalBroker:
    """One Kafka node on loopback, with its data, log and pid in a folder."""

    folder: Path
    port: int
    heap: str = "512m"
    properties: Mapping[str, str] = field(default_factory=dict)
    _child: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def bootstrap(self) -> str:
        """Where clients find it."""
        return f"{HOST}:{self.port}"

    def up(self, timeout_s: float = 60) -> None:
        """Start it, and wait until it serves."""
        java, jars = java_program(), jar_folder()
        self.folder.mkdir(parents=True, exist_ok=True)
        config, log = self.folder / "server.properties", self.folder / "broker.log"
        config.write_text("".join(f"{name}={value}\n" for name, value in self._properties().items()))
        classpath = ["-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp", f"{jars}/*"]
        subprocess.run(  # noqa: S603
            [java, *classpath, "kafka.tools.StorageTool", "format", "--cluster-id=c2hlbGZ0aWRlLWxvY2FsMQ",
             "--config", str(config), "--ignore-formatted"], check=True, capture_output=True
        )  # fmt: skip
        with log.open("wb") as out:
            self._child = subprocess.Popen(  # noqa: S603
                [java, f"-Xmx{self.heap}", *classpath, "kafka.Kafka", str(config)],
                stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
        until = time.monotonic() + timeout_s
        while b"Kafka Server started" not in log.read_bytes():
            if self._child.poll() is not None or time.monotonic() > until:
                raise BrokerError(f"the broker did not start; see {str(log)!r}")
            time.sleep(0.05)

    def down(self, *, kill: bool = False, timeout_s: float = 30) -> None:
        """Stop it; its data stay."""
        if self._child is not None:
            self._child.send_signal(signal.SIGKILL if kill else signal.SIGTERM)
            self._child.wait(timeout_s)

    def _properties(self) -> dict[str, str]:
        controller = next(port for port in iter(free_port, None) if port != self.port)
        return {
            "process.roles": "broker,controller",
            "node.id": "1",
            "controller.quorum.voters": f"1@{HOST}:{controller}",
            "listeners": f"PLAINTEXT://{HOST}:{self.port},CONTROLLER://{HOST}:{controller}",
            "advertised.listeners": f"PLAINTEXT://{HOST}:{self.port}",
            "controller.listener.names": "CONTROLLER",
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "log.dirs": str(self.folder / "data"),
            "offsets.topic.replication.factor": "1",
            "transaction.state.log.replication.factor": "1",
            "transaction.state.log.min.isr": "1",
            "share.coordinator.state.topic.replication.factor": "1",
            "share.coordinator.state.topic.min.isr": "1",
            "group.initial.rebalance.delay.ms": "0",
            "offsets.topic.num.partitions": "4",
            "transaction.state.log.num.partitions": "4",
            "share.coordinator.state.topic.num.partitions": "1",
            "auto.create.topics.enable": "false",
            **self.properties,
        }
