"""Another model answers from one instant on: what was learned of each is its own, through restarts too."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from models.baseline import SeasonalWindow
from models.forecast import Forecast, ForecastBatch, Forecaster
from online.learner import OF_MODEL
from streams.decode import decode
from streams.engine import Engine, EngineConfig
from streams.events import EventBatch
from streams.learning import MOST_RESTING
from streams.outputs import Outputs
from tests.small_shop import DAY, HOUR, MONDAY, lines, order

CONFIG = EngineConfig(max_series=16, refresh_ms=24 * HOUR)
SKUS = ("TEA", "MUG", "POT", "CUP")


class Louder(SeasonalWindow):
    """The baseline, which expects a multiple: a model that is wrong in a way of its own."""

    def __init__(self, times: float) -> None:
        super().__init__()
        self.times = np.float32(times)

    @property
    def name(self) -> str:
        return f"louder-{self.times:g}"

    def forecast(self, batch: ForecastBatch) -> Forecast:
        said = super().forecast(batch)
        more = {name: getattr(said, name) * self.times for name in ("quantiles", "mean", "cumulative")}
        return replace(said, **more, cumulative_mean=said.cumulative_mean * self.times)


BASELINE, TWICE = SeasonalWindow(), Louder(2)


def days(count: int) -> Iterator[EventBatch]:
    """Orders, a batch a day."""
    random = np.random.default_rng(3)
    for day in range(count):
        at_ms = MONDAY + day * DAY + 9 * HOUR
        told = [order(at_ms + n * 1000, float(1 + random.poisson(20)), sku) for n, sku in enumerate(SKUS)]
        batch, _ = decode(lines(told), clock_ms=MONDAY + 400 * DAY)
        batch.tick_ms[:] = batch.time_ms
        yield batch


def said(outputs: Outputs) -> list[bytes]:
    """Forecasts as they are published."""
    return [output.value or b"" for _, forecasts in outputs.forecasts for output in forecasts.encode()]


def known(engine: Engine) -> object:
    """All that the learner of the model that answers knows, without what waits."""
    return engine.learning.learner.snapshot(len(SKUS))


@pytest.mark.parametrize("cuts", [{10, 29}, {30}, {31, 50}, {60, 61}, {75}])
def test_models_that_change_and_come_back_are_the_same_through_restarts(cuts: set[int]) -> None:
    changes: dict[int, Forecaster] = {30: TWICE, 60: BASELINE, 70: TWICE}
    whole, other = Engine(CONFIG), Engine(CONFIG)
    topic: dict[str, bytes | None] = {}
    for day, batch in enumerate(days(80)):
        if day in changes:
            for engine in (whole, other):
                engine.adopt(changes[day])
        assert said(other.process(batch)) == said(whole.process(batch))
        topic.update(other.changes())
        if day in cuts:
            model = other.refresh.forecaster
            other = Engine(CONFIG)
            other.adopt(model)
            other.restore({key: value for key, value in topic.items() if value is not None})
            assert known(other) == known(whole)
    assert known(other) == known(whole)
    assert whole.learning.learner.model == "louder-2"


def test_what_was_learned_of_a_model_is_there_when_it_comes_back_and_acts_on_no_other() -> None:
    engine, batches = Engine(CONFIG), list(days(90))
    engine.adopt(TWICE)
    for batch in batches[:60]:
        engine.process(batch)
    learned = engine.learning.learner.snapshot(0)
    assert any(acts["factors"] != "none" for acts in engine.learning.learner.acting().values())
    engine.adopt(BASELINE)
    assert engine.learning.learner.summary()["rivals"]["published"]["overall"]["outcomes"] == 0
    for batch in batches[60:]:
        engine.process(batch)
    assert all(acts["factors"] == "none" for acts in engine.learning.learner.acting().values())
    engine.adopt(TWICE)
    assert engine.learning.learner.snapshot(0) == learned


def test_an_answer_that_was_asked_of_the_former_model_teaches_nobody() -> None:
    engine = Engine(CONFIG, deferred=True)
    for batch in days(14):
        engine.process(batch)
        while engine.paused:
            engine.resume()
        while (request := engine.gather()) is not None:
            engine.absorb(request, request.answer(BASELINE.forecast(request.batch), BASELINE.name))
    last = list(days(15))[-1]
    engine.process(last)
    request = engine.gather()
    assert request is not None
    engine.adopt(TWICE)
    forecasts = request.answer(BASELINE.forecast(request.batch), BASELINE.name)
    assert forecasts.model == BASELINE.name
    engine.absorb(request, forecasts)
    assert engine.learning.learner.waiting() == []


def test_what_rests_is_bounded() -> None:
    engine, topic = Engine(CONFIG), dict[str, bytes | None]()
    for n, batch in enumerate(days(MOST_RESTING + 4)):
        engine.adopt(Louder(n + 1))
        engine.process(batch)
        topic.update(engine.changes())
    models = [key for key, value in topic.items() if key.startswith(OF_MODEL) and value is not None]
    assert len(models) <= MOST_RESTING + 1
    assert f"{OF_MODEL}louder-{MOST_RESTING + 4}" in models
