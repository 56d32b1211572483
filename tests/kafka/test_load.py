"""Benchmarks of a running worker: each runs small and says what it measured, and its arithmetic is right."""

from __future__ import annotations

import doctest
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest

from load_tests import close, latency, restart, scaling, soak
from load_tests.close import Day
from load_tests.kafka import assortment, figures, stage
from load_tests.kafka.assortment import Assortment
from load_tests.kafka.feed import Plan
from load_tests.kafka.figures import Goal, percentiles, quantile, since, trend
from load_tests.kafka.reader import Got
from load_tests.latency import BOUND_MS, FEED_LINES, REFRESH_MS, Course, Timing
from load_tests.soak import Note
from streams.decode import decode
from streams.kafka.broker import LocalBroker
from streams.kafka.settings import KafkaSettings
from streams.outputs import ALERT_TOPIC, DEMAND_TOPIC

ROOT = Path(__file__).parents[2]
NOON_MS = 19_000 * 86_400_000 + 43_200_000
KAFKA = KafkaSettings()


Output = Callable[[str], dict[str, Any]]


@pytest.fixture(scope="module")
def output(broker: LocalBroker) -> Iterator[Output]:
    """What each benchmark says; all of them run at once, for each waits more than it works."""
    runs = {
        name: subprocess.Popen(
            [sys.executable, "-m", f"load_tests.{name}", "--small", "--json", "--bootstrap", broker.bootstrap],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT,
        )
        for name in ("latency", "close", "restart", "soak", "scaling")
    }  # fmt: skip
    told: dict[str, dict[str, Any]] = {}

    def wait(name: str) -> dict[str, Any]:
        if name not in told:
            out, err = runs[name].communicate(timeout=400)
            assert runs[name].returncode == 0, err
            told[name] = json.loads(out)
        return told[name]

    yield wait
    for run in runs.values():
        if run.poll() is None:
            run.terminate()
            run.communicate()


# -- each runs small


def test_latency_runs_small_and_every_output_comes(output: Output) -> None:
    found = output("latency")
    assert found["missing"] == {"forecasts": 0, "alerts": 0}
    assert (found["forecast_ms"]["n"], found["alert_ms"]["n"]) == (2 * latency.SMALL["items"], latency.SMALL["faults"])
    assert found["exit"] == 0


def test_close_runs_small_and_every_series_has_a_forecast_of_the_new_day(output: Output) -> None:
    found = output("close")
    assert found["published"] == close.SMALL["items"]
    assert found["seconds"]["1.0"] > 0
    assert found["order"]["open_triggers"] > 0


def test_restart_runs_small_and_the_worker_catches_up(output: Output) -> None:
    found = output("restart")
    assert found["restart"]["caught_up_s"] >= found["restart"]["ready_s"] > 0
    assert set(found["restart"]["recovery_s"]) == {"coordinator", *(f"shard-{number}" for number in range(4))}
    assert found["parts"]["live_bytes"] > 0


def test_soak_runs_small_and_knows_memory_and_commits(output: Output) -> None:
    found = output("soak")
    assert found["memory"]["rss_mib"]["n"] > 4
    assert found["commits"]["state_bytes_per_s"] > 0
    assert found["flow"]["processed_per_s"] > 0


def test_scaling_runs_small_and_both_workers_have_a_share(output: Output) -> None:
    found = output("scaling")
    assert [len(run["parts"]) for run in found["runs"]] == [1, 2]
    assert all(part > 0 for run in found["runs"] for part in run["parts"])


# -- their arithmetic


@pytest.mark.parametrize("module", [assortment, figures, stage, scaling])
def test_examples_are_true(module: Any) -> None:
    assert doctest.testmod(module).failed == 0


def test_the_interval_of_a_trend_holds_the_slope_nineteen_times_in_twenty() -> None:
    rng, hits, runs = np.random.default_rng(3), 0, 400
    for _ in range(runs):
        noise = np.zeros(100)
        for i in range(1, 100):
            noise[i] = 0.4 * noise[i - 1] + rng.normal()
        found = trend(range(100), (0.01 * np.arange(100) + noise).tolist())
        assert found is not None
        hits += abs(found["per_s"] - 0.01) <= found["within"]
    assert 0.85 < hits / runs < 0.99


def test_a_trend_is_that_of_ordinary_least_squares() -> None:
    values = [3.0, 1.0, 4.0, 1.0, 5.0, 9.0, 2.0, 6.0]
    found = trend(range(8), values)
    assert found is not None
    assert found["per_s"] == pytest.approx(np.polyfit(range(8), values, 1)[0], abs=1e-6)


def test_quantiles_come_from_what_was_counted_between_two_looks() -> None:
    earlier, later = {0.1: 90.0, 1.0: 100.0, float("inf"): 100.0}, {0.1: 90.0, 1.0: 110.0, float("inf"): 110.0}
    assert quantile(since(earlier, later), 0.5) == pytest.approx(0.55)
    assert quantile(since(later, later), 0.5) is None


def test_a_goal_that_was_not_measured_is_not_reached() -> None:
    assert not Goal("x", None, 1, "s").reached
    assert Goal("x", None, 1, "s").line == "x: not measured, goal <= 1 s: not reached"


def test_event_times_run_at_their_speed_and_leap_where_told() -> None:
    plan = Plan(KAFKA, 1, 1, base_ms=1_000, speed=2, leaps=((1.0, 50_000), (2.0, 90_000)))
    assert [plan.event_ms(at_s) for at_s in (0, 0.5, 1.0, 1.5, 2.25)] == [1_000, 2_000, 50_000, 51_000, 90_500]


def test_records_of_an_assortment_are_those_of_the_contract() -> None:
    shop = Assortment(40, 4)
    made = [one for one, _ in shop.past(NOON_MS, days=2, prices=2)]
    batch, letters = decode([one.value for one in made], clock_ms=NOON_MS, keys=[one.key for one in made])
    assert (len(batch), letters) == (len(made), [])
    assert len(made) > 2.4 * assortment.LEAST_A_DAY * 4
    orders = batch.time_ms[np.array([one.topic == assortment.ORDERS for one in made])]
    assert (np.diff(orders) >= 0).all()
    assert 0 < NOON_MS - orders[-1] < 600_000


# -- what outputs say


def course() -> Course:
    return Course(Timing.of(1.0, rounds=2, faults=3, feeds=1), Assortment(200, 4), NOON_MS + BOUND_MS + 1_000)


def forecast(at_s: float, item: int, as_of_ms: int) -> Got:
    return Got(
        at_s, DEMAND_TOPIC, 0, b"SKU-%07d|default" % item, b'{"forecast_id":"f","as_of":%d,"freq":"D"}' % as_of_ms
    )


def test_a_forecast_belongs_to_the_round_whose_instant_it_stands_for() -> None:
    run = course()
    assert [run.as_of_ms(n) - NOON_MS for n in range(2)] == [REFRESH_MS, 2 * REFRESH_MS]
    first, second = run.timing.rounds
    got = [forecast(100 + second + 0.2, 1, run.as_of_ms(1)), forecast(100 + first + 0.1, 1, run.as_of_ms(0))]
    found = latency.measured(run, [*got, forecast(999, 1, run.as_of_ms(0)), forecast(100, 2, NOON_MS)], began_s=100)
    assert {n: [round(ms) for ms in values] for n, values in found.forecasts.items()} == {0: [100], 1: [200]}
    assert found.missing["forecasts"] == 2 * 200 - 2


def test_a_line_is_told_of_by_its_own_alert_or_by_that_of_its_feed() -> None:
    run = course()
    lines = {at_s: [item for item, then_s in run.line_of.items() if then_s == at_s] for at_s in run.line_of.values()}
    (feed_s,) = run.timing.feeds
    assert len(lines[feed_s]) == FEED_LINES
    single_s = run.timing.faults[1]
    alone = orjson.dumps({"status": "firing", "sku": f"SKU-{lines[single_s][0]:07d}"})
    group = orjson.dumps({"status": "firing", "sku": None, "items": [{"sku": f"SKU-{n:07d}"} for n in lines[feed_s]]})
    over = orjson.dumps({"status": "resolved", "sku": f"SKU-{lines[run.timing.faults[0]][0]:07d}"})
    got = [Got(10 + single_s + 2.1, ALERT_TOPIC, 0, b"", alone), Got(10 + feed_s + 2.5, ALERT_TOPIC, 0, b"", group)]
    found = latency.measured(run, [*got, Got(11, ALERT_TOPIC, 0, b"", over)], began_s=10)
    assert [round(ms) for ms in found.faults["x 10"]] == [2_100]
    assert {round(ms) for ms in found.feeds["x 0.01"]} == {2_500}
    assert found.missing["alerts"] == 2


def test_only_forecasts_of_the_new_day_count_and_each_series_once() -> None:
    day = Day(NOON_MS, items=4)
    for key, as_of_ms, at_s in (
        (b"a", NOON_MS - 1, 1.0),
        (b"a", NOON_MS, 2.0),
        (b"b", NOON_MS, 3.0),
        (b"a", NOON_MS, 4.0),
    ):
        day.take(key, b'{"as_of":%d}' % as_of_ms, at_s)
    assert (len(day.at_s), day.again, day.done) == (2, 1, False)
    assert (day.after(0.25, since_s=1.0), day.after(0.5, since_s=1.0), day.after(1.0, since_s=1.0)) == (1.0, 2.0, None)


def test_urgent_series_are_looked_for_among_the_first_tenth() -> None:
    shop, day = Assortment(100, 4), Day(NOON_MS, items=100)
    for at, item in enumerate([3, 50, *range(20, 40)]):
        day.take(b"%b|default" % shop.skus[item], b'{"as_of":%d}' % NOON_MS, float(at))
    found = close.order_of(day, shop, triggers={b"%b|default" % shop.skus[25]})
    assert (found["urgent"], found["urgent_share_of_first_tenth"]) == (9, 0.2)
    assert found["of_urgent_in_first_tenth"] == pytest.approx(2 / 9, abs=1e-3)


class Committed:
    """Commits by hand."""

    def __init__(self) -> None:
        self.total = 0

    def poll(self) -> int:
        return self.total


class Clocked:
    """A feed by hand."""

    def __init__(self) -> None:
        self.at_s, self.records = 0.0, 0


def test_behind_is_the_age_of_what_was_sent_when_committed_state_ended() -> None:
    committed, feed = Committed(), Clocked()
    behind = restart.Behind(committed, feed, past=100)  # type: ignore[arg-type]
    told = []
    for at_s, records, total in ((0.0, 0, 100), (1.0, 10, 100), (2.0, 20, 105), (3.0, 30, 110), (4.0, 40, 140)):
        feed.at_s, feed.records, committed.total = at_s, records, total
        told.append(behind.look())
    assert told == [0.0, 1.0, 2.0, 2.0, 0.0]


def note(at_s: float, rss_mib: float, state: int, processed: int) -> Note:
    return Note(at_s, int(rss_mib * 2**20), 40, 60, 5, processed, processed, state, None, at_s / 2)


def test_growth_and_bytes_of_commits_are_those_of_the_time_after_the_warm_up() -> None:
    notes = [note(10.0 * n, 200 + 0.1 * n, 1_000 * n, 500 * n) for n in range(20)]
    memory = soak.memory(notes)
    assert memory["mib_per_10_min"] == pytest.approx(6.0, abs=0.01)
    found = soak.commits(notes, {0.1: 10.0, float("inf"): 10.0}, live=50_000)
    assert (found["state_bytes_per_s"], found["bytes_per_record"], found["commit_s"]["p50"]) == (100, 2.0, 0.05)
    assert soak.flow(notes, rate=50)["cpu_us_per_record"] == 10_000


def test_percentiles_of_nothing_are_nothing() -> None:
    assert percentiles([]) == {}
