"""Records per second of our worker on a real Kafka, beside bare clients and other engines on the same records.

    python -m load_tests.throughput [--engines a,b] [--records N] [--repeats N] [--json] [--profile]

aiokafka-drain    bare aiokafka, reads and drops: the yardstick
librdkafka-drain  bare confluent-kafka, tuned, reads and drops
worker            `shelftide worker` with everything on, until its last record is committed for good
worker-learn      the same beside `shelftide learn`, which fits nets to these records; only when asked for
worker-2          the same with ``--processes 2``, from the first record of either to the last commit of both
faust-take, faust-table, kstreams, quix, bytewax
                  engines of the evaluation folder, where it is beside the checkout; the slow ones on fewer records
chunked-rdkafka   its prototype of our worker, without durable state; only when asked for

Every repeat runs all engines once, every second one in reverse order. Shares are made within a repeat.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from load_tests.kafka import report
from load_tests.kafka.learner import learning
from load_tests.kafka.orders import Orders, create_topic, orders, produce
from load_tests.kafka.ours import run_worker, settings
from load_tests.kafka.peers import PEERS, PeerError
from load_tests.kafka.peers import command as peer_command
from load_tests.kafka.processes import listener
from load_tests.kafka.runs import Run, run_command
from load_tests.kafka.stage import broker, machine
from streams.kafka.settings import KafkaSettings

ROOT = Path(__file__).parents[1]
DEFAULT = [
    "aiokafka-drain",
    "worker",
    "worker-2",
    "kstreams",
    "librdkafka-drain",
    "faust-take",
    "faust-table",
    "quix",
    "bytewax",
]


@dataclass
class Sitting:
    """One broker and one set of records, and who meets them.

    Attributes
    ----------
    prefix
        Before every topic's name; a new one for each sitting, so that a broker in use is not disturbed.
    home
        Folder for logs and results of the runs.
    profile
        Sample our worker while it runs; its figures are then worth less.
    """

    bootstrap: str
    prefix: str
    partitions: int
    home: Path
    made: Orders
    profile: bool = False
    filled: dict[int, str] = field(default_factory=dict)

    def topic(self, records: int) -> str:
        """The topic that holds the first records, filled when first asked for."""
        if records not in self.filled:
            part = "" if records == len(self.made) else f"first-{records}."
            topic = f"{self.prefix}{part}shop.orders.v1"
            create_topic(self.bootstrap, topic, self.partitions)
            produce(self.bootstrap, topic, self.made.first(records), self.partitions)
            self.filled[records] = topic
        return self.filled[records]

    @property
    def broker_pid(self) -> int | None:
        """The broker's process, where it runs on this machine."""
        return listener(int(self.bootstrap.rpartition(":")[2]))

    def run(self, name: str, repeat: int) -> Run:
        """Run an engine once."""
        records = min(len(self.made), PEERS.get(name) or len(self.made))
        topic, made = self.topic(records), self.made.first(records)
        expected = made.expected()
        group = f"{self.prefix}{name}-{repeat}"
        folder = self.home / group
        folder.mkdir(parents=True)
        run = Run(name, repeat, records)
        if name in (report.OURS, report.OURS_TWICE, report.OURS_BESIDE):
            kafka = KafkaSettings(
                bootstrap_servers=self.bootstrap, application_id=group, topic_prefix=self.prefix,
                partitions=self.partitions,
            )  # fmt: skip
            beside: AbstractContextManager[None] = nullcontext()
            if name == report.OURS_BESIDE:
                beside = learning(settings(kafka), folder / "learn")
            processes = 2 if name == report.OURS_TWICE else 1
            return run_worker(
                run, kafka, expected, folder, self.broker_pid, profile=self.profile, processes=processes, beside=beside
            )
        command, env = _command(name)
        env |= {
            "BOOTSTRAP": self.bootstrap, "TOPIC": topic, "GROUP": group, "TOTAL": str(records),
            "VALID": str(expected["valid"]), "RESULT": str(folder / "result.json"), "RUN_HOME": str(folder),
        }  # fmt: skip
        return run_command(run, command, env, expected, self.broker_pid)


def _command(name: str) -> tuple[list[str], dict[str, str]]:
    if name.endswith("-drain"):
        drain = [sys.executable, "-m", "load_tests.kafka.drains", name.removesuffix("-drain")]
        return drain, {"PYTHONPATH": str(ROOT)}
    return peer_command(name)


def sit(sitting: Sitting, names: list[str], repeats: int, *, quiet: bool) -> dict[str, Any]:
    """Run everything, and say what came of it."""
    left_out: dict[str, str] = {}
    runs: list[Run] = []
    for repeat in range(repeats):
        for name in names if repeat % 2 == 0 else reversed(names):
            if name in left_out:
                continue
            try:
                run = sitting.run(name, repeat)
            except PeerError as error:
                left_out[name] = str(error)
                continue
            runs.append(run)
            if not quiet:
                print(json.dumps(asdict(run)), file=sys.stderr, flush=True)
    return {
        "machine": machine(),
        "records": len(sitting.made),
        "repeats": repeats,
        "expected": sitting.made.expected(),
        "engines": report.summary(runs),
        "goals": report.goals(runs),
        "left_out": left_out,
        "runs": [asdict(run) for run in runs],
    }


def main() -> None:
    """Run the engines asked for and print what was measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engines", default=",".join(DEFAULT))
    parser.add_argument("--records", type=int, default=2_000_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--days", type=float, default=30, help="event time that the records span")
    parser.add_argument("--partitions", type=int, default=4)
    parser.add_argument("--bootstrap", help="a Kafka that runs, as host:port; otherwise one is started")
    parser.add_argument("--home", type=Path, help="keep logs and results of the runs in this folder")
    parser.add_argument("--profile", action="store_true", help="show where our worker spends its time")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    names = args.engines.split(",")
    there = dict.fromkeys([*DEFAULT, report.OURS_BESIDE, *PEERS])
    if unknown := sorted(set(names) - set(there)):
        parser.error(f"no engine is called {unknown[0]}; there are {', '.join(there)}")
    with tempfile.TemporaryDirectory(prefix="shelftide-throughput-") as scratch:
        home = args.home or Path(scratch)
        with broker(args.bootstrap, Path(scratch)) as (bootstrap, _):
            made = orders(args.records, args.days)
            prefix = f"t{time.time_ns() // 1_000_000:x}."
            sitting = Sitting(bootstrap, prefix, args.partitions, home, made, args.profile)
            found = sit(sitting, names, args.repeats, quiet=args.json)
    print(json.dumps(found, indent=1) if args.json else report.text(found))


if __name__ == "__main__":
    main()
