"""Several workers under one command: processes that share the partitions as members of one group.

In: the options of the command, how many. Out: an exit code; the processes' logs come through.
Must not know: how a worker works. Rule: they end together: when one ends by itself the others are stopped, and whoever
supervises the command starts all anew.

Python runs one thread at a time; a second process is what uses a second core, as stream threads do elsewhere.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from types import FrameType

WATCH_S = 0.1
STOP_S = 8.0
"""A worker stops within five seconds; then it is killed."""


def run_processes(count: int, arguments: Sequence[str], instance: str | None, metrics_port: int | None) -> int:
    """Run workers as processes of their own until told to stop; the first exit code that is not 0 comes back.

    Parameters
    ----------
    count
        How many.
    arguments
        Options of the command, without those that differ between them.
    instance
        Their common instance id, to which a number is added; None: each takes one of this machine's.
    metrics_port
        Port of the first; the others have the next ones. None or 0 as in the settings.
    """
    workers = [
        subprocess.Popen(_command(arguments, instance, number), env=_environment(metrics_port, number))  # noqa: S603
        for number in range(count)
    ]
    asked: list[int] = []

    def ask(number: int, frame: FrameType | None) -> None:
        asked.append(number)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, ask)
    while not asked and all(worker.poll() is None for worker in workers):
        time.sleep(WATCH_S)
    return _stopped(workers)


def _command(arguments: Sequence[str], instance: str | None, number: int) -> list[str]:
    own = [] if instance is None else ["--instance", f"{instance}-{number}"]
    return [sys.executable, "-m", "shelftide.cli", "worker", *arguments, *own]


def _environment(metrics_port: int | None, number: int) -> dict[str, str]:
    port = -1 if metrics_port is None else metrics_port + number * (metrics_port > 0)
    return {**os.environ, "SHELFTIDE_WORKER__METRICS_PORT": str(port)}


def _stopped(workers: Sequence[subprocess.Popen[bytes]]) -> int:
    """Stop those that still run; the first code that tells of a failure comes back."""
    codes = [worker.poll() for worker in workers]
    for worker in workers:
        if worker.poll() is None:
            worker.send_signal(signal.SIGTERM)
    until_s = time.monotonic() + STOP_S
    for worker in workers:
        try:
            worker.wait(max(0.1, until_s - time.monotonic()))
        except subprocess.TimeoutExpired:
            worker.kill()
            worker.wait()
    codes += [worker.returncode for worker in workers]
    return next((code if code > 0 else 128 - code for code in codes if code), 0)
