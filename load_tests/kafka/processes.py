"""What processes take of the machine, as the kernel counts it.

In: process ids. Out: CPU seconds, resident bytes.
Must not know: Kafka, engines. Rule: reads /proc and nothing else, so that measuring costs the measured one nothing.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")
PROC = Path("/proc")


def family(pid: int) -> list[int]:
    """A process and its living descendants; empty where it is gone."""
    out, at = [pid] if (PROC / str(pid)).exists() else [], 0
    while at < len(out):
        try:
            for task in (PROC / str(out[at]) / "task").iterdir():
                out += [int(child) for child in (task / "children").read_text().split()]
        except OSError:
            pass  # it ended meanwhile
        at += 1
    return out


def cpu_s(pid: int) -> float:
    """User and system CPU seconds of a process, its descendants and those of them that ended, all threads."""
    return sum(sum(map(int, fields[11:15])) for one in family(pid) if (fields := _stat(one))) / TICKS


def threads_cpu_s(pid: int) -> dict[str, float]:
    """CPU seconds per thread of one process: ``name/id``, or ``main``, -> seconds, the busiest first."""
    found = {}
    for task in _tasks(pid):
        try:
            name = (task / "comm").read_text().strip()
            fields = (task / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        found["main" if task.name == str(pid) else f"{name}/{task.name}"] = (int(fields[11]) + int(fields[12])) / TICKS
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def machine_cpu_s() -> float:
    """CPU seconds that the machine has worked so far, what its host took from it included."""
    user, nice, system, _idle, _wait, irq, soft, steal = map(int, _lines(PROC / "stat")[0].split()[1:9])
    return (user + nice + system + irq + soft + steal) / TICKS


def rss_bytes(pid: int, *, peak: bool = False) -> int:
    """Resident bytes of a process and its descendants, now or (each one's own) at most."""
    field = "VmHWM:" if peak else "VmRSS:"
    lines = (line for one in family(pid) for line in _lines(PROC / str(one) / "status"))
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


def listener(port: int) -> int | None:
    """Id of the process that listens on a TCP port of this machine; ``None`` where it is not to be seen."""
    listening = "0A"  # the kernel's number of that state
    rows = [line.split() for table in ("tcp", "tcp6") for line in _lines(PROC / "net" / table)[1:]]
    sockets = {
        f"socket:[{row[9]}]" for row in rows if row[3] == listening and int(row[1].rpartition(":")[2], 16) == port
    }
    for folder in PROC.glob("[0-9]*/fd"):
        try:
            if any(os.readlink(file) in sockets for file in folder.iterdir()):
                return int(folder.parent.name)
        except OSError:
            continue
    return None


def _tasks(pid: int) -> Iterator[Path]:
    try:
        yield from (PROC / str(pid) / "task").iterdir()
    except OSError:
        return


def _stat(pid: int) -> list[str]:
    """Fields of a process's state behind its name, the third of the manual first."""
    return "".join(_lines(PROC / str(pid) / "stat")).rpartition(")")[2].split()


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []
