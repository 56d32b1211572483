"""A worker with its metrics: what `shelftide worker` runs.

In: the worker's configuration. Out: metrics, readiness and health over HTTP while it runs.
Must not know: commands. Rule: who asks is answered from the first look at Kafka on; ready means that every shard of the
assignment is recovered.
"""

from __future__ import annotations

import structlog

from streams.kafka.ending import WorkerError
from streams.kafka.metrics_server import MetricsError, MetricsServer
from streams.kafka.watch import Watch
from streams.kafka.worker import WorkerConfig, run

log = structlog.get_logger("shelftide.worker")


def serve_worker(config: WorkerConfig, instance_id: str) -> None:
    """Run a worker until it is told to stop.

    Raises
    ------
    streams.kafka.ending.WorkerError
        If it cannot run.
    """
    watch = Watch(config.kafka, config.worker)
    server = _server(config, watch)
    try:
        run(config, instance_id, watch.start)
    finally:
        watch.close()
        if server is not None:
            server.close()


def _server(config: WorkerConfig, watch: Watch) -> MetricsServer | None:
    host, port = config.worker.metrics_host, config.worker.metrics_port
    if port is None:
        return None
    try:
        server = MetricsServer(watch.metrics, host, port, ready=watch.ready, health=watch.healthy)
    except MetricsError as error:
        raise WorkerError(str(error)) from error
    log.info("serving metrics", host=host, port=server.port)
    return server
