"""Whatever the model does, every batch is answered in time: by the model where it can, by the fallback where not."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future
from dataclasses import fields

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.baseline import SeasonalWindow
from models.breaker import REST_MAX_S, REST_S, Breaker
from models.executor import CLASSES, MAX_ABANDONED, Answer, Executor
from models.forecast import Basis, Forecast, ForecastBatch, ForecastError
from models.pieces import GROW_AFTER, Pieces
from models.promises import fault_of
from tests.batches import shop
from tests.unruly_model import DEEDS, PATIENCE_S, Clock, UnrulyModel, right_answer, rows_of

TIMEOUT_S = 30.0
BATCH = shop(5, gaps=False)


class Bench:
    """An executor over an unruly model, with a clock moved by hand."""

    def __init__(self, *script: str, rows: int = 100, fits: int = 1_000_000) -> None:
        self.clock = Clock()
        self.model = UnrulyModel(script, fits)
        self.fallback = UnrulyModel()
        self.fallback.name = "plain-1"
        self.executor = Executor(self.model, fallback=self.fallback, timeout_s=TIMEOUT_S, rows=rows, clock=self.clock)

    def submit(self, batch: ForecastBatch = BATCH) -> Future[Answer]:
        return self.executor.submit(batch)

    def ask(self, batch: ForecastBatch = BATCH) -> Answer:
        return self.submit(batch).result(PATIENCE_S)

    def ask_and_hang(self) -> tuple[Answer, threading.Event]:
        """A batch in which the model hangs until the timeout; the event ends the hang."""
        future = self.submit()
        release = self.model.hung()
        self.clock.advance(TIMEOUT_S)
        return future.result(PATIENCE_S), release

    def fallbacks(self) -> dict[str, int]:
        return {name: count for name, count in self.executor.stats.fallbacks.items() if count}


@pytest.fixture
def benches() -> Iterator[Callable[..., Bench]]:
    """Makes executors, and sees that none leaves a thread behind."""
    before, made = threading.active_count(), list[Bench]()

    def bench(*script: str, rows: int = 100, fits: int = 1_000_000) -> Bench:
        made.append(Bench(*script, rows=rows, fits=fits))
        return made[-1]

    yield bench
    for one in made:
        one.executor.close(PATIENCE_S)
    assert soon(lambda: threading.active_count() <= before), threading.enumerate()


def soon(true: Callable[[], bool]) -> bool:
    """Tell whether something becomes true."""
    until_s = time.monotonic() + PATIENCE_S
    while not true() and time.monotonic() < until_s:
        time.sleep(0.001)
    return true()


def same(left: Forecast, right: Forecast) -> bool:
    return all(np.array_equal(getattr(left, one.name), getattr(right, one.name)) for one in fields(Forecast))


# -------------------------------------------------------------------------------------------------- the model answers
def test_an_answer_is_what_the_model_says_directly(benches: Callable[..., Bench]) -> None:
    answer = benches().ask()
    assert (answer.model, answer.reason) == ("model-1", None)
    assert same(answer.forecast, right_answer(BATCH))


def test_large_batches_are_cut_and_joined_again(benches: Callable[..., Bench]) -> None:
    bench, batch = benches(rows=300), shop(1000)
    assert same(bench.ask(batch).forecast, right_answer(batch))
    assert bench.model.calls == [300, 300, 300, 100]
    assert len(bench.ask(rows_of(batch, 0, 0)).forecast) == 0


def test_the_name_is_that_of_the_model_that_answered(benches: Callable[..., Bench]) -> None:
    bench = benches()
    assert bench.ask().model == "model-1"
    bench.model.name = "model-2"
    assert bench.ask().model == "model-2"


def test_done_is_called_once_with_the_answer_and_may_fail_itself(benches: Callable[..., Bench]) -> None:
    bench, told = benches("ok", "raise"), list[Answer]()

    def bad(_: Answer) -> None:
        raise RuntimeError("a shell that falls over its answers")

    futures = [bench.executor.submit(BATCH, done) for done in (told.append, told.append, bad)]
    answers = [future.result(PATIENCE_S) for future in futures]
    assert soon(lambda: len(told) == 2)
    assert sorted(map(id, told)) == sorted(map(id, answers[:2]))
    assert bench.ask().reason is None


def test_what_nobody_waits_for_is_not_computed(benches: Callable[..., Bench]) -> None:
    bench = benches("hang")
    first, second = bench.submit(), bench.submit()
    release = bench.model.hung()
    assert second.cancel()
    release.set()
    assert first.result(PATIENCE_S).reason is None
    assert bench.ask().reason is None
    assert bench.model.calls == [5, 5]
    with pytest.raises(CancelledError):
        second.result(PATIENCE_S)
    assert soon(lambda: not bench.executor.busy)


# -------------------------------------------------------------------------------------------------- the model fails
@pytest.mark.parametrize("deed", sorted(set(DEEDS) - {"unseen"}))
def test_a_failing_model_is_replaced_for_that_batch_alone(benches: Callable[..., Bench], deed: str) -> None:
    bench = benches(deed)
    if deed == "memory":
        bench.model.script *= 4  # for 5, 2, 1 row, and then there is nothing left to halve
    answer = bench.ask()
    assert answer.model == "plain-1"
    assert answer.reason is not None
    assert answer.reason.startswith("model failed: ")
    assert fault_of(BATCH, answer.forecast) is None
    assert (answer.forecast.basis == Basis.BASELINE).all(), "a fallback never says that it is the model"
    assert bench.fallbacks() == {"failed": 1}
    bench.model.script.clear()
    assert bench.ask().reason is None


def test_the_reason_is_one_line_whatever_the_error_says(benches: Callable[..., Bench]) -> None:
    bench = benches("raise", "wordless")
    assert bench.ask().reason == "model failed: ValueError: the weights are gone"
    assert bench.ask().reason == "model failed: WordlessError"


def test_after_three_failures_in_a_row_the_model_rests(benches: Callable[..., Bench]) -> None:
    bench = benches("raise", "raise", "ok", "raise", "raise", "raise", "raise", "ok")
    reasons = [bench.ask().reason for _ in range(7)]
    assert [reason is None for reason in reasons] == [False, False, True, False, False, False, False]
    assert reasons[6] == (
        "model rests after failure 3 in a row; the last: model failed: ValueError: the weights are gone"
    )
    assert bench.executor.overdue
    assert bench.executor.stats.rest_s == REST_S
    assert len(bench.model.calls) == 6
    bench.clock.advance(REST_S)
    assert bench.ask().reason == "model failed: ValueError: the weights are gone"
    assert bench.executor.stats.rest_s == 2 * REST_S
    bench.clock.advance(2 * REST_S)
    assert bench.ask().reason is None
    assert not bench.executor.overdue
    assert bench.fallbacks() == {"failed": 6, "resting": 1}


def test_while_one_call_tries_the_model_others_do_not_wait_for_it(benches: Callable[..., Bench]) -> None:
    bench = benches("raise", "raise", "raise", "hang")
    for _ in range(3):
        bench.ask()
    bench.clock.advance(REST_S)
    trial = bench.submit()
    release = bench.model.hung()
    assert str(bench.ask().reason).startswith("model rests after failure 3")
    release.set()
    assert trial.result(PATIENCE_S).reason is None
    assert bench.ask().reason is None


@given(st.lists(st.tuples(st.booleans(), st.booleans(), st.floats(0, 100)), max_size=60))
def test_rests_grow_to_a_minute_and_end_with_a_success(calls: list[tuple[bool, bool, float]]) -> None:
    breaker, now_s, row = Breaker(), 0.0, 0
    for good, hung, pause_s in calls:
        now_s += pause_s
        if not breaker.allows(now_s):
            assert 0 < breaker.rest_s(now_s) <= REST_MAX_S
            continue
        breaker.begin()
        assert breaker.allows(now_s) == (not breaker.open), "one call at a time tries a model that rested"
        if good:
            breaker.succeeded()
        else:
            breaker.failed(now_s, hung=hung)
        row = 0 if good else row + 1
        assert breaker.open or row < 3
        assert not (breaker.open and good)


# -------------------------------------------------------------------------------------------------- memory runs out
def test_out_of_memory_halves_the_rows_and_they_grow_back(benches: Callable[..., Bench]) -> None:
    bench, batch = benches(rows=64, fits=20), shop(64)
    assert same(bench.ask(batch).forecast, right_answer(batch))
    assert bench.model.calls == [64, 32, 16, 16, 16, 16]
    assert bench.executor.stats.rows_per_call == 16
    bench.model.fits = 1_000
    while bench.executor.stats.rows_per_call < 64:
        assert bench.ask(batch).reason is None
    assert len(bench.model.calls) >= 2 * GROW_AFTER
    assert bench.executor.stats.out_of_memory == 2
    assert bench.executor.stats.failures == 0


@given(rows=st.integers(1, 9), size=st.integers(0, 30), fits=st.integers(1, 9), script=st.lists(st.booleans()))
@settings(deadline=None)
def test_pieces_answer_every_row_once_however_memory_behaves(
    rows: int, size: int, fits: int, script: list[bool]
) -> None:
    model = UnrulyModel(["memory" if short else "ok" for short in script], fits)
    batch = rows_of(shop(30), 0, size)
    try:
        forecast = Pieces(rows).ask(model, batch)
    except MemoryError:
        assert model.calls[-1] <= 1, "given up with one row alone"
        return
    assert same(forecast, right_answer(batch))
    assert max(model.calls) <= max(rows, 0 if size > rows else size)


# -------------------------------------------------------------------------------------------------- the model hangs
def test_a_model_that_hangs_is_replaced_and_its_late_answer_dropped(benches: Callable[..., Bench]) -> None:
    bench = benches("hang")
    answer, release = bench.ask_and_hang()
    assert (answer.model, answer.reason) == ("plain-1", "model did not answer in 30 s")
    assert bench.executor.overdue
    assert bench.ask().reason == "model rests after failure 1 in a row; the last: model did not answer in 30 s"
    bench.clock.advance(REST_S)
    assert bench.ask().reason is None, "another thread asks the model anew"
    release.set()
    assert soon(lambda: bench.executor.stats.abandoned == 0)
    assert bench.executor.stats.batches == 3
    assert bench.executor.stats.timeouts == 1


def test_few_threads_hang_at_most_and_one_that_comes_back_ends_the_rest(benches: Callable[..., Bench]) -> None:
    bench = benches(*["hang"] * MAX_ABANDONED)
    releases = []
    for _ in range(MAX_ABANDONED):
        releases.append(bench.ask_and_hang()[1])
        bench.clock.advance(REST_MAX_S)
    assert bench.ask().reason == "model rests until one of 2 calls that hang comes back"
    assert len(bench.model.calls) == MAX_ABANDONED
    releases.pop().set()
    assert soon(lambda: bench.executor.stats.abandoned == MAX_ABANDONED - 1)
    assert bench.ask().reason is None
    releases.pop().set()


def test_batches_behind_one_that_hangs_wait_half_the_timeout(benches: Callable[..., Bench]) -> None:
    bench = benches("hang")
    first = bench.submit()
    release = bench.model.hung()
    second = bench.submit()
    assert bench.executor.busy
    bench.clock.advance(TIMEOUT_S / 2)
    assert second.result(PATIENCE_S).reason == "model was busy with earlier batches for 15 s"
    assert bench.executor.waited_s == TIMEOUT_S / 2
    assert not bench.executor.overdue, "a busy model is no failing one"
    release.set()
    assert first.result(PATIENCE_S).reason is None
    assert bench.executor.waited_s == 0


# -------------------------------------------------------------------------------------------------- the end of it
def test_where_the_fallback_fails_too_the_future_says_both(benches: Callable[..., Bench]) -> None:
    bench = benches("raise")
    bench.fallback.script = ["nan"]
    with pytest.raises(ForecastError, match=r"the weights are gone, and the fallback failed: ForecastError: quantiles"):
        bench.ask()
    assert bench.executor.stats.refused == 1
    assert bench.ask().reason is None


def test_a_closed_executor_takes_nothing_and_has_answered_everything(benches: Callable[..., Bench]) -> None:
    bench = benches("ok", "raise")
    futures = [bench.submit() for _ in range(4)]
    assert bench.executor.close(PATIENCE_S)
    assert all(future.done() for future in futures)
    with pytest.raises(ForecastError, match="closed"):
        bench.submit()
    assert bench.executor.close()


def test_closing_over_a_model_that_hangs_leaves_no_future_open(benches: Callable[..., Bench]) -> None:
    bench = benches("hang")
    futures = [bench.submit() for _ in range(3)]
    release = bench.model.hung()
    assert not bench.executor.close(0.01)
    for future in futures:
        with pytest.raises(ForecastError, match="closed before"):
            future.result(PATIENCE_S)
    release.set()


@pytest.mark.parametrize(("timeout_s", "rows"), [(0, 1), (1, 0)])
def test_an_executor_without_time_or_rows_is_refused(timeout_s: float, rows: int) -> None:
    with pytest.raises(ValueError, match="above 0"):
        Executor(SeasonalWindow(), fallback=SeasonalWindow(), timeout_s=timeout_s, rows=rows)


# -------------------------------------------------------------------------------------------------- the law
SCRIPTS = st.lists(st.sampled_from(["ok", "ok", "ok", "hang", "raise", "exit", "memory", "nan", "fewer rows"]))
SIZES = st.lists(st.tuples(st.integers(0, 9), st.floats(0, 20)), min_size=1, max_size=12)


@given(script=SCRIPTS, sizes=SIZES, free=st.lists(st.booleans()), together=st.booleans())
@settings(max_examples=60, deadline=None)
def test_every_batch_is_answered_once_and_soundly(
    script: list[str], sizes: list[tuple[int, float]], free: list[bool], together: bool
) -> None:
    bench, many, hanging = Bench(*script, rows=4), shop(9), list[threading.Event]()
    futures = list[Future[Answer]]()
    try:
        for size, pause_s in sizes:
            bench.clock.advance(pause_s)
            futures.append(bench.submit(rows_of(many, 0, size)))
            if not together:
                until_done(bench, futures[-1:], hanging)
            if hanging and free and free.pop():
                hanging.pop().set()
        until_done(bench, futures, hanging)
        for (size, _), future in zip(sizes, futures, strict=True):
            check(rows_of(many, 0, size), future.result(0))
        assert bench.executor.stats.abandoned <= MAX_ABANDONED
    finally:
        for release in hanging:
            release.set()
    assert soon(lambda: bench.executor.stats.abandoned == 0)
    assert bench.executor.close(PATIENCE_S)
    stats = bench.executor.stats
    assert (stats.batches, stats.rows, stats.refused) == (len(sizes), sum(size for size, _ in sizes), 0)
    assert set(stats.fallbacks) == set(CLASSES)
    assert sum(stats.fallbacks.values()) == sum(future.result(0).reason is not None for future in futures)


def until_done(bench: Bench, futures: list[Future[Answer]], hanging: list[threading.Event]) -> None:
    """Wait for answers; where the model hangs, time passes."""

    def done() -> bool:
        if not bench.model.hanging.empty():
            hanging.append(bench.model.hung())
            bench.clock.advance(TIMEOUT_S + 1)  # more than rounding takes away
        return all(future.done() for future in futures)

    assert soon(done), bench.executor.stats


def check(batch: ForecastBatch, answer: Answer) -> None:
    """An answer is the model's word for word, or a sound one of the fallback with a reason."""
    assert fault_of(batch, answer.forecast) is None
    if answer.reason is None:
        assert answer.model == "model-1"
        assert same(answer.forecast, right_answer(batch))
    else:
        assert answer.model == "plain-1"
        assert not (answer.forecast.basis == Basis.MODEL).any()
