"""Our worker as users start it, followed from outside: what it has processed, what it has committed, what it takes.

In: settings as environment. Out: samples over time.
Must not know: the worker's insides. Rule: what it has processed is its own word (metrics), what it has committed is
what a reader of the state topic sees, and what it takes is the kernel's.
"""

from __future__ import annotations

import http
import http.client
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from load_tests.kafka.processes import cpu_s, rss_bytes, threads_cpu_s
from load_tests.kafka.state import StateTopic
from streams.kafka.broker_properties import HOST, free_port

EVENTS = "shelftide_events_total"
"""Counter of the worker: events taken in, by outcome."""

STEP_S = 0.01
"""Wait for commits between two looks."""
QUICK_S, SLOW_S = 0.03, 0.5
"""Between two questions to the worker: until it has begun and near the end, and in between. An answer costs it some
milliseconds."""
LAST_SHARE = 0.8
"""From this share of the records on the end is near."""


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
    """A worker with its metrics on a port of its own; with several processes, each has the next port."""

    def __init__(self, env: Mapping[str, str], folder: Path, processes: int = 1) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.port, self._processes = folder, free_port(), processes
        settings = {
            **env,
            "SHELFTIDE_WORKER__METRICS_PORT": str(self.port),
            "SHELFTIDE_WORKER__STATE_FOLDER": str(folder),
        }
        with (folder / "log").open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "shelftide.cli", "worker", "--processes", str(processes)],
                env={**os.environ, **settings}, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip

    def metrics(self) -> str:
        """What it says of itself; nothing before it serves."""
        return "".join(self._ask("/metrics", self.port + number)[1] for number in range(self._processes))

    def ready(self) -> bool:
        """Whether it says that all its shards are recovered."""
        return all(self._ask("/ready", self.port + n)[0] == http.HTTPStatus.OK for n in range(self._processes))

    def _ask(self, path: str, port: int) -> tuple[int, str]:
        connection = http.client.HTTPConnection(HOST, port, timeout=5)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        except (OSError, http.client.HTTPException):  # it does not serve yet, or no longer
            return 0, ""
        finally:
            connection.close()

    def kill(self) -> None:
        """End it without a word, where it still runs."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()

    def processed(self) -> int:
        """Records that it has processed, whatever became of them."""
        return int(total(self.metrics(), EVENTS))

    def follow(self, state: StateTopic, topic: str, records: int, timeout_s: float) -> list[Sample]:
        """Look at it from the first records processed until the last one is committed.

        Raises
        ------
        WorkerError
            If it ends before, or takes longer.
        """
        samples: list[Sample] = []
        until, asked_s, processed, committed = time.monotonic() + timeout_s, 0.0, 0, 0
        while not samples or committed < records:
            self._check(until, samples)
            state.poll(STEP_S)
            committed = state.committed(topic)
            quick = not processed or processed >= LAST_SHARE * records
            if time.monotonic() - asked_s >= (QUICK_S if quick else SLOW_S):
                processed, asked_s = self.processed(), time.monotonic()
            if processed:
                samples.append(Sample(time.monotonic(), processed, committed, cpu_s(self.process.pid)))
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

    def peak_mib(self) -> float:
        """The most memory that it has had."""
        return rss_bytes(self.process.pid, peak=True) / 2**20

    def threads_cpu_s(self) -> dict[str, float]:
        """CPU seconds of its busiest threads, so far."""
        return dict(list(threads_cpu_s(self.process.pid).items())[:8])

    def check(self) -> None:
        """See that it runs.

        Raises
        ------
        WorkerError
            If it has ended.
        """
        if (code := self.process.poll()) is not None:
            raise WorkerError(f"the worker ended with {code}; its last words: {self.last_words()}")

    def _check(self, until: float, samples: list[Sample]) -> None:
        last = f"{samples[-1].committed:,} records committed" if samples else "nothing processed"
        if (code := self.process.poll()) is not None:
            raise WorkerError(f"the worker ended with {code}, {last}; its last words: {self.last_words()}")
        if time.monotonic() > until:
            raise WorkerError(f"the worker was too slow, {last}; its last words: {self.last_words()}")

    def last_words(self) -> str:
        """The end of its log."""
        return " / ".join((self.folder / "log").read_text("utf-8", "replace").splitlines()[-3:])


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
    done = next(s for s in samples if s.processed == last.processed)  # less than committed: some records are no events
    half = next(s for s in samples if s.processed * 2 >= last.processed)
    counted = last.committed - first.processed
    if counted * 2 < last.committed:
        counted, half, done = 0, last, first  # most was over at the first look: a rate of the rest would say nothing
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
