"""Whether this machine can bear a worker: memory for the series that are allowed, the port of metrics, room on disk.

In: settings. Out: `Finding`s.
Must not know: Kafka. Rule: nothing is changed; a port is tried and given back at once.
"""

from __future__ import annotations

import errno
import http.client
import os
import shutil
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from streams.engine import Engine, EngineConfig
from streams.kafka.findings import Finding, Level, gibibytes
from streams.kafka.settings import MIB, WorkerSettings

KEYS_BYTES = 350
"""Strings and indexes of a series with its price line, measured (docs/adr/0005, tests/test_memory.py)."""

CATALOG_BYTES = 390
"""An item's entry in the catalog with its title, measured there too. Each series is taken for an item of its own."""

DEDUPE_BYTES = 128 * MIB
"""Ids of a shard at most: two generations of 8 million cells (`streams.dedupe`)."""

PROGRAM_BYTES = 200 * MIB
"""A worker without any series: Python, numpy, Faust and librdkafka take 120 MiB, their queues the rest."""

TIGHT_SHARE = 0.8
LEAST_DISK_BYTES, LITTLE_DISK_BYTES = 100 * MIB, 1024 * MIB
CGROUPS = Path("/sys/fs/cgroup")
_UNLIMITED = 1 << 60


def memory(config: EngineConfig, worker: WorkerSettings, shards: int) -> Finding:
    """What a worker with so many shards takes at most, against what this machine and its container allow."""
    each = series_bytes(config)
    needed = PROGRAM_BYTES + worker.max_buffered_bytes + shards * (config.max_series * each + DEDUPE_BYTES)
    allowed, whose = allowance()
    found = (
        f"{shards} shard{'s' * (shards > 1)} of at most {config.max_series:,} series of {each:,} bytes take up to "
        f"{gibibytes(needed)}, and {whose} {gibibytes(allowed)}"
    )
    facts = {"needed_bytes": needed, "allowed_bytes": allowed, "series_bytes": each, "shards": shards}
    if needed > TIGHT_SHARE * allowed:
        return Finding("memory", "warning", found, "lower max_series, give more memory, or run more workers", facts)
    return Finding("memory", "ok", found, facts=facts)


def series_bytes(config: EngineConfig) -> int:
    """Bytes that a series takes: its rows in all arrays, its keys, its item in the catalog.

    Examples
    --------
    >>> 4_000 < series_bytes(EngineConfig()) < 5_000
    True
    """
    engine = Engine(replace(config, max_series=1))
    tables = (engine.panes, engine.outcomes, engine.positions, engine.replenishment, engine.prices.lines)
    more = (engine.refresh.table, engine.listed, engine.buckets.series, engine.price_forecasts)
    rows = sum(table.row_bytes for table in tables) + sum(table.row_bytes for table in more)
    return rows + KEYS_BYTES + CATALOG_BYTES


def allowance() -> tuple[int, str]:
    """Bytes of memory that this process may have, and who says so."""
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limit = min(_limits(), default=_UNLIMITED)
    return (limit, "the container allows") if limit < machine else (machine, "the machine has")


def _limits() -> Iterator[int]:
    """Limits of the control groups that this process is in."""
    try:
        own = Path("/proc/self/cgroup").read_text(encoding="ascii").strip().rpartition(":")[2].lstrip("/")
    except OSError:
        return
    places = [CGROUPS / own, *(CGROUPS / own).parents]
    files = [place / "memory.max" for place in places if place.is_relative_to(CGROUPS)]
    for file in [*files, CGROUPS / "memory" / "memory.limit_in_bytes"]:
        try:
            text = file.read_text(encoding="ascii").strip()
        except OSError:
            continue
        if text.isdecimal():
            yield int(text)


def metrics_port(worker: WorkerSettings) -> Finding:
    """Whether the port of metrics is free, or a worker answers there."""
    host, port = worker.metrics_host, worker.metrics_port
    if not port:
        return Finding("metrics port", "ok", "none is served" if port is None else "any free one is taken")
    try:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as tried:
            tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            tried.bind((host, port))
        return Finding("metrics port", "ok", f"port {port} of {host} is free")
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            why = f"port {port} of {host} cannot be listened on ({error.strerror})"
            return Finding("metrics port", "fault", why, "set worker.metrics_host and worker.metrics_port")
    if _is_worker(host, port):
        return Finding("metrics port", "ok", f"a worker answers at port {port} of {host}")
    advice = "set worker.metrics_port to another, or to 0 for any free one"
    return Finding("metrics port", "fault", f"port {port} of {host} is taken by another program", advice)


def _is_worker(host: str, port: int) -> bool:
    connection = http.client.HTTPConnection(host, port, timeout=2)
    try:
        connection.request("GET", "/live")
        return connection.getresponse().getheader("Server", "").startswith("shelftide")
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def disk(worker: WorkerSettings) -> Finding:
    """Whether the folder of state can be written, and has room."""
    folder = worker.state_folder.expanduser()
    place = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not os.access(place, os.W_OK | os.X_OK) or not place.is_dir():
        return Finding("disk", "fault", f"{str(folder)!r} cannot be written", "set worker.state_folder")
    free = shutil.disk_usage(place).free
    found, facts = f"{gibibytes(free)} are free for {str(folder)!r}", {"free_bytes": free}
    if free >= LITTLE_DISK_BYTES:
        return Finding("disk", "ok", found, facts=facts)
    level: Level = "warning" if free >= LEAST_DISK_BYTES else "fault"
    return Finding("disk", level, found, "make room, or set worker.state_folder", facts)
