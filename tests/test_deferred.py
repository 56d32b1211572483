"""Forecasts made elsewhere: a shell that hands the answers back at once, late, after a restart, or not in order."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import pairwise

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from models.baseline import SeasonalWindow
from streams.calendar import Width
from streams.decode import decode
from streams.due import CHANGED, CLOSED, Due, Request
from streams.engine import Engine, EngineConfig
from streams.outputs import DEMAND_TOPIC, Output, Outputs
from tests.shop_events import DAY, START, Spec, records

CONFIG = EngineConfig(max_series=64, base_currency="EUR", location_time_zones={"north": "America/New_York"})
LAWS = settings(max_examples=8, deadline=None)
SEEDS = st.integers(0, 10_000)
BASELINE = SeasonalWindow()


def messages(outputs: list[Outputs]) -> list[tuple[str, bytes | None]]:
    """Forecasts and triggers of outputs, in order of key and content."""
    out: list[Output] = []
    for each in outputs:
        for _, forecasts in each.forecasts:
            out.extend(forecasts.encode())
        out.extend(trigger for _, trigger in each.triggers)
    return sorted((f"{o.topic} {o.key!r} {o.event_id}", o.value) for o in out)


def answered(engine: Engine, rows: int = 2048) -> list[Outputs]:
    """Answer all requests that an engine has."""
    out = []
    while (request := engine.gather(rows)) is not None:
        out.append(engine.absorb(request, request.answer(BASELINE.forecast(request.batch), BASELINE.name)))
    return out


def played(engine: Engine, made: list[bytes], cuts: list[int], after: Callable[[], list[Outputs]]) -> list[Outputs]:
    """Outputs of a shell that does `after` whenever the engine stops, and after each chunk."""
    outputs = []
    for start, stop in pairwise([0, *cuts, len(made)]):
        batch, _ = decode(made[start:stop], clock_ms=START + 400 * DAY)
        batch.tick_ms[:] = batch.time_ms
        outputs.append(engine.process(batch))
        while engine.paused:
            outputs += after()
            outputs.append(engine.resume())
        outputs += after()
    return outputs


@LAWS
@given(seed=SEEDS, cuts=st.lists(st.integers(0, 330), max_size=5).map(sorted), rows=st.sampled_from([3, 2048]))
def test_a_shell_that_answers_at_once_gives_what_the_engine_gives_by_itself(
    seed: int, cuts: list[int], rows: int
) -> None:
    made = records(Spec(seed))
    cuts = [min(cut, len(made)) for cut in cuts]
    alone = Engine(CONFIG)
    shell = Engine(CONFIG, deferred=True)
    by_itself = played(alone, made, cuts, list)
    by_shell = played(shell, made, cuts, lambda: answered(shell, rows))
    assert messages(by_itself)
    assert messages(by_shell) == messages(by_itself)


@LAWS
@given(seed=SEEDS, cut=st.integers(50, 300))
def test_what_is_under_way_when_a_worker_dies_is_due_for_the_next_one(seed: int, cut: int) -> None:
    made = records(Spec(seed))
    engine = Engine(CONFIG, deferred=True)
    played(engine, made[: min(cut, len(made))], [], list)
    engine.gather()
    state = dict(engine.changes())
    waiting = np.flatnonzero(engine.due.table["due"])
    other = Engine(CONFIG, deferred=True)
    other.restore({key: value for key, value in state.items() if value is not None})
    assert np.array_equal(other.due.waiting(other.series.used), waiting)


@LAWS
@given(seed=SEEDS, run=st.integers(1, 7))
def test_no_forecast_has_the_instant_of_another_of_its_series_however_a_backlog_comes_and_goes(
    seed: int, run: int
) -> None:
    made = records(Spec(seed, events=200, items=2, days=0.25, facts=0, late=0))
    engine = Engine(replace(CONFIG, width=Width.HOUR), deferred=True)
    outputs = []
    for part, start in enumerate(range(0, len(made), run)):
        engine.refreshes = part % 2 == 1
        outputs += played(engine, made[start : start + run], [], partial(answered, engine))
    ids = [name for name, _ in messages(outputs) if name.startswith(DEMAND_TOPIC)]
    assert ids
    assert len(ids) == len(set(ids))


@LAWS
@given(seed=SEEDS)
def test_answers_that_never_come_stop_nothing(seed: int) -> None:
    made = records(Spec(seed))
    engine = Engine(CONFIG, deferred=True)
    alone = Engine(CONFIG)
    held: list[Request] = []

    def hold() -> list[Outputs]:
        if (request := engine.gather()) is not None:
            held.append(request)
        return []

    played(engine, made, [], hold)
    played(alone, made, [], list)
    assert np.array_equal(engine.panes.ring["units"], alone.panes.ring["units"])
    # They come at last, in the wrong order: they are taken over, and nothing is due any more.
    for request in reversed(held):
        engine.absorb(request, request.answer(BASELINE.forecast(request.batch), BASELINE.name))
    answered(engine)
    assert engine.due.count(engine.series.used)[1] == 0


def test_a_series_that_is_due_again_while_it_is_forecast_stays_due() -> None:
    due = Due(8)
    due.touch(np.array([2, 3]))
    due.mark_changed(8)
    request = Request(None, np.array([2, 3]), [], 0, 0, [], 0, at_close=False)  # type: ignore[arg-type]  # no model here
    due.begin(request)
    assert due.waiting(8).tolist() == []
    due.mark_closed(np.array([3]))
    assert (due.waiting(8).tolist(), due.shed) == ([3], 1)
    due.end(request)
    assert (due.waiting(8).tolist(), due.level(np.array([2, 3])).tolist()) == ([3], [0, CLOSED])


def test_an_answered_trigger_makes_the_series_due_again_instead_of_being_decided_on_old_stock() -> None:
    due = Due(8)
    due.touch(np.array([2]))
    due.mark_changed(8)
    request = Request(None, np.array([2]), [], 0, 0, [], 0, at_close=False)  # type: ignore[arg-type]  # no model here
    due.begin(request)
    due.leave(2)
    assert request.left == {2}
    due.end(request)
    due.mark_changed(8)
    assert due.level(np.array([2])).tolist() == [CHANGED]
