"""Waiting for a worker: until it has nothing left to do, or is ready.

In: a worker. Out: nothing, or an error where it took too long.
Must not know: what is measured. Rule: its own word is taken, by its metrics; what is measured is never taken from it.
"""

from __future__ import annotations

import time

from load_tests.kafka.worker import Worker, WorkerError, total

DUE = "shelftide_due_series"
LAG = "shelftide_lag_records"
EVENTS = "shelftide_events_total"
SERIES = "shelftide_series"
LOOK_S = 0.3


def wait_idle(worker: Worker, records: int, timeout_s: float = 600, quiet: int = 3) -> float:
    """Wait until a worker has taken in so many events and no forecast is due, some looks in a row; seconds come back.

    Raises
    ------
    WorkerError
        If it ends before, or takes longer.
    """
    began_s, calm, said = time.monotonic(), 0, ""
    while calm < quiet:
        worker.check()
        if time.monotonic() - began_s > timeout_s:
            raise WorkerError(f"the worker was not done within {timeout_s:g} s: {said}")
        time.sleep(LOOK_S)
        told = worker.metrics()
        seen, due = total(told, EVENTS), total(told, DUE)
        said = f"{seen:,.0f} events of {records:,}, {due:,.0f} forecasts due"
        calm = calm + 1 if seen >= records and not due else 0
    return time.monotonic() - began_s


def wait_ready(workers: list[Worker], timeout_s: float = 120) -> None:
    """Wait until workers that were started together have divided the shards between them and recovered them.

    Raises
    ------
    WorkerError
        If one ends before, or they take longer.
    """
    until_s = time.monotonic() + timeout_s
    while not all(worker.ready() and _has_shards(worker) for worker in workers):
        for worker in workers:
            worker.check()
        if time.monotonic() > until_s:
            raise WorkerError(f"{len(workers)} workers were not ready within {timeout_s:g} s")
        time.sleep(LOOK_S)


def _has_shards(worker: Worker) -> bool:
    """Whether it tells of any: a second worker is ready with nothing until the group has divided anew."""
    return f"{SERIES}{{" in worker.metrics()
