"""Single fields of events: the limits of contracts §1 as types, times and currency codes.

In: nothing, or one value of a field.
Out: annotated types for structs; epoch ms of a time; a currency code as an integer.
Must not know: events. Rule: a limit here is a number or a length; patterns cost a regular expression per string, so
they are left to `streams.checks`.
"""

from __future__ import annotations

import datetime as dt
from typing import Annotated

import msgspec
from msgspec import Meta

EARLIEST_MS = 946_684_800_000
"""2000-01-01T00:00Z: an event before it comes from a clock that was never set (contracts §1)."""

LATEST_MS = 253_402_300_799_999
"""9999-12-31T23:59:59.999Z, the last instant that RFC 3339 can write."""

DEFAULT_LOCATION = "default"
_SEPARATOR = "\x1f"  # no SKU or location holds a control character
"""Location of events that name none (contracts §1)."""

MAX_QUANTITY = 1e6  # contracts §1
MAX_PRICE = 1e9  # contracts §1
MAX_DAYS = 10_000  # a lead time of 27 years is a wrong unit

Moment = Annotated[dt.datetime, Meta(tz=True)] | Annotated[int, Meta(ge=0, le=LATEST_MS)]
Due = Annotated[str, Meta(min_length=10, max_length=40)] | Annotated[int, Meta(ge=0, le=LATEST_MS)]
EventId = Annotated[str, Meta(min_length=1, max_length=64)]
Sku = Annotated[str, Meta(min_length=1, max_length=128)]
Location = Annotated[str, Meta(min_length=1, max_length=64)]
Name = Annotated[str, Meta(max_length=128)]
GivenName = Annotated[str, Meta(min_length=1, max_length=128)]
Title = Annotated[str, Meta(max_length=2_000)]
Text = Annotated[str, Meta(max_length=32_000)]
Currency = Annotated[str, Meta(min_length=3, max_length=3)]
Quantity = Annotated[float, Meta(gt=0, le=MAX_QUANTITY)]
Amount = Annotated[float, Meta(ge=0, le=MAX_QUANTITY)]
Price = Annotated[float, Meta(ge=-MAX_PRICE, le=MAX_PRICE)]
Cost = Annotated[float, Meta(ge=0, le=MAX_PRICE)]
Days = Annotated[float, Meta(ge=0, le=MAX_DAYS)]
Value = Annotated[float, Meta(ge=-1e15, le=1e15)] | Annotated[str, Meta(max_length=1_000)] | bool | None

_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_ONE_MS = dt.timedelta(milliseconds=1)
_AWARE = Annotated[dt.datetime, Meta(tz=True)]


def epoch_ms(moment: dt.datetime | int | str) -> int:
    """Read a time as it stands in an event: epoch ms, aware datetime, RFC 3339 or an ISO date (midnight UTC).

    A part of a millisecond is dropped.

    Raises
    ------
    ValueError
        If a string is neither an ISO date nor RFC 3339 with an offset.

    Examples
    --------
    >>> epoch_ms(5), epoch_ms("1970-01-02"), epoch_ms("1970-01-01T01:00:00.0019+01:00")
    (5, 86400000, 1)
    """
    if isinstance(moment, int):
        return moment
    if isinstance(moment, str):
        try:
            if len(moment) == len("2000-01-01"):  # not fromisoformat, which also reads 2026-W08-5
                return (msgspec.convert(moment, dt.date) - _EPOCH.date()).days * 86_400_000
            moment = msgspec.convert(moment, _AWARE)
        except msgspec.ValidationError as error:
            raise ValueError(f"{moment!r} is neither an ISO date nor RFC 3339 with an offset") from error
    return (moment - _EPOCH) // _ONE_MS


def pack_currency(code: str) -> int:
    """Pack the three letters of an ISO 4217 code big-endian into an integer.

    Examples
    --------
    >>> hex(pack_currency("GBP"))
    '0x474250'
    """
    return int.from_bytes(code.encode("ascii"), "big")


def unpack_currency(code: int) -> str:
    """Read a code of `pack_currency`; 0 is the empty string.

    Examples
    --------
    >>> unpack_currency(0x474250), unpack_currency(0)
    ('GBP', '')
    """
    return code.to_bytes(3, "big").decode("ascii") if code else ""


def series_key(sku: str, location: str) -> str:
    """The one text that stands for a series; the SKU alone where its location is the default one.

    Examples
    --------
    >>> series_key("mug", "default"), series_key("mug", "york")
    ('mug', 'mug\\x1fyork')
    """
    return sku if location == DEFAULT_LOCATION else sku + _SEPARATOR + location
