"""The demo: the same engine as a replay, the same picture every time, and nothing drawn that is not in the frame."""

from __future__ import annotations

from dataclasses import replace
from io import StringIO
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from streams.demo import AHEAD_DAYS, HISTORY_DAYS, Demo, DemoConfig, Frame, ItemView
from streams.live_view import fan_chart, picture, week_line
from streams.outputs import ALERT_TOPIC, Output
from streams.replay import Replay
from streams.shop import Shop

SMALL = DemoConfig(items=15, seed=2, days=4, warm_up_days=10)


def drawn(frame: Frame, width: int, height: int, **options: Any) -> list[str]:
    """The lines of a picture as a terminal of this size shows them."""
    console = Console(file=StringIO(), width=width, height=height, force_terminal=True, _environ={}, **options)
    with console.capture() as capture:
        console.print(picture(frame, width, height))
    return capture.get().splitlines()


def plain(frame: Frame, width: int, height: int) -> list[str]:
    return drawn(frame, width, height, color_system=None)


@pytest.fixture(scope="module")
def played() -> Demo:
    """A demo that has run to its end."""
    demo = Demo(SMALL)
    for _ in demo.hours():
        pass
    return demo


@pytest.fixture(scope="module")
def frame(played: Demo) -> Frame:
    return played.frame()


# -- the engine behind it


def test_two_demos_show_the_same_at_every_hour() -> None:
    config = replace(SMALL, days=1, warm_up_days=3)
    one, two = Demo(config), Demo(config)
    for first, second in zip(one.hours(), two.hours(), strict=True):
        assert first == second
        assert one.frame() == two.frame()
    assert one.finish() == two.finish()


def test_the_demo_is_a_replay_of_the_shop() -> None:
    whole = replace(SMALL, warm_up_days=0, days=14)
    demo = Demo(whole)
    hours = sum(1 for _ in demo.hours())
    player = Replay(demo.player.config, lambda _: None)
    shop = Shop(whole.items, whole.seed, days=365)
    for day in range(demo.total_days):
        player.feed(shop.day(day))
    player.finish()
    assert hours > 100
    assert player.summary() == demo.finish()


def test_in_the_past_that_is_played_first_series_are_forecast_about_once_a_day() -> None:
    demo, made = Demo(replace(SMALL, days=1)), {}
    for _ in demo.hours():
        made[demo.day] = (demo.player.counts["forecasts_made"], demo.player.counts["forecasts_at_close"])
    (before, closed_before), (after, closed_after) = made[SMALL.warm_up_days], made[demo.total_days]
    assert 50 < before < 1.5 * closed_before
    assert after - before > 2 * (closed_after - closed_before)


def test_alerts_that_are_shown_when_due_are_those_of_a_replay() -> None:
    streams: list[list[Output]] = [[], []]
    for index, written in enumerate(streams):
        shop = Shop(40, seed=5, fault_rate=0.02)
        player = Replay(Demo(replace(SMALL, items=40)).player.config, written.extend)
        for day in range(24):
            player.feed(shop.day(day))
            if index:
                player.publish_due()
        player.finish()
    late, due = ([o for o in written if o.topic == ALERT_TOPIC] for written in streams)
    assert len(late) > 10
    assert late == due


def test_time_goes_on_and_every_record_is_played() -> None:
    demo = Demo(SMALL)
    seen_ms = list(demo.hours())
    assert seen_ms == sorted(seen_ms)
    shop = Shop(SMALL.items, SMALL.seed)
    assert demo.player.counts["records"] == sum(len(shop.day(day)) for day in range(14))


def test_a_shorter_demo_is_the_beginning_of_a_longer_one() -> None:
    short, long = Demo(replace(SMALL, days=1, warm_up_days=2)), Demo(replace(SMALL, days=3, warm_up_days=2))
    hours = list(short.hours())
    for now_ms in long.hours():
        if now_ms == hours[-1]:
            break
    assert replace(long.frame(), days=3) == short.frame()


def test_the_warm_up_ends_after_its_days() -> None:
    demo = Demo(replace(SMALL, days=1, warm_up_days=1))
    phases = [demo.frame().phase for _ in demo.hours()]
    assert phases[0] == "warm-up"
    assert phases[-1] == "live"
    assert phases == sorted(phases, reverse=True)


def test_a_clock_measures_and_changes_nothing_else() -> None:
    ticks = iter(range(1_000_000))
    measured, bare = Demo(SMALL, lambda: next(ticks) / 1000), Demo(SMALL)
    for demo in (measured, bare):
        for _ in demo.hours():
            pass
    frame = measured.frame()
    assert frame.pace is not None
    assert frame.pace.chunk_p50_ms == pytest.approx(1)
    assert replace(frame, pace=None) == bare.frame()


# -- the frame


def test_a_frame_holds_demand_as_sold_and_a_fan_that_never_crosses(played: Demo, frame: Frame) -> None:
    assert len(frame.items) == 8
    assert frame.events == played.player.counts["events"]
    for item in frame.items:
        assert len(item.history) == HISTORY_DAYS
        assert item.history[:14].count(None) == 14  # the shop opened 14 days ago
        assert len(item.low) == len(item.median) == len(item.high) == AHEAD_DAYS
        for low, median, high in zip(item.low, item.median, item.high, strict=True):
            assert 0 <= low <= median <= high
        assert item.low[0] >= item.observed - 1e-3
        assert item.price is not None
        assert item.price > 0
        assert item.p_change is not None
        assert 0 < item.p_change < 1 or item.p_change == 1  # an offer is announced
    sold = [sum(value or 0 for value in item.history) for item in frame.items]
    assert sold[0] == max(sold)


def test_open_alerts_and_triggers_are_counted_as_the_outputs_say(played: Demo, frame: Frame) -> None:
    statuses = played.player.tallies["triggers"]
    assert frame.triggers_open == statuses["open"] - statuses["cancelled"] - statuses["expired"]
    alerts = played.player.tallies["alert_status"]
    assert frame.alerts_open == alerts["firing"] - alerts["resolved"]


def test_a_resolved_alert_still_shows_the_price_that_was_wrong() -> None:
    demo = Demo(SMALL)
    value = {
        "fingerprint": "f", "status": "firing", "event_time": 1_704_100_000_000, "kind": "decimal_shift",
        "severity": "critical", "sku": demo.shop.items.sku[0], "observed": {"price": 0.99, "currency": "GBP"},
        "expected": {"p50": 9.99}, "impact": {"money_at_risk": 5.0}, "resolution": None,
    }  # fmt: skip
    demo._see_alert(value)
    assert demo.frame().alerts_open == 1
    demo._see_alert(
        {**value, "status": "resolved", "observed": {"price": 9.99, "currency": "GBP"}, "resolution": "corrected"}
    )
    shown = demo.frame()
    assert shown.alerts_open == 0
    assert (shown.alerts[0].observed, shown.alerts[0].status, shown.alerts[0].resolution) == (
        0.99,
        "resolved",
        "corrected",
    )


# -- the picture


@pytest.mark.parametrize("width", [20, 40, 80, 111, 112, 160, 250])
@pytest.mark.parametrize("height", [5, 12, 24, 36, 60])
def test_a_picture_fits_its_terminal(frame: Frame, width: int, height: int) -> None:
    lines = plain(frame, width, height)
    assert max(map(len, lines)) <= width
    if height >= 24:
        assert len(lines) < height


def test_a_picture_shows_what_the_frame_holds(frame: Frame) -> None:
    text = "\n".join(plain(frame, 160, 50))
    narrow = "\n".join(plain(frame, 128, 50))
    for item in frame.items:
        assert item.title[:20] in text
        assert item.title[:20] in narrow  # where there is no room for both, a name comes before a price
        assert f"{item.price:,.2f}, changes " in text
    assert f"{frame.events:,} events" in text
    assert f"{frame.triggers_open} open" in text
    assert f"WQL {frame.scores['overall']['wql']:.3f}" in text
    assert f"day {frame.day} of {frame.days}" in text
    assert " ms" not in text  # nothing was measured


def test_the_first_frame_can_be_drawn_before_anything_was_sold() -> None:
    text = "\n".join(plain(Demo(SMALL).frame(), 120, 36))
    assert "waiting for the first day" in text
    assert text.count("none yet") == 2
    assert "WQL –" in text


def test_colours_change_no_character(frame: Frame) -> None:
    console = Console(file=StringIO(), width=120, height=36, record=True, force_terminal=True, _environ={})
    console.print(picture(frame, 120, 36))
    assert console.export_text().splitlines() == plain(frame, 120, 36)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_chart_has_its_size_whatever_it_shows(data: st.DataObject) -> None:
    amount = st.floats(0, 1e6)
    past = data.draw(st.lists(st.none() | amount, max_size=40))
    fans = data.draw(st.lists(st.tuples(amount, amount, amount).map(sorted), max_size=20))
    rows, room = data.draw(st.integers(1, 6)), data.draw(st.integers(0, 60))
    low, median, high = ([fan[i] for fan in fans] for i in range(3))
    item = ItemView("a", "A", past, data.draw(amount), low, median, high, None)
    lines = fan_chart(item, rows, len(past) + 1 + len(fans) + room)
    assert len(lines) == rows
    assert len({line.cell_len for line in lines}) == 1
    assert len(past) + 1 + len(fans) <= lines[0].cell_len <= len(past) + 1 + len(fans) + room
    first = len(past) + 1
    step = (lines[0].cell_len - first) // max(1, len(fans))
    for index in range(len(fans)):  # the median stands in every column, on exactly one line
        column = [line.plain[first + index * step] for line in lines]
        styles = [str(line.get_style_at_offset(Console(), first + index * step)) for line in lines]
        assert sum("#ffcf5f" in style for style in styles) == 1, column


def test_bars_are_as_high_as_demand() -> None:
    item = ItemView("a", "A", [0.0, 1.0, 2.0, 8.0, None], 4.0, [], [], [], None)
    assert [line.plain for line in fan_chart(item, 2, 40)] == ["   █  ", "▁▂▄█ █"]


def test_a_week_is_told_in_one_line(frame: Frame) -> None:
    line = week_line(frame)
    assert "\n" not in line
    assert line.startswith(f"{frame.now:%Y-%m-%d}")
    assert f"{frame.events:,} events" in line
    assert "covered" in line
