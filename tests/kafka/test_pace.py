"""Forecasts and records share one interpreter: who waits for whom, and for how long at most."""

import asyncio

import pytest

from streams.kafka.pace import BACKLOG_SHARE, WAY_EVERY_S, WAY_S, Pace


async def waited_s(pace: Pace) -> float:
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    await pace.give_way(hungry=False)
    return loop.time() - began_s


def test_records_wait_until_the_last_forecast_under_way_is_there() -> None:
    async def story() -> tuple[bool, bool]:
        pace, loop = Pace(), asyncio.get_running_loop()
        began_s = loop.time()
        pace.begin(began_s, live=True)
        pace.begin(began_s, live=True)
        waiting = asyncio.ensure_future(pace.give_way(hungry=False))
        await asyncio.sleep(0)
        pace.ran(began_s, loop.time())
        await asyncio.sleep(0.005)
        after_one = waiting.done()
        pace.ran(began_s, loop.time())
        await asyncio.wait_for(waiting, WAY_S / 2)  # at once, not when its time is over
        return after_one, waiting.done()

    assert asyncio.run(story()) == (False, True)


def test_a_model_that_hangs_holds_records_up_for_a_moment_and_not_again_soon() -> None:
    async def story() -> tuple[float, float, float]:
        pace, loop = Pace(), asyncio.get_running_loop()
        began_s = loop.time()
        pace.begin(began_s, live=True)
        first = await waited_s(pace)
        pace.begin(loop.time(), live=True)
        second = await waited_s(pace)
        pace.begin(began_s + WAY_EVERY_S + 0.001, live=True)  # another one, later
        pace.ran(began_s, loop.time())
        third = pace._way_until_s - began_s
        return first, second, third

    first, second, third = asyncio.run(story())
    assert first >= WAY_S * 0.9
    assert second < WAY_S / 2
    assert third == pytest.approx(WAY_EVERY_S + WAY_S, abs=0.01)


def test_nothing_waits_for_forecasts_of_a_backlog_and_these_rest() -> None:
    pace = Pace()
    assert pace.free(0.0)
    pace.begin(100.0, live=False)
    assert not pace.free(200.0)
    assert asyncio.run(waited_s(pace)) < WAY_S / 2
    pace.ran(100.0, 101.0)
    assert not pace.free(101.0 + 0.9 / BACKLOG_SHARE)
    assert pace.free(101.0 + 1.1 / BACKLOG_SHARE)


def test_a_shard_that_lacks_records_of_one_topic_is_not_held_up() -> None:
    async def story() -> float:
        pace, loop = Pace(), asyncio.get_running_loop()
        pace.begin(loop.time(), live=True)
        began_s = loop.time()
        await pace.give_way(hungry=True)
        return loop.time() - began_s

    assert asyncio.run(story()) < WAY_S / 10
