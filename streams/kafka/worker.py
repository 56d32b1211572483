"""One Faust worker: its application, its agents, its life from the first look at Kafka to the last commit.

In: settings. Out: an exit code, and a sentence where it is not 0.
Must not know: commands, files of settings. Rule: whatever makes the worker unable to go on ends the process with a code
other than 0; what is not committed by then was never visible, and the next owner does it again.
"""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, cast

import faust
import structlog
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from yarl import URL

from models.baseline import SeasonalWindow
from models.executor import Executor
from models.forecast import Forecaster, ForecastError
from models.named import LateEncoder
from online import drift
from streams import compiled
from streams.engine import EngineConfig
from streams.kafka.arrivals import ITEM_TOPICS, SHARED_TOPICS
from streams.kafka.champion import MODEL_TOPIC, Models
from streams.kafka.connection import UnreachableError, reach
from streams.kafka.ending import WorkerError
from streams.kafka.ledger import STATE_TOPIC, FencedError
from streams.kafka.settings import KafkaSettings, WorkerSettings
from streams.kafka.shard import CANDIDATES_TOPIC
from streams.kafka.shards import Shards, steady_ms
from streams.kafka.source import Fetch
from streams.kafka.transport import ChunkTransport, ShardAssignor
from streams.outputs import ALERT_TOPIC, DEADLETTER_TOPIC, DEMAND_TOPIC, TRIGGER_TOPIC
from streams.partition import PartitionerName
from streams.price_forecast import PRICE_TOPIC

log = structlog.get_logger("shelftide.worker")

STOP_TIMEOUT_S = 4.5
"""A stop takes less than five seconds: then whoever supervises the process may kill it."""

LEAVE_S = 1.2
"""Time of a stop that is kept for leaving the group."""

STALL_S = 60.0
"""An assignment that has not led to running shards by then never will: Faust's recovery task can die in silence."""

WATCH_S = 0.2
LOAD_S = 5.0
"""A model is loaded so long after recovery at the latest: a shard with a long backlog is not waited for."""

TURNS_S, MOST_TURNS = 60.0, 5
PATIENCE_S = (0.5, 8.0)
"""Times of trying to reach Kafka before it is said again that nobody answers: the first and the longest."""

COLLECT_EVERY = 50_000
"""New objects between two looks for cycles: more than the objects of a few chunks."""


def _nowhere(name: str) -> Forecaster:
    raise ForecastError(f"this worker has no registry to find {name!r} in")


@dataclass(frozen=True)
class WorkerConfig:
    """All that a worker is told.

    Attributes
    ----------
    engine
        Of every shard's engine.
    kafka, worker
        Settings.
    partitioner
        How producers spread SKUs.
    forecaster
        Shared by all shards.
    find
        Reads the model that a command names; raises `ForecastError` where there is none.
    """

    engine: EngineConfig
    kafka: KafkaSettings
    worker: WorkerSettings
    partitioner: PartitionerName = "murmur2"
    forecaster: Forecaster | None = None
    find: Callable[[str], Forecaster] = _nowhere


def await_kafka(kafka: KafkaSettings, timeout_s: float, say: Callable[[str], None]) -> AdminClient:
    """Wait for Kafka to answer; say ever less often that it does not.

    Raises
    ------
    WorkerError
        If it does not in the time given, or lets nobody in.
    """
    deadline_s, patience_s = time.monotonic() + timeout_s, PATIENCE_S[0]
    while True:
        left_s = deadline_s - time.monotonic()
        try:
            reach(kafka, max(0.1, min(patience_s, left_s)))
            return AdminClient({**kafka.librdkafka(), "log_level": 0})
        except UnreachableError as error:
            if error.wrong_input:
                raise WorkerError(str(error), 2) from error
            if left_s <= patience_s:
                raise WorkerError(f"{error}; gave up after {timeout_s:g} s in all") from error
            say(f"no Kafka at {kafka.bootstrap_servers} yet, trying for {left_s - patience_s:.0f} s more")
            patience_s = min(patience_s * 2, PATIENCE_S[1])


def check_topics(kafka: KafkaSettings, admin: AdminClient) -> None:
    """See that all topics are there with as many partitions as the settings say.

    Raises
    ------
    WorkerError
        If one is missing or has another number of partitions.
    """
    try:
        there = admin.list_topics(timeout=10.0).topics
    except KafkaException as error:  # it answered just now
        raise WorkerError(f"Kafka at {kafka.bootstrap_servers} went away ({error.args[0].str()}); try again") from error
    wanted = dict.fromkeys(ITEM_TOPICS, kafka.partitions) | dict.fromkeys((*SHARED_TOPICS, CANDIDATES_TOPIC), 1)
    wanted |= dict.fromkeys((DEMAND_TOPIC, PRICE_TOPIC, TRIGGER_TOPIC), kafka.partitions)
    wanted[STATE_TOPIC] = kafka.partitions + 1
    for name in (*wanted, ALERT_TOPIC, DEADLETTER_TOPIC, MODEL_TOPIC):
        topic = kafka.topic(name)
        if topic not in there:
            raise WorkerError(f"topic {topic!r} is missing; run `shelftide topics apply`")
        found = len(there[topic].partitions)
        if found != (partitions := wanted.get(name, found)):
            raise WorkerError(
                f"topic {topic!r} has {found} partitions and the settings ask for {partitions}; set kafka.partitions "
                "to what the item topics have: the state of a shard belongs to its partition", 2,
            )  # fmt: skip


def build(config: WorkerConfig, instance_id: str) -> faust.App:
    """The Faust application: group, transport, one agent per topic; its `shards` are made when it starts."""
    worker, kafka = config.worker, config.kafka
    session_s = worker.session_timeout_ms / 1000
    app = faust.App(
        kafka.application_id,
        **kafka.faust(),
        store="memory://",
        datadir=str(worker.state_folder / "faust"),
        web_enabled=False,
        topic_disable_leader=True,
        topic_allow_declare=False,
        table_standby_replicas=1,  # 0 would have aiokafka assign, which parts a shard's partitions
        canonical_url=f"http://{instance_id}:1",  # a constant of the instance; Faust compares it with the cached one
        consumer_group_instance_id=instance_id,
        consumer_auto_offset_reset="latest",
        consumer_max_fetch_size=1,  # aiokafka fetches nothing to speak of, librdkafka does
        stream_buffer_maxsize=256,
        broker_commit_interval=1.0,
        broker_commit_every=None,
        broker_session_timeout=session_s,
        broker_heartbeat_interval=min(1.0, session_s / 4),
        broker_request_timeout=max(90.0, session_s + 1),
        broker_rebalance_timeout=60.0,
        broker_max_poll_interval=1_000_000.0,  # nobody polls aiokafka
    )
    cast(Any, app.conf).PartitionAssignor = ShardAssignor
    app.transport = ChunkTransport([URL(url) for url in kafka.faust()["broker"]], app)
    for name in (*ITEM_TOPICS, CANDIDATES_TOPIC):
        _add_agent(app, kafka.topic(name))
    return app


def _add_agent(app: Any, topic: str) -> None:
    async def hand_over(stream: Any) -> None:
        async for event in stream.events():
            try:
                app.shards.deliver(Fetch([event.value], {}, {}))
            except Exception as error:  # an agent that raises has its record acknowledged: never here
                app.shards.failure = error

    channel = app.topic(topic, key_serializer="raw", value_serializer="raw")
    app.agent(channel, name=f"chunks-of-{topic}")(hand_over)


async def serve(config: WorkerConfig, instance_id: str, started: Callable[[Shards, Executor], None]) -> None:
    """Run until told to stop (SIGTERM, SIGINT).

    Raises
    ------
    WorkerError
        If the worker could not go on. Where threads cannot be ended, the process ends here.
    """
    loop, asked = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, asked.set)
    baseline = SeasonalWindow()
    models = Models(config.forecaster or baseline, config.find)
    executor = Executor(
        models.own, fallback=baseline, timeout_s=config.worker.forecast_timeout_s,
        rows=config.worker.forecast_rows,
    )  # fmt: skip
    loading = [threading.Thread(target=_load_kernels, name="load-kernels", daemon=True)]
    loading[0].start()
    app: Any = build(config, instance_id)
    app.kafka_settings, app.worker_settings = config.kafka, config.worker
    app.shards = shards = Shards(
        config.engine, config.kafka, config.worker, config.partitioner, executor, models, steady_ms
    )
    _follow_rebalances(app, shards)
    loading.append(threading.Thread(target=_load_late, args=(config.forecaster, shards), name="load-late", daemon=True))
    loading[1].start()
    started(shards, executor)
    reason = await _live(app, shards, asked)
    await _end(app, shards, executor, reason)
    if reason is not None:
        raise WorkerError(_sentence(reason)) from reason
    if any(thread.is_alive() for thread in loading):
        _leave(0)  # all is committed, and an interpreter that ends under a library that is being loaded aborts


def _load_late(forecaster: Forecaster | None, shards: Shards) -> None:
    """Load the model, and what learning needs, once shards have caught up or after a while; who needs them earlier has
    them loaded at once.

    It takes seconds of the interpreter that recovery needs as well: loaded meanwhile, a restart takes two seconds more.
    """
    while not shards.ready:
        time.sleep(WATCH_S)
    ready_s = time.monotonic()
    while shards.behind and time.monotonic() - ready_s < LOAD_S:
        time.sleep(WATCH_S)
    if isinstance(forecaster, LateEncoder):
        _load(forecaster)
    drift.load()


def _load(late: LateEncoder) -> None:
    started_s = time.monotonic()
    try:
        late.load()
        log.info("model loaded", model=late.name, seconds=round(time.monotonic() - started_s, 1))
    except Exception as error:
        log.error("the model cannot be loaded; the baseline answers", model=late.name, reason=str(error))


def _load_kernels() -> None:
    """Load them while the group is joined; records that come first are decoded without."""
    reason = compiled.load()
    if reason is None:
        log.info("kernels loaded")
    else:
        log.warning("kernels cannot be loaded; records are decoded without them, more slowly", reason=reason)


class _Turns:
    """Notices two processes of one instance id: Kafka lets them take turns for ever, in one generation."""

    def __init__(self) -> None:
        self._generation, self._at_s = -1, [0.0]

    def note(self, generation: int) -> None:
        """Note an assignment.

        Raises
        ------
        WorkerError
            If there are too many in one generation: a static member that comes back keeps it, once.
        """
        now_s = time.monotonic()
        if generation != self._generation:
            self._generation, self._at_s = generation, []
        self._at_s = [at_s for at_s in self._at_s if now_s - at_s < TURNS_S] + [now_s]
        if len(self._at_s) > MOST_TURNS:
            raise WorkerError("another process has the same instance id; give each worker its own (--instance)")


def _follow_rebalances(app: Any, shards: Shards) -> None:
    turns = _Turns()

    @app.on_partitions_revoked.connect(weak=False)  # type: ignore[untyped-decorator]
    async def revoked(*_: Any, **__: Any) -> None:
        await shards.suspend()
        if shards.failure is not None:
            await asyncio.sleep(5 * WATCH_S)  # the process ends meanwhile; a group joined again would wait for it

    @app.on_rebalance_complete.connect(weak=False)  # type: ignore[untyped-decorator]
    async def complete(*_: Any, **__: Any) -> None:
        places = {(tp.topic, tp.partition) for tp in app.consumer.assignment()}
        if shards.dividing:
            return  # these were ours a moment ago; another assignment is on its way
        try:
            turns.note(app.consumer_generation_id)
            await shards.assign(places)
        except Exception as error:
            shards.failure = error


async def _live(app: Any, shards: Shards, asked: asyncio.Event) -> BaseException | None:
    """Start, and watch until something ends it; what, unless it was a signal, comes back."""
    starting = asyncio.ensure_future(app.start())
    wanted = asyncio.ensure_future(asked.wait())
    idle_since_s = time.monotonic()
    try:
        while not asked.is_set():
            await asyncio.wait({wanted}, timeout=WATCH_S)
            if shards.error is not None:
                return shards.error
            if app.consumer is not None:
                app.consumer.check()
            if starting.done() and (error := starting.exception()) is not None:
                return cast(BaseException, error)
            if app.crash_reason is not None:
                return cast(BaseException, app.crash_reason)
            if shards.ready:
                idle_since_s = time.monotonic()
            elif time.monotonic() - idle_since_s > STALL_S + shards.patience_s:
                return WorkerError("no shards are running although the group was joined long ago; see the log above")
        return None
    finally:
        wanted.cancel()
        if not starting.done():
            starting.cancel()


async def _end(app: Any, shards: Shards, executor: Executor, reason: BaseException | None) -> None:
    """Commit what is done where that makes sense, leave the group; a process that cannot end is ended."""
    deadline_s = time.monotonic() + STOP_TIMEOUT_S
    if reason is None:
        log.info("stopping")
        try:
            await asyncio.wait_for(shards.close(), STOP_TIMEOUT_S - LEAVE_S)
            if shards.failure is not None:
                raise shards.failure
        except (Exception, asyncio.CancelledError) as error:
            log.error("stopped without a last commit", reason=repr(error))
            _leave(1)
        try:
            await asyncio.wait_for(app.stop(), max(LEAVE_S, deadline_s - time.monotonic()))
        except (Exception, asyncio.CancelledError) as error:
            # All is committed. aiokafka repeats a commit of offsets for ever while the group is being divided anew.
            log.warning("the group could not be left; it notices within a session", reason=repr(error))
            _leave(0)
    else:
        log.error("crashed", reason=_sentence(reason), kind=type(reason).__name__)
        _leave(1)
    executor.close(0.1)


def _leave(code: int) -> None:
    """End the process now: after a crash nothing that has not been committed may be, and Faust's threads may hang."""
    with suppress(Exception):
        for stream in (1, 2):
            os.fsync(stream)
    os._exit(code)


def _sentence(reason: BaseException) -> str:
    if isinstance(reason, FencedError):
        return f"{reason}; this one was silent for too long, or another has the same instance id"
    return str(reason) or type(reason).__name__


def _spare_collector() -> None:
    """Let the collector of cycles pass over what lives for ever, and look less often at the objects of chunks.

    They come by ten thousands and hold no cycles; looking every 700 objects, as Python does, takes .1 µs a record.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(COLLECT_EVERY, 20, 20)


def run(config: WorkerConfig, instance_id: str, started: Callable[[Shards, Executor], None]) -> None:
    """Look for Kafka, check the topics, and serve until told to stop.

    Raises
    ------
    WorkerError
        If Kafka or topics are missing or wrong, or the worker could not go on.
    """
    config.worker.state_folder.mkdir(parents=True, exist_ok=True)  # Faust makes one in it, and no more
    admin = await_kafka(config.kafka, config.worker.connect_timeout_s, lambda text: log.warning(text))
    check_topics(config.kafka, admin)
    del admin
    _spare_collector()
    asyncio.run(serve(config, instance_id, started))
