"""One run of one engine in a process of its own, and what the machine did meanwhile.

In: a command, the broker's process. Out: a `Run`.
Must not know: what the engine is. Rule: a figure that could not be measured is None, and a run that failed says why.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from load_tests.kafka.processes import cpu_s, machine_cpu_s


@dataclass
class Run:
    """What one run of an engine came to.

    Attributes
    ----------
    rate, rate_2nd_half
        Records per second, from the end of the first batch to the last record; and over the last half of them.
    cpu_us
        CPU microseconds per record of the engine's process, all threads, over the same span.
    broker_us, foreign_share
        CPU microseconds per record of the broker, and the share of the machine that others took, over the whole run.
    correct
        Whether the engine's sums are those of the records; None where it makes none.
    """

    engine: str
    repeat: int
    records: int
    rate: float | None = None
    rate_2nd_half: float | None = None
    cpu_us: float | None = None
    broker_us: float | None = None
    foreign_share: float = 0.0
    rss_mib: float | None = None
    correct: bool | None = None
    error: str | None = None
    more: dict[str, Any] = field(default_factory=dict)


@contextmanager
def watched(run: Run, broker_pid: int | None) -> Iterator[None]:
    """Note in a run what the broker and strangers took while it lasted; engines are this process's children."""
    t0, all0, broker0, own0 = time.monotonic(), machine_cpu_s(), cpu_s(broker_pid or 0), _own_cpu_s()
    yield
    wall_s, broker_cpu_s = time.monotonic() - t0, cpu_s(broker_pid or 0) - broker0
    strangers_s = machine_cpu_s() - all0 - broker_cpu_s - (_own_cpu_s() - own0)
    run.broker_us = broker_cpu_s / run.records * 1e6 if broker_pid else None
    run.foreign_share = round(max(0.0, strangers_s) / (wall_s * (os.cpu_count() or 1)), 3)


def _own_cpu_s() -> float:
    """CPU seconds of this process and of its children that ended."""
    return sum(os.times()[:4])


def run_command(
    run: Run, command: list[str], env: Mapping[str, str], expected: Mapping[str, float], broker_pid: int | None
) -> Run:
    """Run an engine that ends by itself and leaves its figures in the file RESULT.

    Parameters
    ----------
    run
        Is filled and comes back.
    env
        What the engine finds in its environment, beside ours: BOOTSTRAP, TOPIC, GROUP, TOTAL, VALID, RESULT, RUN_HOME.
    expected
        Sums that it must arrive at, if it makes any.
    """
    folder = Path(env["RUN_HOME"])
    with (folder / "log").open("wb") as log, watched(run, broker_pid):
        child = subprocess.Popen(command, env={**os.environ, **env}, stdout=log, stderr=log, cwd=folder)
        try:
            code = child.wait(60 + run.records / 1500)  # stock Faust's table makes 2,500 a second
        except subprocess.TimeoutExpired:
            child.kill()
            code = child.wait()
    try:
        found = json.loads(Path(env["RESULT"]).read_text("utf-8"))
    except (OSError, ValueError):
        words = (folder / "log").read_text("utf-8", "replace").splitlines()[-1:]
        run.error = f"no result, exit code {code}; its last words: {''.join(words)}"
        return run
    for name in ("rate", "rate_2nd_half", "cpu_us", "rss_mib"):
        setattr(run, name, found.get(name))
    if "quantity" in found:
        run.correct = found["quantity"] == expected["quantity"] and near(found["revenue"], expected["revenue"])
    return run


def near(value: float, wanted: float) -> bool:
    """Whether two sums of money agree, made in another order and in floats as they were."""
    return abs(value - wanted) <= 1e-6 * abs(wanted)
