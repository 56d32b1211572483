"""What a look at something found: whether it is in order, and what to do where it is not.

In: nothing. Out: `Finding`.
Must not know: what was looked at. Rule: what is not in order says what to do.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

Level = Literal["ok", "warning", "fault"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    Attributes
    ----------
    check
        What, in a word or two.
    level
        ``fault``: a worker cannot run, or decides wrongly; ``warning``: it runs, and somebody should look.
    found
        A sentence without its full stop.
    advice
        What to do; empty where all is well.
    facts
        The same in figures, as JSON has it.

    Examples
    --------
    >>> print(Finding("disk", "warning", "0.5 GiB are free", "make room"))
    warning  disk: 0.5 GiB are free; make room
    """

    check: str
    level: Level
    found: str
    advice: str = ""
    facts: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.level:7}  {self.check}: {self.found}" + (f"; {self.advice}" if self.advice else "")


def worst(findings: Iterable[Finding]) -> Level:
    """The gravest level among findings.

    Examples
    --------
    >>> worst([Finding("a", "ok", "well"), Finding("b", "warning", "not quite", "look")])
    'warning'
    """
    levels = {finding.level for finding in findings}
    return "fault" if "fault" in levels else "warning" if "warning" in levels else "ok"


def gibibytes(size_bytes: float) -> str:
    """A size for people.

    Examples
    --------
    >>> gibibytes(3 << 30), gibibytes(5 << 20), gibibytes(900)
    ('3.0 GiB', '5.0 MiB', '0.9 KiB')
    """
    for unit, power in (("GiB", 30), ("MiB", 20)):
        if size_bytes >= 1 << power:
            return f"{size_bytes / (1 << power):.1f} {unit}"
    return f"{size_bytes / 1024:.1f} KiB"
