"""Options that several commands have: where settings come from, and which Kafka is meant.

In: nothing. Out: annotated types for parameters of commands, and the settings they override.
Must not know: commands, Kafka. Rule: an option that overrides a setting says so by having no default of its own.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

_KAFKA = "Which Kafka"


def _kafka(text: str, metavar: str, **more: Any) -> Any:
    return typer.Option(help=text, metavar=metavar, rich_help_panel=_KAFKA, show_default=False, **more)


SettingsFile = Annotated[
    Path | None, _kafka("File of settings; options override it. Default: that of SHELFTIDE_SETTINGS.", "F.toml")
]
Bootstrap = Annotated[str | None, _kafka("Brokers to ask first; several joined by commas.", "HOST:PORT")]
Prefix = Annotated[str | None, _kafka("What the names of the application's topics begin with.", "TEXT")]
Partitions = Annotated[int | None, _kafka("Partitions of the item topics: the shards.", "N")]


def kafka_options(bootstrap: str | None, prefix: str | None, partitions: int | None = None) -> dict[str, Any]:
    """These options by the names of the settings that they override."""
    return {"kafka": {"bootstrap_servers": bootstrap, "topic_prefix": prefix, "partitions": partitions}}
