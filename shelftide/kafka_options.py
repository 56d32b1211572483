"""Options of every command that speaks to Kafka: where it is, and which settings hold.

In: nothing. Out: types of options for commands.
Must not know: commands, Kafka. Rule: the names are those that errors of settings use.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

_KAFKA = "Kafka"

SettingsFile = Annotated[
    Path | None,
    typer.Option("--settings", help="File of settings; options override it.", metavar="F.toml", show_default=False,
                 rich_help_panel=_KAFKA),
]  # fmt: skip
Bootstrap = Annotated[
    str | None,
    typer.Option("--bootstrap", help="Brokers to ask first.", metavar="HOST:PORT", show_default="127.0.0.1:9092",
                 rich_help_panel=_KAFKA),
]  # fmt: skip
Prefix = Annotated[
    str | None,
    typer.Option("--prefix", help="Put before every topic's name, dot included.", metavar="TEXT", show_default=False,
                 rich_help_panel=_KAFKA),
]  # fmt: skip
