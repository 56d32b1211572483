"""Settings of a shop: what a file of settings and the options of a command say about it.

In: a TOML file, options of a command. Out: `ShopSettings`, and the engine's configuration made of it.
Must not know: commands, events. Rule: an unknown key, or a value out of range, is an error and never ignored.

    time_zone = "Europe/London"
    base_currency = "GBP"

    [rates]
    EUR = 0.86
"""

from __future__ import annotations

import math
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from streams.calendar import DAY_MS, HOUR_MS, Width, Zone
from streams.engine import EngineConfig
from streams.policy import ReplenishmentConfig
from streams.price_rules import PriceAlertConfig

MOST_SERIES = 10_000_000
"""Series of one engine at most: above it, slots and hashes would need wider integers than they have."""


class SettingsError(Exception):
    """A setting is unknown or out of range; one sentence that names it and says what it must be."""


class ShopSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is set once for a shop; the names are those of the options.

    Attributes
    ----------
    time_zone, location_time_zones
        Where a day ends: for the shop, and for locations that have their own.
    base_currency, rates
        Currency that revenue is summed in, and units of it per unit of other currencies.
    bucket
        ``day`` or ``hour``: width of the buckets that are forecast.
    max_series
        Series that each engine holds at most.
    partitioner
        How producers spread SKUs over partitions: ``murmur2``, or ``crc32`` (librdkafka).

    Examples
    --------
    >>> ShopSettings(time_zone="Europe/London", base_currency="GBP", rates={"EUR": 0.86}).checked().engine().rates
    {'EUR': 0.86}
    >>> ShopSettings(rates={"EUR": -1}).checked()
    Traceback (most recent call last):
    shelftide.settings.SettingsError: rate of EUR is -1; it must be a number above 0
    """

    time_zone: str = "UTC"
    location_time_zones: dict[str, str] = {}
    base_currency: str = "EUR"
    rates: dict[str, float] = {}
    bucket: Literal["day", "hour"] = "day"
    max_series: Annotated[int, Meta(ge=1, le=MOST_SERIES)] = 100_000
    partitioner: Literal["murmur2", "crc32"] = "murmur2"

    def checked(self) -> ShopSettings:
        """Give these settings back if zones, currencies and rates can be used.

        Raises
        ------
        SettingsError
            If a currency is no code of three capital letters, or a rate is not above 0.
        streams.calendar.ZoneError
            If a time zone is not known.
        """
        for name in (self.time_zone, *self.location_time_zones.values()):
            Zone(name, Width.DAY)
        for code in (self.base_currency, *self.rates):
            if not (len(code) == 3 and code.isascii() and code.isalpha() and code.isupper()):
                raise SettingsError(f"{code!r} is no currency code; give three capital letters such as GBP")
        for code, rate in self.rates.items():
            if not (rate > 0 and math.isfinite(rate)):
                raise SettingsError(f"rate of {code} is {rate:g}; it must be a number above 0")
        if self.rates.get(self.base_currency, 1.0) != 1.0:
            raise SettingsError(f"{self.base_currency} is the base currency; leave its rate out")
        return self

    def engine(self) -> EngineConfig:
        """The configuration of this shop's engines."""
        rates = {**self.rates, self.base_currency: 1.0}
        hourly = self.bucket == "hour"
        return EngineConfig(
            max_series=self.max_series,
            width=Width.HOUR if hourly else Width.DAY,
            time_zone=self.time_zone,
            location_time_zones=self.location_time_zones,
            base_currency=self.base_currency,
            rates=self.rates,
            prices=PriceAlertConfig(rates=rates),
            replenishment=replace(ReplenishmentConfig(), bucket_ms=HOUR_MS if hourly else DAY_MS),
        )


def shop_settings(file: Path | None, options: dict[str, Any]) -> ShopSettings:
    """Read settings from a file, if one is named; options that are given (not None) override it.

    Raises
    ------
    SettingsError
        If the file cannot be read, or a setting is unknown or wrong.
    streams.calendar.ZoneError
        If a time zone is not known.

    Examples
    --------
    >>> shop_settings(None, {"time_zone": "Asia/Tokyo", "bucket": None}).time_zone
    'Asia/Tokyo'
    """
    where = "settings" if file is None else repr(str(file))
    given = _read(file) if file is not None else {}
    for name, value in options.items():
        if value is not None:
            given[name] = {**given.get(name, {}), **value} if isinstance(value, dict) else value
    try:
        return msgspec.convert(given, ShopSettings).checked()
    except msgspec.ValidationError as error:
        known = ", ".join(ShopSettings.__struct_fields__)
        hint = f"; the settings are {known}" if "unknown field" in str(error) else ""
        raise SettingsError(f"{where}: {error}{hint}") from error


def _read(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text("utf-8"))
    except OSError as error:
        raise SettingsError(f"{str(file)!r} cannot be read ({error.strerror or error}); check the path") from error
    except (tomllib.TOMLDecodeError, ValueError, RecursionError) as error:
        raise SettingsError(f"{str(file)!r} is no TOML file ({error})") from error
