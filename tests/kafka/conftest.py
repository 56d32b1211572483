"""One real broker for the run, brokers for single tests, and names of their own for each test's topics.

Processes of pytest-xdist share the one broker: the first that needs it starts it, the last that has done with it stops
it. Should all of them be killed, a watching shell kills the broker.
"""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from streams.kafka.broker import LocalBroker, free_port
from streams.kafka.broker_jars import BrokerError, jar_folder, java_program, locked
from streams.kafka.settings import KafkaSettings
from tests.kafka.workers import Workers

WATCH = """
while sleep 1; do
    for user in "$1"/*; do
        [ -e "$user" ] || exit 0
        kill -0 "${user##*/}" 2>/dev/null && continue 2
    done
    kill -9 "$2"
    exit
done
"""
"""Kills a broker when users are still entered, and none of their processes lives."""


@pytest.fixture(scope="session")
def java() -> None:
    """Java and Maven, or the test is skipped."""
    try:
        java_program()
        jar_folder()
    except BrokerError as error:
        pytest.skip(f"no Java 17 or Maven on this machine: {error}")


@pytest.fixture(scope="session")
def broker(java: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalBroker]:
    """A running broker that tests share: never stop it, and use names that begin with `prefix`."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    users = shared / "broker-users"
    users.mkdir(exist_ok=True)
    me = users / str(os.getpid())
    with locked(shared / "broker-lock"):
        port, sasl_port = _ports(shared / "broker-ports")
        often = {"log.cleaner.backoff.ms": "300"}  # compaction is looked for every 15 s by default
        local = LocalBroker(shared / "broker", port, sasl_port, properties=often)
        me.touch()
        if local.up():
            _watch(users, local)
    yield local
    with locked(shared / "broker-lock"):
        me.unlink()
        if not list(users.iterdir()):
            _remove(local)


def _ports(file: Path) -> list[int]:
    """The ports that the first process chose: plain, and with SASL."""
    if not file.exists():
        file.write_text(f"{free_port()} {free_port()}")
    return [int(port) for port in file.read_text().split()]


def _watch(users: Path, local: LocalBroker) -> None:
    watching = f"({WATCH}) >/dev/null 2>&1 &"
    command = ["/bin/sh", "-c", watching, "sh", str(users), str(local.status().pid)]
    subprocess.run(command, check=True, start_new_session=True)


def _remove(local: LocalBroker) -> None:
    """Stop a broker; its log stays, for those who look for the reason of a failure."""
    local.down(kill=True)
    shutil.rmtree(local.folder / "data", ignore_errors=True)


@pytest.fixture
def own_broker(java: None, tmp_path: Path) -> Iterator[Callable[..., LocalBroker]]:
    """Makes brokers for one test, which may stop, kill and start them again; not up yet when handed out."""
    made: list[LocalBroker] = []

    def make(**options: Any) -> LocalBroker:
        given = {"folder": tmp_path / f"broker-{len(made)}", "port": free_port(), **options}
        made.append(LocalBroker(**given))
        return made[-1]

    yield make
    for local in made:
        _remove(local)


@pytest.fixture
def prefix() -> str:
    """A prefix of topics and groups that no other test has."""
    return f"t{secrets.token_hex(3)}."


@pytest.fixture
def kafka(broker: LocalBroker, prefix: str) -> KafkaSettings:
    """The shared broker, for an application of this test's own; it has no topics yet."""
    return KafkaSettings(
        bootstrap_servers=broker.bootstrap, application_id=prefix.rstrip("."), topic_prefix=prefix, partitions=3
    )


@pytest.fixture
def workers(kafka: KafkaSettings, tmp_path: Path) -> Iterator[Workers]:
    """Starts workers of this test's application, which end with it; it has no topics yet."""
    made = Workers(kafka, tmp_path)
    yield made
    made.close()
