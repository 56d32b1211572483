"""Metrics are named as Prometheus asks, count what happened and nothing twice, and are served whoever asks how."""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from http.client import HTTPConnection, HTTPException
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from models.executor import CLASSES, Stats
from streams.decode import decode
from streams.engine import Engine, EngineConfig
from streams.kafka.meters import Count, Level, Spread
from streams.kafka.metrics import OUTCOMES, STAGES, Metrics, metrics_docs, resident_bytes
from streams.kafka.metrics_server import REQUESTS_AT_ONCE, Check, MetricsError, MetricsServer
from streams.outputs import DEMAND_TOPIC, Output, dead_letter
from tests.small_shop import CLOCK, HOUR, NOON, lines, order

LABELS = {"outcome", "shard", "stage", "topic", "partition", "reason", "kind", "model", "rival", "signal"}
UNITS = ("_seconds", "_bytes", "_records", "_rows")
PATIENCE_S = 20.0


# -------------------------------------------------------------------------------------------------- names
def test_names_units_labels_and_help_are_as_prometheus_asks() -> None:
    for meter in Metrics().meters:
        kind, name = meter.family().type, meter.name
        assert re.fullmatch(r"shelftide(_[a-z]+)+", name), name
        assert name.endswith("_total") == (kind == "counter"), name
        assert not re.search(r"_(ms|milliseconds|minutes|hours|kb|mb|percent|created|count|sum|bucket)(_|$)", name), (
            name
        )
        assert kind != "histogram" or name.endswith(UNITS), name
        assert re.fullmatch(r"[A-Z0-9].*[^.]\.", meter.about), name
        assert "|" not in meter.about, name
        assert set(meter.labels) <= LABELS, f"{name}: labels take values that shops cannot choose"


def test_buckets_of_histograms_rise() -> None:
    spreads = [meter for meter in Metrics().meters if isinstance(meter, Spread)]
    assert spreads
    assert all(spread.bounds == tuple(sorted(set(spread.bounds))) for spread in spreads)


def test_the_page_on_metrics_is_what_the_code_says() -> None:
    """Write it anew with: uv run python -c "from streams.kafka.metrics import *; print(metrics_docs(), end='')"."""
    page = Path(__file__).parents[1] / "docs" / "metrics.md"
    assert page.read_text(encoding="utf-8") == metrics_docs()


def test_workers_in_one_process_share_nothing() -> None:
    first, second = Metrics(), Metrics()
    first.rebalances.inc()
    assert value(first, "shelftide_rebalances_total") == 1
    assert value(second, "shelftide_rebalances_total") == 0


# -------------------------------------------------------------------------------------------------- meters
def value(metrics: Metrics, name: str, **labels: object) -> float | None:
    """What Prometheus would read, None where there is no such series."""
    return metrics.registry.get_sample_value(name, {label: str(text) for label, text in labels.items()})


def only(meter: Count | Level) -> float:
    return meter.family().samples[0].value


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 1000)), max_size=30))
def test_a_counter_that_follows_a_total_never_falls(totals: list[tuple[bool, int]]) -> None:
    count, mark, grown = Count("x_total", "X."), 0, 0
    for restored, total in totals:
        if restored:
            count.begin(total)
        else:
            count.follow(total)
            grown += max(0, total - mark)
        mark = total
        assert only(count) == grown


def test_a_counter_refuses_to_fall_and_labels_it_does_not_have() -> None:
    count = Count("x_total", "X.", ["shard"])
    with pytest.raises(ValueError, match="cannot fall"):
        count.inc(-1, shard=0)
    for wrong in ({}, {"sku": "A"}, {"shard": 0, "sku": "A"}):
        with pytest.raises(ValueError, match="has the labels"):
            count.inc(1, **wrong)


@given(st.lists(st.floats(allow_nan=True, allow_infinity=True, width=32), max_size=40))
def test_values_are_counted_alike_one_by_one_and_together(values: list[float]) -> None:
    bounds = (0.5, 1.0, 100.0)
    together, alone = Spread("x_seconds", "X.", bounds), Spread("x_seconds", "X.", bounds)
    together.observe(np.array(values, np.float64))
    for one in values:
        alone.observe(one)
    kept = [max(0.0, one) for one in values if np.isfinite(one)]
    wanted = [float(sum(one <= bound for one in kept)) for bound in (*bounds, np.inf)]
    for spread in (together, alone):
        *buckets, count, total = [sample.value for sample in spread.family().samples]
        assert buckets == wanted
        assert count == len(kept)
        assert total == pytest.approx(sum(kept), rel=1e-9)


def test_a_level_can_be_read_when_asked_and_say_nothing() -> None:
    told: list[float | None] = [None, 7.0]
    level = Level("x_bytes", "X.", read=lambda: told.pop(0))
    assert level.family().samples == []
    assert only(level) == 7
    assert (resident_bytes() or 1) > 0


# -------------------------------------------------------------------------------------------------- what parts tell
def fed(engine: Engine, first: int, last: int) -> Engine:
    """An engine that has seen some orders, each of them twice."""
    orders = [order(NOON + n * HOUR, 1, f"SKU-{n % 3}", event_id=f"e{n}") for n in range(first, last) for _ in range(2)]
    batch, _ = decode(lines(orders), clock_ms=CLOCK)
    batch.tick_ms[:] = np.maximum.accumulate(batch.time_ms)
    engine.process(batch)
    return engine


def test_totals_of_a_shard_are_counted_once_across_owners() -> None:
    metrics, engine = Metrics(), fed(Engine(EngineConfig(max_series=2)), 0, 5)
    metrics.follow_shard(1, engine)
    metrics.follow_shard(1, engine)
    assert {outcome: value(metrics, "shelftide_events_total", outcome=outcome, shard=1) for outcome in OUTCOMES} == {
        "accepted": 5, "duplicate": 5, "late": 0, "ahead": 0, "parked": engine.intake.counts["parked"],
    }  # fmt: skip
    assert value(metrics, "shelftide_events_total", outcome="refused", shard=1) == engine.series.refused > 0
    assert value(metrics, "shelftide_series", shard=1) == 2
    heir, records = Engine(EngineConfig(max_series=2)), {key: v for key, v in engine.changes() if v is not None}
    heir.restore(records)
    for owner in (metrics, Metrics()):
        before = value(owner, "shelftide_events_total", outcome="accepted", shard=1) or 0
        owner.begin_shard(1, heir)
        owner.follow_shard(1, heir)
        assert value(owner, "shelftide_events_total", outcome="accepted", shard=1) == before
    fed(heir, 5, 7)
    metrics.follow_shard(1, heir)
    assert value(metrics, "shelftide_events_total", outcome="accepted", shard=1) == 7


def test_what_is_no_longer_here_is_told_of_no_more() -> None:
    metrics = Metrics()
    for shard in (0, 1):
        metrics.follow_shard(shard, fed(Engine(EngineConfig(max_series=5)), 0, 3))
        metrics.lag_records.set(7, topic="shop.orders.v1", partition=shard)
        metrics.lag_seconds.set(7, topic="shop.orders.v1", partition=shard)
    metrics.forget_shard(0)
    metrics.forget_partition("shop.orders.v1", 0)
    for name in ("shelftide_series", "shelftide_dirty_series", "shelftide_due_series"):
        assert value(metrics, name, shard=0) is None
        assert value(metrics, name, shard=1) is not None
    for name in ("shelftide_lag_records", "shelftide_lag_seconds"):
        assert value(metrics, name, topic="shop.orders.v1", partition=0) is None
        assert value(metrics, name, topic="shop.orders.v1", partition=1) == 7
    assert value(metrics, "shelftide_events_total", outcome="accepted", shard=0) == 3, "counters stay"


def test_a_commit_is_counted_by_kind_topic_and_stage() -> None:
    metrics = Metrics()
    letters = [dead_letter(b"{", None, stage, "bad") for stage in ("decode", "decode", "late")]
    outputs = [*letters, Output(DEMAND_TOPIC, b"A|default", b"{}", "f1", 0)]
    metrics.committed(0.04, 5000, [("open/0", b"12345"), ("open/1", None), ("clock/engine", b"1")], outputs)
    assert value(metrics, "shelftide_state_records_total", kind="open") == 2
    assert value(metrics, "shelftide_state_bytes_total", kind="open") == len("open/012345open/1")
    assert value(metrics, "shelftide_outputs_total", topic=DEMAND_TOPIC) == 1
    assert [value(metrics, "shelftide_dead_letters_total", stage=stage) for stage in STAGES[:4]] == [2, 0, 0, 1]
    assert value(metrics, "shelftide_commit_bytes_sum") == 5000
    assert value(metrics, "shelftide_commit_seconds_count") == 1


def stats(**told: int) -> Stats:
    fallbacks = dict.fromkeys(CLASSES, 0) | {name: n for name, n in told.items() if name in CLASSES}
    return Stats(batches=9, rows=9, failures=told.get("failures", 0), timeouts=told.get("timeouts", 0),
                 out_of_memory=0, fallbacks=fallbacks, refused=0, seconds=1.0, fallback_seconds=0.0,
                 rows_per_call=2048, abandoned=0, rest_s=0.0)  # fmt: skip


def test_the_executor_is_followed_and_one_model_alone_is_named() -> None:
    metrics = Metrics()
    metrics.follow_executor(stats(failed=2, failures=2), "retail-1")
    metrics.follow_executor(stats(failed=2, timeout=1, failures=2, timeouts=1), "retail-2")
    assert [value(metrics, "shelftide_forecast_fallbacks_total", reason=name) for name in CLASSES] == [2, 1, 0, 0]
    assert value(metrics, "shelftide_model_failures_total") == 2
    assert value(metrics, "shelftide_model_timeouts_total") == 1
    assert value(metrics, "shelftide_model_info", model="retail-1") is None
    assert value(metrics, "shelftide_model_info", model="retail-2") == 1


# -------------------------------------------------------------------------------------------------- served
@pytest.fixture
def serve() -> Iterator[Callable[..., MetricsServer]]:
    """Starts servers on free ports, and closes them."""
    made: list[MetricsServer] = []

    def start(
        metrics: Metrics | None = None, ready: Check = lambda: True, health: Check = lambda: True
    ) -> MetricsServer:
        made.append(MetricsServer(metrics or Metrics(), "127.0.0.1", 0, ready=ready, health=health))
        return made[-1]

    yield start
    for server in made:
        server.close()


def get(server: MetricsServer, path: str, method: str = "GET", **headers: str) -> tuple[int, str, str]:
    """Status, content type and text of a page."""
    with closing(HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE_S)) as connection:
        connection.request(method, path, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.getheader("Content-Type") or "", answer.read().decode()


def told_of_everything() -> Metrics:
    """Metrics in which every meter has been used once."""
    metrics = Metrics()
    for meter in metrics.meters:
        labels = dict.fromkeys(meter.labels, 'wei"rd\\\n')
        if isinstance(meter, Count):
            meter.inc(3, **labels)
        elif isinstance(meter, Level):
            meter.set(2.5, **labels)
        elif isinstance(meter, Spread):
            meter.observe(np.array([0.01, 4.0]), **labels)
    return metrics


def test_metrics_are_served_in_both_forms_and_parse(serve: Callable[..., MetricsServer]) -> None:
    metrics = told_of_everything()
    server = serve(metrics)
    status, kind, text = get(server, "/metrics")
    assert (status, kind.partition(";")[0]) == (200, "text/plain")
    families = {family.name: family for family in parse_text(text)}
    wanted = {meter.name.removesuffix("_total"): meter for meter in metrics.meters}
    assert set(families) == set(wanted), "nothing else, and no time of creation for each counter"
    assert {name: family.type for name, family in families.items()} == {n: m.family().type for n, m in wanted.items()}
    assert {name: family.documentation for name, family in families.items()} == {n: m.about for n, m in wanted.items()}
    _, kind, text = get(server, "/metrics?name=x", Accept="application/openmetrics-text; version=1.0.0")
    assert kind.startswith("application/openmetrics-text")
    assert {family.name for family in parse_openmetrics(text)} == set(wanted)  # type: ignore[no-untyped-call]  # not ours


def test_ready_and_live_answer_with_a_code_and_the_reason(serve: Callable[..., MetricsServer]) -> None:
    told: dict[str, bool | str] = {"ready": "shard 3 is being recovered", "live": True}
    server = serve(ready=lambda: told["ready"], health=lambda: told["live"])
    assert get(server, "/ready")[::2] == (503, "shard 3 is being recovered\n")
    assert get(server, "/live")[::2] == (200, "live\n")
    told.update(ready=True, live=False)
    assert get(server, "/ready")[::2] == (200, "ready\n")
    assert get(server, "/live")[::2] == (503, "not live\n")
    assert get(server, "/ready", "HEAD")[::2] == (200, "")
    assert get(server, "/sku")[::2] == (404, "there are /metrics, /ready and /live\n")
    assert get(server, "/ready", "POST")[0] == 501


def test_a_check_that_fails_is_a_reason(serve: Callable[..., MetricsServer]) -> None:
    def broken() -> bool:
        raise RuntimeError("no loop")

    assert get(serve(ready=broken), "/ready")[::2] == (503, "the check itself failed: RuntimeError: no loop\n")


def test_a_port_that_is_taken_is_one_sentence(serve: Callable[..., MetricsServer]) -> None:
    taken = serve().port
    with pytest.raises(MetricsError) as error:
        MetricsServer(Metrics(), "127.0.0.1", taken, ready=lambda: True, health=lambda: True)
    assert str(error.value) == (
        f"port {taken} of 127.0.0.1 for metrics is taken; "
        "stop what listens there, or set worker.metrics_port to another port or to 0"
    )


@pytest.mark.parametrize(("host", "port"), [("192.0.2.1", 0), ("127.0.0.1", 65_536)])
def test_an_address_of_another_machine_is_one_sentence(host: str, port: int) -> None:
    with pytest.raises(MetricsError, match=r"cannot be listened on \(.+\); set worker.metrics_host"):
        MetricsServer(Metrics(), host, port, ready=lambda: True, health=lambda: True)


def test_a_closed_server_frees_its_port() -> None:
    first = MetricsServer(Metrics(), "127.0.0.1", 0, ready=lambda: True, health=lambda: True)
    assert get(first, "/ready")[0] == 200
    first.close()
    again = MetricsServer(Metrics(), "127.0.0.1", first.port, ready=lambda: True, health=lambda: True)
    assert get(again, "/ready")[0] == 200
    again.close()


def test_silent_clients_are_few_and_others_are_turned_away_at_once(serve: Callable[..., MetricsServer]) -> None:
    server = serve()
    silent = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(REQUESTS_AT_ONCE)]
    try:
        with pytest.raises((HTTPException, OSError)):
            get(server, "/ready")
    finally:
        for one in silent:
            one.close()
    until_s = time.monotonic() + PATIENCE_S
    while time.monotonic() < until_s:
        try:
            assert get(server, "/ready")[0] == 200
            return
        except (HTTPException, OSError):
            time.sleep(0.001)  # the threads of those that hung up are about to end
    pytest.fail("the server did not recover from silent clients")
