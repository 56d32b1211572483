"""The command `doctor`: whether all is in order for workers, and whether their state is that of the topics.

In: options. Out: findings on stdout, and an exit code that says how grave they are.
Must not know: what is looked at. Rule: nothing is written anywhere but to stdout.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from shelftide.options import Bootstrap, Partitions, Prefix, SettingsFile, kafka_options
from shelftide.report import Json, print_json, print_table, working

if TYPE_CHECKING:
    from shelftide.settings import Settings
    from streams.kafka.verify import Report, ShardReport

OK, FAULTS, DEGRADED = 0, 1, 3

Samples = Annotated[
    int, typer.Option(help="Newest records of each item topic to look at.", metavar="N", min=1, max=1_000_000)
]
Verify = Annotated[
    bool,
    typer.Option(
        "--verify",
        help="Instead: count the orders anew from the raw topics and compare every bucket of every series with the "
        "committed state. Workers may run meanwhile.",
    ),
]


def doctor(
    verify: Verify = False,
    samples: Samples = 2_000,
    settings: SettingsFile = None,
    bootstrap: Bootstrap = None,
    prefix: Prefix = None,
    partitions: Partitions = None,
    json: Json = False,
) -> int:
    """Look whether everything is in order: Kafka, topics, records, clocks, workers, state, this machine.

    Reads settings, topics, some of the newest records, offsets and the state topic.

    Writes nothing, fences nobody, joins no group. Exit codes: 0 in order, 3 somebody should look (with --verify: state
    and topics differ), 1 faults or no Kafka, 2 wrong settings.
    """
    from shelftide.settings_sources import read_settings

    chosen = read_settings(settings, kafka_options(bootstrap, prefix, partitions))
    return _verified(chosen, json) if verify else _examined(chosen, samples, json)


def _examined(chosen: Settings, samples: int, json: bool) -> int:
    from streams.kafka.doctor import examine
    from streams.kafka.findings import worst

    with working(f"looking at Kafka at {chosen.kafka.bootstrap_servers}"):
        found = examine(chosen.kafka, chosen.worker, chosen.engine(), chosen.partitioner, samples=samples)
    grave = worst(found)
    if json:
        print_json({"level": grave, "findings": [asdict(finding) for finding in found]})
    else:
        rows = list[tuple[str, str]]()
        for finding in found:
            rows.append((finding.level, f"{finding.check}: {finding.found}"))
            if finding.advice:
                rows.append(("", f"→ {finding.advice}"))
        print_table(f"doctor: {chosen.kafka.application_id} at {chosen.kafka.bootstrap_servers}", rows)
    return {"ok": OK, "warning": DEGRADED, "fault": FAULTS}[grave]


def _verified(chosen: Settings, json: bool) -> int:
    from streams.kafka.verify import verify

    with working(f"comparing the state of {chosen.kafka.application_id} with its topics"):
        report = verify(chosen.kafka, chosen.engine(), chosen.partitioner)
    if json:
        print_json(report.as_dict())
    else:
        print_table(f"doctor --verify: {chosen.kafka.application_id}", _rows(report))
    return OK if report.equal else DEGRADED


def _rows(report: Report) -> list[tuple[str, str]]:
    rows = [row for shard in report.shards for row in _shard_rows(shard)]
    rows.append(("ids", f"{report.ids:,} of alerts and triggers, {len(report.repeated)} with two contents"))
    rows += [("differs", text) for text in report.wrong]
    return [*rows, ("result", "equal" if report.equal else "not equal")]


def _shard_rows(shard: ShardReport) -> list[tuple[str, str]]:
    found, name = shard.compared, "coordinator" if shard.shard < 0 else f"shard {shard.shard}"
    behind = sum(max(0, at.end - at.state) for at in shard.offsets.values())
    text = f"offsets {behind:,} behind the ends of its topics"
    if shard.shard >= 0:
        since = f" since {found.since}" if found.since else ""
        text = f"{found.series:,} series, {found.buckets:,} buckets{since}, {found.differences:,} differ; {text}"
    if found.unsure:
        text += f"; {found.unsure:,} buckets that records cannot decide"
    return [(name, text), *((" note", note) for note in shard.notes)]
