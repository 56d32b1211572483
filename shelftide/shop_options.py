"""Options that say what a shop's events mean: its settings, and how files of events are read.

In: options of commands that read events. Out: settings.
Must not know: engines, what is done with events. Rule: an option overrides the setting of its name, and only if given.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

if TYPE_CHECKING:
    from shelftide.settings import Settings as ShopSettings

_SHOP = "Settings of the shop"
_Bucket = Literal["day", "hour"]
_Partitioner = Literal["murmur2", "crc32"]


def _setting(text: str, metavar: str | None = None, default: str | bool = False, **more: Any) -> Any:
    return typer.Option(help=text, metavar=metavar, rich_help_panel=_SHOP, show_default=default, **more)


Sort = Annotated[bool, typer.Option("--sort", help="Sort by event time first, in memory.")]
Settings = Annotated[
    Path | None, _setting("File of settings, named like these options; options override it.", "F.toml")
]
TimeZone = Annotated[str | None, _setting("Where the day ends: IANA name.", "ZONE", "UTC")]
LocationZone = Annotated[list[str] | None, _setting("Zone of one location; may be repeated.", "LOC=ZONE")]
BaseCurrency = Annotated[str | None, _setting("Currency that revenue is summed in.", "CODE", "EUR")]
Rate = Annotated[list[str] | None, _setting("Units of the base currency per unit of CODE; may be repeated.", "CODE=X")]
Bucket = Annotated[_Bucket | None, _setting("Width of the buckets that are forecast.", default="day")]
MaxSeries = Annotated[int | None, _setting("Series each engine holds at most.", "N", "100000", min=1, max=10_000_000)]
PartitionerName = Annotated[_Partitioner | None, _setting("How SKUs spread over shards.", default="murmur2")]


def shop_settings(given: Mapping[str, Any], **more: Any) -> ShopSettings:
    """Settings of a shop as options override them.

    Parameters
    ----------
    given
        Options by names of parameters.
    more
        Further settings by name.

    Raises
    ------
    shelftide.settings.SettingsError
        If a value is wrong.
    """
    from shelftide.settings_sources import read_settings

    plain = {name: given.get(name) for name in ("time_zone", "base_currency", "bucket", "max_series", "partitioner")}
    pairs = {
        "location_time_zones": _pairs(given.get("location_time_zone"), "--location-time-zone"),
        "rates": _rates(given.get("rate")),
    }
    return read_settings(given.get("settings"), {**plain, **pairs, **more})


def _pairs(texts: list[str] | None, option: str) -> dict[str, str] | None:
    """Read NAME=VALUE options; None where there are none."""
    if not texts:
        return None
    pairs = {}
    for text in texts:
        name, sign, value = text.partition("=")
        if not (sign and name and value):
            raise typer.BadParameter(f"{text!r} is not of the form NAME=VALUE", param_hint=option)
        pairs[name] = value
    return pairs


def _rates(texts: list[str] | None) -> dict[str, float] | None:
    rates = {}
    for name, value in (_pairs(texts, "--rate") or {}).items():
        try:
            rates[name] = float(value)
        except ValueError:
            raise typer.BadParameter(f"{value!r} is no number", param_hint="--rate") from None
    return rates or None
