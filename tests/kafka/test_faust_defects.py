"""What Faust 0.15.3, mode 0.7.1 and aiokafka 0.14 do that our worker steps around, as far as it shows without a broker.

Each test holds a defect fast as it is, and fails when upstream mends it: then the way around may go.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from aiokafka.errors import KafkaConnectionError
from faust.exceptions import ValueDecodeError
from faust.tables.base import Collection
from faust.tables.manager import TableManager
from faust.tables.recovery import ServiceStopped
from faust.transport.drivers import aiokafka as driver
from faust.transport.producer import ProducerBuffer
from faust.types import FutureMessage, Message
from faust.types.tuples import TP
from faust.web.base import DEFAULT_BLUEPRINTS

from tests.kafka.faust_parts import HERE, a_message, an_app, consumer_of

SOON_S = 30.0


def run(main: Coroutine[Any, Any, None]) -> None:
    """Run one test's coroutine, and give up in time."""
    asyncio.run(asyncio.wait_for(main, SOON_S))


@pytest.mark.parametrize("committed", [None, 0, 4], ids=["nothing committed", "committed 0", "committed 4"])
def test_a_commit_goes_past_a_record_in_work(committed: int | None) -> None:
    """faust/transport/consumer.py, Consumer._new_offset.

    The head is looked at only where a committed offset is known and above 0, and then with `> 1` instead of `> 0`.
    Of three records the middle one is done first; the offset to commit is behind it, and the first is lost by a crash.
    """

    async def main() -> None:
        async with consumer_of(an_app()) as consumer:
            consumer._committed_offset[HERE] = committed
            first = committed or 0
            messages = [a_message(offset) for offset in range(first, first + 3)]
            for message in messages:
                consumer.track_message(message)
            consumer.ack(messages[1])
            assert messages[0] in consumer.unacked
            assert consumer._new_offset(HERE) == first + 2

    run(main())


def test_with_gaps_a_commit_advances_one_gap_at_a_time() -> None:
    """faust/transport/consumer.py, Consumer._add_gap and _new_offset.

    A gap is kept up to and including the record behind it; that record's own ack doubles it, and a double ends the run.
    Compacted topics and transactions leave such gaps everywhere.
    """

    async def main() -> None:
        async with consumer_of(an_app()) as consumer:
            offsets = [0, 2, 4, 6]
            for before, behind in pairwise(offsets):
                await consumer._add_gap(HERE, before + 1, behind)  # as _drain_messages calls it
            for offset in offsets:
                consumer.ack(a_message(offset))
            assert [consumer._new_offset(HERE) for _ in offsets] == [3, 5, 7, 7]

    run(main())


def test_the_record_behind_a_gap_counts_as_done() -> None:
    """faust/transport/consumer.py, Consumer._add_gap: as above, seen as a loss.

    Offsets 1 and 2 do not exist, 3 is in work and 4 is done: the offset to commit is 5.
    """

    async def main() -> None:
        async with consumer_of(an_app()) as consumer:
            consumer._committed_offset[HERE] = 1
            await consumer._add_gap(HERE, 1, 3)
            waiting, done = a_message(3), a_message(4)
            consumer.track_message(waiting)
            consumer.ack(done)
            assert consumer._new_offset(HERE) == 5

    run(main())


def test_a_revoke_forgets_acks_before_it_commits() -> None:
    """faust/transport/consumer.py, Consumer.on_partitions_revoked pops `_acked`; App commits after it.

    What was done since the last commit is done again by the next owner.
    """

    async def main() -> None:
        async with consumer_of(an_app()) as consumer:
            pending: list[dict[TP, list[int]]] = []

            async def revoked(tps: set[TP]) -> None:
                pending.append({tp: list(offsets) for tp, offsets in consumer._acked.items()})

            consumer._on_partitions_revoked = revoked
            consumer.ack(a_message(0))
            assert consumer._acked[HERE] == [0]
            await consumer.on_partitions_revoked({HERE})
            assert pending == [{}]

    run(main())


class RefusedCommits(driver.Consumer):
    """A consumer of a group that has rebalanced: assigned, and its commits are refused."""

    def assignment(self) -> set[TP]:
        """What it still believes to own."""
        return {HERE}

    async def _commit(self, offsets: Mapping[TP, int]) -> bool:
        return False


class IdleProducer(driver.Producer):
    """A producer with nothing to flush."""

    async def flush(self) -> None:
        """Nothing is waiting."""


def test_a_refused_commit_counts_as_committed() -> None:
    """faust/transport/consumer.py, Consumer._commit_offsets updates `_committed_offset` whatever `_commit` answered.

    The acks are gone from `_acked` by then, so that prefix waits for a later ack to be committed.
    """

    async def main() -> None:
        app = an_app()
        async with consumer_of(app, RefusedCommits) as consumer:
            app.producer = IdleProducer(app.transport)
            consumer.ack(a_message(0))
            assert not await consumer.commit()
            assert consumer._committed_offset[HERE] == 1
            assert consumer._acked[HERE] == []

    run(main())


def test_acks_below_the_committed_offset_leave_nothing_behind_them() -> None:
    """faust/transport/consumer.py, Consumer.ack drops a message from `unacked` only from the committed offset on.

    After a seek back to positions of our own, re-read records stay unacknowledged for ever.
    """

    async def main() -> None:
        async with consumer_of(an_app()) as consumer:
            consumer._committed_offset[HERE] = 10
            message = a_message(5)
            consumer.track_message(message)
            consumer.ack(message)
            assert message.acked
            assert message in consumer.unacked

    run(main())


class Naps(driver.Consumer):
    """A consumer that writes down how long it means to sleep, and does not."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.naps: list[Any] = []

    async def sleep(self, n: Any) -> None:
        """Write it down."""
        self.naps.append(n)


def test_backpressure_naps_for_a_second() -> None:
    """faust/transport/consumer.py, Consumer._wait_next_records: no active partition, `self.sleep(1)`."""

    async def main() -> None:
        async with consumer_of(an_app(), Naps) as consumer:
            assert isinstance(consumer, Naps)
            consumer._set_active_tps({HERE})
            consumer.on_buffer_full(HERE)
            assert await consumer._wait_next_records(0.02) == ({}, set())
            assert consumer.naps == [1]

    run(main())


class Polls(driver.Consumer):
    """A consumer that writes down the timeouts it is asked to poll with, and ends after one."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.timeouts: list[float] = []

    async def getmany(self, timeout: float) -> AsyncIterator[tuple[TP, Message]]:
        """Write it down, and stop."""
        self.timeouts.append(timeout)
        self._stopped.set()
        for message in [] if self.should_stop else [a_message(0)]:
            yield HERE, message


def test_polls_wait_for_a_second() -> None:
    """faust/transport/consumer.py, Consumer._drain_messages: `getmany(timeout=1.0)`, no setting."""

    async def main() -> None:
        app = an_app()
        async with consumer_of(app, Polls) as consumer:
            assert isinstance(consumer, Polls)
            await consumer._drain_messages(app._fetcher)
            assert consumer.timeouts == [1.0]

    run(main())


def test_fetches_wait_for_a_second_and_a_half() -> None:
    """faust/transport/drivers/aiokafka.py, AIOKafkaConsumerThread._create_worker_consumer: 1500, no setting."""

    async def main() -> None:
        app = an_app()
        async with consumer_of(app) as consumer:
            assert isinstance(app.transport, driver.Transport)
            made = consumer._thread._create_worker_consumer(app.transport)
            assert made._fetch_max_wait_ms == 1500
            await made.stop()

    run(main())


def test_take_ends_in_silence_at_a_record_that_cannot_be_read() -> None:
    """faust/streams.py, Stream.take and _passive_drainer.

    The drainer throws the error into a channel that only it was reading, and ends; the agent returns as if its stream
    were over. Nothing crashed, so no supervisor starts it anew, and records wait in its queue for ever.
    """

    async def main() -> None:
        app = an_app()
        app.flow_control.resume()
        channel = app.channel()
        batches: asyncio.Queue[list[bytes]] = asyncio.Queue()

        @app.agent(channel)
        async def reader(stream: Any) -> None:
            async for batch in stream.take(10, within=0.01):
                batches.put_nowait(list(batch))

        async with consumer_of(app):
            await reader.start()
            (actor,) = reader._actors  # type: ignore[attr-defined]
            await channel.send(value=b"good")
            assert await batches.get() == [b"good"]
            await actor.stream.channel.throw(ValueDecodeError("bad"))
            assert await actor.actor_task is None
            await channel.send(value=b"good again")
            assert actor.stream.channel.queue.qsize() == 1
            assert not actor.crashed
            assert app.crash_reason is None
            await reader.stop()

    run(main())


def test_an_answer_that_comes_too_late_ends_recovery_for_good() -> None:
    """faust/tables/recovery.py, Recovery._wait, and mode/services.py, Service.wait_first.

    mode answers a timeout as it answers a stop; `_restart_recovery` leaves its loop on it. A `perform_seek` longer than
    broker_request_timeout leaves a worker with its partitions, without a crash, and without records, for ever.
    """

    async def main() -> None:
        app = an_app()
        async with consumer_of(app):
            assert isinstance(app.tables, TableManager)
            recovery = app.tables.recovery
            with pytest.raises(ServiceStopped):
                await recovery._wait(asyncio.Event().wait(), timeout=0.01)
            assert not recovery.should_stop

    run(main())


def test_windowed_tables_expire_by_the_wall_clock() -> None:
    """faust/tables/base.py, Collection._del_old_keys: `window.stale(…, time.time())`.

    A window of long ago goes at once, though no event came after it; one of the year 2286 stays, though event time
    went on a million seconds past its expiry.
    """

    async def main() -> None:
        app = an_app()
        async with consumer_of(app):
            table = app.Table("sums", default=int, partitions=1).tumbling(60.0, expires=3600.0).table
            assert isinstance(table, Collection)
            assert table.window is not None
            long_ago, ahead, later = (
                ("sku", table.window.current(when)) for when in (1_000_000_020.0, 10_000_000_020.0, 10_001_000_020.0)
            )
            for key in (long_ago, ahead, later):
                table.data[key] = 1
                table._maybe_set_key_ttl(key, 0)
            await table._del_old_keys()
            assert set(table.data) == {ahead, later}

    run(main())


class StuckBuffer(ProducerBuffer):
    """A producer's buffer whose broker does not take records for now."""

    async def _send_pending(self, fut: FutureMessage) -> None:
        await asyncio.Event().wait()


def test_flush_gives_up_after_a_tenth_of_a_second() -> None:
    """faust/transport/producer.py, ProducerBuffer.flush_atmost: a timeout ends it as if everything were sent.

    A commit follows it all the same.
    """

    async def main() -> None:
        app = an_app()
        buffer = StuckBuffer()
        buffer.app = app
        await buffer.start()
        message = app.topic("results").as_future_message(value=b"", key=None)
        buffer.put(message)
        buffer.put(message)
        await buffer.flush()
        assert buffer.size > 0
        buffer.pending = asyncio.Queue()
        await buffer.stop()

    run(main())


def test_a_broker_that_is_not_there_yet_ends_the_start(tmp_path: Path) -> None:
    """faust/app/base.py, App.start: the first connection refused is the end, nothing is tried again."""

    async def main() -> None:
        app = an_app(datadir=str(tmp_path), web_enabled=False)
        with pytest.raises(KafkaConnectionError):
            await app.start()
        await app.stop()
        app.consumer._thread.thread_loop.close()  # type: ignore[attr-defined]

    run(main())


def test_the_web_server_is_on_and_serves_tables_to_everyone() -> None:
    """faust/types/settings/settings.py, web_enabled and web_bind; faust/web/base.py, DEFAULT_BLUEPRINTS."""
    conf = an_app().conf
    assert conf.web_enabled
    assert conf.web_bind == "0.0.0.0"  # noqa: S104 - the defect itself
    assert ("/table", "faust.web.apps.tables.blueprint") in list(DEFAULT_BLUEPRINTS)


def test_flow_is_on_before_anything_was_recovered() -> None:
    """faust/transport/consumer.py, Consumer._reset_state; a revoke of nothing does not stop it either.

    A source that trusts `flow_active` hands out records of a first assignment before their state is back.
    """

    async def main() -> None:
        async with consumer_of(an_app()) as consumer:
            consumer._reset_state()
            assert consumer.flow_active

    run(main())
