"""Forecasts and stock to replenishment triggers: opened, revised, cancelled, acknowledged, expired.

In: cumulative demand quantiles of series, their `Positions`, acknowledgements. Out: `Trigger` revisions; state records.
Must not know: buckets, files, Kafka, clocks, other series. Rule: a series has at most one open trigger, none is opened
or revised on stale stock, and no revision of a key is issued twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import numpy.typing as npt
from msgspec.structs import replace

from streams.calendar import DAY_MS
from streams.events import unpack_currency
from streams.outputs import figure, key_of
from streams.policy import Orders, Outlook, Planner, Policy, ReplenishmentConfig
from streams.positions import THOUSAND, Bools, Ints, Positions, Slots
from streams.reorder import DemandAhead
from streams.state import Record, SnapshotError, Table, pack, unpack
from streams.triggers import Terms, Trigger, idempotency_key, message, read_terms, trigger_id, units


class Replenishment:
    """Decides on replenishment and keeps the open triggers.

    Parameters
    ----------
    config
        Settings.
    positions
        Stock positions, written by the engine and, for accepted triggers, by this class.
    series
        (sku, location) of a slot.
    date_of
        Local date of a time at a slot's location, as ``YYYY-MM-DD``.

    Examples
    --------
    >>> import orjson
    >>> positions = Positions(9)
    >>> now, row = 1_700_006_400_000, np.array([3])
    >>> _ = positions.count(3, on_hand=5, time_ms=now)
    >>> series, date_of = (lambda slot: ("A1", "default")), (lambda slot, time_ms: "2023-11-15")
    >>> replenishment = Replenishment(ReplenishmentConfig(), positions, series, date_of)
    >>> steps = 2 * np.arange(1, 29, dtype=np.float32)  # two units a day, for certain
    >>> cumulative = np.repeat(steps[None, :, None], 13, axis=2)
    >>> starts = now + np.arange(28) * 86_400_000
    >>> [trigger] = replenishment.decide(row, cumulative, now, ["f1"], starts)
    >>> message = orjson.loads(trigger.value)
    >>> message["status"], message["quantity"]["order_qty"], message["reasons"]
    ('open', 16, ['available 5 <= reorder point 19.0', 'no lead time known, 7.0 days assumed'])

    The receiver orders; the quantity counts as on order, and nothing more is needed:

    >>> [trigger] = replenishment.ack(message["idempotency_key"], "accepted", now + 1000)
    >>> trigger.status, replenishment.decide(row, cumulative, now + 2000, ["f2"], starts)
    ('acknowledged', [])
    >>> [key for key, value in replenishment.changes()], replenishment.retire(3, now + 3000)
    (['triggers/3', 'reorders/+1'], [])
    """

    def __init__(
        self,
        config: ReplenishmentConfig,
        positions: Positions,
        series: Callable[[int], tuple[str, str]],
        date_of: Callable[[int, int], str],
    ) -> None:
        self.config = config
        self.positions = positions
        self.acks_unknown = 0
        self._planner = Planner(config, positions)
        self._series = series
        self._date_of = date_of
        self._table = Table(
            "reorders",
            positions.max_series,
            {
                "opened": (np.uint32, ()),  # triggers opened so far
                "quantity": (np.int64, ()),  # of the open trigger, 0: none
                "expires_ms": (np.int64, ()),
                "quiet_ms": (np.int64, ()),
            },
        )
        self._open: dict[int, bytes] = {}  # slot -> terms of the open trigger, as in its record
        self._slot_of: dict[str, int] = {}  # idempotency key -> slot
        self._changed: set[int] = set()
        # A retired series may come back, in another slot; its keys must go on where they stopped.
        self._retired: dict[str, int] = {}
        self._retired_changed: set[str] = set()

    @property
    def row_bytes(self) -> int:
        """Bytes that one series takes beside its position; an open trigger takes about 500 more."""
        return self._table.row_bytes

    def __len__(self) -> int:
        """Number of open triggers."""
        return len(self._open)

    def is_open(self, slots: Slots) -> Bools:
        """Tell which slots have an open trigger."""
        return np.asarray(self._table["quantity"][slots] > 0)

    def decide(
        self,
        slots: Slots,
        cumulative: npt.NDArray[np.float32],
        as_of_ms: int,
        forecast_ids: Sequence[str] | Callable[[int], str],
        steps: npt.NDArray[np.int64],
    ) -> list[Trigger]:
        """Open, revise, cancel or expire triggers of series that were forecast, in the order of `slots`.

        Parameters
        ----------
        slots
            Distinct slots, (B,).
        cumulative
            Quantiles of the demand still to come up to the end of each step, float32 (B, H, Q).
        as_of_ms
            Time of the forecasts; the stock positions are taken at the same time.
        forecast_ids
            Id of row i's forecast, or a function of i.
        steps
            Start of each step in epoch milliseconds, (H,) or (B, H); step 1 contains `as_of_ms`.
        """
        index: Ints = slots.astype(np.int64)
        starts = np.broadcast_to(steps, (len(index), cumulative.shape[1]))
        name = forecast_ids if callable(forecast_ids) else forecast_ids.__getitem__
        counted = self.positions.table["counted_ms"][index]
        fresh = (counted > 0) & (as_of_ms - counted <= self.config.stale_after_ms)
        overdue = (self._table["quantity"][index] > 0) & (self._table["expires_ms"][index] <= as_of_ms)
        found = [(int(row), self._expire(int(index[row]), as_of_ms)) for row in np.flatnonzero(overdue & ~fresh)]
        rows = np.flatnonzero(fresh)
        if len(rows):
            elapsed = np.clip((as_of_ms - starts[:, 0]) / self.config.bucket_ms, 0.0, 0.999)
            ahead = DemandAhead(cumulative, elapsed, self.config.bucket_ms / DAY_MS, np.arange(len(index)))
            policy = self._planner.policy(index[rows], ahead.take(rows), as_of_ms)
            busy = np.flatnonzero(policy.needed() | (self._table["quantity"][policy.slots] > 0))
            if len(busy):
                found += self._revise(policy.take(busy), starts, name)
        return [trigger for _, trigger in sorted(found, key=lambda pair: pair[0])]

    def ack(self, key: str, status: str, time_ms: int) -> list[Trigger]:
        """Take over what a receiver did with an open trigger; an unknown key is counted in `acks_unknown`.

        ``accepted``: its quantity counts as on order; ``rejected``: cancelled, and quiet for one review period;
        ``received``: nothing changes.
        """
        slot = self._slot_of.get(key)
        if slot is None:
            self.acks_unknown += 1
            return []
        if status == "accepted":
            terms = self._terms_of(slot)
            expected_ms = time_ms + round(terms.lead_p90 * DAY_MS)
            self.positions.accept(slot, terms.quantity, time_ms, expected_ms)
            until = self._date_of(slot, expected_ms)
            reason = f"accepted: {units(terms.quantity)} count as on order until a count shows them, or {until}"
            return [self._close(slot, terms, "acknowledged", time_ms, reason)]
        if status == "rejected":
            quiet_ms = time_ms + round(self.config.review_days * DAY_MS)
            self._table["quiet_ms"][slot] = quiet_ms
            reason = f"rejected by the receiver, quiet until {self._date_of(slot, quiet_ms)}"
            return [self._close(slot, self._terms_of(slot), "cancelled", time_ms, reason)]
        return []

    def retire(self, slot: int, time_ms: int) -> list[Trigger]:
        """Forget a slot and its position; an open trigger is cancelled. The slot's key must still be known."""
        closed = []
        if slot in self._open:
            closed.append(self._close(slot, self._terms_of(slot), "cancelled", time_ms, "item retired"))
        if opened := int(self._table["opened"][slot]):
            name = key_of(*self._series(slot))
            self._retired[name] = opened
            self._retired_changed.add(name)
        self._table.clear(slot)
        self.positions.retire(slot)
        return closed

    def changes(self) -> Iterator[Record]:
        """Yield the records that changed since the last call: ``triggers/…``, ``retired/…``, ``reorders/…``.

        The positions' own records come from `Positions.changes`.
        """
        for slot in sorted(self._changed):
            yield f"triggers/{slot}", self._open.get(slot)
        self._changed.clear()
        for series in sorted(self._retired_changed):
            opened = self._retired.get(series)
            yield f"retired/{series}", None if opened is None else pack(opened)
        self._retired_changed.clear()
        yield from self._table.changes()

    def restore(self, key: str, value: bytes | None) -> None:
        """Take over one record; records of a table come in the order of `streams.state.restore_order`.

        Raises
        ------
        SnapshotError
            If the record is not one of this module's, or damaged.
        """
        prefix, _, rest = key.partition("/")
        if prefix == "reorders":
            self._table.restore(key, value)
        elif prefix == "triggers":
            self._restore_open(int(rest), key, value)
        elif prefix == "retired":
            self._retired.pop(rest, None)
            if value is not None:
                self._retired[rest] = int(unpack(key, value))
        else:
            raise SnapshotError(f"state record {key!r} is no record of replenishment")

    def _revise(
        self, policy: Policy, starts: npt.NDArray[np.int64], name: Callable[[int], str]
    ) -> list[tuple[int, Trigger]]:
        """Decide on series with fresh stock; returns rows of the forecast with what was issued for them."""
        orders, table, slots, as_of_ms = self._planner.orders(policy), self._table, policy.slots, policy.as_of_ms
        open_quantity = table["quantity"][slots]
        is_open, needed = open_quantity > 0, policy.needed() & (orders.quantity > 0)
        gone = is_open & ~(policy.needed(self.config.cancel_share) & (orders.quantity > 0))
        change = np.abs(orders.quantity - open_quantity)
        other = (change > self.config.change_share * open_quantity) & (change >= orders.pack)
        renewed = table["expires_ms"][slots] <= as_of_ms
        opens = ~is_open & needed & (table["quiet_ms"][slots] <= as_of_ms)
        updates = is_open & ~gone & ((needed & other) | renewed)
        rows = np.flatnonzero(opens | gone | updates)
        if not len(rows):
            return []
        picked, sizes = policy.take(rows), orders.take(rows)
        outlook = self._planner.outlook(picked)
        found = []
        for place, index in enumerate(rows.tolist()):
            row, slot = int(picked.ahead.rows[place]), int(picked.slots[place])
            terms = self._draft(picked, sizes, outlook, place, starts[row], name(row))
            if opens[index]:
                trigger = self._issue(slot, terms, "open", as_of_ms, self._reasons(terms))
            elif gone[index]:
                trigger = self._withdraw(slot, terms, as_of_ms)
            else:
                trigger = self._update(slot, terms, as_of_ms, keep=not (needed[index] and other[index]))
            found.append((row, trigger))
        return found

    def _issue(self, slot: int, terms: Terms, status: str, time_ms: int, reasons: list[str]) -> Trigger:
        """Write down an open trigger's newest revision and publish it."""
        if status == "open":
            number = self._opened(slot)
            terms = replace(terms, key=idempotency_key(key_of(*self._series(slot)), number), revision=1)
            self._table["opened"][slot] = number + 1
        self._table["quantity"][slot], self._table["expires_ms"][slot] = terms.quantity, terms.expires_ms
        self._table.touch(slot)
        self._open[slot] = terms.record()
        self._slot_of[terms.key] = slot
        self._changed.add(slot)
        return self._publish(slot, terms, status, time_ms, reasons)

    def _update(self, slot: int, terms: Terms, time_ms: int, *, keep: bool) -> Trigger:
        """Next revision of an open trigger: another quantity, or the same (`keep`) with a new date of expiry."""
        old = self._terms_of(slot)
        new = replace(terms, key=old.key, revision=old.revision + 1)
        if keep:
            new = _with_quantity_of(old, new)
            reasons = ["not answered, renewed"]
        else:
            reasons = [f"quantity {units(old.quantity)} -> {units(new.quantity)}"]
        return self._issue(slot, new, "updated", time_ms, reasons + self._reasons(new))

    def _withdraw(self, slot: int, terms: Terms, time_ms: int) -> Trigger:
        """Cancel a trigger whose need has gone, with the figures of now and the quantity that it cancels."""
        old = self._terms_of(slot)
        now = replace(_with_quantity_of(old, terms), key=old.key, revision=old.revision, expires_ms=old.expires_ms)
        available, point = units(now.available), figure(now.reorder_point)
        if now.available > round(now.reorder_point * THOUSAND):
            reason = f"available {available} > reorder point {point}"
        elif terms.quantity == 0:
            reason = "the maximum stock leaves no room for the minimum order"
        else:
            reason = f"no demand expected: reorder point {point}"
        return self._close(slot, now, "cancelled", time_ms, reason)

    def _expire(self, slot: int, time_ms: int) -> Trigger:
        days = (time_ms - int(self.positions.table["counted_ms"][slot])) / DAY_MS
        reason = f"stock was counted {days:.1f} days ago, too long for a decision"
        return self._close(slot, self._terms_of(slot), "expired", time_ms, reason)

    def _close(self, slot: int, terms: Terms, status: str, time_ms: int, reason: str) -> Trigger:
        """Publish the last revision of an open trigger and forget it."""
        del self._open[slot], self._slot_of[terms.key]
        self._table["quantity"][slot] = self._table["expires_ms"][slot] = 0
        self._table.touch(slot)
        self._changed.add(slot)
        return self._publish(slot, replace(terms, revision=terms.revision + 1), status, time_ms, [reason])

    def _publish(self, slot: int, terms: Terms, status: str, time_ms: int, reasons: list[str]) -> Trigger:
        sku, location = self._series(slot)
        value = message(
            terms, sku=sku, location=location, mode=self.config.mode, status=status, issued_ms=time_ms, reasons=reasons
        )
        return Trigger(slot, sku, location, trigger_id(terms.key, terms.revision), status, time_ms, value)

    # -------------------------------------------------------------------------------------------- terms
    def _draft(
        self, policy: Policy, orders: Orders, outlook: Outlook, index: int, starts: npt.NDArray[np.int64], name: str
    ) -> Terms:
        """Terms of one series as of now; key and revision are the caller's."""
        slot, as_of_ms = int(policy.slots[index]), policy.as_of_ms
        lead_mean, lead_p90 = float(policy.lead_mean[index]), float(policy.lead_p90[index])
        point, lot = float(policy.point[index]), float(orders.lot[index])
        stockout = int(outlook.stockout[index])
        stockout_ms = None if stockout < 0 else max(int(starts[stockout]), as_of_ms)
        need_ms = int(starts[-1]) if stockout_ms is None else stockout_ms
        low, median, high = outlook.lead_demand[index].tolist()
        quantity, source = int(orders.quantity[index]), self.positions.source(slot)
        return Terms(
            key="",
            revision=1,
            expires_ms=as_of_ms + self.config.expires_after_ms,
            kind="transfer" if source else "reorder",
            quantity=quantity,
            unrounded=point + lot - int(policy.available[index]) / THOUSAND,
            pack=int(orders.pack[index]),
            moq=int(orders.moq[index]),
            rounding="down" if orders.down[index] else "up",
            reorder_point=point,
            order_up_to=point + lot,
            level=float(policy.level[index]),
            lead_mean=lead_mean,
            lead_p90=lead_p90,
            review_days=self.config.review_days,
            horizon_days=float(outlook.days[index]),
            position=self.positions.parts(slot, as_of_ms),
            as_of_ms=as_of_ms,
            forecast_id=name,
            lead_demand=(low, median, high),
            stockout_ms=stockout_ms,
            need_by=self._date_of(slot, need_ms),
            order_by=self._date_of(slot, max(as_of_ms, need_ms - round(lead_mean * DAY_MS))),
            urgency=self._urgency(stockout_ms, as_of_ms, lead_mean, lead_p90),
            source=source,
            cost=self._cost(slot, quantity),
        )

    def _urgency(self, stockout_ms: int | None, as_of_ms: int, lead_mean: float, lead_p90: float) -> str:
        """Critical where an order of now comes too late in the mean, high where a slow one, or the next one, would."""
        days = np.inf if stockout_ms is None else (stockout_ms - as_of_ms) / DAY_MS
        if days < lead_mean:
            return "critical"
        return "high" if days < lead_p90 + self.config.review_days else "normal"

    def _reasons(self, terms: Terms) -> list[str]:
        reasons = []
        if terms.available <= round(terms.reorder_point * THOUSAND):
            reasons.append(f"available {units(terms.available)} <= reorder point {figure(terms.reorder_point)}")
        needed_days = terms.lead_p90 + terms.review_days
        if needed_days > terms.horizon_days:
            reasons.append(
                f"the forecast covers {figure(terms.horizon_days)} of {figure(needed_days)} days, "
                "continued in proportion"
            )
        if not terms.position.lead_known:
            reasons.append(f"no lead time known, {figure(terms.lead_mean)} days assumed")
        if terms.rounding == "down":
            reasons.append("rounded down to stay within the maximum stock")
        return reasons

    def _cost(self, slot: int, quantity: int) -> tuple[int, str] | None:
        """Cents and currency of a quantity, where the cost of a unit is known."""
        unit_cost = int(self.positions.table["unit_cost"][slot])
        currency = unpack_currency(int(self.positions.table["cost_currency"][slot]))
        if not unit_cost or not currency:
            return None
        return (quantity * unit_cost + 50_000) // 100_000, currency  # 1/1000 unit x 1/10,000 currency -> 1/100

    # -------------------------------------------------------------------------------------------- records
    def _opened(self, slot: int) -> int:
        """Triggers opened so far, also before the series was retired and came back."""
        opened = int(self._table["opened"][slot])
        name = key_of(*self._series(slot))
        if opened == 0 and name in self._retired:
            opened = self._retired.pop(name)
            self._retired_changed.add(name)
        return opened

    def _terms_of(self, slot: int) -> Terms:
        return read_terms(f"triggers/{slot}", self._open[slot])

    def _restore_open(self, slot: int, key: str, value: bytes | None) -> None:
        if slot in self._open:
            del self._slot_of[self._terms_of(slot).key]
            del self._open[slot]
        if value is not None:
            self._slot_of[read_terms(key, value).key] = slot
            self._open[slot] = value


def _with_quantity_of(old: Terms, new: Terms) -> Terms:
    """New terms with the quantity, its rounding and its cost of the old ones."""
    names = ("kind", "quantity", "unrounded", "pack", "moq", "rounding", "source", "cost")
    return replace(new, **{name: getattr(old, name) for name in names})
