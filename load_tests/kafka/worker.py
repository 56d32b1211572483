"""Our worker as users start it, followed from outside: what it has processed, what it has committed, what it takes.

In: settings as environment. Out: samples over time.
Must not know: the worker's insides. Rule: what it has processed is its own word (metrics), what it has committed is the
broker's (offsets of its group), and what it takes is the kernel's.
"""

from __future__ import annotations

import http.client
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from load_tests.kafka.orders import Offsets
from load_tests.kafka.processes import cpu_s, rss_bytes, threads_cpu_s
from streams.kafka.broker_properties import HOST, free_port

EVENTS = "shelftide_events_total"
"""Counter of the worker: records of item topics that it has processed, by outcome."""

STEP_S = 0.02
"""Between two questions to the broker. A question costs it some 0.2 ms."""
METRICS_STEP_S = 0.5
"""Between two questions to the worker while it is busy: an answer costs it some milliseconds."""
LAST_SHARE = 0.8
"""From this share of the records on the worker is asked as often as the broker, to catch the last one."""


class WorkerError(Exception):
    """The worker ended or stood still before it had committed everything."""


@dataclass(frozen=True)
class Sample:
    """One look at a worker: seconds of this process's clock, records processed and committed, CPU seconds so far."""

    at_s: float
    processed: int
    committed: int
    cpu_s: float


class Worker:
    """A worker process with its metrics on a port of its own."""

    def __init__(self, env: Mapping[str, str], folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.port = folder, free_port()
        settings = {
            **env,
            "SHELFTIDE_WORKER__METRICS_PORT": str(self.port),
            "SHELFTIDE_WORKER__STATE_FOLDER": str(folder),
        }
        with (folder / "log").open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "shelftide.cli", "worker"],
                env={**os.environ, **settings}, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip

    def metrics(self) -> str:
        """What it says of itself; nothing before it serves."""
        connection = http.client.HTTPConnection(HOST, self.port, timeout=5)
        try:
            connection.request("GET", "/metrics")
            return connection.getresponse().read().decode()
        except OSError:
            return ""
        finally:
            connection.close()

    def processed(self) -> int:
        """Records that it has processed, whatever became of them."""
        return int(total(self.metrics(), EVENTS))

    def follow(self, offsets: Offsets, records: int, timeout_s: float) -> list[Sample]:
        """Look at it from the first records processed until the last one is committed.

        Raises
        ------
        WorkerError
            If it ends before, or takes longer.
        """
        samples: list[Sample] = []
        until, asked_s, processed = time.monotonic() + timeout_s, 0.0, 0
        while not samples or samples[-1].committed < records:
            self._check(until, samples)
            now = time.monotonic()
            often = not samples or processed >= LAST_SHARE * records
            if now - asked_s >= (STEP_S if often else METRICS_STEP_S):
                processed, asked_s = self.processed(), now
            if processed:
                committed = offsets.committed() if samples else 0  # the first look must be a quick one
                samples.append(Sample(time.monotonic(), processed, committed, cpu_s(self.process.pid)))
            time.sleep(STEP_S)
        return samples

    def stop(self, timeout_s: float = 30) -> tuple[int, float]:
        """Ask it to end; its exit code and the seconds that took come back."""
        began = time.monotonic()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
        return self.process.wait(), time.monotonic() - began

    def taken(self) -> dict[str, object]:
        """Memory and the busiest threads, so far."""
        threads = list(threads_cpu_s(self.process.pid).items())[:8]
        return {"rss_mib": round(rss_bytes(self.process.pid, peak=True) / 2**20, 1), "threads_cpu_s": dict(threads)}

    def _check(self, until: float, samples: list[Sample]) -> None:
        last = f"{samples[-1].committed:,} records committed" if samples else "nothing processed"
        if (code := self.process.poll()) is not None:
            raise WorkerError(f"the worker ended with {code}, {last}; see {self.folder / 'log'}")
        if time.monotonic() > until:
            raise WorkerError(f"the worker was too slow, {last}; see {self.folder / 'log'}")


def total(metrics: str, name: str) -> float:
    """Sum of a metric over its labels, from the text that Prometheus reads.

    Examples
    --------
    >>> total('a_total{x="1"} 2.0\\na_total{x="2"} 3.0\\na_total_b 9.0', "a_total")
    5.0
    """
    lines = (line for line in metrics.splitlines() if line.startswith((f"{name} ", f"{name}{{")))
    return sum(float(line.rpartition(" ")[2]) for line in lines)


def span(samples: list[Sample]) -> dict[str, float | None]:
    """Rates and CPU of a run, by two clocks that both start at the first records processed.

    ``rate`` ends when the last record is committed for good, which waits for a commit to come round; ``processed_rate``
    ends when it is processed, as the figures of all other engines do.
    """
    first, last = samples[0], samples[-1]
    done = next((s for s in samples if s.processed >= last.processed), last)
    half = next(s for s in samples if s.processed * 2 >= last.processed)
    counted = last.committed - first.processed
    return {
        "rate": _over(counted, last.at_s - first.at_s),
        "rate_2nd_half": _over(last.committed - half.processed, last.at_s - half.at_s),
        "cpu_us": _over((last.cpu_s - first.cpu_s) * 1e6, counted),
        "processed_rate": _over(done.processed - first.processed, done.at_s - first.at_s),
        "tail_s": last.at_s - done.at_s,
        "uncounted": first.processed,
    }


def _over(value: float, by: float) -> float | None:
    return value / by if by > 0 else None
