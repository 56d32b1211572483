"""The command `produce`: files of events to Kafka.

In: options. Out: records on the input topics; what became of them on stdout.
Must not know: how records are sent. Rule: an interrupted run says what was acknowledged, as a finished one does.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from shelftide.options import Bootstrap, Prefix, SettingsFile, kafka_options
from shelftide.report import Json, counting, note, print_json, print_table

if TYPE_CHECKING:
    from streams.kafka.produce import Produced

_Timestamps = Literal["event", "now"]
_Partitioner = Literal["murmur2", "crc32"]

Events = Annotated[list[str], typer.Argument(metavar="EVENTS...", help="Files of JSON lines (.zst, .gz); - is stdin.")]
Rate = Annotated[
    float | None,
    typer.Option(help="Records per second. Without: as fast as it goes.", metavar="N", min=1e-3, show_default=False),
]
Timestamps = Annotated[
    _Timestamps,
    typer.Option(help="What stamps the records: the clock of the events at their arrival, or this machine's."),
]
Poison = Annotated[
    bool,
    typer.Option("--poison", help="Send records that name no type as well, without a key, to the topic of orders."),
]
Sort = Annotated[bool, typer.Option("--sort", help="Sort by event time first, in memory.")]
Partitioner = Annotated[
    _Partitioner | None, typer.Option(help="How SKUs spread over partitions.", show_default="murmur2")
]


def produce(
    events: Events,
    rate: Rate = None,
    timestamps: Timestamps = "event",
    poison: Poison = False,
    sort: Sort = False,
    settings: SettingsFile = None,
    bootstrap: Bootstrap = None,
    prefix: Prefix = None,
    partitioner: Partitioner = None,
    json: Json = False,
) -> int:
    """Send files of events to Kafka, each to the topic of its type.

    Reads EVENTS, in the order of their lines; several files are merged by their next event time. A record that names
    no type is counted, named and left out; one that is wrong in another way is sent, for judging it is the worker's
    work.

    Writes records to the input topics. With a rate each has its time, however slow Kafka is: the report says how far
    behind the sender fell.

    Exit codes: 0 all that was sent is acknowledged, 1 something is not.
    """
    from shelftide.settings_sources import read_settings
    from streams.kafka.produce import ProduceInterruptedError
    from streams.kafka.produce import produce as send

    chosen = read_settings(settings, {**kafka_options(bootstrap, prefix), "partitioner": partitioner})
    how: dict[str, Any] = {
        "timestamps": timestamps,
        "poison": poison,
        "partitioner": chosen.partitioner,
        "connect_timeout_s": chosen.worker.connect_timeout_s,
    }
    try:
        with counting(f"producing {', '.join(events)}", "records") as advance:
            produced = send(events, chosen.kafka, rate=rate, sort=sort, progress=advance, **how)
    except ProduceInterruptedError as interrupt:
        _tell(interrupt.produced, json)
        note(f"interrupted; {interrupt.produced.acknowledged:,} records are acknowledged")
        raise SystemExit(130) from None
    _tell(produced, json)
    return int(produced.acknowledged < produced.sent)


def _tell(produced: Produced, json: bool) -> None:
    for sentence in produced.named:
        note(sentence)
    if json:
        print_json({**asdict(produced), "records_per_s": round(_rate(produced), 1)})
    else:
        print_table("produced", _rows(produced))


def _rate(produced: Produced) -> float:
    return produced.sent / produced.seconds if produced.seconds > 0 else 0.0


def _rows(produced: Produced) -> list[tuple[str, str]]:
    in_doubt = produced.sent - produced.acknowledged - produced.failed
    return [
        ("time taken", f"{produced.seconds:.1f} s, {_rate(produced):,.0f} records/s"),
        ("records read", f"{produced.records:,}"),
        ("sent", f"{produced.sent:,}"),
        *((f"  {topic}", f"{count:,}") for topic, count in produced.by_topic.items()),
        ("acknowledged", f"{produced.acknowledged:,}"),
        ("failed", f"{produced.failed:,}"),
        *([("in doubt", f"{in_doubt:,}")] if in_doubt else []),
        ("left out, no event", f"{produced.left_out:,}"),
        *([("sent, no event", f"{produced.poison:,}")] if produced.poison else []),
        ("behind schedule", f"{produced.behind_s:.3f} s at most"),
        ("waited for room", f"{produced.blocked_s:.1f} s"),
    ]
