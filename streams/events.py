"""Events: the facts and flows that a shop reports, as typed structs and as a batch of columns.

In: nothing; these are the types that `streams.decode` produces.
Out: one frozen struct per ``type`` of the input contract, `EventBatch` (one array per field), `DeadLetter`.
Must not know: topics, files, Kafka, clocks, what the engine does with an event.
Rule: a row of a batch is a valid event; what a struct's constraints cannot say, `streams.decode` has checked.

Orders and clicks (*flows*) live in the columns alone; every other event (*facts*, acks, commands) is also kept whole in
``facts``. Times inside a struct are as they came, epoch ms or an aware datetime: `epoch_ms` reads both.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from enum import IntEnum
from operator import itemgetter
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
from msgspec import Meta, Struct

from streams import fields as f
from streams.fields import epoch_ms as epoch_ms  # read beside the structs by everybody who reads their times
from streams.fields import pack_currency as pack_currency
from streams.fields import unpack_currency as unpack_currency
from streams.key_index import hashes_of
from streams.packed import join


class Kind(IntEnum):
    """What an event is; the code in ``EventBatch.kind``. Order kinds are 1-3, clicks 4-6, facts of an item 7-12.

    Examples
    --------
    >>> Kind(4)
    <Kind.ITEM_VIEWED: 4>
    """

    ORDER_PLACED = 1
    ORDER_CANCELLED = 2
    ORDER_RETURNED = 3
    ITEM_VIEWED = 4
    CART_ADDED = 5
    CART_REMOVED = 6
    PRICE_SET = 7
    COMPETITOR_PRICE_SET = 8
    STOCK_COUNTED = 9
    ITEM_DESCRIBED = 10
    ITEM_RETIRED = 11
    REVIEW_POSTED = 12
    DAY_DESCRIBED = 13
    ACK = 14
    PROMOTE = 15
    ROLLBACK = 16
    SNOOZE = 17
    ACKNOWLEDGE = 18
    OVERRIDE = 19


class _Event(Struct, frozen=True, kw_only=True, gc=False, omit_defaults=True):
    # gc=False: decoded JSON holds no reference cycles, and the collector is spared 10,000 objects a chunk.
    event_id: f.EventId
    event_time: f.Moment


class _ItemEvent(_Event, frozen=True, kw_only=True):
    sku: f.Sku
    location: f.Location = f.DEFAULT_LOCATION


class _Command(_Event, frozen=True, kw_only=True):
    # Generous by intent: a command names what it means, and unknown combinations are the engine's to answer.
    sku: f.Name = ""
    location: f.Location = f.DEFAULT_LOCATION
    channel: f.Name | None = None
    model: f.GivenName | None = None
    fingerprint: f.GivenName | None = None
    idempotency_key: f.GivenName | None = None
    until: f.Moment | None = None
    values: Annotated[dict[f.GivenName, f.Value], Meta(max_length=100)] = {}
    comment: f.Text = ""


class OrderPlaced(_ItemEvent, frozen=True, kw_only=True, tag="order_placed"):
    """A line of an order: demand of ``quantity`` units at ``unit_price``.

    Examples
    --------
    >>> order = OrderPlaced(
    ...     event_id="o1-1", event_time=1_700_000_000_000, sku="TEA",
    ...     order_id="o1", quantity=2, unit_price=9.99, currency="GBP",
    ... )
    >>> import msgspec
    >>> msgspec.json.decode(msgspec.json.encode(order), type=Event) == order
    True
    """

    event_kind: ClassVar[Kind] = Kind.ORDER_PLACED
    order_id: f.Name
    quantity: f.Quantity
    unit_price: f.Cost
    currency: f.Currency
    channel: f.Name = ""


class OrderCancelled(_ItemEvent, frozen=True, kw_only=True, tag="order_cancelled"):
    """Units of an order that will not be wanted after all; with ``original_time`` they leave the order's own bucket."""

    event_kind: ClassVar[Kind] = Kind.ORDER_CANCELLED
    order_id: f.Name
    quantity: f.Quantity
    original_time: f.Moment | None = None


class OrderReturned(_ItemEvent, frozen=True, kw_only=True, tag="order_returned"):
    """Goods that came back; demand stays as it was."""

    event_kind: ClassVar[Kind] = Kind.ORDER_RETURNED
    order_id: f.Name
    quantity: f.Quantity


class ItemViewed(_ItemEvent, frozen=True, kw_only=True, tag="item_viewed"):
    """A visitor looked at an item."""

    event_kind: ClassVar[Kind] = Kind.ITEM_VIEWED
    session_id: f.GivenName


class CartAdded(_ItemEvent, frozen=True, kw_only=True, tag="cart_added"):
    """A visitor put an item into the cart."""

    event_kind: ClassVar[Kind] = Kind.CART_ADDED
    session_id: f.GivenName


class CartRemoved(_ItemEvent, frozen=True, kw_only=True, tag="cart_removed"):
    """A visitor took an item out of the cart."""

    event_kind: ClassVar[Kind] = Kind.CART_REMOVED
    session_id: f.GivenName


class PriceSet(_ItemEvent, frozen=True, kw_only=True, tag="price_set"):
    """The price of a line from ``effective_from`` on; zero and negative prices are valid: alerts must see them."""

    event_kind: ClassVar[Kind] = Kind.PRICE_SET
    price: f.Price
    currency: f.Currency
    channel: f.Name = ""
    effective_from: f.Moment | None = None
    effective_until: f.Moment | None = None
    promo: bool = False


class CompetitorPriceSet(_ItemEvent, frozen=True, kw_only=True, tag="competitor_price_set"):
    """What a competitor asks for the same item."""

    event_kind: ClassVar[Kind] = Kind.COMPETITOR_PRICE_SET
    price: f.Price
    currency: f.Currency
    competitor: f.GivenName


class Arrival(Struct, frozen=True, gc=False):
    """Goods on their way: ``due`` is epoch ms, RFC 3339 with an offset, or an ISO date (its first instant in UTC)."""

    quantity: f.Quantity
    due: f.Due


class StockCounted(_ItemEvent, frozen=True, kw_only=True, tag="stock_counted"):
    """The stock of a series as counted; ``on_hand`` is negative where more was sold than was there."""

    event_kind: ClassVar[Kind] = Kind.STOCK_COUNTED
    on_hand: Annotated[float, Meta(ge=-f.MAX_QUANTITY, le=f.MAX_QUANTITY)]
    on_order: f.Amount = 0.0
    reserved: f.Amount = 0.0
    arrivals: Annotated[tuple[Arrival, ...], Meta(max_length=500)] = ()


class LeadTime(Struct, frozen=True, gc=False):
    """Days from order to shelf: their mean and the value not passed nine times in ten."""

    mean: f.Days
    p90: f.Days


class Placement(Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    """How an item is supplied at one location."""

    lead_time_days: LeadTime | None = None
    moq: f.Amount | None = None
    pack_size: f.Quantity | None = None
    max_stock: f.Amount | None = None
    service_level: Annotated[float, Meta(gt=0, lt=1)] | None = None
    source_location: f.Location | None = None


class ItemDescribed(_ItemEvent, frozen=True, kw_only=True, tag="item_described"):
    """What an item is, what it costs and how each location is supplied."""

    event_kind: ClassVar[Kind] = Kind.ITEM_DESCRIBED
    title: f.Title
    description: f.Text | None = None
    category: f.Title | None = None
    brand: f.Title | None = None
    unit_cost: f.Cost | None = None
    cost_currency: f.Currency | None = None
    supplier_id: f.Name | None = None
    replaces: f.Sku | None = None
    locations: Annotated[dict[f.Location, Placement], Meta(max_length=1_000)] = {}


class ItemRetired(_ItemEvent, frozen=True, kw_only=True, tag="item_retired"):
    """An item that is sold no more; a null value on the catalog topic says the same."""

    event_kind: ClassVar[Kind] = Kind.ITEM_RETIRED


class ReviewPosted(_ItemEvent, frozen=True, kw_only=True, tag="review_posted"):
    """A customer's opinion."""

    event_kind: ClassVar[Kind] = Kind.REVIEW_POSTED
    rating: Annotated[int, Meta(ge=1, le=5)]
    text: f.Text


class DayDescribed(_Event, frozen=True, kw_only=True, tag="day_described"):
    """A holiday, closure or campaign; ``location`` None means everywhere.

    A deleted day comes as one with empty ``name`` and ``kind`` that is open: an ordinary day.
    """

    event_kind: ClassVar[Kind] = Kind.DAY_DESCRIBED
    sku: ClassVar[str] = ""
    date: dt.date
    name: f.Title
    kind: f.Name
    open: bool = True
    location: f.Location | None = None


class Ack(_Event, frozen=True, kw_only=True, tag="ack"):
    """What the inventory system says of a trigger."""

    event_kind: ClassVar[Kind] = Kind.ACK
    sku: ClassVar[str] = ""
    location: ClassVar[str] = f.DEFAULT_LOCATION
    idempotency_key: f.EventId
    status: Literal["received", "accepted", "rejected"]


class Promote(_Command, frozen=True, kw_only=True, tag="promote"):
    """Use the named model from now on."""

    event_kind: ClassVar[Kind] = Kind.PROMOTE


class Rollback(_Command, frozen=True, kw_only=True, tag="rollback"):
    """Go back to the model before, or to the one named."""

    event_kind: ClassVar[Kind] = Kind.ROLLBACK


class Snooze(_Command, frozen=True, kw_only=True, tag="snooze"):
    """Keep an alert or a series quiet ``until`` a time."""

    event_kind: ClassVar[Kind] = Kind.SNOOZE


class Acknowledge(_Command, frozen=True, kw_only=True, tag="acknowledge"):
    """Somebody has seen the alert or trigger."""

    event_kind: ClassVar[Kind] = Kind.ACKNOWLEDGE


class Override(_Command, frozen=True, kw_only=True, tag="override"):
    """A person's ``values`` take the place of the engine's."""

    event_kind: ClassVar[Kind] = Kind.OVERRIDE


OrderEvent = OrderPlaced | OrderCancelled | OrderReturned
ClickEvent = ItemViewed | CartAdded | CartRemoved
ItemFact = PriceSet | CompetitorPriceSet | StockCounted | ItemDescribed | ItemRetired | ReviewPosted
Command = Promote | Rollback | Snooze | Acknowledge | Override
Event = OrderEvent | ClickEvent | ItemFact | DayDescribed | Ack | Command


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A record that is no event, with the reason.

    Attributes
    ----------
    row
        Index of the record in its chunk.
    stage
        ``decode``, ``validate``, ``route`` (later stages: ``late``, ``ahead``, ``apply``, ``forecast``, ``produce``).
    reason
        A short sentence.
    field
        Path of the culprit, for example ``$.quantity``; empty where the record has no fields (stage ``decode``).
    value, key
        The raw bytes, unchanged.
    """

    row: int
    stage: str
    reason: str
    field: str
    value: bytes | None
    key: bytes | None


@dataclass(slots=True)
class EventBatch:
    """Events of one chunk in arrival order, a column per field; rows of bad records are absent.

    Attributes
    ----------
    row
        Index of the record in the decoded chunk, int32 (N,).
    kind
        `Kind`, uint8 (N,).
    time_ms
        Event time, epoch ms, int64 (N,).
    tick_ms
        The shell's clock when the record arrived, int64 (N,).
    sku, location
        ``""`` and ``"default"`` for events without; texts of a buffer where kernels made them.
    id_hash
        xxh3_64 of the UTF-8 ``event_id``, uint64 (N,).
    quantity
        Thousandths of a unit, 0 where the kind has none, int64 (N,).
    price
        ``unit_price`` of placed orders in 1/10,000 of the currency, 0 elsewhere, int64 (N,).
    currency
        Code of `pack_currency` for placed orders, 0 elsewhere, int32 (N,).
    original_ms
        ``original_time`` of cancellations, -1 where there is none, int64 (N,).
    session
        xxh3_64 of ``session_id`` for clicks, 0 elsewhere, uint64 (N,).
    facts
        (index into this batch, event) of every row that is neither order nor click, in order.
    values, keys
        The records as they came, for dead letters of later stages.
    series
        Two words of `streams.key_index` for SKU and location, uint64 (N, 2), where kernels made them, otherwise None.

    Examples
    --------
    >>> from streams.decode import decode
    >>> order = b'{"type":"order_placed","event_id":"e1","event_time":1700000000000,"sku":"TEA",' \\
    ...         b'"order_id":"o1","quantity":2,"unit_price":9.99,"currency":"GBP"}'
    >>> batch, letters = decode([order], clock_ms=1_700_000_000_000)
    >>> batch.sku, batch.quantity.tolist(), batch.price.tolist(), letters
    (['TEA'], [2000], [99900], [])
    """

    row: npt.NDArray[np.int32]
    kind: npt.NDArray[np.uint8]
    time_ms: npt.NDArray[np.int64]
    tick_ms: npt.NDArray[np.int64]
    sku: Sequence[str]
    location: Sequence[str]
    id_hash: npt.NDArray[np.uint64]
    quantity: npt.NDArray[np.int64]
    price: npt.NDArray[np.int64]
    currency: npt.NDArray[np.int32]
    original_ms: npt.NDArray[np.int64]
    session: npt.NDArray[np.uint64]
    facts: list[tuple[int, Event]]
    values: Sequence[bytes | None]
    keys: Sequence[bytes | None]
    series: npt.NDArray[np.uint64] | None = None

    def __len__(self) -> int:
        return len(self.row)

    def take(self, rows: npt.NDArray[np.integer[Any]]) -> EventBatch:
        """Select rows by index, in the order given; ``rows`` must be without repeats.

        Examples
        --------
        >>> len(concat([]).take(np.array([], np.int64)))
        0
        """
        columns: dict[str, Any] = {}
        picks: list[int] = rows.tolist()
        for field in fields(self):
            column = getattr(self, field.name)
            if isinstance(column, np.ndarray):
                columns[field.name] = column[rows]
            elif hasattr(column, "take"):
                columns[field.name] = column.take(rows)
            elif column is not None and field.name != "facts":
                columns[field.name] = [column[i] for i in picks]
        at = {old: new for new, old in enumerate(picks)} if self.facts else {}
        facts = sorted(((at[i], event) for i, event in self.facts if i in at), key=itemgetter(0))
        return EventBatch(**columns, facts=facts)


_DTYPES: dict[str, type[np.generic]] = {
    "row": np.int32, "kind": np.uint8, "time_ms": np.int64, "tick_ms": np.int64, "id_hash": np.uint64,
    "quantity": np.int64, "price": np.int64, "currency": np.int32, "original_ms": np.int64, "session": np.uint64,
}  # fmt: skip


def concat(batches: Iterable[EventBatch]) -> EventBatch:
    """Join batches in order; ``row`` stays what it was in each.

    Examples
    --------
    >>> batch = concat([])
    >>> len(batch), batch.id_hash.dtype.name, batch.facts
    (0, 'uint64', [])
    """
    parts = list(batches)
    columns: dict[str, Any] = {
        name: np.concatenate([getattr(part, name) for part in parts]) if parts else np.zeros(0, dtype)
        for name, dtype in _DTYPES.items()
    }
    hashed = any(part.series is not None for part in parts)
    facts: list[tuple[int, Event]] = []
    offset = 0
    for part in parts:
        facts += [(offset + i, event) for i, event in part.facts]
        offset += len(part)
    return EventBatch(
        **columns,
        sku=join([part.sku for part in parts]),
        location=join([part.location for part in parts]),
        facts=facts,
        values=join([part.values for part in parts]),
        keys=join([part.keys for part in parts]),
        series=np.concatenate([_series_of(part) for part in parts]) if hashed else None,
    )


def _series_of(batch: EventBatch) -> npt.NDArray[np.uint64]:
    return hashes_of(map(f.series_key, batch.sku, batch.location)) if batch.series is None else batch.series
