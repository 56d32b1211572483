"""What a broker of one node is told: its ports and its `server.properties`.

In: ports, a folder. Out: free ports, properties by Kafka's names.
Must not know: how a broker is started. Rule: it listens on loopback alone.
"""

from __future__ import annotations

import errno
import re
import secrets
import socket
from contextlib import suppress
from pathlib import Path

from streams.kafka.broker_jars import BrokerError

HOST = "127.0.0.1"

_SCRAM = "org.apache.kafka.common.security.scram.ScramLoginModule required;"


def server_properties(port: int, sasl_port: int | None, data: Path) -> dict[str, str]:
    """Properties of a node that is broker and controller; names and meaning are Kafka's.

    The controller gets any free port: nobody but the broker speaks to it.

    Examples
    --------
    >>> server_properties(29092, None, Path("/data"))["advertised.listeners"]
    'PLAINTEXT://127.0.0.1:29092'
    """
    controller = next(found for found in iter(free_port, None) if found not in (port, sasl_port))
    listeners = [f"PLAINTEXT://{HOST}:{port}"]
    if sasl_port is not None:
        listeners.append(f"SASL_PLAINTEXT://{HOST}:{sasl_port}")
    return {
        "process.roles": "broker,controller",
        "node.id": "1",
        "controller.quorum.voters": f"1@{HOST}:{controller}",  # static: a node alone needs no discovery
        "controller.listener.names": "CONTROLLER",
        "listeners": ",".join([*listeners, f"CONTROLLER://{HOST}:{controller}"]),
        "advertised.listeners": ",".join(listeners),
        "inter.broker.listener.name": "PLAINTEXT",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,SASL_PLAINTEXT:SASL_PLAINTEXT,CONTROLLER:PLAINTEXT",
        "sasl.enabled.mechanisms": "SCRAM-SHA-256,SCRAM-SHA-512",
        "listener.name.sasl_plaintext.scram-sha-256.sasl.jaas.config": _SCRAM,
        "listener.name.sasl_plaintext.scram-sha-512.sasl.jaas.config": _SCRAM,
        "log.dirs": str(data),
        "auto.create.topics.enable": "false",  # a misspelt topic is an error
        "offsets.topic.replication.factor": "1",
        "offsets.topic.num.partitions": "4",  # not 50: all are made before the first group can join
        "transaction.state.log.replication.factor": "1",
        "transaction.state.log.min.isr": "1",
        "transaction.state.log.num.partitions": "4",
        "share.coordinator.state.topic.replication.factor": "1",
        "share.coordinator.state.topic.min.isr": "1",
        "share.coordinator.state.topic.num.partitions": "1",
        "broker.session.timeout.ms": "3000",  # a killed node waits it out before it may come back; 9 s by default
        "broker.heartbeat.interval.ms": "500",
        "group.initial.rebalance.delay.ms": "0",  # nobody waits for members that do not come
    }


def free_port() -> int:
    """A port of loopback that nothing listens on.

    Below 32,768, whence systems begin to number outgoing connections: a client that dials a stopped broker's port there
    can be given that very port as its own, reach itself, and keep the broker from coming back.

    Raises
    ------
    BrokerError
        If all are taken.
    """
    first, count = 20_000, 12_768
    start = secrets.randbelow(count)  # two callers hardly ever get the same one
    for step in range(count):
        port = first + (start + step) % count
        if _refusal(port) is None:
            return port
    raise BrokerError("no port from 20000 to 32767 is free on this machine; stop a program that listens")


def check_heap(size: str) -> None:
    """Refuse a size that Java would not read.

    Raises
    ------
    BrokerError
        If it is not of the form ``512m``.
    """
    if not re.fullmatch(r"[1-9][0-9]*[kmgKMG]", size):
        raise BrokerError(f"{size!r} is no size of a heap; give one such as 512m or 2g", wrong_input=True)


def claim_port(port: int) -> None:
    """See to it that a broker can listen on a port.

    Raises
    ------
    BrokerError
        If it cannot.
    """
    refusal = _refusal(port)
    if refusal == errno.EACCES:
        raise BrokerError(f"port {port} needs rights that you do not have; choose one above 1023")
    if refusal is not None:
        raise BrokerError(f"port {port} of {HOST} is taken by another program; stop it, or choose another port")


def accepts(port: int) -> bool:
    """Whether something listens on a port of loopback."""
    with suppress(OSError), socket.create_connection((HOST, port), timeout=1):
        return True
    return False


def _refusal(port: int) -> int | None:
    """Why nobody can listen there, as errno; None where one can."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as Kafka does: closed connections may linger
        try:
            probe.bind((HOST, port))
        except OSError as error:
            return error.errno
    return None
