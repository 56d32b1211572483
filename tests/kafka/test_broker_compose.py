"""What is asked of docker, and how its answers are read; docker is a script that keeps what it was asked."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from streams.kafka.broker import BrokerError
from streams.kafka.broker_compose import ComposeBroker
from tests.program import finished

MakeDocker = Callable[..., None]

DOCKER = """#!/bin/sh
echo "$BROKER_PORT $*" >>{folder}/asked
case "$*" in
    *" ps "*) cat {folder}/ps ;;
    *" up "*) {up} ;;
    info) {info} ;;
esac
"""
RUNNING = {
    "Service": "kafka", "State": "running", "Health": "healthy",
    "Publishers": [{"URL": "127.0.0.1", "TargetPort": 9092, "PublishedPort": 19999, "Protocol": "tcp"}],
}  # fmt: skip


@pytest.fixture
def docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MakeDocker:
    """Puts a docker on the path that tells of the given containers."""
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")

    def make(ps: str = "", up: str = ":", info: str = ":") -> None:
        (tmp_path / "ps").write_text(ps)
        (tmp_path / "bin" / "docker").write_text(DOCKER.format(folder=tmp_path, up=up, info=info))
        (tmp_path / "bin" / "docker").chmod(0o755)

    return make


def asked(folder: Path) -> list[str]:
    """What docker was asked to do, without questions."""
    lines = (folder / "asked").read_text().splitlines()
    return [line for line in lines if not line.endswith(("info", "version")) and " ps " not in line]


def test_a_container_is_started_and_waited_for(docker: MakeDocker, tmp_path: Path) -> None:
    docker()
    broker = ComposeBroker(19999)
    assert broker.up() is True
    assert asked(tmp_path) == [f"19999 compose --file {broker.file} up --detach --wait --wait-timeout 180 kafka"]


@pytest.mark.parametrize("form", [json.dumps(RUNNING), json.dumps([RUNNING])])
def test_a_running_container_is_found(form: str, docker: MakeDocker, tmp_path: Path) -> None:
    docker(ps=form + "\n")
    broker = ComposeBroker(19999)
    assert broker.up() is False
    status = broker.status()
    assert (status.running, status.serving, status.bootstrap) == (True, True, "127.0.0.1:19999")
    assert asked(tmp_path) == []


def test_a_container_that_is_not_healthy_does_not_serve(docker: MakeDocker) -> None:
    docker(ps=json.dumps({**RUNNING, "Health": "starting"}))
    assert (ComposeBroker().status().running, ComposeBroker().status().serving) == (True, False)


def test_down_leaves_other_services_and_the_volume(docker: MakeDocker, tmp_path: Path) -> None:
    docker(ps=json.dumps(RUNNING))
    assert ComposeBroker().down() is True
    [line] = asked(tmp_path)
    assert line.endswith("rm --stop --force kafka")


def test_what_docker_refuses_is_told(docker: MakeDocker) -> None:
    docker(up="echo 'pulling' >&2; echo 'Error: port is already allocated' >&2; exit 1")
    with pytest.raises(BrokerError, match=r"`docker compose up` failed \(Error: port is already allocated\); see"):
        ComposeBroker().up()


def test_without_an_engine_the_jars_are_taken(docker: MakeDocker, tmp_path: Path) -> None:
    docker(info="exit 1")
    assert ComposeBroker().missing() == "no docker engine runs"
    assert ComposeBroker(file=tmp_path / "none.yml").missing() == "there is no none.yml beside the source"
    with pytest.raises(BrokerError, match="in a container: no docker engine runs; mend that, or run it from its jars"):
        ComposeBroker().up()
    environment = {**os.environ, "XDG_STATE_HOME": str(tmp_path / "state")}
    assert json.loads(finished("broker", "status", "--json", env=environment).stdout)["with"] == "jars"
    docker()
    assert json.loads(finished("broker", "status", "--json", env=environment).stdout)["with"] == "compose"
