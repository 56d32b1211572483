"""One worker, then two, on the same records and the same cores; and what 32 partitions on 16 machines would do.

    python -m load_tests.scaling [--records N] [--repeats N] [--json]

The records are those of `load_tests.throughput`. Every repeat runs one worker and two workers on them, in turns, each
on topics of its own. The records lie there before, behind an open transaction that hides them; the clock of a run
starts when all workers are ready and the transaction is aborted, so that all records are there at once, and ends when
the last one is committed state. Two workers of two cores share these with the broker that feeds them and with this
process that follows them: their gain is what was left idle, no more. The estimate says what each part takes of a core
per record, and where it would end with cores of its own.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass, field
from typing import Any

from confluent_kafka import Producer

from load_tests.kafka.figures import percentiles
from load_tests.kafka.orders import Orders, delete_topics, orders, produce
from load_tests.kafka.ours import ORDERS
from load_tests.kafka.processes import cpu_s, threads_cpu_s
from load_tests.kafka.reader import Positions
from load_tests.kafka.report import spread
from load_tests.kafka.stage import Share, Stage, arguments, machine, stage
from load_tests.kafka.waiting import wait_ready
from load_tests.kafka.worker import EVENTS, Worker, WorkerError, total
from streams.kafka.settings import KafkaSettings
from streams.kafka.topics import apply, topic_specs

LOOK_S = 0.02
MACHINES, PARTITIONS = 16, 32


@dataclass
class Scaled:
    """One run.

    Attributes
    ----------
    rate
        Records per second, of all workers together.
    worker_us, main_us, broker_us
        CPU microseconds per record: of the workers, of their busiest threads (each runs Python, one at a time), of the
        broker.
    parts
        Records that each worker processed.
    """

    workers: int
    repeat: int
    rate: float = 0.0
    worker_us: float = 0.0
    main_us: float = 0.0
    broker_us: float = 0.0
    foreign_share: float = 0.0
    parts: list[int] = field(default_factory=list)


class Gate:
    """Hides what is written to a topic behind it until it is opened: readers of committed records stop before it."""

    def __init__(self, kafka: KafkaSettings, topic: str) -> None:
        self._producer = Producer({
            **kafka.librdkafka(), "transactional.id": f"{topic}gate", "transaction.timeout.ms": 600_000, "log_level": 0,
        })  # fmt: skip
        self._producer.init_transactions(30)
        self._producer.begin_transaction()
        for part in range(kafka.partitions):
            self._producer.produce(kafka.topic(topic), b"gate", b"gate", part)
        self._producer.flush(30)

    def open(self) -> None:
        """Let readers through; the gate itself was never there."""
        self._producer.abort_transaction(30)


def run_once(stage: Stage, made: Orders, workers: int, repeat: int, timeout_s: float) -> Scaled:
    """One run with so many workers."""
    name = f"{stage.kafka.topic_prefix}{workers}-{repeat}"
    mine = KafkaSettings(**{**stage.kafka.model_dump(), "application_id": name, "topic_prefix": f"{name}."})
    here = Stage(mine, stage.home / f"{workers}-{repeat}", stage.data)
    apply(mine)
    try:
        gate = Gate(mine, ORDERS)
        produce(mine.bootstrap_servers, mine.topic(ORDERS), made, mine.partitions)
        group = [here.start(f"w{number}", clock="record") for number in range(workers)]
        wait_ready(group, timeout_s)
        run = Scaled(workers, repeat)
        _follow(run, here, len(made), gate, timeout_s)
        run.parts = [int(total(worker.metrics(), EVENTS)) for worker in group]
        return run
    finally:
        for worker in here.workers:
            worker.stop()
        delete_topics(mine.bootstrap_servers, [spec.name for spec in topic_specs(mine)])


def _follow(run: Scaled, stage: Stage, records: int, gate: Gate, timeout_s: float) -> None:
    """Open the gate, and take the time and the CPU until everything is committed."""
    positions, broker, group = Positions(stage.kafka, (ORDERS,)), stage.broker_pid or 0, stage.workers
    share, before = Share(stage.broker_pid), (sum(map(_cpu, group)), sum(map(_main, group)), cpu_s(broker))
    gate.open()
    began_s = time.monotonic()
    while (committed := positions.poll()) < records + stage.kafka.partitions:  # the gate has an offset in each
        if time.monotonic() - began_s > timeout_s:
            raise WorkerError(f"{committed:,} of {records:,} records committed within {timeout_s:g} s")
        for worker in group:
            worker.check()
        time.sleep(LOOK_S)
    run.rate = records / (time.monotonic() - began_s)
    after = (sum(map(_cpu, group)), sum(map(_main, group)), cpu_s(broker))
    run.worker_us, run.main_us, run.broker_us = (
        (b - a) / records * 1e6 for a, b in zip(before, after, strict=True)
    )  # fmt: skip
    run.foreign_share = share.foreign()
    positions.close()


def _cpu(worker: Worker) -> float:
    return cpu_s(worker.process.pid)


def _main(worker: Worker) -> float:
    return threads_cpu_s(worker.process.pid).get("main", 0.0)


def summary(runs: list[Scaled]) -> dict[str, Any]:
    """Median and spread by number of workers, the gain within repeats, the estimate."""
    by = {n: [run for run in runs if run.workers == n] for n in (1, 2)}
    table = {
        str(n): {
            name: spread(getattr(run, name) for run in own) for name in ("rate", "worker_us", "main_us", "broker_us")
        }
        for n, own in by.items()
    }
    gains = [two.rate / one.rate for one, two in zip(by[1], by[2], strict=True)]
    return {"workers": table, "gain": spread(gains), "estimate": estimate(table["1"], os.cpu_count() or 1)}


def estimate(one: dict[str, Any], cores: int) -> dict[str, Any]:
    """What 32 partitions on 16 machines would do, from what one record takes of a core.

    A worker can be no faster than its busiest thread, which needs a core to itself; its other threads and the system's
    share have the other cores of the machine. Brokers are machines of their own. Everything grows with the shards but
    the coordinator, which has a record of each shard per commit.

    Examples
    --------
    >>> one = {name: {"median": value} for name, value in (("worker_us", 4.0), ("main_us", 2.5), ("broker_us", 2.0))}
    >>> found = estimate(one, cores=2)
    >>> found["records_per_s_a_worker"], found["records_per_s"], found["broker_cores"]
    (400000, 6400000, 12.8)
    """
    worker_us, main_us, broker_us = (one[name]["median"] for name in ("worker_us", "main_us", "broker_us"))
    each = min(1e6 / main_us, cores * 1e6 / worker_us)
    whole = MACHINES * each
    return {
        "partitions_a_worker": PARTITIONS // MACHINES,
        "records_per_s_a_worker": round(each),
        "records_per_s": round(whole),
        "broker_cores": round(whole * broker_us / 1e6, 1),
        "coordinator_records_per_s": PARTITIONS,
        "arithmetic": (
            f"a worker: least of 1e6 / {main_us:.2f} µs of its busiest thread and {cores} cores x 1e6 / "
            f"{worker_us:.2f} µs = {each:,.0f}/s; {MACHINES} workers x {each:,.0f} = {whole:,.0f}/s; "
            f"brokers: x {broker_us:.2f} µs = {whole * broker_us / 1e6:.1f} cores"
        ),
    }


def text(found: dict[str, Any]) -> str:
    """For people."""
    lines = [
        f"{n} worker{'s' * (n != '1')}: " + ", ".join(f"{name} {_three(value)}" for name, value in row.items())
        for n, row in found["workers"].items()
    ]
    gain = found["gain"]
    lines.append(
        f"1 -> 2 workers on {found['machine']['cores']} cores: x {_three(gain)}; no goal, the broker shares them"
    )
    lines.append(f"{PARTITIONS} partitions on {MACHINES} machines of as many cores: {found['estimate']['arithmetic']}")
    foreign = percentiles([run["foreign_share"] for run in found["runs"]], digits=2)
    return "\n".join([*lines, f"others' share of the machine: {json.dumps(foreign)}"])


def _three(value: dict[str, float] | None) -> str:
    if value is None:
        return "-"
    form = ",.0f" if value["median"] > 100 else ".2f"
    return f"{value['median']:{form}} ({value['min']:{form}} to {value['max']:{form}})"


def main() -> None:
    """Run it and print what was measured."""
    parser = arguments(__doc__)
    parser.add_argument("--records", type=int, default=4_000_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--days", type=float, default=30, help="event time that the records span")
    args = parser.parse_args()
    if args.small:
        args.records, args.repeats, args.days = 60_000, 1, 2
    with stage(args, "scaling") as made:
        records = orders(args.records, args.days)
        runs: list[Scaled] = []
        for repeat in range(args.repeats):
            turns = (1, 2) if repeat % 2 == 0 else (2, 1)
            runs += [run_once(made, records, workers, repeat, timeout_s=300) for workers in turns]
    found = {"machine": machine(), "records": args.records, **summary(runs), "runs": [vars(run) for run in runs]}
    print(json.dumps(found, indent=1) if args.json else text(found))


if __name__ == "__main__":
    main()
