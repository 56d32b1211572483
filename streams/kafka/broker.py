"""A real Kafka on this machine: one node that is broker and controller, on loopback, from its published jars.

In: a folder and a port. Out: a running broker that outlives this process, its status, its end.
Must not know: topics, settings of the engine. Rule: a folder has one broker, and holds nothing but what a broker left:
`server.properties` (written anew at each start), `data/`, `broker.log`, `pid` and `lock`.
"""

from __future__ import annotations

import errno
import re
import shutil
import subprocess
import time
import uuid
from base64 import urlsafe_b64encode
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from streams.kafka.broker_jars import BrokerError, jar_folder, java_program, locked
from streams.kafka.broker_process import DetachedProcess, telling_line
from streams.kafka.broker_properties import HOST, accepts, check_heap, claim_port, free_port, server_properties

__all__ = ["DEFAULT_PORT", "HOST", "QUICK_JVM", "BrokerError", "BrokerStatus", "LocalBroker", "free_port"]

DEFAULT_PORT = 9092

QUICK_JVM = ("-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")
"""Up in 2.3 s and 1.9 s of CPU, 360 MB resident. With Java's own choice it is 2.9 s and 3.4 s, and the first millions
of records cost a broker twice the CPU, since the optimising compiler is at work beside it (2 cores, Kafka 4.1.1)."""

_LOGGING = (
    "-Dorg.slf4j.simpleLogger.showDateTime=true",
    "-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd'T'HH:mm:ss.SSSXXX",
    "-Dorg.slf4j.simpleLogger.log.org.apache.kafka.common.config=warn",  # else each start lists 400 settings
)
_PORT_S = 2.0
_STARTED = "Kafka Server started"
_PARTIAL = "server.properties.part"
_HEADER = "# Written by shelftide at each start of this broker.\n"

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_FULL_SAID = ("No space left", "quota exceeded", "File too large")
"""How Java words the same."""
_LEAST_BYTES = 1 << 20


@dataclass(frozen=True)
class BrokerStatus:
    """What is known of a broker on this machine.

    Attributes
    ----------
    running, serving
        Whether its process lives, and whether it accepts connections.
    pid
        Of the process; None where none runs.
    bootstrap
        Where clients find it, or would.
    folder, log
        Where its data lie, and what it has to say; None where a container holds both.
    """

    running: bool
    serving: bool
    pid: int | None
    bootstrap: str
    folder: Path | None
    log: Path | None


@dataclass(frozen=True)
class LocalBroker:
    """One Kafka node on loopback, with its data, log and pid in a folder.

    Attributes
    ----------
    folder
        Made where it is missing; one that holds anything else is refused.
    port
        Where clients connect in plain text.
    sasl_port
        Where clients connect with SCRAM in plain text; None: nowhere. Users are made by an admin client.
    heap
        Most memory of Java objects, as Java writes it: ``512m``, ``2g``.
    properties
        Further properties of the server, and others than ours.
    java_options
        Options of the Java machine.
    launcher
        What Java is started through, such as ``("nice",)`` or ``("prlimit", "--fsize=20000000")``.
    """

    folder: Path
    port: int = DEFAULT_PORT
    sasl_port: int | None = None
    heap: str = "512m"
    properties: Mapping[str, str] = field(default_factory=dict)
    java_options: Sequence[str] = QUICK_JVM
    launcher: Sequence[str] = ()

    @property
    def bootstrap(self) -> str:
        """Where clients find it."""
        return f"{HOST}:{self.port}"

    def up(self, timeout_s: float = 60) -> bool:
        """Start it unless it runs, and wait until it serves.

        Returns
        -------
        Whether it was started; False: it ran already.

        Raises
        ------
        BrokerError
            If Java, the jars, the port or the folder cannot be had, or the broker ends or is silent at its start.
        """
        check_heap(self.heap)
        with self._alone():
            found = self.status()
            if found.running:
                self._refuse_another_port(found)
                return False
            java, jars = java_program(), jar_folder()
            for port in filter(None, (self.port, self.sasl_port)):
                claim_port(port)
            self._configure()
            self._format(java, jars)
            self._start(java, jars, timeout_s)
        return True

    def status(self) -> BrokerStatus:
        """What is known of it, whatever port it was started on."""
        pid = self._process.pid()
        port = self.port if pid is None else self._configured_port()
        return BrokerStatus(
            running=pid is not None,
            serving=pid is not None and accepts(port),
            pid=pid,
            bootstrap=f"{HOST}:{port}",
            folder=self._folder,
            log=self._process.log,
        )

    def down(self, *, kill: bool = False, timeout_s: float = 30) -> bool:
        """Stop it; its data stay, and the next start finds them.

        Parameters
        ----------
        kill
            At once, as a machine that loses its power would, and not in order.
        timeout_s
            How long it may take to stop in order before it is killed.

        Returns
        -------
        Whether it ran.

        Raises
        ------
        BrokerError
            If the process is another user's.
        """
        if not self._folder.exists():
            return False
        with self._alone():
            ran = self._process.stop(0.0 if kill else timeout_s)
            if ran:
                self._await_port()
            return ran

    def _await_port(self) -> None:
        """The system frees the port of a killed process a moment after its end; whoever starts it again wants it."""
        until_s = time.monotonic() + _PORT_S
        while time.monotonic() < until_s:
            with suppress(BrokerError):
                return claim_port(self._configured_port())
            time.sleep(0.02)

    # ------------------------------------------------------------------------------------------------ the folder
    @property
    def _folder(self) -> Path:
        return self.folder.absolute()

    @property
    def _config(self) -> Path:
        return self._folder / "server.properties"

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Hold the folder: one start or stop at a time. What the disk refuses meanwhile becomes a sentence."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._refuse_foreign_files()
            with locked(self._folder / "lock"):
                yield
        except OSError as error:
            where, why = str(error.filename or self._folder), error.strerror or str(error)
            if error.errno in _FULL:
                raise BrokerError(f"the disk of {where!r} is full ({why}); make room, or name another folder") from None
            raise BrokerError(
                f"{where!r} cannot be used ({why}); name a folder that you may write to", wrong_input=True
            ) from None

    def _refuse_foreign_files(self) -> None:
        ours = self._config.is_file() and self._config.read_text("utf-8", errors="replace").startswith(_HEADER)
        if not ours and any(path.name not in ("lock", _PARTIAL) for path in self._folder.iterdir()):
            raise BrokerError(
                f"{str(self._folder)!r} holds files that are no broker's of shelftide; name an empty folder",
                wrong_input=True,
            )

    def _configure(self) -> None:
        properties = {**server_properties(self.port, self.sasl_port, self._folder / "data"), **self.properties}
        partial = self._folder / _PARTIAL
        partial.write_text(_HEADER + "".join(f"{name}={value}\n" for name, value in properties.items()), "utf-8")
        partial.replace(self._config)

    def _configured_port(self) -> int:
        with suppress(OSError):
            text = self._config.read_text("utf-8", errors="replace")
            if found := re.search(r"^listeners=PLAINTEXT://[\d.]+:(\d+)", text, re.MULTILINE):
                return int(found[1])
        return self.port

    def _format(self, java: str, jars: Path) -> None:
        """Give an empty data folder its identity; Kafka writes `meta.properties` last."""
        if (self._folder / "data" / "meta.properties").exists():
            return
        cluster = urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        tool = ["kafka.tools.StorageTool", "format", f"--cluster-id={cluster}", "--ignore-formatted", "--config"]
        done = subprocess.run(  # noqa: S603 - the user's own Java
            [*self._java(java, jars), *tool, str(self._config)],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
        )  # fmt: skip
        if done.returncode:
            raise self._failure(done.stdout, jars)

    # ------------------------------------------------------------------------------------------------ the process
    @property
    def _process(self) -> DetachedProcess:
        return DetachedProcess(self._folder / "pid", self._folder / "broker.log", ("kafka.Kafka", str(self._config)))

    def _java(self, java: str, jars: Path) -> list[str]:
        return [*self.launcher, java, f"-Xmx{self.heap}", *self.java_options, *_LOGGING, "-cp", f"{jars}/*"]

    def _start(self, java: str, jars: Path, timeout_s: float) -> None:
        try:
            said_before = self._process.start([*self._java(java, jars), "kafka.Kafka", str(self._config)])
            self._await_start(said_before, jars, timeout_s)
        except BaseException:  # an interrupt too: what has not started must not stay
            self._process.settle()
            self._process.stop(0.0)
            raise

    def _await_start(self, said_before: int, jars: Path, timeout_s: float) -> None:
        process, until_s = self._process, time.monotonic() + timeout_s
        while True:
            process.settle()  # a launcher becomes Java: for that moment it has no command line
            lives = process.pid() is not None  # asked first, so that its last words are read
            said = process.said(said_before)
            if _STARTED in said:
                return
            if not lives:
                raise self._failure(said, jars)
            if time.monotonic() > until_s:
                where, log = str(self._folder), str(process.log)
                raise BrokerError(f"the broker in {where!r} has not started in {timeout_s:g} s; see {log!r}")
            time.sleep(0.05)

    def _failure(self, output: str, jars: Path) -> BrokerError:
        """Why it ended, from the line of its output that tells most."""
        told, where = telling_line(output), repr(str(self._folder))
        full = shutil.disk_usage(self._folder).free < _LEAST_BYTES  # too full even for a log that says so
        if full or any(said in told for said in _FULL_SAID):
            return BrokerError(f"the disk of {where} is full ({told}); make room, or name another folder")
        if "ClassNotFound" in told or "NoClassDefFound" in told:
            return BrokerError(f"jars of Kafka are missing ({told}); delete {str(jars)!r}, and they are fetched anew")
        return BrokerError(f"the broker in {where} ended at its start ({told}); see {str(self._process.log)!r}")

    def _refuse_another_port(self, found: BrokerStatus) -> None:
        if found.bootstrap != self.bootstrap:
            raise BrokerError(
                f"the broker in {str(self._folder)!r} runs already, at {found.bootstrap}; use it, or stop it first",
                wrong_input=True,
            )
