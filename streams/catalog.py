"""Facts about items: what they are, what they cost, what they are listed at.

In: catalog and price events, in order of arrival. Out: category groups, unit costs, listed prices.
Must not know: forecasts, decisions. Rule: of one fact the newest event time wins.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from streams.planned_prices import Plan, PlannedPrices
from streams.series import SeriesMap
from streams.state import Fields, Record, Table, pack, unpack

F32 = npt.NDArray[np.float32]
I64 = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Slots = npt.NDArray[np.integer[Any]]
FOREVER_MS = 1 << 62

_LISTED: Fields = {
    "price": (np.float32, ()),
    "time_ms": (np.int64, ()),  # 0: never listed
    "until_ms": (np.int64, ()),
    "promo": (np.uint8, ()),
    "channel": (np.uint16, ()),
    "before": (np.float32, ()),  # the price before
    "before_until_ms": (np.int64, ()),  # end of its promotion, 0: it was none
}


class Item(msgspec.Struct, frozen=True, array_like=True):
    """What the catalog says of one SKU; descriptions stay in the topic, only what decisions read is kept."""

    described_ms: int
    title: str
    category: str
    brand: str
    unit_cost: float | None
    cost_currency: str
    supplier: str
    replaces: str


class Catalog:
    """Items by SKU, and the categories they fall into.

    Examples
    --------
    >>> catalog = Catalog()
    >>> catalog.describe("mug", Item(1, "A mug", "kitchen", "", 2.5, "GBP", "", ""))
    True
    >>> catalog.group("mug"), catalog.group("unknown")
    (0, -1)
    """

    def __init__(self) -> None:
        self.items: dict[str, Item] = {}
        self.groups: dict[str, int] = {}
        self._changed: dict[str, None] = {}
        self._groups_written = 0

    def describe(self, sku: str, item: Item) -> bool:
        """Take over a description; False where a newer one is known."""
        known = self.items.get(sku)
        if known is not None and known.described_ms > item.described_ms:
            return False
        self.items[sku] = item
        if item.category:
            self.groups.setdefault(item.category, len(self.groups))
        self._changed[sku] = None
        return True

    def retire(self, sku: str) -> None:
        """Forget an item."""
        if self.items.pop(sku, None) is not None:
            self._changed[sku] = None

    def group(self, sku: str) -> int:
        """Index of the item's category, -1 where none is known."""
        item = self.items.get(sku)
        return self.groups.get(item.category, -1) if item is not None else -1

    def changes(self) -> Iterator[Record]:
        """Yield a record per item that changed, and the categories when there are new ones."""
        if len(self.groups) != self._groups_written:
            self._groups_written = len(self.groups)
            yield "groups/all", pack(list(self.groups))
        for sku in self._changed:
            item = self.items.get(sku)
            yield f"catalog/{sku}", None if item is None else pack(item)
        self._changed.clear()

    def restore(self, key: str, value: bytes | None) -> None:
        """Take over one record."""
        kind, _, sku = key.partition("/")
        if value is None:
            self.items.pop(sku, None)
        elif kind == "groups":
            self.groups = {name: i for i, name in enumerate(unpack(key, value))}
            self._groups_written = len(self.groups)
        else:
            self.items[sku] = msgspec.convert(unpack(key, value), Item)


class ListedPrices:
    """The price a series is listed at: of the channel that priced it first, for channels differ in level.

    The price before the newest is kept too: a bucket closes minutes after its end, and a price of those minutes, such
    as every price that changes at midnight, is none of its own. Of prices
    announced ahead the last is kept (`streams.planned_prices`).

    Examples
    --------
    >>> listed = ListedPrices(10)
    >>> listed.set(3, "web", 9.5, time_ms=1000, promo=True)
    True
    >>> listed.set(3, "trade", 5.0, time_ms=2000)  # another channel
    False
    >>> row = np.array([3])
    >>> listed.price(row, 1500).tolist(), listed.price(row, 999).tolist(), listed.on_promotion(row, 1500).tolist()
    ([9.5], [0.0], [True])
    >>> listed.plan(3, "web", 7.5, time_ms=1600, from_ms=3000, until_ms=5000, promo=True)
    True
    >>> price, promo = listed.ahead(row, np.array([2000, 4000, 6000]))
    >>> price.tolist(), promo.tolist()
    ([[9.5, 7.5, 9.5]], [[True, True, True]])
    """

    def __init__(self, max_series: int) -> None:
        self.table = Table("listed", max_series, _LISTED)
        self._planned = PlannedPrices()
        # Prices of items that have not sold yet: their series is made by its first flow, and begins with this price.
        self._waiting = SeriesMap(max_series, "waiting")
        self._held = Table("held", max_series, _LISTED)
        self._channels: dict[str, int] = {}
        self._channels_written = 0

    @property
    def row_bytes(self) -> int:
        """Bytes that one series takes."""
        return self.table.row_bytes

    def set(
        self, slot: int, channel: str, price: float, *, time_ms: int, promo: bool = False, until_ms: int = FOREVER_MS
    ) -> bool:
        """Note a published price; True where it changes what is listed. Other channels and older prices do not."""
        return self._set(self.table, slot, channel, price, time_ms, promo, until_ms)

    def plan(
        self, slot: int, channel: str, price: float, *, time_ms: int, from_ms: int, until_ms: int, promo: bool = False
    ) -> bool:
        """Note a price announced at `time_ms` for later; True where it changes what is planned."""
        t = self.table
        if int(t["time_ms"][slot]) and int(t["channel"][slot]) != self._code(channel):
            return False
        return self._planned.add(slot, Plan(time_ms, from_ms, until_ms, max(price, 0.0), promo))

    def hold(
        self, key: tuple[str, str], channel: str, price: float, *, time_ms: int, promo: bool, until_ms: int
    ) -> None:
        """Note a published price of an item that has no series at a location yet; beyond the maximum it is let go."""
        slot = self._waiting.add(*key)
        if slot >= 0:
            self._set(self._held, slot, channel, price, time_ms, promo, until_ms)

    def claim(self, slot: int, key: tuple[str, str]) -> None:
        """Give a new series the price that waited for it, if one did; plans of the slot's last owner are none of it."""
        self._planned.drop(slot)
        held = self._waiting.slot(*key)
        if held >= 0:
            for name, array in self.table.arrays.items():
                array[slot] = self._held[name][held]
            self.table.touch(slot)
            self._held.clear(held)
            self._waiting.free(held)

    def forget(self, sku: str) -> None:
        """Let go of the prices that wait for an item."""
        for held in self._waiting.of_sku(sku):
            self._held.clear(held)
            self._waiting.free(held)

    def _set(self, t: Table, slot: int, channel: str, price: float, time_ms: int, promo: bool, until_ms: int) -> bool:
        code = self._code(channel)
        known_ms = int(t["time_ms"][slot])
        if known_ms and (int(t["channel"][slot]) != code or time_ms < known_ms):
            return False
        before = (float(t["price"][slot]), int(t["promo"][slot]))
        if time_ms > known_ms:
            t["before"][slot] = t["price"][slot]
            t["before_until_ms"][slot] = t["until_ms"][slot] if t["promo"][slot] else 0
        t["price"][slot], t["time_ms"][slot], t["until_ms"][slot] = max(price, 0.0), time_ms, until_ms
        t["promo"][slot], t["channel"][slot] = promo, code
        t.touch(slot)
        return before != (float(t["price"][slot]), int(t["promo"][slot]))

    def _code(self, channel: str) -> int:
        return self._channels.setdefault(channel, min(len(self._channels), 65_535))

    def price(self, slots: Slots, at_ms: int) -> F32:
        """Prices listed at an instant, not long ago, float32 (B,), 0 where unknown."""
        t = self.table
        prices: F32 = np.where(t["time_ms"][slots] <= at_ms, t["price"][slots], t["before"][slots])
        if len(self._planned):
            holds, price, _ = self._in_force(slots, np.array(at_ms))
            prices = np.where(holds, price, prices)
        return prices

    def on_promotion(self, slots: Slots, at_ms: int) -> Bools:
        """Tell which series were on an announced promotion at an instant, not long ago."""
        t = self.table
        newest = np.where(t["promo"][slots] > 0, t["until_ms"][slots], 0)
        until_ms = np.where(t["time_ms"][slots] <= at_ms, newest, t["before_until_ms"][slots])
        on: Bools = until_ms > at_ms
        if len(self._planned):
            holds, _, promo = self._in_force(slots, np.array(at_ms))
            on = np.where(holds, promo, on)
        return on

    def _in_force(self, slots: Slots, at_ms: I64) -> tuple[Bools, F32, Bools]:
        """What was announced ahead and holds at instants; a price that was listed since its begin has ended it."""
        return self._planned.at(slots, at_ms, self.table["time_ms"][slots])

    def ahead(self, slots: Slots, at_ms: I64) -> tuple[F32, Bools]:
        """Prices and promotions known for instants to come, as of what is listed and planned now.

        A price that ends gives way to the one before it, and to nothing where that had an end too.

        Parameters
        ----------
        at_ms
            Instants, (H,).

        Returns
        -------
        Prices, NaN where none is known, float32 (B, H); whether a promotion is announced, bool (B, H).
        """
        t, rows = self.table, slots[:, None]
        over = t["until_ms"][rows] <= at_ms
        earlier = np.where(t["before_until_ms"][rows] > 0, np.float32(0), t["before"][rows])
        price = np.where(over, earlier, t["price"][rows])
        promo = (t["promo"][rows] > 0) & ~over
        if len(self._planned):
            holds, plan, promoted = self._in_force(rows, at_ms)
            price, promo = np.where(holds, plan, price), np.where(holds, promoted, promo)
        return np.where(price > 0, price, np.float32(np.nan)), promo

    def changes(self) -> Iterator[Record]:
        """Yield what changed."""
        yield from self.table.changes()
        yield from self._planned.changes()
        yield from self._waiting.changes()
        yield from self._held.changes()
        if len(self._channels) != self._channels_written:
            self._channels_written = len(self._channels)
            yield "channels/all", pack(list(self._channels))

    def restore(self, key: str, value: bytes | None) -> None:
        """Take over one record."""
        if key == "channels/all":
            names = unpack(key, value) if value is not None else []
            self._channels = {name: i for i, name in enumerate(names)}
            self._channels_written = len(names)
        elif key.startswith("waiting/"):
            self._waiting.restore(key, value)
        elif key.startswith("listed/planned/"):
            self._planned.restore(key, value)
        else:
            (self._held if key.startswith("held/") else self.table).restore(key, value)

    def settle(self) -> None:
        """Work out free slots once all records are taken over."""
        self._waiting.settle()
