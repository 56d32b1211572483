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
from collections.abc import Iterable
from dataclasses import dataclass, fields
from enum import IntEnum
from typing import Annotated, Any, ClassVar, Literal

import msgspec
import numpy as np
import numpy.typing as npt
from msgspec import Meta, Struct

EARLIEST_MS = 946_684_800_000
"""2000-01-01T00:00Z: an event before it comes from a clock that was never set (contracts §1)."""

LATEST_MS = 253_402_300_799_999
"""9999-12-31T23:59:59.999Z, the last instant that RFC 3339 can write."""

DEFAULT_LOCATION = "default"
"""Location of events that name none (contracts §1)."""

_MAX_QUANTITY = 1e6  # contracts §1
_MAX_PRICE = 1e9  # contracts §1
_MAX_DAYS = 10_000  # a lead time of 27 years is a wrong unit


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


# Constraints that are numbers cost nothing; patterns cost a regular expression per string, so they are left to decode.
Moment = Annotated[dt.datetime, Meta(tz=True)] | Annotated[int, Meta(ge=0, le=LATEST_MS)]
Due = Annotated[str, Meta(min_length=10, max_length=40)] | Annotated[int, Meta(ge=0, le=LATEST_MS)]
EventId = Annotated[str, Meta(min_length=1, max_length=64)]
Sku = Annotated[str, Meta(min_length=1, max_length=128)]
Location = Annotated[str, Meta(min_length=1, max_length=64)]
Name = Annotated[str, Meta(max_length=128)]
GivenName = Annotated[str, Meta(min_length=1, max_length=128)]
Title = Annotated[str, Meta(max_length=2_000)]
Text = Annotated[str, Meta(max_length=32_000)]
Currency = Annotated[str, Meta(min_length=3, max_length=3)]
Quantity = Annotated[float, Meta(gt=0, le=_MAX_QUANTITY)]
Amount = Annotated[float, Meta(ge=0, le=_MAX_QUANTITY)]
Price = Annotated[float, Meta(ge=-_MAX_PRICE, le=_MAX_PRICE)]
Cost = Annotated[float, Meta(ge=0, le=_MAX_PRICE)]
Days = Annotated[float, Meta(ge=0, le=_MAX_DAYS)]
Value = Annotated[float, Meta(ge=-1e15, le=1e15)] | Annotated[str, Meta(max_length=1_000)] | bool | None


class _Event(Struct, frozen=True, kw_only=True, gc=False, omit_defaults=True):
    # gc=False: decoded JSON holds no reference cycles, and the collector is spared 10,000 objects a chunk.
    event_id: EventId
    event_time: Moment


class _ItemEvent(_Event, frozen=True, kw_only=True):
    sku: Sku
    location: Location = DEFAULT_LOCATION


class _Command(_Event, frozen=True, kw_only=True):
    # Generous by intent: a command names what it means, and unknown combinations are the engine's to answer.
    sku: Name = ""
    location: Location = DEFAULT_LOCATION
    channel: Name | None = None
    model: GivenName | None = None
    fingerprint: GivenName | None = None
    idempotency_key: GivenName | None = None
    until: Moment | None = None
    values: Annotated[dict[GivenName, Value], Meta(max_length=100)] = {}
    comment: Text = ""


class OrderPlaced(_ItemEvent, frozen=True, kw_only=True, tag="order_placed"):
    """A line of an order: demand of ``quantity`` units at ``unit_price``.

    Examples
    --------
    >>> order = OrderPlaced(
    ...     event_id="o1-1", event_time=1_700_000_000_000, sku="TEA",
    ...     order_id="o1", quantity=2, unit_price=9.99, currency="GBP",
    ... )
    >>> msgspec.json.decode(msgspec.json.encode(order), type=Event) == order
    True
    """

    event_kind: ClassVar[Kind] = Kind.ORDER_PLACED
    order_id: Name
    quantity: Quantity
    unit_price: Cost
    currency: Currency
    channel: Name = ""


class OrderCancelled(_ItemEvent, frozen=True, kw_only=True, tag="order_cancelled"):
    """Units of an order that will not be wanted after all; with ``original_time`` they leave the order's own bucket."""

    event_kind: ClassVar[Kind] = Kind.ORDER_CANCELLED
    order_id: Name
    quantity: Quantity
    original_time: Moment | None = None


class OrderReturned(_ItemEvent, frozen=True, kw_only=True, tag="order_returned"):
    """Goods that came back; demand stays as it was."""

    event_kind: ClassVar[Kind] = Kind.ORDER_RETURNED
    order_id: Name
    quantity: Quantity


class ItemViewed(_ItemEvent, frozen=True, kw_only=True, tag="item_viewed"):
    """A visitor looked at an item."""

    event_kind: ClassVar[Kind] = Kind.ITEM_VIEWED
    session_id: GivenName


class CartAdded(_ItemEvent, frozen=True, kw_only=True, tag="cart_added"):
    """A visitor put an item into the cart."""

    event_kind: ClassVar[Kind] = Kind.CART_ADDED
    session_id: GivenName


class CartRemoved(_ItemEvent, frozen=True, kw_only=True, tag="cart_removed"):
    """A visitor took an item out of the cart."""

    event_kind: ClassVar[Kind] = Kind.CART_REMOVED
    session_id: GivenName


class PriceSet(_ItemEvent, frozen=True, kw_only=True, tag="price_set"):
    """The price of a line from ``effective_from`` on; zero and negative prices are valid: alerts must see them."""

    event_kind: ClassVar[Kind] = Kind.PRICE_SET
    price: Price
    currency: Currency
    channel: Name = ""
    effective_from: Moment | None = None
    effective_until: Moment | None = None
    promo: bool = False


class CompetitorPriceSet(_ItemEvent, frozen=True, kw_only=True, tag="competitor_price_set"):
    """What a competitor asks for the same item."""

    event_kind: ClassVar[Kind] = Kind.COMPETITOR_PRICE_SET
    price: Price
    currency: Currency
    competitor: GivenName


class Arrival(Struct, frozen=True, gc=False):
    """Goods on their way: ``due`` is epoch ms, RFC 3339 with an offset, or an ISO date (its first instant in UTC)."""

    quantity: Quantity
    due: Due


class StockCounted(_ItemEvent, frozen=True, kw_only=True, tag="stock_counted"):
    """The stock of a series as counted; ``on_hand`` is negative where more was sold than was there."""

    event_kind: ClassVar[Kind] = Kind.STOCK_COUNTED
    on_hand: Annotated[float, Meta(ge=-_MAX_QUANTITY, le=_MAX_QUANTITY)]
    on_order: Amount = 0.0
    reserved: Amount = 0.0
    arrivals: Annotated[tuple[Arrival, ...], Meta(max_length=500)] = ()


class LeadTime(Struct, frozen=True, gc=False):
    """Days from order to shelf: their mean and the value not passed nine times in ten."""

    mean: Days
    p90: Days


class Placement(Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    """How an item is supplied at one location."""

    lead_time_days: LeadTime | None = None
    moq: Amount | None = None
    pack_size: Quantity | None = None
    max_stock: Amount | None = None
    service_level: Annotated[float, Meta(gt=0, lt=1)] | None = None
    source_location: Location | None = None


class ItemDescribed(_ItemEvent, frozen=True, kw_only=True, tag="item_described"):
    """What an item is, what it costs and how each location is supplied."""

    event_kind: ClassVar[Kind] = Kind.ITEM_DESCRIBED
    title: Title
    description: Text | None = None
    category: Title | None = None
    brand: Title | None = None
    unit_cost: Cost | None = None
    cost_currency: Currency | None = None
    supplier_id: Name | None = None
    replaces: Sku | None = None
    locations: Annotated[dict[Location, Placement], Meta(max_length=1_000)] = {}


class ItemRetired(_ItemEvent, frozen=True, kw_only=True, tag="item_retired"):
    """An item that is sold no more; a null value on the catalog topic says the same."""

    event_kind: ClassVar[Kind] = Kind.ITEM_RETIRED


class ReviewPosted(_ItemEvent, frozen=True, kw_only=True, tag="review_posted"):
    """A customer's opinion."""

    event_kind: ClassVar[Kind] = Kind.REVIEW_POSTED
    rating: Annotated[int, Meta(ge=1, le=5)]
    text: Text


class DayDescribed(_Event, frozen=True, kw_only=True, tag="day_described"):
    """A holiday, closure or campaign; ``location`` None means everywhere.

    A deleted day comes as one with empty ``name`` and ``kind`` that is open: an ordinary day.
    """

    event_kind: ClassVar[Kind] = Kind.DAY_DESCRIBED
    sku: ClassVar[str] = ""
    date: dt.date
    name: Title
    kind: Name
    open: bool = True
    location: Location | None = None


class Ack(_Event, frozen=True, kw_only=True, tag="ack"):
    """What the inventory system says of a trigger."""

    event_kind: ClassVar[Kind] = Kind.ACK
    sku: ClassVar[str] = ""
    location: ClassVar[str] = DEFAULT_LOCATION
    idempotency_key: EventId
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
        ``""`` and ``"default"`` for events without.
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
    sku: list[str]
    location: list[str]
    id_hash: npt.NDArray[np.uint64]
    quantity: npt.NDArray[np.int64]
    price: npt.NDArray[np.int64]
    currency: npt.NDArray[np.int32]
    original_ms: npt.NDArray[np.int64]
    session: npt.NDArray[np.uint64]
    facts: list[tuple[int, Event]]

    def __len__(self) -> int:
        return len(self.row)

    def take(self, rows: npt.NDArray[np.integer[Any]]) -> EventBatch:
        """Select rows by index; ``rows`` must be sorted and without repeats.

        Examples
        --------
        >>> len(concat([]).take(np.array([], np.int64)))
        0
        """
        columns: dict[str, Any] = {}
        picks = rows.tolist()
        for field in fields(self):
            column = getattr(self, field.name)
            if isinstance(column, np.ndarray):
                columns[field.name] = column[rows]
            elif field.name != "facts":
                columns[field.name] = [column[i] for i in picks]
        at = {old: new for new, old in enumerate(picks)} if self.facts else {}
        facts = [(at[i], event) for i, event in self.facts if i in at]
        return EventBatch(**columns, facts=facts)


_DTYPES: dict[str, type[np.generic]] = {
    "row": np.int32,
    "kind": np.uint8,
    "time_ms": np.int64,
    "tick_ms": np.int64,
    "id_hash": np.uint64,
    "quantity": np.int64,
    "price": np.int64,
    "currency": np.int32,
    "original_ms": np.int64,
    "session": np.uint64,
}


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
    facts: list[tuple[int, Event]] = []
    offset = 0
    for part in parts:
        facts += [(offset + i, event) for i, event in part.facts]
        offset += len(part)
    return EventBatch(
        **columns,
        sku=[sku for part in parts for sku in part.sku],
        location=[location for part in parts for location in part.location],
        facts=facts,
    )


_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_ONE_MS = dt.timedelta(milliseconds=1)
_AWARE = Annotated[dt.datetime, Meta(tz=True)]


def epoch_ms(moment: dt.datetime | int | str) -> int:
    """Read a time as it stands in an event: epoch ms, aware datetime, RFC 3339 or an ISO date (midnight UTC).

    A part of a millisecond is dropped.

    Raises
    ------
    ValueError
        If a string is neither an ISO date nor RFC 3339 with an offset.

    Examples
    --------
    >>> epoch_ms(5), epoch_ms("1970-01-02"), epoch_ms("1970-01-01T01:00:00.0019+01:00")
    (5, 86400000, 1)
    """
    if isinstance(moment, int):
        return moment
    if isinstance(moment, str):
        if len(moment) == len("2000-01-01"):
            return (dt.date.fromisoformat(moment).toordinal() - _EPOCH.toordinal()) * 86_400_000
        try:
            moment = msgspec.convert(moment, _AWARE)
        except msgspec.ValidationError as error:
            raise ValueError(f"{moment!r} is neither an ISO date nor RFC 3339 with an offset") from error
    return (moment - _EPOCH) // _ONE_MS


def pack_currency(code: str) -> int:
    """Pack the three letters of an ISO 4217 code big-endian into an integer.

    Examples
    --------
    >>> hex(pack_currency("GBP"))
    '0x474250'
    """
    return int.from_bytes(code.encode("ascii"), "big")


def unpack_currency(code: int) -> str:
    """Read a code of `pack_currency`; 0 is the empty string.

    Examples
    --------
    >>> unpack_currency(0x474250), unpack_currency(0)
    ('GBP', '')
    """
    return code.to_bytes(3, "big").decode("ascii") if code else ""
