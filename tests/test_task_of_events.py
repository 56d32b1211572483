"""A task of a shop's events: a net reads while it learns what the engine tells it when it answers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from models.checkpoint import fingerprint_of
from models.forecast import ForecastBatch
from models.named import CHANNELS
from models.panel import Panel
from models.task import TaskError, read_task
from streams.calendar import Width
from streams.engine import EngineConfig
from streams.fields import series_key
from streams.refresh import Refresh
from streams.task_of_events import DAYS, TOLD_AHEAD, EventDays, EventTask
from tests.small_shop import CLOCK, DAY, HOUR, Event, Till, cancel, described, event, lines, order, price, retired
from tests.test_parity import CLOSED, ITEMS, START, shop_events

LENGTH = 120
CONFIG = EngineConfig(max_series=16)


def events_of_a_shop(seed: int) -> list[Event]:
    """The shop of the parity tests, with a catalog, prices planned ahead, and an item at a second place."""
    made = shop_events(seed, LENGTH)
    for n, sku in enumerate(ITEMS[:4]):
        made.append(described(START + HOUR, sku, category=["tea", "pots"][n % 2], brand="north", title=f"thing {n}"))
    for at in (30, 75, 110):
        planned = {"effective_from": START + (at + 5) * DAY, "effective_until": START + (at + 9) * DAY, "promo": True}
        made.append(price(START + at * DAY + HOUR, 2.0, ITEMS[1], **planned))
    made += [order(START + n * DAY + 7 * HOUR, 1 + n % 3, ITEMS[0], location="york") for n in range(20, LENGTH, 2)]
    return sorted(made, key=lambda one: one["event_time"])


def task_of(events: list[Event], *, chunk: int = 500, config: EngineConfig = CONFIG) -> EventTask:
    days, records = EventDays(config, CLOCK), lines(events)
    for begin in range(0, len(records), chunk):
        days.feed(records[begin : begin + chunk])
    return days.finish("a shop")


def live(events: list[Event], opened: int, keys: list[str]) -> tuple[ForecastBatch, list[str]]:
    """What an encoder is told of series at the close of the day before `opened`, and of which."""
    till = Till(CONFIG)
    till.take(*(one for one in events if one["event_time"] < opened * DAY), together=True).tick(opened * DAY + HOUR)
    engine = till.engine
    assert engine.buckets.zones[0].open == opened
    refresh = Refresh(engine.refresh.forecaster, 28, engine.series, engine.buckets, engine.catalog, engine.listed,
                      engine.holidays, channels=CHANNELS)  # fmt: skip
    refresh.table["group"][:] = engine.refresh.table["group"]
    slot_of = {series_key(*engine.series.key(slot)): slot for slot in engine.series.live().tolist()}
    known = [key for key in keys if key in slot_of]
    return refresh.batch(np.array([slot_of[key] for key in known]), engine.buckets.zones[0], opened * DAY), known


@pytest.mark.parametrize("day", [25, 76, 84, 112, LENGTH - 1])
def test_a_window_of_the_task_is_what_the_engine_tells_at_the_close_of_that_day(day: int, tmp_path: Path) -> None:
    events = events_of_a_shop(3)
    task_of(events).write(tmp_path)
    task = read_task(tmp_path)
    opened = START // DAY + day
    batch, keys = live(events, opened, task.ids)
    rows = np.array([task.ids.index(key) for key in keys])
    panel = Panel(task).batch(rows, np.full(len(rows), opened - 1 - task.first_bucket))
    span = batch.demand.shape[1]
    assert len(rows) >= 3
    assert np.isfinite(batch.demand).sum() > 20
    np.testing.assert_array_equal(panel.demand[:, -span:], batch.demand)
    np.testing.assert_array_equal(panel.future_open, batch.future_open)
    np.testing.assert_array_equal(panel.day, batch.day)
    np.testing.assert_array_equal(panel.channels["price"][:, -span:], batch.channels["price"])
    for name in TOLD_AHEAD:
        np.testing.assert_array_equal(panel.known[name][:, -span - 28 :], batch.known[name], err_msg=name)
    for row, first in enumerate(np.isfinite(batch.demand).argmax(axis=1)):  # before that the panel has no rows
        np.testing.assert_array_equal(panel.is_open[row, -span + first :], batch.is_open[row, first:])
        for name in DAYS:
            np.testing.assert_array_equal(panel.known[name][row, -span - 28 + first :], batch.known[name][row, first:])
    assert batch.weeks is not None
    assert panel.weeks is not None
    over = np.isfinite(batch.weeks)
    np.testing.assert_allclose(panel.weeks[over], batch.weeks[over], rtol=1e-6)
    for name in ("category",):  # a brand that all share tells nothing apart, and is left out
        np.testing.assert_array_equal(panel.attributes[name], batch.attributes[name])


def test_closed_days_and_days_ahead_are_there_and_demand_ahead_is_not(tmp_path: Path) -> None:
    made = task_of(events_of_a_shop(1))
    made.write(tmp_path)
    task = read_task(tmp_path)
    last = START // DAY + LENGTH - 2  # the last day has events and is not over
    assert task.first_bucket + int(task.cutoff[0]) == last
    assert np.isnan(task.demand[:, task.cutoff[0] + 1 :]).all()
    assert task.demand.shape[1] == task.cutoff[0] + 1 + 28
    shut = [column for column in range(task.demand.shape[1]) if task.first_bucket + column in CLOSED]
    assert (task.known["open"][:, shut] == 0).any()
    assert made.counts["dead_letters"] == 0
    assert made.counts["series"] == len(ITEMS) + 1


def test_chunks_change_nothing() -> None:
    events = events_of_a_shop(2)
    one, two = task_of(events, chunk=37), task_of(events, chunk=10_000)
    assert one.panel.equals(two.panel)
    assert one.ahead.equals(two.ahead)
    assert one.static.equals(two.static)


def test_a_cancellation_reaches_a_day_until_it_leaves_the_panes() -> None:
    noon = START + 12 * HOUR
    events = [order(noon + n * DAY, 4.0) for n in range(100)]
    events.append(cancel(noon + 60 * DAY + HOUR, 3.0, original=noon + 10 * DAY))
    events.append(cancel(noon + 99 * DAY + HOUR, 3.0, original=noon + 5 * DAY))  # gone: counted on its own day
    events.sort(key=lambda one: one["event_time"])
    panel = task_of([*events, order(noon + 101 * DAY)]).panel
    demand = panel.sort("ds")["y"].to_list()
    assert demand[0] == 4.0
    assert (demand[10], demand[5], demand[99]) == (1.0, 4.0, 1.0)


def test_items_that_are_retired_are_left_out() -> None:
    events = [order(START + n * DAY, 1.0, sku) for n in range(30) for sku in ("TEA", "MUG")]
    events += [retired(START + 20 * DAY + HOUR, "MUG")]
    made = task_of([one for one in events if one["event_time"] <= START + 20 * DAY + HOUR or one["sku"] == "TEA"])
    assert set(made.panel["unique_id"]) == {"TEA"}


def test_what_was_told_of_a_column_that_is_not_known_ahead_is_refused(tmp_path: Path) -> None:
    made = task_of(events_of_a_shop(1))
    made.write(tmp_path)
    assert {"promo", "price"} == set(read_task(tmp_path).ahead)
    made.ahead.with_columns(pl.lit("weather").alias("column")).write_parquet(tmp_path / "ahead.parquet")
    with pytest.raises(TaskError, match=r"ahead\.parquet: column 'weather' is not among known_future"):
        read_task(tmp_path)


def test_what_was_told_ahead_decides_how_a_run_goes_as_far_as_it_is_seen(tmp_path: Path) -> None:
    task_of(events_of_a_shop(1)).write(tmp_path)
    task = read_task(tmp_path)
    said, last = task.ahead["price"], int(task.cutoff[0]) - 30

    def digest(after: int) -> str:
        moved = replace(said, value=np.where(said.window % said.buckets > after, np.float32(7), said.value))
        return fingerprint_of(Panel(replace(task, ahead={"price": moved})), last, {}, {})

    assert digest(last) == fingerprint_of(Panel(replace(task, ahead={"price": said})), last, {}, {})
    assert digest(last - 10) != digest(last)


def test_what_cannot_be_a_task_is_told_in_a_sentence() -> None:
    with pytest.raises(TaskError, match="set it to day"):
        EventDays(EngineConfig(width=Width.HOUR), CLOCK)
    for events in ([], [order(START)]):
        with pytest.raises(TaskError, match="no day of these events is over"):
            task_of(events)
    with pytest.raises(TaskError, match="nothing was sold"):
        task_of([event("price_set", START + n * DAY, price=1.0, currency="EUR", channel="web") for n in range(9)])
