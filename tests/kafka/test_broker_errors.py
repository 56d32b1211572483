"""Each way in which a broker cannot be started ends in one sentence that says what, where and what to do."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from shelftide.cli import run
from streams.kafka.broker import BrokerError, LocalBroker, free_port
from tests.program import PROGRAM, finished

MakeBroker = Callable[..., LocalBroker]
MakePrograms = Callable[..., dict[str, str]]

JAVA_11 = """echo 'openjdk version "11.0.2" 2019-01-15' >&2"""
JAVA_17 = """echo 'openjdk version "17.0.15" 2025-04-15' >&2"""


@pytest.fixture
def programs(tmp_path: Path) -> MakePrograms:
    """Makes an environment whose path has the named programs alone, each a shell script, and an empty cache."""
    folder = tmp_path / "bin"
    folder.mkdir()

    def make(**scripts: str) -> dict[str, str]:
        for name, script in scripts.items():
            (folder / name).write_text(f"#!/bin/sh\n{script}\n")
            (folder / name).chmod(0o755)
        return {"PATH": str(folder), "HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache")}

    return make


def refusal(folder: Path, *options: str, **environment: str) -> tuple[int, str]:
    """How `broker up` ends, and its last line."""
    given = ["broker", "up", "--folder", str(folder), "--port", str(free_port()), *options]
    done = finished(*given, env=environment or None)
    return done.returncode, done.stderr.decode().splitlines()[-1]


# -- what the machine lacks


@pytest.mark.parametrize(
    ("scripts", "sentence"),
    [
        ({}, "there is no java on this machine's path; install Java 17 or newer"),
        ({"java": JAVA_11}, "is Java 11, and Kafka needs 17 or newer; install it or set JAVA_HOME"),
        ({"java": "echo hello"}, "is no Java that says its version, and Kafka needs 17 or newer"),
        ({"java": JAVA_17}, "no mvn is on this machine's path; install Maven"),
        (
            {"java": JAVA_17, "mvn": "echo '[INFO] x'; echo '[ERROR] repo.example: unknown host'; exit 1"},
            "Maven cannot fetch Kafka's jars (repo.example: unknown host); check the network",
        ),
    ],
)
def test_missing_programs_are_named(
    scripts: dict[str, str], sentence: str, programs: MakePrograms, tmp_path: Path
) -> None:
    code, line = refusal(tmp_path / "b", **programs(**scripts))
    assert (code, sentence in line) == (1, True), line
    assert not list((tmp_path / "cache").glob("shelftide/*-*")), "half a cache stays"


def test_java_home_comes_before_the_path(programs: MakePrograms, tmp_path: Path) -> None:
    environment = programs(java=JAVA_17, mvn="exit 0")
    code, line = refusal(tmp_path / "b", **environment, JAVA_HOME=str(tmp_path / "none"))
    assert code == 1
    assert re.search(r"'.*none/bin/java' does not run \(.*\); set JAVA_HOME to a Java 17", line)


def test_jars_are_fetched_once_by_two_processes_at_once(programs: MakePrograms, tmp_path: Path) -> None:
    counted = f'echo "$@" >>{tmp_path}/asked; {shutil.which("sleep")} 0.3; {shutil.which("mkdir")} jars; : >jars/k.jar'
    environment = programs(java=JAVA_17, mvn=counted)
    asked = "from streams.kafka.broker_jars import jar_folder; print(jar_folder())"

    def fetch(_: int) -> str:
        command = [sys.executable, "-c", asked]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.strip()

    with ThreadPoolExecutor(2) as pool:
        found = set(pool.map(fetch, range(2)))
    [folder] = found
    assert [path.name for path in Path(folder).iterdir()] == ["k.jar"]
    assert len((tmp_path / "asked").read_text().splitlines()) == 1
    assert {path.name for path in Path(folder).parent.iterdir()} == {Path(folder).name, "lock"}


# -- what the port, the folder or the disk refuse


def test_a_taken_port_is_named(java: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        assert run(["broker", "up", "--folder", str(tmp_path / "b"), "--port", str(port)]) == 1
    assert f"port {port} of 127.0.0.1 is taken by another program; stop it, or choose" in capsys.readouterr().err


def test_a_folder_of_somebody_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    code, line = refusal(tmp_path)
    assert (code, "holds files that are no broker's of shelftide; name an empty folder" in line) == (2, True), line
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
    with pytest.raises(BrokerError, match="holds files"):
        LocalBroker(tmp_path).down()
    assert not LocalBroker(tmp_path).status().running


def test_a_file_in_the_place_of_the_folder_is_wrong_input(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    code, line = refusal(tmp_path / "file")
    assert (code, "cannot be used (File exists); name a folder that you may write to" in line) == (2, True), line


def test_a_full_disk_is_named(java: None, tmp_path: Path) -> None:
    arguments = ["broker", "up", "--folder", str(tmp_path / "b"), "--port", str(free_port())]
    command = ["sh", "-c", 'ulimit -f 1; exec "$@"', "sh", *PROGRAM, *arguments]  # a file may have one block
    done = subprocess.run(command, capture_output=True, timeout=60, check=False)
    assert done.returncode == 1
    assert b"is full (File too large); make room, or name another folder" in done.stderr
    assert b"Traceback" not in done.stderr


def test_the_line_of_the_log_that_tells_most_is_shown(own_broker: MakeBroker) -> None:
    broker = own_broker(properties={"num.io.threads": "0"})
    with pytest.raises(BrokerError, match=r"ended at its start \(ConfigException: Invalid value 0 .*num\.io\.threads"):
        broker.up()
    with pytest.raises(BrokerError, match=r"ended at its start \(Unrecognized VM option 'Fast'\)"):
        own_broker(java_options=("-XX:Fast",)).up()


def test_missing_jars_say_which_folder_to_delete(programs: MakePrograms, tmp_path: Path, java: None) -> None:
    environment = {**programs(), "PATH": os.environ["PATH"]}
    jars = tmp_path / "cache" / "shelftide" / "kafka-4.1.1"
    jars.mkdir(parents=True)
    code, line = refusal(tmp_path / "b", **environment)
    assert (code, "jars of Kafka are missing (ClassNotFoundException: kafka.tools.StorageTool)" in line) == (1, True)
    assert f"delete '{jars}', and they are fetched anew" in line


@pytest.mark.parametrize("heap", ["lots", "0m", "512", "-1g", "512 m"])
def test_a_heap_that_java_would_not_read_is_wrong_input(heap: str, tmp_path: Path) -> None:
    code, line = refusal(tmp_path / "b", f"--heap={heap}")
    assert (code, f"{heap!r} is no size of a heap; give one such as 512m or 2g" in line) == (2, True), line


def test_a_container_needs_an_engine_and_no_folder(tmp_path: Path, programs: MakePrograms) -> None:
    code, line = refusal(tmp_path / "b", "--with", "compose")
    assert (code, "leave --folder out" in line) == (2, True), line
    done = finished("broker", "up", "--with", "compose", env=programs())
    assert done.returncode == 1
    assert b"Kafka cannot run in a container: there is no docker" in done.stderr


# -- whose process it is


def test_a_process_that_inherited_the_number_is_not_the_broker(tmp_path: Path) -> None:
    (tmp_path / "server.properties").write_text("# Written by shelftide at each start of this broker.\n")
    (tmp_path / "pid").write_text(str(os.getpid()))
    broker = LocalBroker(tmp_path)
    assert not broker.status().running
    assert broker.down() is False  # and this test still runs
    assert not (tmp_path / "pid").exists()
