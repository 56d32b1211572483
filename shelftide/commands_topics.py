"""The commands `topics apply` and `topics list`: the application's topics, made and checked.

In: options. Out: topics on Kafka; what was done, or what is there, on stdout.
Must not know: what topics must be. Rule: nothing is deleted, and no partition count is changed.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from shelftide.options import Bootstrap, Partitions, Prefix, SettingsFile, kafka_options
from shelftide.report import Json, note, print_json, print_table, working

if TYPE_CHECKING:
    from streams.kafka.topics import Change, TopicState

app = typer.Typer(help="Make and check the application's topics.", no_args_is_help=True, rich_markup_mode="markdown")

DIFFERENT = 3

DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")]


@app.command("apply")
def apply(
    dry_run: DryRun = False,
    settings: SettingsFile = None,
    bootstrap: Bootstrap = None,
    prefix: Prefix = None,
    partitions: Partitions = None,
    json: Json = False,
) -> None:
    """Make every topic what it must be: create what is missing, alter settings that differ.

    Reads the settings, and the topics that Kafka has.

    Writes topics: partitions, compaction, retention, sizes. Refuses where a topic has another number of partitions: a
    partition's number is its shard's, and state is kept by shard. Deletes nothing. May be run at any time, and twice.
    """
    from shelftide.settings_sources import read_settings
    from streams.kafka.topics import apply as make

    chosen = read_settings(settings, kafka_options(bootstrap, prefix, partitions))
    with working(f"asking Kafka at {chosen.kafka.bootstrap_servers}"):
        changes = make(chosen.kafka, dry_run=dry_run, timeout_s=chosen.worker.connect_timeout_s)
    if json:
        print_json({"dry_run": dry_run, "changes": [asdict(change) for change in changes]})
    elif changes:
        print_table("topics apply, dry run: would be done" if dry_run else "topics apply", _change_rows(changes))
    else:
        note(f"the topics at {chosen.kafka.bootstrap_servers} are as they must be")


@app.command("list")
def list_topics(
    settings: SettingsFile = None,
    bootstrap: Bootstrap = None,
    prefix: Prefix = None,
    partitions: Partitions = None,
    json: Json = False,
) -> int:
    """List the application's topics, and where they are not what they must be.

    Reads the settings, and the topics that Kafka has. Writes nothing.

    Exit codes: 0 all are as they must be, 3 some are missing or differ.
    """
    from shelftide.settings_sources import read_settings
    from streams.kafka.topics import described

    chosen = read_settings(settings, kafka_options(bootstrap, prefix, partitions))
    with working(f"asking Kafka at {chosen.kafka.bootstrap_servers}"):
        states = described(chosen.kafka, chosen.worker.connect_timeout_s)
    if json:
        print_json([_plain(state) for state in states])
    else:
        print_table(f"topics at {chosen.kafka.bootstrap_servers}", [row for one in states for row in _state_rows(one)])
    return 0 if all(state.as_specified for state in states) else DIFFERENT


def _change_rows(changes: list[Change]) -> list[tuple[str, str]]:
    rows, above = [], ""
    for change in changes:
        told = f"{change.what}: {change.before} → {change.after}" if change.before else change.what
        text = f"{change.action} {told}" + (f"; {change.note}" if change.note else "")
        rows.append(("" if change.topic == above else change.topic, text))
        above = change.topic
    return rows


def _state_rows(state: TopicState) -> list[tuple[str, str]]:
    spec = state.spec
    if not state.partitions:
        return [(spec.name, f"missing: {spec.what}")]
    copies = f", {state.replication_factor} copies" if state.replication_factor > 1 else ""
    rows = [(spec.name, f"{state.partitions} × {_policy(state.config)}{copies}: {spec.what}")]
    if state.partitions != spec.partitions:
        rows.append(("", f"partitions: {state.partitions}, must be {spec.partitions}"))
    return rows + [("", f"{name}: {has}, must be {wanted}") for name, (has, wanted) in state.differs.items()]


def _policy(config: Any) -> str:
    """How long records stay, for people."""
    if config["cleanup.policy"] != "delete":
        return "newest per key"
    kept_ms = int(config.get("retention.ms", -1))
    return "for ever" if kept_ms < 0 else f"{kept_ms / 86_400_000:g} days"


def _plain(state: TopicState) -> dict[str, Any]:
    return {**asdict(state), "differs": state.differs, "as_specified": state.as_specified}
