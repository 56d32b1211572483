"""Prices of the shop in a box: the nightly list, promotions planned ahead, and faults with their truth.

In: the catalogue, a generator of random numbers, days in order.
Out: per day the prices in force and the ``price_set`` messages, the faulty ones included; truth about both.
Must not know: demand, stock, encoding. Rule: a fault changes what is published, never what customers pay.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from streams.shop_items import Bools, Floats, Ints, Items

StartOf = Callable[[int], int]
"""Begin of a day of the run, epoch ms."""

Span = tuple[int, int] | None

CURRENCY = "GBP"
TRADE_FACTOR = 0.82
FEED_LINES = 30
"""A feed fault hits at least so many lines: fewer are single faults to the contract of alerts."""

_PROMO_PER_DAY = 0.004  # an item is on promotion about three weeks in a hundred
_CHANGE_PER_DAY = 0.003  # a regular price holds for about a year
_QUIET_DAYS = 14  # no faults before lines have a history
_FEED_WAIT_DAYS = (25, 60)  # from one fault of the whole feed to the next
_FORMS = ("x10", "div10", "x100", "zero", "negative", "placeholder", "currency")
_FEED_FORMS = ("x10", "div10", "zero", "currency", "half")
_OTHER_CURRENCIES = ("USD", "EUR", "SEK")


@dataclass
class PriceMessages:
    """Prices published on one day, an entry per message; ``from_ms``/``until_ms`` -1 where absent."""

    line: list[int] = field(default_factory=list)
    time_ms: list[int] = field(default_factory=list)
    price: list[float] = field(default_factory=list)
    currency: list[str] = field(default_factory=list)
    promo: list[bool] = field(default_factory=list)
    from_ms: list[int] = field(default_factory=list)
    until_ms: list[int] = field(default_factory=list)

    def add(
        self, line: int, time_ms: int, price: float, *, currency: str = CURRENCY, promo: bool = False, span: Span = None
    ) -> int:
        """Add a message; gives its place in the day."""
        self.line.append(line)
        self.time_ms.append(time_ms)
        self.price.append(price)
        self.currency.append(currency)
        self.promo.append(promo)
        self.from_ms.append(span[0] if span else -1)
        self.until_ms.append(span[1] if span else -1)
        return len(self.line) - 1


@dataclass
class Fault:
    """Lines that were published wrongly alike; ``messages`` are (day, place in the day) of the first and last."""

    form: str
    kind: str
    lines: list[int]
    days_left: int
    factor: float = 1.0
    currency: str = CURRENCY
    first: dict[int, tuple[int, int]] = field(default_factory=dict)
    last: dict[int, tuple[int, int]] = field(default_factory=dict)
    corrected: dict[int, tuple[int, int]] = field(default_factory=dict)


@dataclass(frozen=True)
class Promotion:
    """A lower web price of one item from the first to the last day, announced ahead."""

    item: int
    discount: float
    announced_day: int
    first_day: int
    last_day: int


class Prices:
    """Regular prices, promotions and faults of every price line, day by day.

    A line is an item at a location and channel: web for all, trade for some. Lines are numbered location by location.

    Examples
    --------
    >>> from streams.shop_items import draw_items
    >>> rng = np.random.default_rng(1)
    >>> prices = Prices(draw_items(20, rng, days=30), ("default",), rng, fault_rate=0.0)
    >>> sent = prices.publish(0, lambda day: day * 86_400_000, np.ones(20, bool), list(range(20)))
    >>> len(sent.line) == len(prices.item)
    True
    """

    def __init__(
        self, items: Items, locations: tuple[str, ...], rng: np.random.Generator, *, fault_rate: float
    ) -> None:
        self.items = items
        self._rng = rng
        self._fault_rate = fault_rate
        own = [(i, "web") for i in range(len(items))] + [(i, "trade") for i in np.flatnonzero(items.has_trade).tolist()]
        self.item: Ints = np.array([i for _ in locations for i, _ in own], np.int64)
        self.channel = [channel for _ in locations for _, channel in own]
        self.location = [place for place in locations for _ in own]
        self._trade = np.array([channel == "trade" for channel in self.channel], np.bool_)
        self.regular: Floats = items.price.copy()
        self.discount: Floats = np.zeros(len(items))
        self.planned: list[Promotion] = []
        self.faults: list[Fault] = []
        self.ended: list[Fault] = []
        self._wrong: dict[int, Fault] = {}
        self._feed_day = int(rng.integers(_QUIET_DAYS, 40))

    def web(self) -> Floats:
        """Web price in force per item, promotions included."""
        return np.asarray(np.round(self.regular * (1 - self.discount), 2))

    def trade(self) -> Floats:
        """Trade price per item, without promotions."""
        return np.asarray(np.round(self.regular * TRADE_FACTOR, 2))

    def publish(self, day: int, start_ms: StartOf, on_sale: Bools, new: list[int]) -> PriceMessages:
        """Change prices for a day and give what the shop's feed says about it.

        Parameters
        ----------
        start_ms
            Begin of a day, epoch ms.
        on_sale
            Items on sale, shape (items,).
        new
            Items on sale for the first time: their prices come with the first instant of the day.
        """
        out = PriceMessages()
        fresh = np.isin(self.item, new)
        for line in np.flatnonzero(fresh).tolist():
            out.add(line, start_ms(day) + 2, self._price(line))
        changed = self._move_regular(day, on_sale, new)
        changed |= self._run_promotions(day, start_ms, on_sale, new)
        due = np.isin(self.item, sorted(changed)) | (np.arange(len(self.item)) % 7 == day % 7)
        batch = np.flatnonzero((due | self._faulty()) & on_sale[self.item] & ~fresh)
        batch = np.union1d(batch, self._new_faults(day, on_sale, batch))
        self._nightly(day, start_ms, self._rng.permutation(batch).tolist(), out)
        return out

    def _price(self, line: int) -> float:
        item = int(self.item[line])
        if self._trade[line]:
            return round(float(self.regular[item]) * TRADE_FACTOR, 2)
        return round(float(self.regular[item]) * (1 - float(self.discount[item])), 2)

    def _faulty(self) -> Bools:
        mask = np.zeros(len(self.item), np.bool_)
        mask[list(self._wrong)] = True
        return mask

    def _move_regular(self, day: int, on_sale: Bools, new: list[int]) -> set[int]:
        """Let a few regular prices change for good, mostly upwards."""
        moves = np.flatnonzero((self._rng.random(len(self.items)) < _CHANGE_PER_DAY) & on_sale & (self.discount == 0))
        steps = 1 + np.where(self._rng.random(len(moves)) < 0.7, 1, -1) * self._rng.uniform(0.03, 0.14, len(moves))
        keep = ~np.isin(moves, [*new, *(promotion.item for promotion in self.planned)])
        self.regular[moves[keep]] = np.round(self.regular[moves[keep]] * steps[keep], 2)
        return set(moves[keep].tolist())

    def _run_promotions(self, day: int, start_ms: StartOf, on_sale: Bools, new: list[int]) -> set[int]:
        """Plan promotions some days ahead, begin and end those that are due; gives the items whose price changed."""
        busy = {promotion.item for promotion in self.planned} | set(new)
        drawn = np.flatnonzero((self._rng.random(len(self.items)) < _PROMO_PER_DAY) & on_sale).tolist()
        ahead, long = self._rng.integers(3, 11, len(drawn)), self._rng.integers(3, 10, len(drawn))
        discounts = self._rng.choice([0.1, 0.15, 0.2, 0.25, 0.3, 0.4], len(drawn))
        for item, wait, length, discount in zip(drawn, ahead.tolist(), long.tolist(), discounts.tolist(), strict=True):
            if item not in busy:
                first = day + wait
                self.planned.append(Promotion(item, discount, day, first, first + length - 1))
        changed = {p.item for p in self.planned if p.first_day == day or p.last_day + 1 == day}
        for promotion in self.planned:
            if promotion.first_day == day:
                self.discount[promotion.item] = promotion.discount
            elif promotion.last_day + 1 == day:
                self.discount[promotion.item] = 0.0
        self.planned = [p for p in self.planned if p.last_day >= day]
        return changed

    def _new_faults(self, day: int, on_sale: Bools, batch: Ints) -> Ints:
        """Start single faults on free lines, and once in a while one on many lines of the nightly list."""
        rng = self._rng
        free = on_sale[self.item] & ~self._faulty() & (self.discount[self.item] == 0)
        single = np.flatnonzero(free & (rng.random(len(self.item)) < self._fault_rate))
        feed = day >= self._feed_day and self._fault_rate > 0
        if day < _QUIET_DAYS:
            return batch[:0]
        for line in single.tolist():
            self._start(Fault(str(rng.choice(_FORMS)), "single", [line], int(rng.choice([1, 1, 2, 3]))))
        pool = np.setdiff1d(np.flatnonzero(free), single)
        size = int(max(FEED_LINES, len(pool) * rng.uniform(0.1, 0.5)))
        if feed and size <= len(pool):
            self._feed_day = day + int(rng.integers(*_FEED_WAIT_DAYS))
            lines = np.sort(rng.choice(pool, size, replace=False)).tolist()
            self._start(Fault(str(rng.choice(_FEED_FORMS)), "feed", lines, 1))
            return np.union1d(single, lines)
        return single

    def _start(self, fault: Fault) -> None:
        fault.factor = {"x10": 10.0, "div10": 0.1, "x100": 100.0, "half": 0.5, "zero": 0.0, "negative": -1.0}.get(
            fault.form, 1.0
        )
        if fault.form == "currency":
            fault.currency = str(self._rng.choice(_OTHER_CURRENCIES))
        self.faults.append(fault)
        self._wrong.update(dict.fromkeys(fault.lines, fault))

    def _nightly(self, day: int, start_ms: StartOf, lines: list[int], out: PriceMessages) -> None:
        """Write the list of the night at 05:00 UTC and the announcements of new promotions with it, 20 ms apart."""
        at_ms = start_ms(day) // 86_400_000 * 86_400_000 + 5 * 3_600_000
        at_ms += 86_400_000 if at_ms < start_ms(day) else 0
        spans = {p.item: (start_ms(p.first_day), start_ms(p.last_day + 1)) for p in self.planned}
        for place, line in enumerate(lines):
            item, fault = int(self.item[line]), self._wrong.get(line)
            time_ms = at_ms + 20 * place
            if fault is not None and fault.days_left > 0:
                wrong = 9999.99 if fault.form == "placeholder" else round(self._price(line) * fault.factor, 2)
                sent = out.add(line, time_ms, wrong, currency=fault.currency)
                fault.first.setdefault(line, (day, sent))
                fault.last[line] = (day, sent)
                continue
            promoted = self.discount[item] > 0 and not self._trade[line]
            sent = out.add(line, time_ms, self._price(line), promo=promoted, span=spans[item] if promoted else None)
            if fault is not None:
                fault.corrected[line] = (day, sent)
                del self._wrong[line]
        self._announce(day, at_ms + 20 * len(lines), spans, out)
        for fault in self.faults:
            fault.days_left -= 1
        self.ended = [fault for fault in self.faults if fault.days_left < 0]
        for line in (line for fault in self.ended for line in fault.lines):
            self._wrong.pop(line, None)  # the item left the shop before its price was put right
        self.faults = [fault for fault in self.faults if fault.days_left >= 0]

    def _announce(self, day: int, at_ms: int, spans: dict[int, tuple[int, int]], out: PriceMessages) -> None:
        """Announce the promotions planned today, on the web lines of their items."""
        today = {p.item: p for p in self.planned if p.announced_day == day}
        if not today:
            return
        lines = np.flatnonzero(np.isin(self.item, sorted(today)) & ~self._trade).tolist()
        for place, line in enumerate(lines):
            item = int(self.item[line])
            price = round(float(self.regular[item]) * (1 - today[item].discount), 2)
            out.add(line, at_ms + 20 * place, price, promo=True, span=spans[item])
