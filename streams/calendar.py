"""Buckets of local time: which bucket an instant falls in, and when a bucket begins.

In: instants (epoch ms, UTC), a time zone, a width (day or hour).
Out: bucket numbers and the instants where buckets begin; days that are closed or named.
Must not know: events, series. Rule: bucket numbers grow by one from each bucket to the next, without gap or repeat.

A day bucket is numbered by its local date (days since 1970-01-01), so days of 23 and 25 hours need no special care.
An hour bucket is numbered by the elapsed hour, shifted by the zone's part of an hour, so the repeated hour of autumn
is two buckets.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from enum import Enum
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import numpy as np
import numpy.typing as npt

I64 = npt.NDArray[np.int64]

HOUR_MS = 3_600_000
DAY_MS = 86_400_000
_EPOCH = date(1970, 1, 1)
_THURSDAY = 3  # that day was one: three days after a Monday
_PAD_DAYS = 400  # grown by more than a year at a time: a table of 400 days costs 3 kB and 2 ms


def day_number(day: date) -> int:
    """Number of a calendar day: days since 1970-01-01.

    Examples
    --------
    >>> day_number(date(1970, 1, 3))
    2
    """
    return (day - _EPOCH).days


def week_of(day: int) -> int:
    """Number of the week, Monday to Sunday, that holds a day number.

    Examples
    --------
    >>> week_of(day_number(date(2024, 1, 7))), week_of(day_number(date(2024, 1, 8)))  # a Sunday, a Monday
    (2818, 2819)
    """
    return (day + _THURSDAY) // 7


class Width(Enum):
    """Width of a bucket; the value is what ``freq`` of a forecast says."""

    DAY = "D"
    HOUR = "h"

    @property
    def season(self) -> int:
        """Buckets per season: seven days, or the hours of a day."""
        return 7 if self is Width.DAY else 24

    @property
    def nominal_ms(self) -> int:
        """Length of a bucket on a day without a clock change."""
        return DAY_MS if self is Width.DAY else HOUR_MS


class ZoneError(ValueError):
    """The name is no IANA time zone."""


class Zone:
    """The buckets of one time zone.

    Parameters
    ----------
    name
        IANA name, for example ``Europe/London``.
    width
        Width of a bucket.

    Raises
    ------
    ZoneError
        If the name is not known.

    Examples
    --------
    >>> zone = Zone("Europe/London", Width.DAY)
    >>> n = zone.number_of(date(2011, 3, 27))  # the clock goes forward: a day of 23 hours
    >>> (zone.start_ms(n + 1) - zone.start_ms(n)) // HOUR_MS
    23
    """

    def __init__(self, name: str, width: Width) -> None:
        try:
            self._zone = ZoneInfo(name)
        except (ZoneInfoNotFoundError, ValueError, OSError) as error:
            raise ZoneError(f"{name!r} is no IANA time zone; use a name like 'Europe/London' or 'UTC'") from error
        self.name = name
        self.width = width
        self._first = 0
        self._starts: I64 = np.zeros(0, np.int64)
        # Zones such as Asia/Kolkata lie half an hour off; today's rule is taken for all time, hours stay whole.
        offset = datetime(2020, 1, 1, tzinfo=self._zone).utcoffset() or timedelta(0)
        self._part_ms = int(offset.total_seconds() * 1000) % HOUR_MS

    def bucket(self, time_ms: I64) -> I64:
        """Number of the bucket that holds each instant, int64, the shape of ``time_ms``."""
        if self.width is Width.HOUR:
            return (time_ms + self._part_ms) // HOUR_MS
        if not len(time_ms):
            return np.zeros(0, np.int64)
        self._cover(int(time_ms.min()) // DAY_MS - 1, int(time_ms.max()) // DAY_MS + 2)
        return self._first - 1 + np.searchsorted(self._starts, time_ms, side="right").astype(np.int64)

    def bucket_of(self, time_ms: int) -> int:
        """Number of the bucket that holds one instant."""
        return int(self.bucket(np.array([time_ms], np.int64))[0])

    def start_ms(self, bucket: int) -> int:
        """Instant at which a bucket begins, epoch ms."""
        if self.width is Width.HOUR:
            return bucket * HOUR_MS - self._part_ms
        self._cover(bucket, bucket + 1)
        return int(self._starts[bucket - self._first])

    def starts_ms(self, bucket: int, count: int) -> list[int]:
        """Instants at which ``count`` buckets from ``bucket`` on begin."""
        return [self.start_ms(bucket + i) for i in range(count)]

    def day_of(self, bucket: int) -> int:
        """Local day number (days since 1970-01-01) in which a bucket begins."""
        return bucket if self.width is Width.DAY else day_number(self.local(self.start_ms(bucket)).date())

    def hour_of(self, bucket: int) -> int:
        """Local hour in which a bucket begins; 0 for days."""
        return 0 if self.width is Width.DAY else self.local(self.start_ms(bucket)).hour

    def local(self, time_ms: int) -> datetime:
        """Local date and time of an instant."""
        return datetime.fromtimestamp(time_ms / 1000, self._zone)

    def number_of(self, day: date) -> int:
        """Number of the bucket in which a local date begins."""
        number = day_number(day)
        return number if self.width is Width.DAY else self.bucket_of(self._midnight_ms(number))

    def _midnight_ms(self, day: int) -> int:
        d = _EPOCH + timedelta(days=day)
        local = datetime(d.year, d.month, d.day, tzinfo=self._zone)
        # Where a clock change skips midnight, the offset before it gives the first instant of the day.
        return int(local.astimezone(UTC).timestamp() * 1000)

    def _cover(self, low: int, high: int) -> None:
        """Extend the table of local midnights to hold the days ``low`` to ``high``."""
        last = self._first + len(self._starts) - 1
        if len(self._starts) and low >= self._first and high <= last:
            return
        first, end = low - _PAD_DAYS, high + _PAD_DAYS
        if len(self._starts):
            first, end = min(first, self._first), max(end, last)
        self._starts = np.array([self._midnight_ms(day) for day in range(first, end + 1)], np.int64)
        self._first = first


class Holidays:
    """Days that are announced as closed, or that carry a name: what ``day_described`` events say.

    A day of one location overrides the same day of the whole shop. The newest event of a (date, location) wins.

    Examples
    --------
    >>> days = Holidays()
    >>> days.describe(15000, "", "Christmas", "holiday", is_open=False, time_ms=1)
    >>> days.is_open(15000, "default"), days.is_open(15001, "default")
    (False, True)
    """

    def __init__(self) -> None:
        self._days: dict[tuple[int, str], tuple[int, str, str, bool]] = {}  # -> (event time, name, kind, open)
        self.changed = False

    def describe(self, day: int, location: str, name: str, kind: str, *, is_open: bool, time_ms: int) -> None:
        """Note what is said of a local day; an older event than the one known changes nothing."""
        known = self._days.get((day, location))
        if known is None or time_ms >= known[0]:
            self._days[day, location] = (time_ms, name, kind, is_open)
            self.changed = True

    def forget(self, day: int, location: str) -> None:
        """Drop what is said of a day."""
        if self._days.pop((day, location), None) is not None:
            self.changed = True

    def is_open(self, day: int, location: str) -> bool:
        """False where the shop, or this location, is announced as closed on a local day."""
        known = self._days.get((day, location)) or self._days.get((day, ""))
        return known is None or known[3]

    def kind(self, day: int, location: str) -> str:
        """Kind of a named day (``holiday``, ``closure``, ``campaign`` …), or an empty string."""
        known = self._days.get((day, location)) or self._days.get((day, ""))
        return known[2] if known else ""

    def name(self, day: int, location: str) -> str:
        """Name of a named day, or an empty string."""
        known = self._days.get((day, location)) or self._days.get((day, ""))
        return known[1] if known else ""

    @property
    def any(self) -> bool:
        """True once a day was described."""
        return bool(self._days)

    @property
    def own_locations(self) -> set[str]:
        """Locations of which some day is described on its own."""
        return {location for _, location in self._days if location}

    def snapshot(self) -> list[list[Any]]:
        """All days as plain values, in a fixed order."""
        return [[day, location, *known] for (day, location), known in sorted(self._days.items())]

    def restore(self, rows: list[list[Any]]) -> None:
        """Take over what `snapshot` gave."""
        self._days = {(row[0], row[1]): (row[2], row[3], row[4], row[5]) for row in rows}
