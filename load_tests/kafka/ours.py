"""One run of our worker: fresh topics, the worker, the wait for its last commit, the sums of what it committed.

In: where the orders are. Out: a `Run`.
Must not know: other engines. Rule: the worker is told nothing that an operator would not tell it; its clock runs with
the records, since they are of months ago.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from load_tests.kafka.orders import delete_topics
from load_tests.kafka.profile import sampled, shares
from load_tests.kafka.runs import Run, near, watched
from load_tests.kafka.state import StateTopic, units
from load_tests.kafka.worker import Sample, Worker, WorkerError, span
from streams.engine import EngineConfig
from streams.kafka.ledger import STATE_TOPIC
from streams.kafka.settings import KafkaSettings
from streams.kafka.topics import apply, topic_specs
from streams.state import SnapshotError

ORDERS = "shop.orders.v1"
CURRENCY = "GBP"


def settings(kafka: KafkaSettings) -> dict[str, str]:
    """The environment of a worker."""
    return {
        "SHELFTIDE_BASE_CURRENCY": CURRENCY,
        "SHELFTIDE_KAFKA__BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
        "SHELFTIDE_KAFKA__TOPIC_PREFIX": kafka.topic_prefix,
        "SHELFTIDE_KAFKA__APPLICATION_ID": kafka.application_id,
        "SHELFTIDE_KAFKA__PARTITIONS": str(kafka.partitions),
        "SHELFTIDE_WORKER__CLOCK": "record",
        "SHELFTIDE_MODEL__NAME": "baseline",  # a run lasts seconds; torch takes as long to be imported
    }


def fresh(kafka: KafkaSettings) -> None:
    """Make every topic but the orders anew, so that nothing of an earlier run is found."""
    orders = kafka.topic(ORDERS)
    delete_topics(kafka.bootstrap_servers, [spec.name for spec in topic_specs(kafka) if spec.name != orders])
    apply(kafka)


def run_worker(
    run: Run,
    kafka: KafkaSettings,
    expected: Mapping[str, float],
    folder: Path,
    broker_pid: int | None,
    *,
    profile: bool = False,
    processes: int = 1,
    beside: AbstractContextManager[None] | None = None,
) -> Run:
    """Run our worker over all orders that there are, within a context if one is given; the run comes back filled."""
    fresh(kafka)
    state = StateTopic(kafka.bootstrap_servers, kafka.topic(STATE_TOPIC), kafka.partitions + 1)
    with beside or nullcontext(), watched(run, broker_pid):
        worker = Worker(settings(kafka), folder, processes)
        stacks = folder / "stacks"
        try:
            with sampled(worker.process.pid, stacks) if profile else nullcontext():
                samples = worker.follow(state, kafka.topic(ORDERS), run.records, timeout_s=60 + run.records / 5000)
            run.rss_mib, run.more["threads_cpu_s"] = worker.peak_mib(), worker.threads_cpu_s()
        except WorkerError as error:
            run.error = str(error)
        code, stop_s = worker.stop()
    if run.error is None:
        _fill(run, samples, state, expected, kafka.partitions)
        run.more |= {"exit": code, "stop_s": round(stop_s, 2)}
        if profile:
            run.more["profile"] = shares(stacks.read_text())
    state.close()
    return run


def _fill(run: Run, samples: list[Sample], state: StateTopic, expected: Mapping[str, float], partitions: int) -> None:
    found = span(samples)
    run.rate, run.rate_2nd_half, run.cpu_us = (found.pop(name) for name in ("rate", "rate_2nd_half", "cpu_us"))
    seconds = samples[-1].at_s - samples[0].at_s
    run.more |= found | {
        "commits": state.commits,
        "state_written_bytes": state.written_bytes,
        "state_bytes_per_s": round(state.written_bytes / seconds) if seconds else None,
        "state_live_bytes": state.live_bytes,
        "state_live_by_kind": state.live_by_kind(),
    }
    state.read()  # what the last commit of the stop added
    shards = [state.shards[number] for number in range(partitions)]
    try:
        quantity, revenue = units(EngineConfig(base_currency=CURRENCY), shards)
    except SnapshotError as error:
        run.error, run.correct = str(error), False
        return
    run.correct = quantity == expected["quantity"] and near(revenue, expected["revenue"])
