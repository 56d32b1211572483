"""A Java program that outlives the command which started it: begun, found again, stopped, and its last words read.

In: a command line. Out: a process, known by a pid file; what it said in its log.
Must not know: Kafka. Rule: only the process that the pid file names is stopped, and only after its command line has
shown it to be the one that was started.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from streams.kafka.broker_jars import BrokerError

_LOG_BYTES = 10 << 20
"""A log longer than this becomes `<name>.1` at the next start."""

_DETACHED = """
log=$1 pid=$2
shift 2
"$@" </dev/null >>"$log" 2>&1 &
echo $! >"$pid" || { kill -9 $!; exit 1; }
"""
"""Starts a program that is no child of ours: it outlives us, and leaves no zombie when it ends before us. One that
nobody could find again is ended at once."""

_POLL_S = 0.02
_BECOME_S = 5.0
_KILLED_S = 10.0
"""How long the system may take to bury what was killed; writing to a slow disk cannot be interrupted."""


@dataclass(frozen=True)
class DetachedProcess:
    """A process in a session of its own.

    Attributes
    ----------
    pid_file, log
        Where its number is written, and where its output is appended.
    marks
        What its command line holds; a process without them has inherited the number.
    """

    pid_file: Path
    log: Path
    marks: Sequence[str]

    def pid(self) -> int | None:
        """Its number while it lives."""
        try:
            pid = int(self.pid_file.read_text())
        except (OSError, ValueError):
            return None
        command = _command_line(pid)
        return pid if command and all(mark in command for mark in self.marks) else None

    def start(self, command: Sequence[str]) -> int:
        """Start it.

        Returns
        -------
        Length of the log before, for `said`.

        Raises
        ------
        BrokerError
            If its number cannot be written down.
        """
        if self._log_bytes() > _LOG_BYTES:
            self.log.replace(self.log.with_name(f"{self.log.name}.1"))
        said_before = self._log_bytes()
        done = subprocess.run(  # noqa: S603 - the caller's own command
            ["/bin/sh", "-c", _DETACHED, "sh", str(self.log), str(self.pid_file), *command],
            stderr=subprocess.PIPE, text=True, check=False, start_new_session=True,
        )  # fmt: skip
        if done.returncode:
            raise BrokerError(f"{str(self.pid_file)!r} cannot be written ({done.stderr.strip()}); make room there")
        self.settle()
        return said_before

    def settle(self) -> None:
        """Wait until the shell's copy has become the program, or a launcher has: before, nobody would know it by it."""
        until_s = time.monotonic() + _BECOME_S
        with suppress(OSError, ValueError):  # no number was written
            while self.pid() is None and _exists(int(self.pid_file.read_text())) and time.monotonic() < until_s:
                time.sleep(_POLL_S)

    def said(self, since: int) -> str:
        """What it wrote to its log after `since` bytes."""
        with suppress(FileNotFoundError), self.log.open("rb") as log:
            log.seek(since)
            return log.read().decode(errors="replace")
        return ""

    def stop(self, timeout_s: float) -> bool:
        """End it: in order, and after `timeout_s` at once. With 0 it is killed as it stands.

        Returns
        -------
        Whether it ran.

        Raises
        ------
        BrokerError
            If it is another user's, or cannot be killed.
        """
        ran = self.pid() is not None
        for number, wait_s in ((signal.SIGTERM, timeout_s), (signal.SIGKILL, _KILLED_S)):
            pid = self.pid()
            if pid is None:
                self.pid_file.unlink(missing_ok=True)
                return ran
            if wait_s:
                self._signal(pid, number)
                self._wait_for_end(wait_s)
        if self.pid() is not None:
            raise BrokerError(
                f"process {self.pid()} of {str(self.log.parent)!r} cannot be killed; see what it waits for"
            )
        self.pid_file.unlink(missing_ok=True)
        return ran

    def _signal(self, pid: int, number: int) -> None:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            pass  # it ended just now
        except PermissionError:
            raise BrokerError(f"process {pid} is another user's; let that user stop it") from None

    def _wait_for_end(self, timeout_s: float) -> None:
        until_s = time.monotonic() + timeout_s
        while self.pid() is not None and time.monotonic() < until_s:
            time.sleep(_POLL_S)

    def _log_bytes(self) -> int:
        return self.log.stat().st_size if self.log.exists() else 0


def telling_line(output: str) -> str:
    """The line of a Java program's output that says why it ended.

    Examples
    --------
    >>> telling_line("INFO x - up\\nERROR x - Exiting\\njava.io.IOException: No space left\\n\\tat x.Y\\n")
    'IOException: No space left'
    >>> telling_line("Invalid maximum heap size: -Xmx1z\\nError: Could not create the Java Virtual Machine.\\n")
    'Invalid maximum heap size: -Xmx1z'
    >>> telling_line("")
    'it said nothing'
    """
    for pattern, which in _TELLING:
        if found := pattern.findall(output):
            return str(re.sub(r"^(?:[a-z]\w*\.)+(?=[A-Z])", "", found[which].strip()))[:300]
    return "it said nothing"


_TELLING = (
    (re.compile(r"^Caused by: (.+)", re.MULTILINE), -1),
    (re.compile(r"^(?:Exception in thread \"\S+\" )?((?:[\w$]+\.)+[\w$]*(?:Exception|Error)\b.*)", re.MULTILINE), -1),
    (re.compile(r"\bERROR \S+ - (.+)"), -1),
    (re.compile(r"^((?:Error|Invalid|Unrecognized)\b.*)", re.MULTILINE), 0),  # of Java's own lines the first
    (re.compile(r"(.*\S.*)"), -1),
)
"""Patterns in order of what they tell, and which match is taken."""


def _exists(pid: int) -> bool:
    with suppress(ProcessLookupError):
        os.kill(pid, 0)
        return True
    return False


def _command_line(pid: int) -> str:
    """How a process was started; empty where there is none. Systems without /proc are asked by `ps`."""
    if Path("/proc/self").exists():
        with suppress(OSError):
            return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        return ""
    asked = ["/bin/ps", "-ww", "-p", str(pid), "-o", "command="]
    return subprocess.run(asked, capture_output=True, text=True, check=False).stdout  # noqa: S603 - a number alone
