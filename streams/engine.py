"""The engine of one shard: events and ticks in, forecasts, alert candidates and triggers out.

In: `EventBatch` (any chunking), ticks of the shell's clock. Out: `Outputs`; state records.
Must not know: clocks, networks, threads, files, Kafka. Rule: outputs depend on the order of events and ticks alone.

A batch runs in five steps. 1. The intake parks, drops and dead-letters. 2. Events up to the next due time are applied.
3. What the watermark has made due happens: buckets turn final (outcomes are scored), buckets close (all series are
forecast), changed series are refreshed. 4. Decisions follow each forecast. 5. On with the rest of the batch.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from sys import intern
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from models.baseline import SeasonalWindow
from models.forecast import Forecaster
from online.outcomes import Outcomes
from online.scores import Scores, losses_of
from streams.buckets import Buckets
from streams.calendar import Holidays
from streams.catalog import Catalog, ListedPrices
from streams.due import Due, Request
from streams.engine_config import EngineConfig
from streams.events import EventBatch, Kind, pack_currency
from streams.facts import Facts, phases
from streams.forecasting import Forecasting
from streams.intake import Accepted, Intake
from streams.learning import Learning
from streams.outputs import TRIGGER_TOPIC, ForecastSet, Output, Outputs, key_of
from streams.panes import Panes
from streams.positions import Positions
from streams.price_alerts import PriceAlerts
from streams.price_forecasting import PriceForecasting
from streams.refresh import TILE_ROWS, Refresh
from streams.replenishment import Replenishment
from streams.series import SeriesMap
from streams.state import BLOCK_ROWS, Record, SnapshotError, pack, restore_order, unpack
from streams.triggers import Trigger

__all__ = ["Engine", "EngineConfig"]

Slots = npt.NDArray[np.integer[Any]]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


@dataclass(slots=True)
class _Rest:
    """A batch or tick under way, and how far it came."""

    accepted: Accepted
    at: int = 0
    is_tick: bool = False


class Engine:
    """Everything about the items of one shard.

    Parameters
    ----------
    config
        Settings.
    forecaster
        Answers batches; the seasonal window where none is given.
    shard
        Number of the shard.
    deferred
        False: forecasts are made on the spot. True: the shell asks for them (`gather`), has them made elsewhere and
        hands them back (`absorb`); `process` and `tick` stop where series have become due (`paused`), so that a
        shell may wait for their forecasts before it goes on with `resume`, or go on without them.

    Examples
    --------
    >>> from streams.decode import decode
    >>> engine = Engine(EngineConfig(max_series=10))
    >>> order = b'{"type":"order_placed","event_id":"%d","event_time":%d,"sku":"TEA","order_id":"o",' \\
    ...         b'"quantity":2,"unit_price":9.99,"currency":"EUR"}'
    >>> day = 86_400_000
    >>> batch, _ = decode([order % (n, 15000 * day + n * day) for n in range(3)], clock_ms=16000 * day)
    >>> batch.tick_ms[:] = batch.time_ms
    >>> [len(forecasts) for _, forecasts in engine.process(batch).forecasts]
    [1, 1]
    """

    def __init__(
        self, config: EngineConfig, forecaster: Forecaster | None = None, shard: int = 0, *, deferred: bool = False
    ) -> None:
        self.config = config
        self.series = SeriesMap(config.max_series)
        self.panes = Panes(config.max_series, config.panes)
        rates = {pack_currency(code): rate for code, rate in {**config.rates, config.base_currency: 1.0}.items()}
        self.buckets = Buckets(
            config.width, config.time_zone, config.location_time_zones, config.time.lateness_ms, rates, self.panes
        )
        self.intake = Intake(config.time, config.dedupe, self.series)
        self.catalog, self.listed, self.holidays = Catalog(), ListedPrices(config.max_series), Holidays()
        chosen = forecaster or SeasonalWindow()
        self.refresh = Refresh(
            chosen, config.horizon, self.series, self.buckets, self.catalog, self.listed, self.holidays, shard,
            chosen.channels,
        )  # fmt: skip
        self.positions = Positions(config.max_series)
        self.prices = PriceAlerts(config.prices, config.max_series)
        on = config.price_model != "off"
        self.price_forecasts = PriceForecasting(self.prices.lines, self.buckets, shard, on=on)
        policy = replace(config.replenishment, bucket_ms=config.width.nominal_ms)
        self.replenishment = Replenishment(policy, self.positions, self.series.key, self._date_of)
        self.outcomes = Outcomes(config.max_series, config.panes.open_buckets, block_rows=BLOCK_ROWS)
        self.scores = Scores(self.outcomes.horizons)
        self.counts: Counter[str] = Counter()
        self.due = Due(config.max_series)
        self.learning = Learning(self.buckets, self.refresh, on=config.learning)
        self._forecasting = Forecasting(
            self.series, self.buckets, self.refresh, self.due, self.positions, self.replenishment, self.outcomes,
            self.learning,
        )  # fmt: skip
        self._deferred = deferred
        self.refreshes = True  # False: changed series wait for the next close or tick, as a shell with a backlog wants
        self._refreshed_ms = 0
        self._rest: _Rest | None = None
        self._facts = Facts(self)

    # -- 1. events and ticks in

    def process(self, batch: EventBatch) -> Outputs:
        """Apply a batch of events in order of arrival; what it made due comes back."""
        return self._run(_Rest(self.intake.accept(batch)))

    def tick(self, now_ms: int) -> Outputs:
        """Let the shell's clock pass: idle sources stop holding the watermark, quiet buckets close."""
        return self._run(_Rest(self.intake.tick(now_ms), is_tick=True))

    @property
    def paused(self) -> bool:
        """Whether a batch or tick stopped because series became due; `resume` goes on with it."""
        return self._rest is not None

    def resume(self) -> Outputs:
        """Go on with a batch or tick that stopped."""
        out = Outputs()
        if self._rest is not None and self._go_on(self._rest, out):
            self._rest = None
        return out

    def leave_tick(self) -> bool:
        """Leave the rest of a tick that stopped to the next event or tick; False where there is none to leave."""
        if self._rest is None or self._rest.at < len(self._rest.accepted.batch):
            return False
        self._rest = None
        return True

    def _run(self, rest: _Rest) -> Outputs:
        if self._rest is not None:
            raise RuntimeError("the batch before this one is paused; resume it first")
        accepted = rest.accepted
        out = Outputs(dead_letters=accepted.letters)
        self._facts.begin(accepted.batch)
        for kind, count in enumerate(np.bincount(accepted.batch.kind).tolist()):
            if count:
                self.counts[Kind(kind).name.lower()] += count
        if not self._go_on(rest, out):
            self._rest = rest
        return out

    def _go_on(self, rest: _Rest, out: Outputs) -> bool:
        """Apply what is left; False where series became due that the shell may want to wait for."""
        accepted = rest.accepted
        marks, n = accepted.watermark_ms, len(accepted.batch)
        while rest.at < n:
            if marks[rest.at] > 0:
                self.buckets.start(int(marks[rest.at]))
            due_ms = self._next_due_ms()  # None before the first watermark, from which on buckets close
            stop = int(np.searchsorted(marks, 1 if due_ms is None else due_ms))
            if stop > rest.at:
                self._apply(accepted, rest.at, min(stop, n), out)
            rest.at = max(rest.at, min(stop, n))
            if rest.at < n and due_ms is not None:
                out.row = int(accepted.batch.row[rest.at])
                if self._advance(int(marks[rest.at]), out):
                    return False
        # The watermark may have moved further, past dropped events: that shows with the next event or tick, wherever a
        # batch happens to end.
        return not (rest.is_tick and self.intake.watermark_ms > 0 and self._advance(self.intake.watermark_ms, out))

    # -- 2. events into state

    def _apply(self, accepted: Accepted, start: int, stop: int, out: Outputs) -> None:
        """Apply rows up to ``stop``: between facts that change what follows, everything of one kind together."""
        at = start
        for barrier in list(self._facts.barriers(stop)):
            self._together(accepted, at, barrier, out)
            self._facts.apply_one(barrier, out)
            at = barrier + 1
        self._together(accepted, at, stop, out)

    def _together(self, accepted: Accepted, start: int, stop: int, out: Outputs) -> None:
        """Apply flows, stock counts and prices: each series sees its own in order, and no other series cares."""
        counts, prices = self._facts.take(stop)
        batch, kind = accepted.batch, accepted.batch.kind[start:stop]
        flow = kind <= Kind.CART_REMOVED
        count = np.zeros(len(kind), np.bool_)
        count[np.array(counts, np.int64) - start] = True
        slots = accepted.slots[start:stop]
        if self._facts.series_changed:  # slots were looked up before facts of this batch made or freed series
            slots = self.series.find_rows(batch, start, stop)
        for i in np.flatnonzero((slots < 0) & (flow | count)).tolist():
            at = start + i
            slots[i] = self.add_series(batch.sku[at], batch.location[at], int(batch.time_ms[at]))
        for flows, counted in phases(slots, flow & (slots >= 0), count & (slots >= 0)):
            self._flows(accepted, flows + start, slots[flows])
            if len(counted):
                self._facts.stock(counted + start, slots[counted])
        self._facts.prices(prices, out)

    def _flows(self, accepted: Accepted, rows: Ints, slots: Slots) -> None:
        if len(rows):
            batch = accepted.batch
            self.buckets.apply(batch, rows, slots, int(accepted.watermark_ms[rows[0]]))
            self.positions.apply_flows(slots, batch.kind[rows], batch.quantity[rows], batch.time_ms[rows])
            self.touch(slots)

    def add_series(self, sku: str, location: str, time_ms: int) -> int:
        """Slot of a series, made where it is new; -1 where the maximum is reached."""
        slot = self.series.slot(sku, location)
        if slot < 0:
            slot = self.series.add(sku, intern(location))  # one string for all series of a location
            if slot >= 0:
                self.buckets.begin(slot, location, time_ms)
                self.refresh.assign(slot, self.catalog.group(sku))
                self.listed.claim(slot, (sku, location))
        return slot

    def touch(self, slots: Slots) -> None:
        """Note that forecasts or decisions of series are out of date."""
        self.due.touch(slots)

    def remove_series(self, slot: int) -> None:
        """Free the slot of a series and zero its rows; its position and trigger were retired before."""
        self.buckets.clear(slot)
        self.refresh.clear(slot)
        self.listed.table.clear(slot)
        self.outcomes.clear(slot)
        self.learning.clear(slot)
        self.due.clear(slot)
        self.series.free(slot)

    # -- 3. what the watermark makes due

    def _next_due_ms(self) -> int | None:
        due = self.buckets.next_due()
        if due is None:
            return None
        return min(due.at_ms, self._refreshed_ms + self.config.refresh_ms) if self.refreshes else due.at_ms

    def _advance(self, watermark_ms: int, out: Outputs) -> bool:
        """Let everything due at or before the watermark happen in order of time; True where the shell may want a word.

        Called again with the same watermark, it goes on where it stopped.
        """
        self.buckets.start(watermark_ms)
        while (due := self.buckets.next_due()) is not None and due.at_ms <= watermark_ms:
            if due.what == "final":
                self._finish(due.zone)
                continue
            self._close(due.zone, due.at_ms)
            if not self.refreshes:  # forecasts of a close stand for its instant: no refresh may stand for it later
                self._refreshed_ms = max(self._refreshed_ms, self._grid_ms(due.at_ms))
            if self._answer_due(out):
                return True
        grid_ms = self._grid_ms(watermark_ms)
        if grid_ms > self._refreshed_ms:
            self._refreshed_ms = grid_ms
            self.due.mark_changed(self.series.used)
            return self._answer_due(out)
        return False

    def _grid_ms(self, time_ms: int) -> int:
        """The newest instant of the refreshes' grid."""
        return time_ms // self.config.refresh_ms * self.config.refresh_ms

    def _answer_due(self, out: Outputs) -> bool:
        """Forecast what is due, or tell that the shell has to."""
        if self._deferred:
            return len(self.due.waiting(self.series.used)) > 0 or self.price_forecasts.due
        while (request := self.gather()) is not None:
            self._absorb(request, request.answer(self.refresh.forecaster.forecast(request.batch), self.model), out)
        out.prices.extend((out.row, request) for request in self.price_forecasts.all())
        return False

    def _finish(self, zone: int) -> None:
        slots, bucket, demand = self.buckets.finish(zone, self.series.live())
        for matured in self.outcomes.mature(slots, bucket, demand):
            self.scores.add(matured.index, losses_of(matured.quantiles, matured.actual))
        self.learning.meet(slots, bucket)

    def _close(self, zone: int, at_ms: int) -> None:
        state = self.buckets.zones[zone]
        shut = not self.holidays.is_open(state.zone.day_of(state.open), "")
        live = self.series.live()
        promoted = self.buckets.in_zone(live[self.listed.on_promotion(live, at_ms - 1)], zone)
        promoted = promoted[self.buckets.begun(promoted, state.open)]
        self.panes.add("promo", promoted, np.full(len(promoted), state.open), np.ones(len(promoted), np.uint8))
        slots, _ = self.buckets.close(zone, live, lambda own: self.listed.price(own, at_ms - 1), shut=shut)
        self.refresh.expect_pool()
        self.learning.expect(self.buckets.zones[zone].open)
        self.price_forecasts.begin_day(zone, at_ms)
        self.due.mark_closed(slots)
        self.counts["closes"] += 1

    # -- 4. forecasts and what follows from them

    @property
    def model(self) -> str:
        """Name of the forecaster that answers."""
        return self.refresh.forecaster.name

    def adopt(self, forecaster: Forecaster) -> None:
        """Let another model answer from the next forecast on; what was learned of the former acts on it no more."""
        self.refresh.adopt(forecaster)
        self.learning.adopt()

    def gather(self, rows: int = TILE_ROWS) -> Request | None:
        """The next request for forecasts: of one zone, at most so many rows, most urgent first; None if none is due.

        Each request must come back through `absorb`, in any order, answered by the model or by another.
        """
        return self._forecasting.gather(rows, self._refreshed_ms)

    def absorb(self, request: Request, forecasts: ForecastSet) -> Outputs:
        """Take over the answer to a request (`Request.answer`), and what follows from it: forecasts and triggers."""
        out = Outputs()
        self._absorb(request, forecasts, out)
        return out

    def _absorb(self, request: Request, forecasts: ForecastSet, out: Outputs) -> None:
        out.forecasts.append((out.row, forecasts))
        self.counts["forecasts"] += len(request)
        self.publish(self._forecasting.absorb(request, forecasts), out)

    def publish(self, triggers: list[Trigger], out: Outputs) -> None:
        """Put trigger revisions among the outputs."""
        for t in triggers:
            key = key_of(t.sku, t.location).encode()
            out.triggers.append((out.row, Output(TRIGGER_TOPIC, key, t.value, t.trigger_id, t.time_ms)))

    def _date_of(self, slot: int, time_ms: int) -> str:
        zone = self.buckets.zones[int(self.buckets.series["zone"][slot])].zone
        return zone.local(time_ms).date().isoformat()

    # -- 5. state as records

    def changes(self) -> Iterator[Record]:
        """Yield the records that changed since the last call; ``None`` deletes a key."""
        used, watermark_ms = self.series.used, self.intake.watermark_ms
        yield from self.series.changes()
        yield from self.buckets.changes(used, watermark_ms)
        yield from self.intake.changes()
        yield from self.catalog.changes()
        yield from self.listed.changes()
        yield from self.refresh.changes()
        yield from self.positions.changes()
        yield from self.prices.changes()
        yield from self.price_forecasts.changes()
        yield from self.replenishment.changes()
        for key, payload in self.outcomes.changes(used):
            yield key, pack(payload)
        yield from self.learning.changes(used)
        if self.holidays.changed:
            self.holidays.changed = False
            yield "holidays/all", pack(self.holidays.snapshot())
        yield from self.due.table.changes()
        yield (
            "clock/engine",
            pack({"refreshed_ms": self._refreshed_ms, "counts": dict(self.counts), "scores": self.scores.snapshot(),
                  "refused": self.series.refused}),
        )  # fmt: skip

    def discard_changes(self) -> None:
        """Forget unbounded lists of changes, for a shell that keeps no state."""
        self.intake.discard_changes()
        self.buckets.discard_changes()

    def restore(self, records: Mapping[str, bytes]) -> None:
        """Take over the newest value of every key: the future is then exactly that of the engine that wrote them.

        Raises
        ------
        SnapshotError
            If a key is unknown, or a record damaged, of another version or another layout.
        """
        parts = self._parts()
        for key in sorted(records, key=restore_order):
            try:
                if (part := parts.get(key.partition("/")[0])) is not None:
                    part.restore(key, records[key])
                else:
                    self._restore_own(key, records[key])
            except (TypeError, ValueError, LookupError, msgspec.MsgspecError) as error:
                raise SnapshotError(
                    f"state record {key!r} is damaged: {error}; restore from another replica"
                ) from error
        self.intake.settle()
        self.series.settle()
        self.listed.settle()
        self.buckets.settle(self.series.used)

    def _parts(self) -> dict[str, Any]:
        """Which part wrote the records of each kind."""
        return {
            "series": self.series, "open": self.buckets, "weeks": self.buckets, "closed": self.buckets,
            "cancelled": self.buckets,
            "facts": self.buckets, "sessions": self.buckets, "dedupe": self.intake, "parked": self.intake,
            "catalog": self.catalog,
            "dirty": self.due.table, "groups": self.catalog, "listed": self.listed, "channels": self.listed,
            "waiting": self.listed, "held": self.listed, "rates": self.refresh, "pool": self.refresh,
            "lines": self.prices, "positions": self.positions, "flows": self.positions, "sources": self.positions,
            "runs": self.price_forecasts, "learner": self.learning,
            "triggers": self.replenishment, "retired": self.replenishment, "reorders": self.replenishment,
        }  # fmt: skip

    def _restore_own(self, key: str, value: bytes) -> None:
        """Take over a record of which there is one, or whose part reads payloads."""
        if key.startswith("outcomes/"):
            self.outcomes.restore(key, unpack(key, value))
        elif key == "holidays/all":
            self.holidays.restore(unpack(key, value))
        elif key == "clock/intake":
            self.intake.restore(key, value)
        elif key == "clock/zones":
            self.buckets.restore(key, value)
        elif key == "clock/engine":
            state = unpack(key, value)
            self._refreshed_ms, self.counts = state["refreshed_ms"], Counter(state["counts"])
            self.scores.restore(state["scores"])
            self.series.refused = state["refused"]
        else:
            raise SnapshotError(f"state record {key!r} is none of this program's; it was written by a newer one")
