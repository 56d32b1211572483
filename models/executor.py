"""The forecaster in a thread of its own: batches in, answers out in time, whatever the model does.

In: forecast batches, one after another. Out: a future of an `Answer` for each, from the model or from the fallback.
Must not know: where batches come from or where answers go. Rule: no batch waits longer than the timeout for the model.

Two threads share the work. The *model thread* takes batches from the queue and calls the forecaster, and nothing else.
The *watch thread* never calls the forecaster: it looks after deadlines and computes the fallback, for batches

* that the model failed on (it raised, or its answer broke a promise): class `failed`;
* that the model did not answer within the timeout: class `timeout`. Its thread is abandoned and another one started;
  what it says later is dropped. With `MAX_ABANDONED` such threads the model rests until one of them comes back;
* that the model had not begun when half the timeout was over, since the rest may not suffice: class `busy`;
* that came while the model rests (`models/breaker.py`): class `resting`.

Out of memory is no failure: the rows per call are halved and the call repeated, and they grow back slowly.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, replace

import numpy as np

from models.breaker import Breaker
from models.forecast import Basis, Forecast, ForecastBatch, Forecaster, ForecastError
from models.pieces import Pieces
from models.promises import fault_of

CLASSES = ("failed", "timeout", "busy", "resting")
"""Why a fallback answered, as counted in `Stats.fallbacks`."""

MAX_ABANDONED = 2
"""Threads that may hang in the model: each holds its batch and perhaps a lock or memory of a device."""

START_SHARE = 0.5
"""Share of the timeout within which a batch must begin: one begun later would mostly be computed for nothing."""

CHECK_S = 0.05
"""How often deadlines are looked at while batches wait: small beside any sensible timeout, free beside any model."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of a batch.

    Attributes
    ----------
    forecast
        A row for each of the batch; the fallback's never says basis `model`.
    model
        Name of the forecaster that made it.
    reason
        None where the model answered; otherwise in a sentence why it was the fallback.
    seconds
        What computing it took, without the time in the queue.
    """

    forecast: Forecast
    model: str
    reason: str | None
    seconds: float


@dataclass(frozen=True, slots=True)
class Stats:
    """Totals of an executor since it began; what the last three say holds now."""

    batches: int
    """Answered, by whomever."""
    rows: int
    failures: int
    """Batches that the model raised on, or answered with a broken promise."""
    timeouts: int
    """Batches that the model began and did not answer in time."""
    out_of_memory: int
    """How often the rows per call were halved."""
    fallbacks: Mapping[str, int]
    """Batches that the fallback answered, per class of `CLASSES`."""
    refused: int
    """Batches that got an error: the fallback failed too, or the executor was closed."""
    seconds: float
    """Spent in the model, on batches that it answered."""
    fallback_seconds: float
    rows_per_call: int
    abandoned: int
    """Threads that hang in the model."""
    rest_s: float
    """Seconds until a resting model is tried again, 0 where it is used."""


@dataclass(eq=False, slots=True)
class _Job:
    """A batch on its way: in the queue, with the model, or with the fallback, and never in two of them."""

    batch: ForecastBatch
    future: Future[Answer]
    submitted_s: float
    forecaster: Forecaster
    cause: str = ""
    reason: str = ""


class Executor:
    """Runs a forecaster in its own thread and answers every batch in time.

    Parameters
    ----------
    forecaster
        The model. Called by one thread at a time, unless an earlier call hangs.
    fallback
        Answers where the model does not. It must not hang, and must bear being called while the model runs.
    timeout_s
        A batch is answered this long after `submit` at the latest, plus the time of the fallback.
    rows
        Rows per call of the model at most; larger batches are cut, and joined again.
    clock
        Seconds that only grow.

    Examples
    --------
    >>> from models.baseline import SeasonalWindow
    >>> from models.forecast import ForecastBatch
    >>> executor = Executor(SeasonalWindow(), fallback=SeasonalWindow(), timeout_s=30, rows=2048)
    >>> future = executor.submit(ForecastBatch(
    ...     demand=np.ones((1, 84), np.float32), is_open=np.ones((1, 84), bool), future_open=np.ones((1, 7), bool),
    ...     observed=np.zeros(1, np.float32), elapsed=np.zeros(1, np.float32), day=np.zeros(1, int),
    ...     hour=np.zeros(1, int), season=7, group=np.array([-1], np.int32)))
    >>> answer = future.result()
    >>> answer.model, answer.reason, answer.forecast.mean[0].tolist()
    ('baseline-1', None, [1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0])
    >>> executor.close()
    True
    """

    def __init__(
        self,
        forecaster: Forecaster,
        *,
        fallback: Forecaster,
        timeout_s: float,
        rows: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if timeout_s <= 0 or rows < 1:
            raise ValueError(f"timeout_s is {timeout_s} and rows {rows}; both must be above 0")
        self._forecaster, self._fallback = forecaster, fallback
        self._timeout_s, self._clock = timeout_s, clock
        self._pieces = Pieces(rows)
        self._change = threading.Condition()  # guards everything below
        self._jobs: dict[_Job, None] = {}  # unanswered, the oldest first
        self._queue: deque[_Job] = deque()
        self._running: _Job | None = None
        self._to_fallback: deque[_Job] = deque()
        self._breaker, self._last_failure = Breaker(), ""
        self._worker: threading.Thread | None = None  # the model thread that counts; others were abandoned
        self._started, self._abandoned, self._closed = 0, 0, False
        self._counts: Counter[str] = Counter()
        self._fallbacks: Counter[str] = Counter(dict.fromkeys(CLASSES, 0))
        self._seconds: dict[str, float] = {"model": 0.0, "fallback": 0.0}
        self._watcher = threading.Thread(target=self._watch, name="forecaster-watch", daemon=True)
        with self._change:
            self._start_worker()
        self._watcher.start()

    # -- what the shell sees

    def submit(
        self, batch: ForecastBatch, done: Callable[[Answer], None] | None = None, forecaster: Forecaster | None = None
    ) -> Future[Answer]:
        """Have a batch answered.

        Parameters
        ----------
        batch
            The rows; nobody may change its arrays until it is answered.
        done
            Called with the answer by the thread that has it, and must return at once. Where there is none (the
            fallback failed too, the executor was closed, the future cancelled) only the future tells.
        forecaster
            Another model than the executor's.

        Returns
        -------
        A future of the answer; cancelled in time, the batch is not computed.

        Raises
        ------
        ForecastError
            If the executor is closed.
        """
        job = _Job(batch, Future(), self._clock(), forecaster or self._forecaster)
        if done is not None:
            job.future.add_done_callback(lambda future: _tell(future, done))
        with self._change:
            if self._closed:
                raise ForecastError("the executor is closed; it takes no more batches")
            self._jobs[job] = None
            self._queue.append(job)
            self._change.notify_all()
        return job.future

    @property
    def forecaster(self) -> Forecaster:
        """The model; only its thread may ask it for forecasts."""
        return self._forecaster

    @property
    def busy(self) -> bool:
        """True while a batch is unanswered."""
        return bool(self._jobs)

    @property
    def overdue(self) -> bool:
        """True while the model hangs in a call or rests: until that ends, answers are the fallback's."""
        with self._change:
            return self._abandoned > 0 or self._breaker.open

    @property
    def waited_s(self) -> float:
        """How long the oldest unanswered batch has waited, 0 where there is none."""
        with self._change:
            return self._clock() - next(iter(self._jobs)).submitted_s if self._jobs else 0.0

    @property
    def stats(self) -> Stats:
        """Totals so far."""
        names = ("batches", "rows", "failures", "timeouts", "refused")
        with self._change:
            return Stats(
                **{name: self._counts[name] for name in names},
                fallbacks=dict(self._fallbacks),
                seconds=self._seconds["model"],
                fallback_seconds=self._seconds["fallback"],
                out_of_memory=self._pieces.out_of_memory,
                rows_per_call=self._pieces.rows_per_call,
                abandoned=self._abandoned,
                rest_s=self._breaker.rest_s(self._clock()),
            )

    def close(self, timeout_s: float = 5.0) -> bool:
        """Take no more batches, and wait for those under way; what is then unanswered gets a `ForecastError`.

        Returns
        -------
        True where all threads have ended; a thread that hangs in the model ends with the process.
        """
        until_s = time.monotonic() + timeout_s
        with self._change:
            self._closed = True
            self._change.notify_all()
            self._change.wait_for(lambda: not self._jobs, timeout_s)
            left = [*self._queue, *self._to_fallback, *([self._running] if self._running else [])]
            self._queue.clear()
            self._to_fallback.clear()
            if self._running is not None:
                self._leave_worker()
            threads = [self._watcher, *([self._worker] if self._worker else [])]
            clean = not self._abandoned
        for job in left:
            self._finish(job, ForecastError("the executor was closed before the batch was answered"))
        for thread in threads:
            thread.join(max(0.0, until_s - time.monotonic()))
        return clean and not any(thread.is_alive() for thread in threads)

    # -- the model thread

    def _work(self) -> None:
        """Have batch after batch answered by the model, until abandoned or closed."""
        while (job := self._take()) is not None:
            self._settle(job, self._ask(job))

    def _mine(self) -> bool:
        """Tell whether the calling thread is the model thread that counts."""
        return self._worker is threading.current_thread()

    def _take(self) -> _Job | None:
        """Wait for the next batch that the model may have; None ends the thread."""
        with self._change:
            while self._mine():
                if self._queue and self._breaker.allows(self._clock()):
                    job = self._queue.popleft()
                    if job.future.cancelled():
                        self._forget(job)
                        continue
                    self._running = job
                    self._breaker.begin()
                    self._change.notify_all()
                    return job
                if self._closed and not self._jobs:
                    break
                self._change.wait()
            return None

    def _ask(self, job: _Job) -> Answer | str:
        """Let the model answer; a sentence where it failed."""
        start_s, model = self._clock(), job.forecaster
        try:
            return Answer(self._pieces.ask(model, job.batch, self._mine), model.name, None, self._clock() - start_s)
        except BaseException as error:  # foreign code: whatever it raises, this thread goes on
            return f"model failed: {_words(error)}"

    def _settle(self, job: _Job, outcome: Answer | str) -> None:
        """Pass on what the model said, or that it failed; nothing where the thread was abandoned meanwhile."""
        with self._change:
            if not self._mine():
                self._abandoned -= 1
                self._change.notify_all()
                return
            self._running = None
            if isinstance(outcome, str):
                self._counts["failures"] += 1
                self._fail(job, "failed", outcome)
                return
            self._breaker.succeeded()
            self._seconds["model"] += outcome.seconds
        self._finish(job, outcome)

    # -- the watch thread

    def _watch(self) -> None:
        """Keep deadlines and compute fallbacks, until closed."""
        while (job := self._next_fallback()) is not None:
            self._finish(job, self._fall_back(job))

    def _fall_back(self, job: _Job) -> Answer | ForecastError:
        """Let the fallback answer."""
        start_s = self._clock()
        try:
            forecast = self._fallback.forecast(job.batch)
            if (fault := fault_of(job.batch, forecast)) is not None:
                raise ForecastError(fault)
            answer = Answer(_not_the_model(forecast), self._fallback.name, job.reason, self._clock() - start_s)
        except BaseException as error:  # this thread keeps the deadlines: it must live
            told = ForecastError(f"{job.reason}, and the fallback failed: {_words(error)}")
            told.__cause__ = error
            return told
        with self._change:
            self._fallbacks[job.cause] += 1
            self._seconds["fallback"] += answer.seconds
        return answer

    def _next_fallback(self) -> _Job | None:
        """Wait until a batch needs the fallback; None ends the thread."""
        with self._change:
            while True:
                self._look()
                if self._to_fallback:
                    job = self._to_fallback.popleft()
                    if not job.future.cancelled():
                        return job
                    self._forget(job)
                elif self._closed and not self._jobs:
                    return None
                else:
                    self._change.wait(min(CHECK_S, self._timeout_s / 4) if self._queue or self._running else None)

    def _look(self) -> None:
        """Hand to the fallback what the model will not answer in time."""
        now_s = self._clock()
        if self._running is not None and now_s - self._running.submitted_s >= self._timeout_s:
            job = self._running
            self._leave_worker()
            self._counts["timeouts"] += 1
            self._fail(job, "timeout", f"model did not answer in {self._timeout_s:g} s")
        self._start_worker()
        if self._worker is None or not self._breaker.allows(now_s):
            why = self._why_it_rests()
            while self._queue:
                self._hand_over(self._queue.popleft(), "resting", why)
        start_s = self._timeout_s * START_SHARE
        while self._queue and now_s - self._queue[0].submitted_s >= start_s:
            self._hand_over(self._queue.popleft(), "busy", f"model was busy with earlier batches for {start_s:g} s")

    def _why_it_rests(self) -> str:
        if self._abandoned >= MAX_ABANDONED:
            return f"model rests until one of {self._abandoned} calls that hang comes back"
        return f"model rests after failure {self._breaker.failures} in a row; the last: {self._last_failure}"

    def _fail(self, job: _Job, cause: str, reason: str) -> None:
        self._breaker.failed(self._clock(), hung=cause == "timeout")
        self._last_failure = reason
        self._hand_over(job, cause, reason)

    def _hand_over(self, job: _Job, cause: str, reason: str) -> None:
        job.cause, job.reason = cause, reason
        self._to_fallback.append(job)
        self._change.notify_all()

    def _leave_worker(self) -> None:
        """Abandon the model thread in its call."""
        self._worker = self._running = None
        self._abandoned += 1

    def _start_worker(self) -> None:
        """Start a model thread where none counts, unless too many hang already."""
        if self._worker is not None or self._closed or self._abandoned >= MAX_ABANDONED:
            return
        self._started += 1
        self._worker = threading.Thread(target=self._work, name=f"forecaster-{self._started}", daemon=True)
        try:
            self._worker.start()
        except RuntimeError:  # the system gives no more threads; the fallback answers until it does
            self._worker = None

    # -- answers out

    def _finish(self, job: _Job, outcome: Answer | ForecastError) -> None:
        """Give a batch its answer; the totals know of it first."""
        answered = isinstance(outcome, Answer)
        with self._change:
            self._counts.update({"batches": 1, "rows": len(job.batch)} if answered else {"refused": 1})
            self._forget(job)
        if not job.future.set_running_or_notify_cancel():
            return
        if isinstance(outcome, Answer):
            job.future.set_result(outcome)
        else:
            job.future.set_exception(outcome)

    def _forget(self, job: _Job) -> None:
        """Count a batch as answered."""
        self._jobs.pop(job, None)
        self._change.notify_all()


def _tell(future: Future[Answer], done: Callable[[Answer], None]) -> None:
    if not future.cancelled() and future.exception() is None:
        done(future.result())


def _words(error: BaseException) -> str:
    """An error in one line that fits a message."""
    try:
        text = " ".join(str(error).split())
    except Exception:  # foreign code again
        text = ""
    return f"{type(error).__name__}: {text}"[:200] if text else type(error).__name__


def _not_the_model(forecast: Forecast) -> Forecast:
    """Say `baseline` where a fallback would say `model`."""
    if not (forecast.basis == Basis.MODEL).any():
        return forecast
    basis = np.where(forecast.basis == Basis.MODEL, np.uint8(Basis.BASELINE), forecast.basis)
    return replace(forecast, basis=basis.astype(np.uint8))
