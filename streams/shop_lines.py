"""Events of the shop in a box as lines of JSON, and the order in which they arrive.

In: columns of clicks, order lines and later events; prices, counts and descriptions of a day.
Out: encoded lines with event time; the lines of a day in the order of their arrival, some late, some twice.
Must not know: how demand, prices or stock come about. Rule: what leaves is what came in, repeats apart.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import orjson

from streams.shop_customers import Clicks, Followups, Lines
from streams.shop_items import Bools, Floats, Ints
from streams.shop_prices import CURRENCY, PriceMessages

BOUND_MS = 5 * 60_000
"""Nearly all flows arrive within the watermark's bound."""

LATENESS_MS = 2 * 3_600_000
"""Flows further behind the watermark than this are late: the truth names them."""

DUPLICATE_SHARE = 0.005
_SLOW_SHARE, _LATE_SHARE = 0.008, 0.0008
_LATE_MS = (LATENESS_MS + BOUND_MS + 30 * 60_000, 30 * 3_600_000)


@dataclass
class Encoded:
    """Encoded events and their event times."""

    lines: list[bytes]
    time_ms: Ints

    @classmethod
    def empty(cls) -> Encoded:
        """No events."""
        return cls([], np.zeros(0, np.int64))


def encode_clicks(kind: str, letter: str, day: int, clicks: Clicks, heads: list[list[str]]) -> Encoded:
    """Encode views or cart events; ``heads`` holds the sku and location of each series as JSON."""
    rows = zip(
        clicks.item.tolist(), clicks.place.tolist(), clicks.time_ms.tolist(), clicks.session.tolist(), strict=True
    )
    lines = [
        f'{{"type":"{kind}","event_id":"{letter}{day}-{n}","event_time":{ms},{heads[place][item]},'
        f'"session_id":"s{day}-{session}"}}'.encode()
        for n, (item, place, ms, session) in enumerate(rows)
    ]
    return Encoded(lines, clicks.time_ms)


def encode_orders(
    day: int, lines: Lines, served: Ints, prices: tuple[Floats, Floats], heads: list[list[str]]
) -> Encoded:
    """Encode the served order lines; ``prices`` are the web and the trade price per item."""
    there = served > 0
    sold = lines.take(there)
    price = np.where(sold.trade, prices[1][sold.item], prices[0][sold.item])
    rows = zip(
        np.flatnonzero(there).tolist(), sold.item.tolist(), sold.place.tolist(), sold.time_ms.tolist(),
        sold.order.tolist(), served[there].tolist(), price.tolist(), sold.trade.tolist(), strict=True,
    )  # fmt: skip
    encoded = [
        f'{{"type":"order_placed","event_id":"o{day}-{n}","event_time":{ms},{heads[place][item]},'
        f'"order_id":"{day}-{order}","quantity":{units},"unit_price":{paid},"currency":"{CURRENCY}",'
        f'"channel":"{"trade" if trade else "web"}"}}'.encode()
        for n, item, place, ms, order, units, paid, trade in rows
    ]
    return Encoded(encoded, sold.time_ms)


def encode_followups(kind: str, day: int, found: Followups, named: Bools, heads: list[list[str]]) -> Encoded:
    """Encode cancellations or returns; where ``named``, with the time of the order."""
    rows = zip(
        found.item.tolist(), found.place.tolist(), found.time_ms.tolist(), found.units.tolist(),
        found.order_day.tolist(), found.order.tolist(), found.original_ms.tolist(), named.tolist(), strict=True,
    )  # fmt: skip
    letter = "x" if kind == "order_cancelled" else "r"
    lines = [
        f'{{"type":"{kind}","event_id":"{letter}{day}-{n}","event_time":{ms},{heads[place][item]},'
        f'"order_id":"{of_day}-{order}","quantity":{units}'.encode()
        + (f',"original_time":{original}}}'.encode() if with_time else b"}")
        for n, (item, place, ms, units, of_day, order, original, with_time) in enumerate(rows)
    ]
    return Encoded(lines, found.time_ms)


def encode_prices(day: int, sent: PriceMessages, heads: list[str], channels: list[str]) -> Encoded:
    """Encode the price messages of a day; ``heads`` and ``channels`` are per price line."""
    lines = []
    rows = zip(sent.line, sent.time_ms, sent.price, sent.currency, sent.promo, sent.from_ms, sent.until_ms, strict=True)
    for n, (line, ms, price, currency, promo, from_ms, until_ms) in enumerate(rows):
        span = f',"effective_from":{from_ms},"effective_until":{until_ms}' if until_ms >= 0 else ""
        more = f'{span},"promo":true}}' if promo else f"{span}}}"
        lines.append(
            f'{{"type":"price_set","event_id":"{price_id(day, n)}","event_time":{ms},{heads[line]},"price":{price},'
            f'"currency":"{currency}","channel":"{channels[line]}"{more}'.encode()
        )
    return Encoded(lines, np.array(sent.time_ms, np.int64))


def price_id(day: int, place: int) -> str:
    """Event id of a price message by its place in the day."""
    return f"p{day}-{place}"


def encode_facts(kind: str, letter: str, day: int, time_ms: int, facts: Iterable[dict[str, object]]) -> Encoded:
    """Encode facts of one instant; each gives the fields beyond type, id and time."""
    lines = [
        orjson.dumps({"type": kind, "event_id": f"{letter}{day}-{n}", "event_time": time_ms, **fact})
        for n, fact in enumerate(facts)
    ]
    return Encoded(lines, np.full(len(lines), time_ms, np.int64))


@dataclass
class Arrived:
    """Lines in the order of arrival.

    Attributes
    ----------
    arrival_ms, time_ms
        When each line arrives, and its event time; same length as ``lines``.
    is_flow
        True for orders and clicks.
    """

    lines: list[bytes]
    arrival_ms: Ints
    time_ms: Ints
    is_flow: Bools


class Network:
    """Delays, repeats and reorders what the shop sends.

    Facts arrive at once. Of the flows nine in ten come within seconds, nearly all within `BOUND_MS`, a few hours late.

    Examples
    --------
    >>> network = Network(np.random.default_rng(1))
    >>> network.send(Encoded.empty(), Encoded([b"a", b"b"], np.array([900_000, 5])))
    >>> network.deliver(until_ms=100_000_000).lines
    [b'b', b'a']
    """

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng
        self._waiting = Arrived([], np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.bool_))
        self.duplicates = 0
        self.slow = 0

    def send(self, facts: Encoded, flows: Encoded) -> None:
        """Take the events of a day."""
        delay = self._delays(len(flows.lines))
        repeated = np.flatnonzero((self._rng.random(len(delay)) < DUPLICATE_SHARE) & (delay < BOUND_MS))
        again = self._rng.choice([15_000, 15_000, 15_000, 900_000], len(repeated)) * self._rng.exponential(
            1, len(repeated)
        )
        # A producer retries within minutes; a repeat never comes later than an hour and a half after the event.
        again_ms = np.minimum(delay[repeated] + 200 + again.astype(np.int64), 90 * 60_000)
        self.duplicates += len(repeated)
        self.slow += int(((delay > BOUND_MS) & (delay <= LATENESS_MS)).sum())
        held, none = self._waiting, np.zeros(len(facts.lines), np.int64)
        time_ms = np.concatenate([facts.time_ms, held.time_ms, flows.time_ms, flows.time_ms[repeated]])
        waited = np.concatenate([none, held.arrival_ms - held.time_ms, delay, again_ms])
        is_flow = np.concatenate([none > 0, held.is_flow, np.ones(len(delay) + len(repeated), np.bool_)])
        lines = facts.lines + held.lines + flows.lines + [flows.lines[n] for n in repeated.tolist()]
        self._waiting = Arrived(lines, time_ms + waited, time_ms, is_flow)

    def _delays(self, count: int) -> Ints:
        rng = self._rng
        kind = rng.random(count)
        delay = np.minimum(rng.exponential(np.where(kind < 0.9, 2_000, 50_000)), BOUND_MS - 10_000)
        slow = (kind > 1 - _SLOW_SHARE) & (kind <= 1 - _LATE_SHARE)
        delay[slow] = rng.uniform(BOUND_MS + 1000, LATENESS_MS - 1000, int(slow.sum()))
        late = kind > 1 - _LATE_SHARE
        delay[late] = rng.uniform(*_LATE_MS, int(late.sum()))
        return delay.astype(np.int64)

    def deliver(self, until_ms: int | None = None) -> Arrived:
        """Hand over what arrives before an instant, or all that is under way."""
        held = self._waiting
        order = np.argsort(held.arrival_ms, kind="stable")
        count = len(order) if until_ms is None else int(np.searchsorted(held.arrival_ms[order], until_ms))
        self._waiting = Network._of(held, order[count:])
        return Network._of(held, order[:count])

    @staticmethod
    def _of(held: Arrived, rows: Ints) -> Arrived:
        lines = [held.lines[n] for n in rows.tolist()]
        return Arrived(lines, held.arrival_ms[rows], held.time_ms[rows], held.is_flow[rows])
