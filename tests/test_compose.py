"""The compose file and the Dockerfile against the program: names, users, rights, health, versions."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from shelftide.cli import run
from shelftide.settings import Settings
from streams.kafka.broker_compose import COMPOSE_FILE, SERVICE
from streams.kafka.broker_jars import KAFKA_VERSION
from streams.kafka.broker_properties import server_properties

ROOT = Path(__file__).parents[1]
SERVICES: dict[str, dict[str, Any]] = yaml.safe_load(COMPOSE_FILE.read_text("utf-8"))["services"]
OURS = sorted(name for name in SERVICES if name != SERVICE)
DOCKERFILE = (ROOT / "Dockerfile").read_text("utf-8")


def instructions(word: str) -> list[str]:
    """What follows a word of the Dockerfile, lines that go on joined."""
    joined = DOCKERFILE.replace("\\\n", " ")
    return [re.sub(r"\s+", " ", line) for line in re.findall(rf"^{word} (.+)", joined, re.MULTILINE)]


def test_kafka_and_what_runs_on_it_are_services() -> None:
    assert COMPOSE_FILE == ROOT / "docker-compose.yml"
    assert set(SERVICES) == {SERVICE, "topics", "worker", "learn"}


@pytest.mark.parametrize("name", SERVICES)
def test_no_service_has_more_rights_than_it_needs(name: str) -> None:
    service = SERVICES[name]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert not {"privileged", "cap_add", "network_mode", "pid", "ipc", "devices"} & set(service)


@pytest.mark.parametrize("name", OURS)
def test_the_program_runs_as_nobody_in_particular_on_a_read_only_root(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert {mount.partition(":")[0] for mount in service["tmpfs"]} == {"/tmp", "/var/lib/shelftide"}  # noqa: S108
    assert [service["user"]] == instructions("USER")
    assert re.fullmatch(r"[1-9]\d+:[1-9]\d+", service["user"])
    assert "ports" not in service


@pytest.mark.parametrize("name", OURS)
def test_every_command_and_setting_of_a_service_exists(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    service = SERVICES[name]
    assert run([*service["command"], "--help"]) == 0
    chosen = Settings()
    tables = {"KAFKA": type(chosen.kafka), "WORKER": type(chosen.worker), "MODEL": type(chosen.model)}
    known = {name.upper() for name in Settings.model_fields}
    known |= {f"{table}__{name.upper()}" for table, model in tables.items() for name in model.model_fields}
    assert {name.removeprefix("SHELFTIDE_") for name in service["environment"]} - known == set()
    assert {name for name in service["environment"] if not name.startswith("SHELFTIDE_")} == set()


def test_services_start_in_order_and_come_back() -> None:
    waits = {
        name: {on: how["condition"] for on, how in service.get("depends_on", {}).items()}
        for name, service in SERVICES.items()
    }
    assert waits[SERVICE] == {}
    assert waits["topics"] == {SERVICE: "service_healthy"}
    assert waits["worker"] == {SERVICE: "service_healthy", "topics": "service_completed_successfully"}
    assert waits["learn"] == waits["worker"]
    restarts = {name: service["restart"] for name, service in SERVICES.items()}
    stays = dict.fromkeys((SERVICE, "worker", "learn"), "unless-stopped")
    assert restarts == {**stays, "topics": "on-failure:5"}
    assert {name for name, service in SERVICES.items() if "stop_grace_period" in service} == {SERVICE, "worker"}


def test_health_is_asked_of_what_stays() -> None:
    assert SERVICES["topics"]["healthcheck"] == {"disable": True}
    inside = next(end for end in listeners("KAFKA_LISTENERS").items() if end[0] == "INSIDE")[1]
    assert SERVICES[SERVICE]["healthcheck"]["test"][-1].endswith(f"/{inside.rpartition(':')[2]}")
    [image] = instructions("HEALTHCHECK")
    port = SERVICES["worker"]["environment"]["SHELFTIDE_WORKER__METRICS_PORT"]
    assert f"http://127.0.0.1:{port}/ready" in image
    assert "healthcheck" not in SERVICES["worker"], "that of the image holds"


def listeners(variable: str) -> dict[str, str]:
    """Name -> address, of Kafka's listeners."""
    return dict(part.split("://") for part in SERVICES[SERVICE]["environment"][variable].split(","))


def test_clients_find_kafka_from_inside_and_on_loopback_alone() -> None:
    told = listeners("KAFKA_ADVERTISED_LISTENERS")
    assert told == {"HOST": "127.0.0.1:${BROKER_PORT:-9092}", "INSIDE": f"{SERVICE}:19092"}
    assert SERVICES[SERVICE]["ports"] == ["127.0.0.1:${BROKER_PORT:-9092}:9092"]
    bootstraps = {SERVICES[name]["environment"]["SHELFTIDE_KAFKA__BOOTSTRAP_SERVERS"] for name in OURS}
    assert bootstraps == {told["INSIDE"]}


def test_the_container_is_the_broker_that_the_jars_make() -> None:
    assert SERVICES[SERVICE]["image"] == f"apache/kafka:{KAFKA_VERSION}"
    variables = SERVICES[SERVICE]["environment"].items()
    told = {name.removeprefix("KAFKA_").lower().replace("_", "."): str(value) for name, value in variables}
    made = server_properties(9092, None, Path("/var/lib/kafka/data"))
    places = {"listeners", "advertised.listeners", "controller.quorum.voters", "listener.security.protocol.map"}
    scram = {name for name in made if "sasl" in name}
    same = set(made) - places - scram - {"inter.broker.listener.name"}
    assert {name: told.get(name) for name in same} == {name: made[name] for name in same}


def test_base_images_are_pinned() -> None:
    bases = [line.split()[0] for line in instructions("FROM")]
    assert all(re.search(r":\d+\.\d+\.\d+", base) or base == "${ACCELERATOR}" for base in bases), bases
    stages = {line.split()[-1] for line in instructions("FROM") if " AS " in line}
    assert stages == {"cpu", "cuda", "build"}


def test_the_image_holds_every_package_and_nothing_else() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    packages = set(project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"])
    copied = {word for line in instructions("COPY") if "--from" not in line for word in line.split()[:-1]}
    assert copied == packages | {"pyproject.toml", "constraints.txt", "README.md", "LICENSE"}
    ignored = (ROOT / ".dockerignore").read_text("utf-8").splitlines()
    assert ignored[1] == "*"
    assert {line[1:] for line in ignored if line.startswith("!")} == copied
    assert instructions("ENTRYPOINT") == ['["shelftide"]']
    assert instructions("CMD") == ['["worker"]']
