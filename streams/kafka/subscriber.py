"""The typed subscriber of inventory systems: forecasts, alerts, triggers, one at a time, as they are committed.

In: one output topic. Out: structs of `streams.kafka.decisions`, and answers to triggers.
Must not know: the engine, files of settings. Rules: an item counts as done when its handler has returned or the next
one is asked for; until then a crash brings it again. What cannot be read is counted and passed over.

An item that comes twice in the life of a subscription is handed out once: alerts and triggers by ``ce_id``, forecasts
by instant and revision. After a restart, what was not committed comes again under the same ids.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Generic, Literal, TypeVar, overload

import msgspec

from streams.kafka.answers import AckStatus, Answers
from streams.kafka.decisions import DemandForecast, PriceAlert, PriceForecast, ReplenishmentTrigger
from streams.kafka.reader import POLL_S, Reader, Record, Start
from streams.kafka.repeats import Latest, Rank, Recent
from streams.kafka.settings import KafkaSettings
from streams.outputs import ALERT_TOPIC, DEMAND_TOPIC, TRIGGER_TOPIC
from streams.price_forecast import PRICE_TOPIC

log = logging.getLogger("shelftide.subscribe")

What = Literal["forecasts", "prices", "alerts", "triggers"]
T = TypeVar("T")

_UNREADABLE = (msgspec.MsgspecError, ValueError, RecursionError)


@dataclass(slots=True)
class Counts:
    """What became of the records of a subscription.

    Attributes
    ----------
    handed_out
        Items given to the handler.
    repeated
        Records dropped since their item was handed out before; forecasts too that a newer one of their item outdates.
    tombstones
        Deleted keys.
    unreadable
        Records that are no such decision.
    """

    handed_out: int = 0
    repeated: int = 0
    tombstones: int = 0
    unreadable: int = 0


@dataclass(frozen=True, slots=True)
class _InHand(Generic[T]):
    item: T
    record: Record
    mark: Rank | str | None


class _Moment(msgspec.Struct, gc=False):
    as_of: int
    revision: int


_MOMENT = msgspec.json.Decoder(_Moment)


class Subscription(Generic[T]):
    """Items of one output topic; made by `subscribe`. Used by one thread, `stop` aside.

    Attributes
    ----------
    counts
        What became of the records so far.
    """

    def __init__(
        self,
        kafka: KafkaSettings,
        topic: str,
        shape: type[T],
        *,
        group_id: str | None,
        start: Start,
        connect_timeout_s: float,
    ) -> None:
        self.counts = Counts()
        self._decoder = msgspec.json.Decoder(shape)
        self._ranked = shape in (DemandForecast, PriceForecast)
        self._recent: dict[int, Recent] = {}
        self._latest: dict[int, Latest] = {}
        self._in_hand: _InHand[T] | None = None
        self._stopped = self._closed = False
        self._reader = Reader(
            kafka,
            topic,
            group_id=group_id,
            start=start,
            scan=self._scan if self._ranked and start == "earliest" else None,
            lost=self._lose,
            connect_timeout_s=connect_timeout_s,
        )

    @property
    def value(self) -> bytes:
        """JSON of the item that was handed out last and is not done yet, as it came; empty where there is none."""
        return b"" if self._in_hand is None else bytes(self._in_hand.record.value)

    @property
    def commits_failed(self) -> int:
        """How often offsets could not be committed; their items may come again after a restart."""
        return self._reader.commits_failed

    def receive(self, timeout_s: float | None = None) -> T | None:
        """Take the item before as done, and wait for the next.

        Parameters
        ----------
        timeout_s
            How long to wait; None: until there is one, or `stop` is called.

        Returns
        -------
        The item, or None where none came in time.

        Raises
        ------
        SubscribeError
            If Kafka refuses for good.
        """
        self._finish()
        until_s = None if timeout_s is None else time.monotonic() + timeout_s
        while not self._stopped:
            left_s = POLL_S if until_s is None else max(0.0, min(until_s - time.monotonic(), POLL_S))
            record = self._reader.next(left_s)
            if record is not None:
                self._in_hand = self._taken(record)
                if self._in_hand is not None:
                    self.counts.handed_out += 1
                    return self._in_hand.item
            elif until_s is not None and time.monotonic() >= until_s:
                break
        return None

    def __iter__(self) -> Iterator[T]:
        """Items as they come, until `stop`; a loop that begins anew first gets the item that was not done."""
        if self._in_hand is not None:
            self._reader.put_back(self._in_hand.record)
            self._in_hand = None
        while (item := self.receive()) is not None:
            yield item

    def run(self, handler: Callable[[T], object]) -> None:
        """Call a handler for each item, until `stop`. What it raises ends the run; its item comes again."""
        for item in self:
            handler(item)

    def commit(self) -> None:
        """Take the item in hand as done, and commit at once what is done."""
        self._finish()
        self._reader.commit()

    def stop(self) -> None:
        """End the loop soon; from any thread, a handler or a handler of signals."""
        self._stopped = True

    def close(self) -> None:
        """Commit what is done and leave the group. The item in hand is not done: it comes again."""
        if not self._closed:
            self._closed = self._stopped = True
            self._in_hand = None
            self._reader.close()

    def __enter__(self) -> Subscription[T]:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.close()

    # -- records

    def _finish(self) -> None:
        """The item in hand is done: remember it, and let its offset be committed."""
        if self._in_hand is None:
            return
        record, mark = self._in_hand.record, self._in_hand.mark
        self._in_hand = None
        if isinstance(mark, Rank):
            self._latest.setdefault(record.partition, Latest()).finish(mark)
        elif mark is not None:
            self._recent.setdefault(record.partition, Recent()).finish(mark)
        self._reader.finish(record)

    def _taken(self, record: Record) -> _InHand[T] | None:
        """Read a record; None: it is passed over."""
        try:
            if record.value is None:
                self.counts.tombstones += 1
                self._latest.setdefault(record.partition, Latest()).forget(record.key or b"")
            elif not self._is_new(record, mark := self._mark(record)):
                self.counts.repeated += 1
            else:
                return _InHand(self._decoder.decode(record.value), record, mark)
        except _UNREADABLE as error:
            self.counts.unreadable += 1
            where = record.topic, record.partition, record.offset
            log.warning("%s %d %d passed over, it cannot be read: %s", *where, error)
        self._reader.finish(record)
        return None

    def _mark(self, record: Record) -> Rank | str | None:
        """What tells whether a record was handed out before; None: nothing does."""
        if self._ranked:
            moment = _MOMENT.decode(record.value)
            return Rank(record.key or b"", moment.as_of, moment.revision)
        return next((value.decode("utf-8", "replace") for name, value in record.headers if name == "ce_id"), None)

    def _is_new(self, record: Record, mark: Rank | str | None) -> bool:
        if isinstance(mark, Rank):
            return self._latest.setdefault(record.partition, Latest()).is_new(mark)
        return mark is None or self._recent.setdefault(record.partition, Recent()).is_new(mark)

    def _scan(self, record: Record) -> None:
        """See a forecast for the first time; what cannot be read is told when it comes again."""
        latest = self._latest.setdefault(record.partition, Latest())
        if record.value is None:
            latest.scan_deletion(record.key or b"")
            return
        try:
            mark = self._mark(record)
        except _UNREADABLE:
            return
        if isinstance(mark, Rank):
            latest.scan(mark)

    def _lose(self, partition: int) -> None:
        """Forget what another reader goes on with."""
        self._latest.pop(partition, None)
        self._recent.pop(partition, None)


class TriggerSubscription(Subscription[ReplenishmentTrigger]):
    """Triggers, and the answers to them; made by ``subscribe("triggers")``."""

    def __init__(self, kafka: KafkaSettings, *, group_id: str | None, start: Start, connect_timeout_s: float) -> None:
        super().__init__(
            kafka,
            TRIGGER_TOPIC,
            ReplenishmentTrigger,
            group_id=group_id,
            start=start,
            connect_timeout_s=connect_timeout_s,
        )
        self._answers = Answers(kafka, connect_timeout_s)

    def ack(self, trigger: ReplenishmentTrigger | str, status: AckStatus) -> None:
        """Answer a trigger, named by itself or its idempotency key, and wait until the broker has it.

        ``received``: the message arrived. ``accepted``: the quantity is ordered and counts as on its way. ``rejected``:
        it will not be. The same answer twice counts once.

        Raises
        ------
        AnswerError
            If the broker does not confirm it in time; give it again.
        """
        self._answers.send(trigger if isinstance(trigger, str) else trigger.idempotency_key, status)

    def close(self) -> None:
        """Commit what is done, and leave; as `Subscription.close`."""
        self._answers.close()
        super().close()

    def __enter__(self) -> TriggerSubscription:
        return self


@overload
def subscribe(
    what: Literal["forecasts"],
    *,
    bootstrap_servers: str | None = ...,
    topic_prefix: str | None = ...,
    group_id: str | None = ...,
    start: Start = ...,
    kafka: KafkaSettings | None = ...,
    connect_timeout_s: float = ...,
) -> Subscription[DemandForecast]:
    """Subscribe to forecasts."""


@overload
def subscribe(
    what: Literal["prices"],
    *,
    bootstrap_servers: str | None = ...,
    topic_prefix: str | None = ...,
    group_id: str | None = ...,
    start: Start = ...,
    kafka: KafkaSettings | None = ...,
    connect_timeout_s: float = ...,
) -> Subscription[PriceForecast]:
    """Subscribe to forecasts of prices."""


@overload
def subscribe(
    what: Literal["alerts"],
    *,
    bootstrap_servers: str | None = ...,
    topic_prefix: str | None = ...,
    group_id: str | None = ...,
    start: Start = ...,
    kafka: KafkaSettings | None = ...,
    connect_timeout_s: float = ...,
) -> Subscription[PriceAlert]:
    """Subscribe to alerts."""


@overload
def subscribe(
    what: Literal["triggers"],
    *,
    bootstrap_servers: str | None = ...,
    topic_prefix: str | None = ...,
    group_id: str | None = ...,
    start: Start = ...,
    kafka: KafkaSettings | None = ...,
    connect_timeout_s: float = ...,
) -> TriggerSubscription:
    """Subscribe to triggers."""


def subscribe(
    what: What,
    *,
    bootstrap_servers: str | None = None,
    topic_prefix: str | None = None,
    group_id: str | None = None,
    start: Start = "earliest",
    kafka: KafkaSettings | None = None,
    connect_timeout_s: float = 30.0,
) -> Subscription[Any]:
    """Subscribe to forecasts of demand or prices, to alerts, or to triggers.

    Forecasts begin with the newest one of every item, once, and go on with those that follow.

    Parameters
    ----------
    what
        ``forecasts``, ``prices``, ``alerts`` or ``triggers``.
    bootstrap_servers, topic_prefix
        Where Kafka is, and what the names of the shop's topics begin with; they override those of `kafka`.
    group_id
        Name of the reader. Readers of one name share the items, and after a restart go on where they were. None: read
        alone and from the beginning each time.
    start
        Where a reader begins that is new: ``earliest`` with everything that is kept, ``latest`` with what comes next.
    kafka
        How to connect where a password or TLS is asked for.
    connect_timeout_s
        How long Kafka may take to answer at first, and to confirm an answer to a trigger. Later, a broker that is away
        is waited for.

    Raises
    ------
    UnreachableError
        If Kafka does not answer in time, or does not let us in.
    SubscribeError
        If the topic does not exist.
    """
    given = {"bootstrap_servers": bootstrap_servers, "topic_prefix": topic_prefix}
    base = kafka.model_dump(exclude_unset=True) if kafka is not None else {}
    where = KafkaSettings(**base | {name: value for name, value in given.items() if value is not None})
    how: dict[str, Any] = {"group_id": group_id, "start": start, "connect_timeout_s": connect_timeout_s}
    match what:
        case "forecasts":
            return Subscription(where, DEMAND_TOPIC, DemandForecast, **how)
        case "prices":
            return Subscription(where, PRICE_TOPIC, PriceForecast, **how)
        case "alerts":
            return Subscription(where, ALERT_TOPIC, PriceAlert, **how)
        case "triggers":
            return TriggerSubscription(where, **how)
        case _:
            raise ValueError(f"{what!r} cannot be subscribed to; use forecasts, prices, alerts or triggers")
