"""What a worker tells about itself: every metric, its name and its meaning.

In: what the worker's parts count and measure. Out: a Prometheus registry; the page `docs/metrics.md`.
Must not know: who reads it. Rule: no label takes a value that shops choose, such as a SKU, so that series stay few.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import Metric

from models.executor import CLASSES, Stats
from online.learner import Learner
from streams.engine import Engine
from streams.kafka.meters import Count, Level, Meter, Spread
from streams.outputs import DEADLETTER_TOPIC, Output
from streams.state import Record

OUTCOMES = ("accepted", "duplicate", "late", "ahead", "parked")
"""What may become of an event, as the intake counts it; `refused` comes on top."""

STAGES = ("decode", "validate", "route", "late", "ahead", "apply", "forecast", "produce")
"""Stages of dead letters, as contracts name them."""

AGES_S = (0.1, 0.5, 1, 5, 10, 30, 60, 300, 900, 3600, 2 * 3600, 6 * 3600, 86_400, 7 * 86_400)
"""From records that come at once, over the 5 minutes of disorder and the 2 hours of lateness, to old ones."""

WAITS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.15, 0.2, 0.25, 0.35, 0.5, 1, 2, 2.5, 3, 4, 5, 10, 30, 60)
"""Dense around the goals: 250 ms from event to forecast, 3 s from event to alert."""

WORK_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
ROWS = (1, 4, 16, 64, 256, 512, 1024, 2048, 4096, 8192, 16_384)
BYTES = tuple(1024 * 4**n for n in range(9))  # 1 KiB to 64 MiB


class Metrics:
    """All metrics of one worker, in a registry of their own.

    Examples
    --------
    >>> metrics = Metrics()
    >>> metrics.lag_records.set(12, topic="shop.orders.v1", partition=3)
    >>> metrics.registry.get_sample_value("shelftide_lag_records", {"topic": "shop.orders.v1", "partition": "3"})
    12.0
    """

    def __init__(self) -> None:
        self.before: Callable[[], None] = lambda: None  # called before metrics are read
        self._add_events()
        self._add_forecasts()
        self._add_learning()
        self._add_commits()
        self._add_life()
        self.registry = CollectorRegistry()
        self.registry.register(self)

    def _add_events(self) -> None:
        self.events = Count(
            "shelftide_events_total",
            "Events taken in, by outcome. Parked ones count again when they are accepted or given up as ahead; refused "
            "ones were accepted for series beyond the maximum.",
            ["outcome", "shard"],
        )
        self.dead_letters = Count(
            "shelftide_dead_letters_total", "Dead letters written, by the stage that could not go on.", ["stage"]
        )
        for stage in STAGES:
            self.dead_letters.inc(0, stage=stage)
        self.records_lost = Count(
            "shelftide_lost_records_total", "Records that a topic's retention deleted before they were read."
        )
        self.event_age = Spread(
            "shelftide_event_age_seconds", "From the time of an event to its arrival at Kafka.", AGES_S, ["topic"]
        )
        self.chunk_records = Spread("shelftide_chunk_records", "Records fetched at once from one partition.", ROWS)
        self.buffered_records = Level("shelftide_buffered_records", "Records fetched and not yet applied.")
        self.buffered_bytes = Level("shelftide_buffered_bytes", "Bytes fetched and not yet applied.")
        self.lag_records = Level(
            "shelftide_lag_records", "Records of a partition that are not yet applied.", ["topic", "partition"]
        )
        self.lag_seconds = Level(
            "shelftide_lag_seconds", "How long the oldest record not yet applied has waited.", ["topic", "partition"]
        )

    def _add_forecasts(self) -> None:
        self.forecasts = Count("shelftide_forecasts_total", "Forecasts made, by series and revision.", ["shard"])
        self.price_forecasts = Count(
            "shelftide_price_forecasts_total", "Forecasts of prices made, by price line and day.", ["shard"]
        )
        self.batch_rows = Spread("shelftide_forecast_batch_rows", "Series in one batch for the model.", ROWS)
        self.forecast_seconds = Spread(
            "shelftide_forecast_seconds", "Computing the forecasts of one batch, by model or fallback.", WORK_S
        )
        self.fallbacks = Count(
            "shelftide_forecast_fallbacks_total", "Batches that the baseline answered for the model.", ["reason"]
        )
        for reason in CLASSES:
            self.fallbacks.inc(0, reason=reason)
        self.model_failures = Count(
            "shelftide_model_failures_total", "Batches that the model raised on or answered with a broken promise."
        )
        self.model_timeouts = Count("shelftide_model_timeouts_total", "Batches that the model did not answer in time.")
        self.model_out_of_memory = Count(
            "shelftide_model_out_of_memory_total", "How often memory ran out and the rows per call were halved."
        )
        self.event_to_forecast = Spread(
            "shelftide_event_to_forecast_seconds",
            "From the arrival of an event at Kafka to the forecast that it made due, written.",
            WAITS_S,
        )
        self.event_to_alert = Spread(
            "shelftide_event_to_alert_seconds",
            "From the arrival of a price at Kafka to the alert on it, written.",
            WAITS_S,
        )
        self.dirty = Level("shelftide_dirty_series", "Series that changed since their last forecast.", ["shard"])
        self.due = Level("shelftide_due_series", "Series whose forecast is due and not yet made.", ["shard"])
        self.shed = Count(
            "shelftide_shed_refreshes_total", "Refreshes merged into later ones: the series was still due.", ["shard"]
        )
        self.model = Level("shelftide_model_info", "1 for the model that forecasts.", ["model"])

    def _add_learning(self) -> None:
        self.outcomes = Count(
            "shelftide_outcomes_total", "Forecasts met by the demand of their final bucket, of series learned from.",
            ["shard"],
        )  # fmt: skip
        self.outcome_demand = Count("shelftide_outcome_demand_total", "Demand of these buckets, in units.", ["shard"])
        self.outcome_loss = Count(
            "shelftide_outcome_loss_total",
            "Twice the pinball loss of what was `published`, of the `model` by itself and of the `baseline`, on the "
            "same outcomes; over the demand it is their WQL.",
            ["rival", "shard"],
        )
        self.outcomes_inside = Count(
            "shelftide_outcomes_inside_total", "Outcomes within the 80 % interval of each.", ["rival", "shard"]
        )
        self.drift_changes = Count(
            "shelftide_drift_changes_total",
            "Changes that detectors saw in a shard: `loss`, that of forecasts against what they expected themselves; "
            "`level`, demand against their medians.",
            ["signal", "shard"],
        )

    def _add_commits(self) -> None:
        self.commit_seconds = Spread("shelftide_commit_seconds", "One transaction, from begin to committed.", WORK_S)
        self.commit_bytes = Spread("shelftide_commit_bytes", "State, offsets and outputs of one transaction.", BYTES)
        self.state_records = Count("shelftide_state_records_total", "State records written, by kind.", ["kind"])
        self.state_bytes = Count("shelftide_state_bytes_total", "Bytes of state records written, by kind.", ["kind"])
        self.outputs = Count("shelftide_outputs_total", "Outputs written, by topic without its prefix.", ["topic"])
        self.transactions_aborted = Count(
            "shelftide_transactions_aborted_total", "Transactions that were begun and not committed."
        )

    def _add_life(self) -> None:
        self.ready = Level("shelftide_ready", "1 while every shard of this worker is recovered and running, else 0.")
        self.rebalances = Count("shelftide_rebalances_total", "How often the group gave this worker partitions.")
        self.recovery_seconds = Spread(
            "shelftide_recovery_seconds", "Taking over one shard: shutting others out, reading its state.", WORK_S
        )
        self.series = Level("shelftide_series", "Series known.", ["shard"])
        self.resident_bytes = Level("shelftide_resident_bytes", "Memory of this process.", read=resident_bytes)

    # -- what the worker's parts tell

    def begin_shard(self, shard: int, engine: Engine) -> None:
        """Take an engine's totals as they are: another worker, or this one before, has counted them."""
        for meter, total, labels in self._totals(shard, engine):
            meter.begin(total, **labels)

    def follow_shard(self, shard: int, engine: Engine) -> None:
        """Count what an engine has done since the last look; once a second is enough."""
        for meter, total, labels in self._totals(shard, engine):
            meter.follow(total, **labels)
        dirty, due = engine.due.count(engine.series.used)
        self.dirty.set(dirty, shard=shard)
        self.due.set(due, shard=shard)
        self.series.set(len(engine.series), shard=shard)

    def forget_shard(self, shard: int) -> None:
        """Stop telling of a shard that is no longer here."""
        for meter in (self.dirty, self.due, self.series):
            meter.forget(shard=shard)

    def forget_partition(self, topic: str, partition: int) -> None:
        """Stop telling of a partition that is no longer here."""
        for meter in (self.lag_records, self.lag_seconds):
            meter.forget(topic=topic, partition=partition)

    def follow_executor(self, stats: Stats, model: str) -> None:
        """Count what the executor has done since the last look."""
        for reason, total in stats.fallbacks.items():
            self.fallbacks.follow(total, reason=reason)
        self.model_failures.follow(stats.failures)
        self.model_timeouts.follow(stats.timeouts)
        self.model_out_of_memory.follow(stats.out_of_memory)
        self.model.set_only(1, model=model)

    def committed(self, seconds: float, size_bytes: int, records: Iterable[Record], outputs: Iterable[Output]) -> None:
        """Count a committed transaction and what it held."""
        self.commit_seconds.observe(seconds)
        self.commit_bytes.observe(size_bytes)
        count, size = Counter[str](), Counter[str]()
        for key, value in records:
            kind = key.partition("/")[0]
            count[kind] += 1
            size[kind] += len(key) + len(value or b"")
        for kind, written in count.items():
            self.state_records.inc(written, kind=kind)
            self.state_bytes.inc(size[kind], kind=kind)
        topics, stages = Counter[str](), Counter[str]()
        for output in outputs:
            topics[output.topic] += 1
            if output.topic == DEADLETTER_TOPIC:
                stages[dict(output.extra).get("x-stage", b"").decode()] += 1
        for topic, written in topics.items():
            self.outputs.inc(written, topic=topic)
        for stage, written in stages.items():
            self.dead_letters.inc(written, stage=stage)

    def _totals(self, shard: int, engine: Engine) -> Iterator[tuple[Count, float, dict[str, object]]]:
        """Totals that an engine keeps, and where they are counted."""
        for outcome in OUTCOMES:
            yield self.events, engine.intake.counts[outcome], {"outcome": outcome, "shard": shard}
        yield self.events, engine.series.refused, {"outcome": "refused", "shard": shard}
        yield self.forecasts, engine.counts["forecasts"], {"shard": shard}
        yield self.price_forecasts, engine.price_forecasts.answered, {"shard": shard}
        yield self.shed, engine.due.shed, {"shard": shard}
        yield from self._learned(shard, engine.learning.learner)

    def _learned(self, shard: int, learner: Learner) -> Iterator[tuple[Count, float, dict[str, object]]]:
        """Totals of what forecasts were worth, and of changes seen."""
        for rival, scores in learner.scores.items():
            totals, place = scores.totals(), {"rival": rival, "shard": shard}
            yield self.outcome_loss, totals["loss"], place
            yield self.outcomes_inside, totals["inside"], place
            if rival == "published":
                yield self.outcomes, totals["outcomes"], {"shard": shard}
                yield self.outcome_demand, totals["demand"], {"shard": shard}
        for signal, changes in learner.drift.counts.items():
            yield self.drift_changes, changes, {"signal": signal, "shard": shard}

    # -- what Prometheus reads

    @property
    def meters(self) -> list[Meter]:
        """Every metric, in the order of the documentation."""
        return [meter for meter in vars(self).values() if isinstance(meter, Meter)]

    def collect(self) -> Iterator[Metric]:
        """Give every metric as it is now; the registry calls this."""
        self.before()
        yield from self.describe()

    def describe(self) -> Iterator[Metric]:
        """Name every metric; the registry calls this."""
        for meter in self.meters:
            yield meter.family()


def resident_bytes() -> float | None:
    """Memory of this process that is in use, None where the system does not say."""
    try:
        with open("/proc/self/statm", encoding="ascii") as told:
            return int(told.read().split()[1]) * float(os.sysconf("SC_PAGE_SIZE"))
    except (OSError, ValueError, IndexError):
        return None


def metrics_docs() -> str:
    """The page on metrics, from the metrics themselves."""
    lines = [
        "# Metrics of a worker",
        "",
        "`shelftide worker` serves them on `http://127.0.0.1:9464/metrics` in the forms of Prometheus and OpenMetrics,",
        "beside them `/ready` (200 once every shard is recovered, else 503 and the reason) and `/live`. The address is",
        "set by `worker.metrics_host` and `worker.metrics_port`. Counters start at 0 with the process: what another",
        "worker did for a shard is not counted, what is done again after a crash counts again; the state alone is",
        "exact. This page is written from `streams/kafka/metrics.py`.",
        "",
        "| name | type | labels | what it says |",
        "|---|---|---|---|",
    ]
    for meter in Metrics().meters:
        labels = ", ".join(f"`{label}`" for label in meter.labels)
        lines.append(f"| `{meter.name}` | {meter.family().type} | {labels} | {meter.about} |")
    return "\n".join(lines) + "\n"
