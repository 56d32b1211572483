"""Workers killed, frozen and replaced under load on a real Kafka, and the proof that nothing is lost or counted twice.

    python -m load_tests.chaos [--kills 100] [--scenario NAME,NAME|all] [--clock record|wall|both] [--seed N] [--json]

kills       `kill -9` at random moments: as workers start, recover, run; they come back at once, most by the same name
learning    the same after a past of more than a day, so that shards learn of what their forecasts come to
recovery    killed with some of the shards recovered
rebalance   killed while another joins
scale       1, 3, 2 workers
zombie      frozen for longer than the session, then thawed: it must end, and have published nothing since
restart     the broker is killed and started again
away        the broker is away for 30 s
disk        the broker's disk is full; later there is room

Each runs on topics of its own under orders, clicks, prices and stock at `--rate` records a second, with repeats, late
ones, broken ones and price faults. At random moments and at the end the committed state is held against the raw records
below its offsets: units ordered and cancelled, orders, views and carts of every series and bucket, and what became of
every record; and by each commit and the one before it, that every outcome was learned once. At the end also: ids with
two contents or published twice, dead letters missing or twice, forecasts that go back or are not their owner's, and by
the broker's own files, producers that wrote after they were shut out.

`record`: event time runs with the records. `wall`: with the machine's clock, which has no time to learn.
Exit code 1 where anything was found wrong; the seed is told with it.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from load_tests.kafka import hardships
from load_tests.kafka.arena import Arena, Setting
from load_tests.kafka.hardships import Crew
from load_tests.kafka.shop_load import PAST_RECORDS, SLOW_STEP_MS, STEP_MS, Clock
from streams.kafka.broker import LocalBroker, free_port
from streams.kafka.settings import KafkaSettings

DISK_BYTES = 16 << 20
"""Of one file, where the disk is to be full: above the 10 MiB that Kafka claims for an index."""

Hardship = Callable[[Crew, LocalBroker, int], dict[str, Any]]

SCENARIOS: dict[str, Hardship] = {
    "kills": lambda crew, _, kills: hardships.kills(crew, kills),
    "learning": lambda crew, _, kills: hardships.in_learning(crew, max(1, kills // 20)),
    "recovery": lambda crew, _, kills: hardships.in_recovery(crew, max(1, kills // 20)),
    "rebalance": lambda crew, _, kills: _rebalance(crew, max(1, kills // 20)),
    "scale": lambda crew, _, kills: hardships.scale(crew),
    "zombie": lambda crew, _, kills: hardships.zombie(crew),
    "restart": lambda crew, broker, kills: hardships.broker_away(crew, broker, times=max(1, kills // 20)),
    "away": lambda crew, broker, kills: hardships.broker_away(crew, broker, 30.0),
    "disk": lambda crew, broker, kills: hardships.disk_full(crew, broker),
}


def _rebalance(crew: Crew, times: int) -> dict[str, Any]:
    """Half of those that are killed come back at once."""
    hardships.in_rebalance(crew, times)
    return hardships.in_rebalance(crew, times, back=False)


BROKER = ("restart", "away", "disk")
"""Those in which the broker suffers."""


@dataclass(frozen=True)
class Played:
    """One scenario, and what came of it.

    Attributes
    ----------
    broken
        Sentences on promises that were broken; each names the seed.
    figures
        Kills, recoveries, records, transactions.
    """

    scenario: str
    setting: Setting
    seconds: float
    broken: list[str]
    figures: dict[str, Any]


def play(name: str, setting: Setting, kills: int, partitions: int, home: Path) -> Played:
    """Play one scenario on a broker of its own."""
    home.mkdir(parents=True)
    launcher = ("prlimit", f"--fsize={DISK_BYTES}") if name == "disk" else ()
    broker = LocalBroker(home / "broker", free_port(), launcher=launcher)
    broker.up()
    began_s = time.monotonic()
    kafka = KafkaSettings(
        bootstrap_servers=broker.bootstrap, application_id="chaos", topic_prefix="chaos.", partitions=partitions
    )
    figures: dict[str, Any] = {}
    try:
        with Arena(kafka, home / "workers", setting) as arena:
            try:
                names = ["w0"] if name == "scale" else ["w0", "w1"]
                figures |= SCENARIOS[name](Crew(arena, *names), broker, kills)
                figures |= arena.finish(broker.folder / "data")
            except (AssertionError, TimeoutError) as error:
                arena.broken.append(f"seed {setting.seed}, {setting.clock} clock: {error}")
            figures |= _recoveries(arena)
            figures |= {"checks": arena.checks, "workers ended": dict(arena.deaths)}
            return Played(name, setting, time.monotonic() - began_s, arena.broken, figures)
    finally:
        broker.down(kill=True)


def _recoveries(arena: Arena) -> dict[str, Any]:
    """How often, and how long each took: of a process up to its shards, and of a single shard."""
    starts = sorted(arena.recoveries_s())
    shards = sorted(line["seconds"] for worker in arena.began_s for line in worker.told("recovered"))
    return {"recoveries": len(starts), "recovery s": _spread(starts), "shards recovered": len(shards),
            "of a shard s": _spread(shards)}  # fmt: skip


def _spread(values: list[float]) -> dict[str, float]:
    if not values:
        return {}
    return {"median": round(statistics.median(values), 2), "most": round(values[-1], 2)}


def text(played: Played) -> str:
    """What a person wants to read of one scenario."""
    head = f"{played.scenario}, {played.setting.clock} clock, seed {played.setting.seed}, {played.seconds:.0f} s"
    lines = [f"{head}: {'nothing lost, nothing counted twice' if not played.broken else 'BROKEN'}"]
    lines += [f"  {name}: {value}" for name, value in played.figures.items()]
    return "\n".join(lines + [f"  ! {sentence}" for sentence in played.broken])


def main() -> int:
    """Play the scenarios asked for, and tell what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--scenario", default="kills", help=f"all, or some of {', '.join(SCENARIOS)}")
    parser.add_argument("--clock", choices=["record", "wall", "both"], default="both")
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--rate", type=float, default=1_500)
    parser.add_argument("--partitions", type=int, default=4)
    parser.add_argument("--home", type=Path, help="keep logs of workers and brokers in this folder")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    names = list(SCENARIOS) if args.scenario == "all" else args.scenario.split(",")
    if unknown := [name for name in names if name not in SCENARIOS]:
        parser.error(f"no scenario is called {unknown[0]!r}; there are {', '.join(SCENARIOS)}")
    seed = args.seed if args.seed is not None else int.from_bytes(os.urandom(3), "big")
    clocks: list[Clock] = ["record", "wall"] if args.clock == "both" else [args.clock]
    clocks_to_learn: list[Clock] = ["record"]
    found = []
    with tempfile.TemporaryDirectory(prefix="shelftide-chaos-") as scratch:
        for name in names:
            for clock in clocks if name != "learning" else clocks_to_learn:
                home = (args.home or Path(scratch)) / f"{name}-{clock}"
                step_ms = SLOW_STEP_MS if name in BROKER or clock == "wall" else STEP_MS
                kills = args.kills // len(clocks) if name == "kills" else args.kills
                past = PAST_RECORDS if name == "learning" else 0
                setting = Setting(seed, clock, args.rate, step_ms, past)
                found.append(play(name, setting, kills, args.partitions, home))
                if not args.json:
                    print(text(found[-1]), flush=True)
    if args.json:
        rows = [
            {"scenario": p.scenario, "clock": p.setting.clock, "seed": p.setting.seed, "rate": p.setting.rate,
             "seconds": round(p.seconds, 1), "broken": p.broken, **p.figures} for p in found
        ]  # fmt: skip
        print(json.dumps(rows, indent=1))
    return int(any(played.broken for played in found))


if __name__ == "__main__":
    sys.exit(main())
