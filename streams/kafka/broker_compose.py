"""The same broker as a container: service `kafka` of the compose file beside the source, where a Docker engine runs.

In: a compose file, a port. Out: a running container, its status, its end.
Must not know: topics, settings of the engine. Rule: other services of the file are left alone.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from streams.kafka.broker import DEFAULT_PORT, BrokerStatus
from streams.kafka.broker_jars import BrokerError
from streams.kafka.broker_properties import HOST, check_heap

COMPOSE_FILE = Path(__file__).parents[2] / "docker-compose.yml"
"""Of a checkout; an installed package has none."""

SERVICE = "kafka"
_ASKING_S = 20.0
"""How long an engine may take to say that it is there."""


@dataclass(frozen=True)
class ComposeBroker:
    """Kafka in a container, with its data in a volume of Docker.

    Attributes
    ----------
    port
        Of loopback, where clients connect in plain text.
    heap
        Most memory of Java objects, as Java writes it: ``512m``, ``2g``.
    file
        The compose file.
    """

    port: int = DEFAULT_PORT
    heap: str = "512m"
    file: Path = COMPOSE_FILE

    @property
    def bootstrap(self) -> str:
        """Where clients find it."""
        return f"{HOST}:{self.port}"

    def missing(self) -> str | None:
        """What keeps this machine from running it; None where nothing does."""
        if not self.file.is_file():
            return f"there is no {self.file.name} beside the source"
        if shutil.which("docker") is None:
            return "there is no docker on this machine's path"
        for question, lack in ((["compose", "version"], "docker has no compose"), (["info"], "no docker engine runs")):
            try:
                answer = self._docker(question, timeout_s=_ASKING_S)
            except subprocess.TimeoutExpired:
                return f"`docker {' '.join(question)}` does not answer"
            if answer.returncode:
                return lack
        return None

    def up(self, timeout_s: float = 180) -> bool:
        """Start it unless it runs, and wait until it is healthy; the image is fetched where it is missing.

        Returns
        -------
        Whether it was started; False: it ran already.

        Raises
        ------
        BrokerError
            If there is no engine, or it refuses.
        """
        check_heap(self.heap)
        if (lack := self.missing()) is not None:
            raise BrokerError(f"Kafka cannot run in a container: {lack}; mend that, or run it from its jars")
        found = self.status()
        if found.serving and found.bootstrap == self.bootstrap:
            return False
        self._compose("up", "--detach", "--wait", "--wait-timeout", f"{timeout_s:.0f}", SERVICE)
        return True

    def status(self) -> BrokerStatus:
        """What the engine says of it."""
        container = self._container()
        running = container.get("State") == "running"
        ports = [port["PublishedPort"] for port in container.get("Publishers") or () if port.get("PublishedPort")]
        return BrokerStatus(
            running=running,
            serving=running and container.get("Health") in ("healthy", ""),
            pid=None,
            bootstrap=f"{HOST}:{ports[0]}" if ports else self.bootstrap,
            folder=None,
            log=None,
        )

    def down(self) -> bool:
        """Stop and remove the container; its volume stays.

        Returns
        -------
        Whether it ran.

        Raises
        ------
        BrokerError
            If the engine refuses.
        """
        ran = self.status().running
        self._compose("rm", "--stop", "--force", SERVICE)
        return ran

    def _container(self) -> dict[str, Any]:
        """The engine's record of the service; empty where there is none."""
        lines = self._compose("ps", "--all", "--format", "json", SERVICE).splitlines()
        rows = [json.loads(line) for line in lines if line.strip()]
        if rows and isinstance(rows[0], list):  # compose before 2.21 wrote one array
            rows = rows[0]
        return dict(rows[0]) if rows else {}

    def _compose(self, *arguments: str) -> str:
        done = self._docker(["compose", "--file", str(self.file), *arguments])
        if done.returncode:
            told = (done.stderr.strip().splitlines() or ["it does not say why"])[-1][:300]
            raise BrokerError(f"`docker compose {arguments[0]}` failed ({told}); see `docker compose logs {SERVICE}`")
        return done.stdout

    def _docker(self, arguments: list[str], timeout_s: float | None = None) -> subprocess.CompletedProcess[str]:
        chosen = {"BROKER_PORT": str(self.port), "BROKER_HEAP": self.heap}
        return subprocess.run(  # noqa: S603 - the user's own docker
            ["docker", *arguments],  # noqa: S607 - found on the user's path, as compose itself finds its parts
            capture_output=True, text=True, check=False, timeout=timeout_s, env={**os.environ, **chosen},
        )  # fmt: skip
