"""The shop in a box: a whole seeded shop that lives day by day and reports itself as events.

In: how many items, a seed, the first day.
Out: per day the records in the order of their arrival, and the truth that no record tells.
Must not know: files, the engine, clocks. Rule: the same settings give the same bytes; days come in order.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import date

import numpy as np
import orjson

from streams.shop_customers import Clicks, Customers, Followups, Lines
from streams.shop_days import ANNOUNCED_DAYS, START, Days
from streams.shop_items import CATEGORIES, Bools, Floats, Ints, draw_items
from streams.shop_lines import (
    BOUND_MS,
    LATENESS_MS,
    Arrived,
    Encoded,
    Network,
    encode_clicks,
    encode_facts,
    encode_followups,
    encode_orders,
    encode_prices,
    price_id,
)
from streams.shop_prices import CURRENCY, Fault, PriceMessages, Prices
from streams.shop_stock import Stock

TIME_ZONE = "Europe/London"
PLACES = {1: ("default",), 2: ("london", "leeds"), 3: ("london", "leeds", "bristol")}
"""Names of the locations by their number; the first has the largest part of the demand."""

FAULT_RATE = 0.0004
"""Price faults per price line and day: one a fortnight in a shop of 200 items."""

_REVIEWS = (
    ("Broke after a week, very disappointed.", "Not as pictured."),
    ("Arrived late and the colour is off.", "Smaller than I thought."),
    ("It does what it should.", "Fine for the price."),
    ("Lovely quality, a little dear.", "Good, would buy again."),
    ("Perfect gift, beautifully wrapped!", "Even nicer than in the picture."),
)
_NAMED_ORIGINALS = 0.85  # cancellations that say when the order was placed
_DRIFT = 0.012  # daily step of an item's own trend, in logs


class ShopError(ValueError):
    """The shop cannot be built or driven like this; the message says what is allowed."""


class Shop:
    """A simulated shop.

    Parameters
    ----------
    items
        Items in the catalogue, those included that are launched later.
    seed
        Of every draw.
    days
        Length of the run that launches are spread over; days beyond it are possible.
    locations
        1, 2 or 3.
    start
        Date of day 0.
    fault_rate
        Price faults per price line and day; 0 also turns feed faults off.

    Attributes
    ----------
    truth
        Lines of JSON on the day last asked for: demand, stock-outs, faults, promotions, launches, late events.
    arrival_ms
        When each record of that day arrives, epoch ms, never falling.
    counts
        Events by type and truth counters since the start.

    Examples
    --------
    >>> shop = Shop(20, seed=1, days=30)
    >>> records = shop.day(0)
    >>> orjson.loads(records[0])["type"], len(records) == len(shop.arrival_ms)
    ('item_described', True)
    """

    def __init__(
        self,
        items: int,
        seed: int,
        *,
        days: int = 365,
        locations: int = 1,
        start: date = START,
        fault_rate: float = FAULT_RATE,
    ) -> None:
        if items < 1 or days < 1 or seed < 0:
            raise ShopError(f"{items} items, {days} days, seed {seed}: items and days begin at 1, seeds at 0")
        if locations not in PLACES:
            raise ShopError(f"{locations} locations: 1, 2 or 3 are possible")
        if not 0 <= fault_rate <= 0.1:
            raise ShopError(f"fault rate {fault_rate}: between 0 and 0.1 per price line and day")
        # One stream of random numbers per concern, so that more faults do not change who buys what.
        rngs = [np.random.default_rng([seed, n]) for n in range(6)]
        self.places = PLACES[locations]
        self.items = draw_items(items, rngs[0], days=days)
        self.calendar = Days(start, TIME_ZONE, seed)
        self._shares: Floats = np.array([1.0, 0.6, 0.4][:locations]) / sum([1.0, 0.6, 0.4][:locations])
        self._prices = Prices(self.items, self.places, rngs[1], fault_rate=fault_rate)
        self._stock = Stock(self.items, self._shares, rngs[2])
        self._customers = Customers(self.items, self.calendar, rngs[3])
        self._network = Network(rngs[4])
        self._rng = rngs[5]
        self._trend: Floats = np.zeros(items)
        self._next = 0
        self._newest_ms = 0
        self._heads = [[self._head(sku, place) for sku in self.items.sku] for place in self.places]
        self._line_heads = [
            self._heads[self.places.index(place)][item]
            for place, item in zip(self._prices.location, self._prices.item.tolist(), strict=True)
        ]
        self.truth: list[bytes] = []
        self.arrival_ms: Ints = np.zeros(0, np.int64)
        self.counts: Counter[str] = Counter()

    @staticmethod
    def _head(sku: str, place: str) -> str:
        where = "" if place == "default" else f',"location":"{place}"'
        return f'"sku":"{sku}"{where}'

    def day(self, day: int) -> list[bytes]:
        """Live through one day and give its records in the order of arrival.

        Raises
        ------
        ShopError
            If it is not the next day.
        """
        if day != self._next:
            raise ShopError(f"day {day} asked, day {self._next} is next: a shop lives its days in order")
        self._next += 1
        self.truth = []
        items = self.items
        on_sale: Bools = (items.launch_day <= day) & ((items.retire_day < 0) | (items.retire_day >= day))
        new = np.flatnonzero(on_sale & ((items.launch_day == day) | (day == 0))).tolist()
        self._stock.open(day, on_sale)
        sent = self._prices.publish(day, self.calendar.start_ms, on_sale, new)
        facts = list(self._facts(day, on_sale, new))  # before anything is sold
        flows, reviews = self._flows(day, on_sale)
        facts += [reviews, encode_prices(day, sent, self._line_heads, self._prices.channel)]
        self.counts["price_set"] += len(sent.line)
        self._tell_prices(day, sent)
        self._network.send(_joined(facts), _joined(flows))
        return self._deliver(self._network.deliver(self.calendar.start_ms(day + 1)))

    def rest(self) -> list[bytes]:
        """Give what is still under way after the last day, and the truth about faults that are not over."""
        self.truth = []
        for fault in [*self._prices.faults]:
            self._tell_fault(fault)
        return self._deliver(self._network.deliver())

    # -- facts of the night

    def _facts(self, day: int, on_sale: Bools, new: list[int]) -> Iterator[Encoded]:
        start_ms = self.calendar.start_ms(day)
        yield self._count("item_described", "d", day, start_ms, [self._described(item) for item in new])
        gone = np.flatnonzero(self.items.retire_day == day - 1).tolist() if day else []
        yield self._count("item_retired", "g", day, start_ms, [{"sku": self.items.sku[item]} for item in gone])
        announced = range(ANNOUNCED_DAYS + 1) if day == 0 else [day + ANNOUNCED_DAYS]
        special = [(when, found) for when in announced if (found := self.calendar.special(when))]
        yield self._count("day_described", "c", day, start_ms, [
            {"date": self.calendar.date(when).isoformat(), "name": found.name, "kind": found.kind, "open": found.open}
            for when, found in special
        ])  # fmt: skip
        yield self._count("stock_counted", "k", day, start_ms, self._counted(on_sale))
        if day % 7 == 3:
            yield self._count("competitor_price_set", "b", day, start_ms + 6 * 3_600_000, self._competitors(on_sale))
        for item in (item for item in new if day):
            self._tell("launch", day, sku=self.items.sku[item], replaces=self._replaces(item))

    def _count(self, kind: str, letter: str, day: int, ms: int, facts: list[dict[str, object]]) -> Encoded:
        self.counts[kind] += len(facts)
        return encode_facts(kind, letter, day, ms, facts)

    def _replaces(self, item: int) -> str | None:
        old = int(self.items.successor_of[item])
        return self.items.sku[old] if old >= 0 else None

    def _described(self, item: int) -> dict[str, object]:
        items = self.items
        mean, p90 = self._stock.lead_time(item)
        placement = {
            "lead_time_days": {"mean": mean, "p90": p90},
            "moq": int(items.moq[item]),
            "pack_size": int(items.pack[item]),
        }
        fact: dict[str, object] = {
            "sku": items.sku[item],
            "title": items.title[item],
            "description": items.description[item],
            "category": CATEGORIES[int(items.category[item])].name,
            "brand": items.brand[item],
            "unit_cost": float(items.cost[item]),
            "cost_currency": CURRENCY,
            "supplier_id": items.supplier[item],
            "locations": dict.fromkeys(self.places, placement),
        }
        replaces = self._replaces(item)
        return fact | {"replaces": replaces} if replaces else fact

    def _counted(self, on_sale: Bools) -> list[dict[str, object]]:
        stock, facts = self._stock, []
        for place, name in enumerate(self.places):
            for item in np.flatnonzero(on_sale).tolist():
                fact: dict[str, object] = {"sku": self.items.sku[item]}
                if name != "default":
                    fact["location"] = name
                fact["on_hand"] = int(stock.on_hand[item, place])
                orders = stock.arrivals.get((item, place))
                if orders:
                    fact["on_order"] = int(stock.on_order[item, place])
                    fact["arrivals"] = [{"quantity": q, "due": self.calendar.start_ms(due)} for q, due in orders]
                facts.append(fact)
        return facts

    def _competitors(self, on_sale: Bools) -> list[dict[str, object]]:
        seen = np.flatnonzero(on_sale & (self._rng.random(len(self.items)) < 0.1))
        prices = np.round(self.items.price[seen] * self._rng.normal(1.02, 0.08, len(seen)), 2)
        return [
            {"sku": self.items.sku[item], "price": max(price, 0.5), "currency": CURRENCY, "competitor": "rival.example"}
            for item, price in zip(seen.tolist(), prices.tolist(), strict=True)
        ]

    # -- flows of the day

    def _flows(self, day: int, on_sale: Bools) -> tuple[list[Encoded], Encoded]:
        expected = self._expected(day, on_sale)
        views, carts, removed, lines = self._customers.visit(day, expected)
        lines = lines.take(on_sale[lines.item])  # a cart that waited may hold an item that has left the shop
        served = self._stock.sell(lines.item, lines.place, lines.units)
        self._customers.settle(day, lines, served)
        self._close(day, lines, served, on_sale)
        cancelled, returned = (self._customers.followups(day, name) for name in ("cancelled", "returned"))
        np.add.at(self._stock.on_hand, (cancelled.item, cancelled.place), cancelled.units)
        self.counts["cancelled_units"] += int(cancelled.units.sum())
        named = self._rng.random(len(cancelled)) < _NAMED_ORIGINALS
        prices = (self._prices.web(), self._prices.trade())
        clicks: tuple[tuple[str, str, Clicks], ...] = (
            ("item_viewed", "v", views), ("cart_added", "a", carts), ("cart_removed", "m", removed),
        )  # fmt: skip
        flows = [encode_clicks(kind, letter, day, found, self._heads) for kind, letter, found in clicks]
        flows.append(encode_orders(day, lines, served, prices, self._heads))
        flows.append(encode_followups("order_cancelled", day, cancelled, named, self._heads))
        flows.append(encode_followups("order_returned", day, returned, np.zeros(len(returned), np.bool_), self._heads))
        kinds = (*(kind for kind, _, _ in clicks), "order_placed", "order_cancelled", "order_returned")
        for kind, encoded in zip(kinds, flows, strict=True):
            self.counts[kind] += len(encoded.lines)
        return flows, self._reviews(day, self._customers.followups(day, "reviewed"))

    def _expected(self, day: int, on_sale: Bools) -> Floats:
        """Mean order lines of each item and location on a day."""
        items = self.items
        self._trend = 0.997 * self._trend + self._rng.normal(0, _DRIFT, len(items))
        age = day - items.launch_day
        known = np.where(items.launch_day < 0, 1.0, np.minimum(1.0, 0.3 + age / 20))
        lift = (1 - self._prices.discount) ** -items.elasticity * np.where(self._prices.discount > 0, 1.1, 1.0)
        level = items.lines_per_day * known * lift * np.exp(self._trend) * self.calendar.factors(day)[items.category]
        level *= on_sale * self._rng.lognormal(0, 0.06)
        return np.asarray(level[:, None] * self._shares[None, :])

    def _close(self, day: int, lines: Lines, served: Ints, on_sale: Bools) -> None:
        """Sum up the day for the shop's own planning and for the truth."""
        wanted, sold = np.zeros((2, len(self.items), len(self.places)), np.int64)
        np.add.at(wanted, (lines.item, lines.place), lines.units)
        np.add.at(sold, (lines.item, lines.place), served)
        self._stock.close(sold, sold < wanted, on_sale)
        self.counts["wanted_units"] += int(wanted.sum())
        self.counts["sold_units"] += int(sold.sum())
        for item, place in np.argwhere(wanted).tolist():
            want, got = int(wanted[item, place]), int(sold[item, place])
            series = {"sku": self.items.sku[item], "location": self.places[place]}
            self._tell("demand", day, **series, wanted=want, sold=got)
            if got < want:
                self._tell("stock_out", day, **series, lost=want - got)
                self.counts["stock_outs"] += 1

    def _reviews(self, day: int, found: Followups) -> Encoded:
        rating = np.clip(np.round(self._rng.normal(self.items.rating[found.item], 0.9)), 1, 5).astype(np.int64)
        text = self._rng.integers(0, 2, len(found))
        rows = zip(found.item.tolist(), found.place.tolist(), rating.tolist(), text.tolist(), strict=True)
        lines = [
            f'{{"type":"review_posted","event_id":"w{day}-{n}","event_time":{ms},{self._heads[place][item]},'
            f'"rating":{stars},"text":"{_REVIEWS[stars - 1][which]}"}}'.encode()
            for n, ((item, place, stars, which), ms) in enumerate(zip(rows, found.time_ms.tolist(), strict=True))
        ]
        self.counts["review_posted"] += len(lines)
        return Encoded(lines, found.time_ms)

    # -- truth and arrival

    def _tell(self, kind: str, day: int, **facts: object) -> None:
        self.truth.append(orjson.dumps({"kind": kind, "date": self.calendar.date(day).isoformat(), **facts}))

    def _tell_prices(self, day: int, sent: PriceMessages) -> None:
        for promotion in (p for p in self._prices.planned if p.announced_day == day):
            dates = [self.calendar.date(d).isoformat() for d in (promotion.first_day, promotion.last_day)]
            self._tell("promotion", day, sku=self.items.sku[promotion.item], discount=promotion.discount,
                       first_date=dates[0], last_date=dates[1])  # fmt: skip
            self.counts["promotions"] += 1
        for fault in self._prices.ended:
            self._tell_fault(fault)

    def _tell_fault(self, fault: Fault) -> None:
        prices = self._prices
        lines = [
            {
                "sku": self.items.sku[int(prices.item[line])], "location": prices.location[line],
                "channel": prices.channel[line], "first_event_id": price_id(*fault.first[line]),
                "last_event_id": price_id(*fault.last[line]),
                "corrected_event_id": price_id(*fault.corrected[line]) if line in fault.corrected else None,
            }
            for line in fault.lines if line in fault.first
        ]  # fmt: skip
        if lines:
            day = min(first for first, _ in fault.first.values())
            self._tell("fault", day, form=fault.form, scope=fault.kind, lines=lines)
            self.counts[f"{fault.kind}_faults"] += 1

    def _deliver(self, arrived: Arrived) -> list[bytes]:
        """Note the late events of a delivery, and whether the day they belong to was final when they came."""
        self.arrival_ms = arrived.arrival_ms
        flows_ms = np.where(arrived.is_flow, arrived.time_ms, 0)
        newest_ms = np.maximum.accumulate(np.concatenate([[self._newest_ms], flows_ms]))
        self._newest_ms = int(newest_ms[-1])
        watermark_ms = newest_ms[:-1] - BOUND_MS  # when each event comes
        rows = np.flatnonzero(arrived.is_flow & (arrived.time_ms < watermark_ms - LATENESS_MS))
        ends_ms = self.calendar.bucket_ends_ms(arrived.time_ms[rows])
        final = watermark_ms[rows] >= ends_ms + LATENESS_MS
        for row, is_final in zip(rows.tolist(), final.tolist(), strict=True):
            event = orjson.loads(arrived.lines[row])
            self.truth.append(orjson.dumps({
                "kind": "late", "event_id": event["event_id"], "type": event["type"], "event_time": event["event_time"],
                "arrival": int(arrived.arrival_ms[row]), "day_was_final": is_final,
            }))  # fmt: skip
        self.counts["late"] += len(rows)
        self.counts["late_for_their_day"] += int(final.sum())
        self.counts["duplicates"], self.counts["slow"] = self._network.duplicates, self._network.slow
        return arrived.lines


def _joined(parts: list[Encoded]) -> Encoded:
    return Encoded([line for part in parts for line in part.lines], np.concatenate([part.time_ms for part in parts]))
