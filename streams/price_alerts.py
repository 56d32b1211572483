"""Price alerts, the shard's side: published prices in, candidates out.

In: `PriceRows` of one shard in order of arrival, and what the engine knows of an item's cost and demand.
Out: `Candidate` records, which the coordinator groups and publishes.
Must not know: other shards, clocks, Kafka. Rule: results do not depend on how rows are split over calls.

The surroundings matter more than the statistic (17.7 against 1.8 false alerts per 10,000 prices for one and the same
jump rule): a flagged price teaches nothing; a level that persists is accepted; what was announced is no anomaly and
teaches nothing; the first normal price resolves. Newest event time wins: an older price is ignored.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import numpy as np
import numpy.typing as npt

from streams.price_candidates import Action
from streams.price_candidates import Candidate as Candidate
from streams.price_candidates import Expected as Expected
from streams.price_candidates import Resolution as Resolution
from streams.price_lines import I64, Line, LineKey, PriceLines, PriceRows, rounds
from streams.price_rules import (
    CERTAIN,
    RING,
    SMALLEST,
    Finding,
    Form,
    Kind,
    Known,
    PriceAlertConfig,
    convert,
    judge,
    judge_announced,
    quantile,
)
from streams.state import Record, pack, unpack

_KINDS: tuple[Kind, ...] = get_args(Kind)
_FORMS: tuple[Form, ...] = get_args(Form)
_EVIDENCE = 10  # last accepted prices shown: enough to see the level and its habit
_SAME_LEVEL = 2.0  # flagged prices on one side within this factor are one new level; a decimal shift on top is not
_STRAYS = 3  # other prices that a level which waits outlives: faults that someone corrects last one to three
_ESTABLISHED = 4  # times a level was seen before normal prices between do not end it: a line that flaps
_ANNOUNCED = 1.01  # a price within 1 % of an announced one is the announced one
_FAULTY = np.array([False, *(kind in CERTAIN for kind in _KINDS)])  # of the open alert: the price is hardly meant
_COUNTERS = ("older", "uncompared", "accepted_levels")


@dataclass(frozen=True, slots=True)
class LineContext:
    """What the engine knows of an item besides its prices.

    Attributes
    ----------
    unit_cost
        Cost of one unit, None where unknown.
    cost_currency
        Its code.
    units_per_day
        Forecast demand, None where there is no forecast.
    """

    unit_cost: float | None = None
    cost_currency: str = ""
    units_per_day: float | None = None


Context = Callable[[str, str], LineContext]
"""From (sku, location) to what is known; asked for unusual rows only."""


@dataclass(frozen=True, slots=True)
class _Row:
    """One published price."""

    key: LineKey
    price: float
    currency: str
    code: int
    promo: bool
    time_ms: int
    tick_ms: int
    event_id: str
    from_ms: int
    until_ms: int


class Judged(NamedTuple):
    """What came of the prices of one call.

    Attributes
    ----------
    slots
        Line of each row, -1 where it was refused, (N,).
    sound
        Rows that are the newest of their line and no certain fault: what is in force, or will be, (N,).
    candidates
        In the order of the rows.
    """

    slots: I64
    sound: npt.NDArray[np.bool_]
    candidates: list[Candidate]


class PriceAlerts:
    """Judge the published prices of one shard.

    Parameters
    ----------
    config
        Thresholds and exchange rates.
    max_lines
        Price lines held at most; prices of further ones are counted in `counters`.

    Examples
    --------
    >>> alerts = PriceAlerts(PriceAlertConfig(), 100)
    >>> prices = [9.99, 9.99, 9.99, 9.99, 9.99, 99.9, 9.99]
    >>> rows = PriceRows.of([("a", "default", "", p, "GBP", False, t, t, "", -1, -1) for t, p in enumerate(prices)])
    >>> [(c.action, c.kind, c.resolution) for c in alerts.process(rows, lambda sku, location: LineContext())]
    [('fire', 'decimal_shift', None), ('resolve', 'decimal_shift', 'corrected')]
    """

    def __init__(self, config: PriceAlertConfig, max_lines: int) -> None:
        self.config = config
        self.lines = PriceLines(config, max_lines)
        self._reach = config.reaches().tolist()
        self._codes: dict[str, int] = {}
        self._counts = dict.fromkeys(_COUNTERS, 0)
        self._written: dict[str, int] = self.counters

    @property
    def counters(self) -> dict[str, int]:
        """Count what was left out: refused (no slot), older (event time), uncompared (no exchange rate), …"""
        return {**self._counts, "refused": self.lines.refused}

    def process(self, rows: PriceRows, context: Context) -> list[Candidate]:
        """Judge prices and learn from the good ones; candidates come in the order of the rows.

        Parameters
        ----------
        rows
            In order of arrival.
        context
            Asked for (sku, location) of unusual rows.
        """
        return self.judge(rows, context).candidates

    def judge(self, rows: PriceRows, context: Context) -> Judged:
        """Do what `process` does, and say which prices are sound."""
        slots, sound = self.lines.slots(rows), np.zeros(len(rows), np.bool_)
        codes = np.array([self._code(code) for code in rows.currency], np.int64)
        found: dict[int, list[Candidate]] = {}
        for part in rounds(slots):
            sound[part] = rows.time_ms[part] >= self.lines.column("time_ms", slots[part])
            for index in self.lines.learn_plain(rows, slots, codes, part).tolist():
                found[index] = self._observe(int(slots[index]), _row(rows, codes, index), context)
            sound[part] &= ~_FAULTY[self.lines.column("open", slots[part])]
        return Judged(slots, sound, [candidate for index in sorted(found) for candidate in found[index]])

    def retire(self, sku: str, time_ms: int, tick_ms: int) -> list[Candidate]:
        """Forget an item's lines and free their slots; open alerts resolve as expired."""
        found = []
        for slot in sorted(self.lines.of_sku(sku), key=lambda slot: self.lines.key(slot) or ("", "", "")):
            line, key = self.lines.load(slot), self.lines.key(slot)
            if line.open and key is not None:
                row = _Row(key, 0.0, _text(line.currency), line.currency, False, time_ms, tick_ms, "", -1, -1)
                found.append(_resolve(line, row, "expired"))
            self.lines.release(slot)
        return found

    def changes(self) -> Iterator[Record]:
        """Yield the records that changed since the last call; their keys begin with ``lines/``."""
        yield from self.lines.changes()
        if (now := self.counters) != self._written:
            self._written = now
            yield "lines/counters", pack(now)

    def restore(self, key: str, value: bytes | None) -> None:
        """Take over one record of `changes`; the newest value of a key wins."""
        if key != "lines/counters":
            self.lines.restore(key, value)
            return
        counters = dict(unpack(key, value)) if value is not None else {}
        self.lines.refused = counters.pop("refused", 0)
        self._counts = {name: counters.get(name, 0) for name in _COUNTERS}
        self._written = self.counters

    def _code(self, currency: str) -> int:
        code = self._codes.get(currency)
        if code is None:
            code = self._codes[currency] = int.from_bytes(currency.encode()[:4], "big")
        return code

    def _observe(self, slot: int, row: _Row, context: Context) -> list[Candidate]:
        """Judge one row the long way and write the line back."""
        line = self.lines.load(slot)
        if row.time_ms < line.time_ms:
            self._counts["older"] += 1
            return []
        line.time_ms = row.time_ms
        announced = self._announcement(line, row)
        about = context(row.key[0], row.key[1])
        finding = self._judge(line, row, about, announced)
        found = self._normal(line, row, announced) if finding is None else self._flagged(line, row, about, finding)
        self.lines.store(slot, line)
        return found

    def _announcement(self, line: Line, row: _Row) -> Literal["", "promotion", "window", "level"]:
        """Say whether this price was announced, for a time or for good, and remember announcements with a window."""
        if row.price < SMALLEST:
            return ""
        later = row.from_ms > row.time_ms
        if row.until_ms >= 0 or later:
            line.announced, line.from_ms, line.until_ms = float(np.float32(row.price)), row.from_ms, row.until_ms
            return "window"
        if line.announced and 0 <= line.until_ms < row.time_ms:
            line.announced = 0.0
        if line.announced and row.time_ms >= line.from_ms and _apart(row.price, line.announced) <= _ANNOUNCED:
            return "level" if line.until_ms < 0 else "window"
        return "promotion" if row.promo else ""

    def _judge(self, line: Line, row: _Row, about: LineContext, announced: str) -> Finding | None:
        if row.price < SMALLEST:
            return Finding("zero_or_negative", "zero")
        if line.count and row.code != line.currency:
            return Finding("currency_mismatch", "currency")
        cost = self._cost(row.currency, about)
        if not line.count:
            return Finding("below_cost", "low") if cost is not None and row.price < cost and not announced else None
        level = line.pending[-1] if line.pending else None
        known = Known(line.accepted(), row.currency, self._reach[min(line.count, RING)], cost, level)
        if not announced:
            return judge(row.price, known, self.config)
        rise = known.reach if announced == "promotion" else self.config.deep
        return judge_announced(row.price, known, self.config, rise)

    def _cost(self, currency: str, about: LineContext) -> float | None:
        if about.unit_cost is None:
            return None
        cost = convert(about.unit_cost, about.cost_currency, currency, self.config.rates)
        self._counts["uncompared"] += cost is None
        return cost

    def _normal(self, line: Line, row: _Row, announced: str) -> list[Candidate]:
        """Take a price that nothing speaks against: it resolves what is open, and teaches unless it is a promotion."""
        found = [_resolve(line, row, "announced" if announced else "corrected")] if line.open else []
        line.open, line.faults, line.foreign = 0, 0, 0
        if len(line.pending) < _ESTABLISHED or line.strays >= _STRAYS:
            line.pending, line.strays, line.interrupted = [], 0, 0
        elif not announced:
            line.strays, line.interrupted = line.strays + 1, 1
        if announced == "level":
            line.take_level([row.price] * self.config.min_accepted)
            line.announced = 0.0
        elif not announced:
            line.currency = row.code
            line.learn(row.price)
        return found

    def _flagged(self, line: Line, row: _Row, about: LineContext, finding: Finding) -> list[Candidate]:
        """Open, continue or replace the line's alert, and accept a level that has persisted."""
        level = finding.form in ("high", "low")
        same_form = bool(line.open) and _FORMS[line.form] == finding.form
        continues = same_form and (not level or _near(row.price, line.flagged))
        before, waited = line.flagged, len(line.pending)
        belongs = self._remember(line, row, finding)
        if max(len(line.pending), line.foreign) >= self.config.accept_after:
            return self._accept(line, row)
        if belongs and waited and not continues:  # a fault on top of a level that waits is over; the level is known
            found = [_resolve(line, row, "corrected")] if line.open else []
            line.open, line.faults = 0, 0
            return found
        line.flagged = float(np.float32(row.price)) if level else 0.0
        if continues:
            line.faults = min(line.faults + 1, 0xFFFF)
            news = level and _apart(row.price, before) > self.config.update_step
            news = news or _KINDS[line.open - 1] != finding.kind
            line.open = _KINDS.index(finding.kind) + 1
            return [self._candidate("update", line, row, about, finding)] if news else []
        found = [_resolve(line, row, "corrected")] if line.open else []
        line.open, line.form = _KINDS.index(finding.kind) + 1, _FORMS.index(finding.form)
        line.faults, line.opened = 1, line.opened + 1
        return [*found, self._candidate("fire", line, row, about, finding)]

    def _remember(self, line: Line, row: _Row, finding: Finding) -> bool:
        """Note a flagged price; say whether it belongs to the level that waits.

        A level that was seen twice outlives up to three other faulty prices: then it comes back, or another one has
        begun. Zeros and other currencies leave it alone.
        """
        if finding.form == "currency":
            line.foreign += 1
        if finding.form in ("currency", "zero"):
            return False
        line.foreign = 0
        single = float(np.float32(row.price))
        if _waits(line, row.price, finding.form):
            line.pending, line.strays = [*line.pending, single], 0
            return True
        if len(line.pending) >= 2 and line.strays < _STRAYS:
            line.strays, line.interrupted = line.strays + 1, 1
            return False
        line.pending, line.strays, line.interrupted = [single], 0, 0
        return True

    def _accept(self, line: Line, row: _Row) -> list[Candidate]:
        """Take over a level, or a currency, that has persisted."""
        found = [_resolve(line, row, "accepted")] if line.open else []
        foreign = line.foreign >= self.config.accept_after
        if line.interrupted and not foreign:  # the old prices go on beside the new ones: the range covers both
            for price in line.pending:
                line.learn(price)
            line.pending, line.strays, line.interrupted = [], 0, 0
        else:
            line.take_level([row.price] * self.config.min_accepted if foreign else line.pending)
        line.currency = row.code
        line.open, line.faults, line.foreign = 0, 0, 0
        self._counts["accepted_levels"] += 1
        return found

    def _candidate(self, action: Action, line: Line, row: _Row, about: LineContext, finding: Finding) -> Candidate:
        accepted = line.accepted()
        expected, p_value, gap = None, None, None
        if accepted:
            expected, p_value, gap = self._against(line, row, accepted)
        units = None if about.units_per_day is None else about.units_per_day * self.config.exposure_days
        return Candidate(
            action, finding.kind, finding.form, *row.key, line.opened,
            row.price, row.currency, row.time_ms, row.event_id,
            expected=expected, p_value=p_value, units_at_risk=units,
            money_at_risk=None if gap is None or units is None else gap * units,
            money_currency=_text(line.currency), evidence=tuple(accepted[-_EVIDENCE:]),
            count=line.faults, tick_ms=row.tick_ms,
        )  # fmt: skip

    def _against(self, line: Line, row: _Row, accepted: list[float]) -> tuple[Expected, float, float | None]:
        """Compare a price with the accepted ones: range, p-value, and the money a unit is off."""
        ordered = sorted(accepted)
        middle = quantile(ordered, 0.5)
        expected = Expected(quantile(ordered, 0.01), middle, quantile(ordered, 0.99), "own_range", len(ordered))
        price = convert(row.price, row.currency, _text(line.currency), self.config.rates)
        if price is None:
            self._counts["uncompared"] += 1
            return expected, 1.0 / (len(ordered) + 1), None
        off = np.inf if price < SMALLEST else _apart(price, middle)
        p_value = (1 + sum(_apart(other, middle) >= off for other in ordered)) / (len(ordered) + 1)
        # too high a price sells nothing: what is lost is the sale, not the gap
        return expected, p_value, min(abs(price - middle), middle) if price > middle else middle - price


def _row(rows: PriceRows, codes: I64, index: int) -> _Row:
    return _Row(
        (rows.sku[index], rows.location[index], rows.channel[index]),
        rows.price[index].item(), rows.currency[index], codes[index].item(), rows.promo[index].item(),
        rows.time_ms[index].item(), rows.tick_ms[index].item(), rows.event_id[index],
        rows.from_ms[index].item(), rows.until_ms[index].item(),
    )  # fmt: skip


def _resolve(line: Line, row: _Row, resolution: Resolution) -> Candidate:
    return Candidate(
        "resolve", _KINDS[line.open - 1], _FORMS[line.form], *row.key, line.opened,
        row.price, row.currency, row.time_ms, row.event_id,
        count=line.faults, resolution=resolution, tick_ms=row.tick_ms,
    )  # fmt: skip


def _waits(line: Line, price: float, form: Form) -> bool:
    """Tell whether a flagged price belongs to the level that waits."""
    if not line.pending:
        return False
    side: Form = "high" if line.pending[-1] > max(line.ring) else "low"
    return (side == form or not line.count) and _near(price, line.pending[-1])


def _near(price: float, level: float) -> bool:
    return level > 0.0 and _apart(price, level) <= _SAME_LEVEL


def _apart(a: float, b: float) -> float:
    """Give the factor between two prices above 0, at least 1."""
    return max(a / b, b / a)


def _text(code: int) -> str:
    return code.to_bytes(4, "big").lstrip(b"\0").decode(errors="replace")
