"""Local days and hours: every bucket begins where the one before ends, whatever a zone does to its clocks."""

from __future__ import annotations

from datetime import UTC, date, datetime
from itertools import pairwise
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.calendar import DAY_MS, HOUR_MS, Holidays, Width, Zone, ZoneError

ZONES = ("Europe/London", "Asia/Kolkata", "Australia/Lord_Howe", "America/Sao_Paulo", "America/New_York",
         "Pacific/Apia", "Africa/Casablanca", "America/St_Johns", "Asia/Kathmandu", "UTC")  # fmt: skip


def hours(name: str, day: date) -> float:
    zone = Zone(name, Width.DAY)
    n = zone.number_of(day)
    return (zone.start_ms(n + 1) - zone.start_ms(n)) / HOUR_MS


def ms(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp() * 1000)


# -- days


@pytest.mark.parametrize(
    ("name", "day", "length"),
    [
        ("Europe/London", date(2011, 3, 27), 23),
        ("Europe/London", date(2011, 10, 30), 25),
        ("Europe/London", date(2011, 6, 1), 24),
        ("America/New_York", date(2024, 3, 10), 23),
        ("America/New_York", date(2024, 11, 3), 25),
        ("Australia/Lord_Howe", date(2020, 10, 4), 23.5),  # half an hour
        ("Australia/Lord_Howe", date(2020, 4, 5), 24.5),
        ("America/Sao_Paulo", date(2018, 11, 4), 23),  # midnight itself is skipped
        ("America/Sao_Paulo", date(2018, 2, 17), 25),  # 23:00 comes twice
        ("Asia/Kolkata", date(2024, 3, 31), 24),
        ("Pacific/Apia", date(2011, 12, 30), 0),  # a date that never was
    ],
)
def test_days_have_the_length_that_the_zone_gives_them(name: str, day: date, length: float) -> None:
    assert hours(name, day) == length


def test_a_day_whose_midnight_is_skipped_begins_at_one() -> None:
    zone = Zone("America/Sao_Paulo", Width.DAY)
    start = zone.start_ms(zone.number_of(date(2018, 11, 4)))
    assert zone.local(start).isoformat() == "2018-11-04T01:00:00-02:00"
    assert zone.bucket_of(start) == zone.bucket_of(start - 1) + 1


def test_a_day_bucket_is_numbered_by_its_local_date() -> None:
    zone = Zone("Asia/Kolkata", Width.DAY)
    assert zone.number_of(date(1970, 1, 2)) == zone.day_of(1) == 1
    assert zone.bucket_of(ms("2024-03-01T00:00+05:30")) == (date(2024, 3, 1) - date(1970, 1, 1)).days
    assert zone.bucket_of(ms("2024-03-01T00:00+05:30") - 1) == (date(2024, 2, 29) - date(1970, 1, 1)).days


@settings(max_examples=100, deadline=None)
@given(name=st.sampled_from(ZONES), at=st.integers(ms("2000-01-02T00:00+00:00"), ms("2037-12-30T00:00+00:00")))
def test_an_instant_lies_in_the_day_that_its_local_date_says(name: str, at: int) -> None:
    bucket = Zone(name, Width.DAY).bucket_of(at)
    local = datetime.fromtimestamp(at // 1000, UTC).astimezone(ZoneInfo(name))
    assert bucket == local.date().toordinal() - date(1970, 1, 1).toordinal()


@settings(max_examples=60, deadline=None)
@given(
    name=st.sampled_from(ZONES),
    width=st.sampled_from(Width),
    at=st.integers(ms("2000-01-02T00:00+00:00"), ms("2037-12-30T00:00+00:00")),
)
def test_an_instant_lies_between_the_start_of_its_bucket_and_the_next(name: str, width: Width, at: int) -> None:
    zone = Zone(name, width)
    bucket = zone.bucket_of(at)
    assert zone.start_ms(bucket) <= at < zone.start_ms(bucket + 1)
    assert zone.starts_ms(bucket, 3) == [zone.start_ms(bucket + n) for n in range(3)]


@pytest.mark.parametrize("name", ZONES)
def test_buckets_of_a_year_follow_each_other_without_gap(name: str) -> None:
    zone = Zone(name, Width.DAY)
    first = zone.number_of(date(2011, 1, 1))
    starts = zone.starts_ms(first, 366)
    assert all(0 <= after - before <= 25 * HOUR_MS for before, after in pairwise(starts))
    assert sum(after - before for before, after in pairwise(starts)) in (364 * DAY_MS, 365 * DAY_MS)
    own = [n for n, (before, after) in enumerate(pairwise(starts), first) if after > before]
    assert zone.bucket(np.array([zone.start_ms(n) for n in own])).tolist() == own


def test_instants_in_any_order_and_far_apart_are_the_same_as_one_by_one() -> None:
    rng, zone = np.random.default_rng(2), Zone("America/New_York", Width.DAY)
    at = rng.integers(ms("2000-01-02T00:00+00:00"), ms("2030-01-01T00:00+00:00"), 50)
    assert zone.bucket(at).tolist() == [Zone("America/New_York", Width.DAY).bucket_of(int(one)) for one in at]
    assert zone.bucket(np.zeros(0, np.int64)).tolist() == []


# -- hours


def test_hours_of_a_zone_half_an_hour_off_begin_on_its_own_hours() -> None:
    zone = Zone("Asia/Kolkata", Width.HOUR)
    bucket = zone.bucket_of(ms("2024-03-01T09:59:59+05:30"))
    assert zone.local(zone.start_ms(bucket)).isoformat() == "2024-03-01T09:00:00+05:30"
    assert (zone.hour_of(bucket), zone.hour_of(bucket + 1)) == (9, 10)


def test_hours_of_kathmandu_begin_on_its_own_hours_too() -> None:
    zone = Zone("Asia/Kathmandu", Width.HOUR)
    assert zone.local(zone.start_ms(zone.bucket_of(ms("2024-03-01T09:59+05:45")))).minute == 0


def test_the_repeated_hour_of_autumn_is_two_buckets_and_the_skipped_one_of_spring_none() -> None:
    zone = Zone("Europe/London", Width.HOUR)
    autumn, spring = (zone.number_of(date(2011, month, day)) for month, day in ((10, 30), (3, 27)))
    assert [zone.hour_of(autumn + n) for n in range(25)] == [0, 1, 1, *range(2, 24)]
    assert [zone.hour_of(spring + n) for n in range(23)] == [0, *range(2, 24)]
    assert {zone.day_of(autumn + n) for n in range(25)} == {zone.day_of(autumn)}
    assert zone.day_of(autumn + 25) == zone.day_of(autumn) + 1


def test_hours_are_whole_through_a_change_of_half_an_hour() -> None:
    zone = Zone("Australia/Lord_Howe", Width.HOUR)
    first = zone.bucket_of(ms("2020-04-04T00:00+11:00"))
    assert np.diff(zone.starts_ms(first, 72)).tolist() == [HOUR_MS] * 71


def test_the_season_of_days_is_a_week_and_of_hours_a_day() -> None:
    assert (Width.DAY.season, Width.HOUR.season) == (7, 24)
    assert (Width.DAY.nominal_ms, Width.HOUR.nominal_ms) == (DAY_MS, HOUR_MS)


@pytest.mark.parametrize("name", ["Europe/Atlantis", "", "../etc/passwd", "GMT+25", "/etc/localtime"])
def test_a_name_that_is_no_zone_is_refused_in_a_sentence(name: str) -> None:
    with pytest.raises(ZoneError, match="no IANA time zone"):
        Zone(name, Width.DAY)


# -- announced days


def test_of_one_day_the_newest_description_wins_and_a_location_beats_the_shop() -> None:
    days = Holidays()
    days.describe(5, "", "Fair", "campaign", is_open=True, time_ms=10)
    days.describe(5, "", "Old", "closure", is_open=False, time_ms=9)
    assert (days.is_open(5, "north"), days.kind(5, "north")) == (True, "campaign")
    days.describe(5, "north", "Works", "closure", is_open=False, time_ms=1)
    assert [days.is_open(5, place) for place in ("north", "south")] == [False, True]
    assert days.own_locations == {"north"}
    days.forget(5, "north")
    assert days.is_open(5, "north")


def test_days_that_nobody_described_are_open_and_without_a_kind() -> None:
    days = Holidays()
    assert (days.is_open(5, ""), days.kind(5, ""), days.any) == (True, "", False)


def test_restored_days_are_the_same() -> None:
    days, other = Holidays(), Holidays()
    days.describe(6, "", "B", "holiday", is_open=False, time_ms=2)
    days.describe(5, "x", "A", "closure", is_open=False, time_ms=1)
    other.restore(days.snapshot())
    assert other.snapshot() == days.snapshot()
    assert not other.is_open(6, "y")
