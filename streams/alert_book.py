"""The book of open alerts: what stands, its revisions, and its state records.

In: what the coordinator decides.
Out: `AlertOutput`, and records whose keys begin with ``alerts/``.
Must not know: when to wait, group or end; that is the coordinator's. Rule: one (fingerprint, revision) never has two
contents, and restoring the newest value of every key gives the same book.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import msgspec
import xxhash

from streams.alert_revisions import GroupStanding, Status, group_revision, line_revision
from streams.price_alerts import Candidate, Resolution
from streams.price_rules import Form
from streams.state import Record, SnapshotError, pack, unpack


@dataclass(frozen=True, slots=True)
class AlertOutput:
    """One revision of one alert: key, number and JSON."""

    fingerprint: str
    revision: int
    event_time_ms: int
    value: bytes


class Alert(msgspec.Struct):
    """The alert of one line: waiting, open by itself, or part of a group.

    Attributes
    ----------
    candidate
        The newest that fired or updated it.
    waits_ms, fired_ms
        Ticks at which it began to wait and at which it was published; -1 = it waits.
    window, log_ratio, moved
        While it waits: name of its window, its log(price / expected) on entry, and whether it came from another window.
    group
        Fingerprint of its group, or "".
    ended
        What ended it while it waited.
    quiet, snoozed_until_ms
        Acknowledged or snoozed: updates are kept back.
    """

    fingerprint: str
    seq: int
    starts_at: int
    candidate: Candidate
    waits_ms: int
    fired_ms: int = -1
    revision: int = 0
    window: str = ""
    log_ratio: float = 0.0
    moved: bool = False
    group: str = ""
    ended: Candidate | None = None
    quiet: Status | None = None
    snoozed_until_ms: int = 0


class Group(msgspec.Struct):
    """Many lines hit alike: a feed fault, or one item in many places.

    Attributes
    ----------
    sku
        The item whose lines were hit; "" for a feed fault, which hits lines of any item.
    log_ratio
        Median of log(price / expected) of its first lines.
    fired_ms, joined_ms
        Ticks at which it was published and at which its newest line came.
    recovery_first_ms, recovery_last_ms
        Ticks of the first and last line that recovered since the last revision; -1 = none.
    recovered_at
        Event time of the newest recovery.
    """

    fingerprint: str
    seq: int
    form: Form
    sku: str
    log_ratio: float
    starts_at: int
    fired_ms: int
    joined_ms: int
    revision: int = 0
    recovery_first_ms: int = -1
    recovery_last_ms: int = -1
    recovered_at: int = 0
    quiet: Status | None = None
    snoozed_until_ms: int = 0


class AlertBook:
    """Alerts and groups by fingerprint, in step with their state records.

    Parameters
    ----------
    critical_money
        Money at risk from which on any alert is critical.

    Examples
    --------
    >>> book = AlertBook(1000.0)
    >>> one = Candidate("fire", "placeholder", "low", "a", "default", "web", 1, 0.01, "GBP", 5, "e", tick_ms=1000)
    >>> alert = book.open(one, 1000)
    >>> book.revise(alert, "firing", one).revision, [key.split("/")[1] for key, _ in book.changes()]
    (1, ['line', 'clock'])
    """

    def __init__(self, critical_money: float) -> None:
        self.alerts: dict[str, Alert] = {}
        self.groups: dict[str, Group] = {}
        self.now_ms = 0
        self._seq = 0
        self._critical_money = critical_money
        self._members: dict[str, dict[str, None]] | None = {}
        self._changed: dict[str, None] = {}
        self._clock = (0, 0)

    def find(self, candidate: Candidate) -> Alert | None:
        """Give the alert that a candidate is about."""
        return self.alerts.get(fingerprint_of(candidate))

    def open(self, candidate: Candidate, waits_ms: int) -> Alert:
        """Enter a new alert, which waits from a tick on."""
        self._seq += 1
        name = fingerprint_of(candidate)
        alert = self.alerts[name] = Alert(name, self._seq, candidate.event_time, candidate, waits_ms)
        self.note(alert)
        return alert

    def open_group(self, form: Form, sku: str, log_ratio: float, alerts: Sequence[Alert]) -> Group:
        """Enter a new group without lines; its fingerprint comes from the first of `alerts`."""
        self._seq += 1
        name = _digest("group", alerts[0].fingerprint)
        starts_at = min(alert.starts_at for alert in alerts)
        joined_ms = max(alert.waits_ms for alert in alerts)
        group = self.groups[name] = Group(name, self._seq, form, sku, log_ratio, starts_at, self.now_ms, joined_ms)
        self.note(group)
        return group

    def enlist(self, group: Group, alert: Alert) -> None:
        """Make an alert part of a group."""
        self._memberships().setdefault(group.fingerprint, {})[alert.fingerprint] = None
        alert.group, alert.fired_ms = group.fingerprint, self.now_ms
        self.note(alert)

    def members(self, group: Group) -> list[Alert]:
        """List the open lines of a group, first hit first."""
        names = self._memberships().get(group.fingerprint, {})
        return sorted((self.alerts[name] for name in names), key=lambda alert: alert.seq)

    def has_members(self, group: Group) -> bool:
        """Tell whether a group still has an open line."""
        return bool(self._memberships().get(group.fingerprint))

    def close(self, alert: Alert) -> None:
        """Take an alert out of the book, and out of its group."""
        del self.alerts[alert.fingerprint]
        if alert.group:
            self._memberships()[alert.group].pop(alert.fingerprint, None)
        self.note(alert)

    def close_group(self, group: Group) -> None:
        """Take a group and the lines it still has out of the book."""
        for alert in self.members(group):
            self.close(alert)
        self._memberships().pop(group.fingerprint, None)
        del self.groups[group.fingerprint]
        self.note(group)

    def note(self, entity: Alert | Group) -> None:
        """Remember that the record of an alert or group has to be written."""
        what = "line" if isinstance(entity, Alert) else "group"
        self._changed[f"alerts/{what}/{entity.fingerprint}"] = None

    def revise(self, alert: Alert, status: Status, cause: Candidate, superseded_by: str | None = None) -> AlertOutput:
        """Publish a revision of a line's alert; `cause` holds the price that caused it."""
        alert.revision += 1
        self.note(alert)
        value = line_revision(
            alert.fingerprint, alert.revision, status, alert.candidate, cause,
            alert.starts_at, self._critical_money, superseded_by,
        )  # fmt: skip
        return AlertOutput(alert.fingerprint, alert.revision, cause.event_time, value)

    def revise_group(
        self,
        group: Group,
        status: Status,
        event_time_ms: int,
        lines: Iterable[Alert],
        resolution: Resolution | None = None,
    ) -> AlertOutput:
        """Publish a revision of a group that lists these lines."""
        group.revision += 1
        self.note(group)
        members = [alert.candidate for alert in lines]
        standing = GroupStanding(
            group.fingerprint, group.revision, status, event_time_ms, group.starts_at, not group.sku, resolution
        )
        value = group_revision(standing, members, self._critical_money)
        return AlertOutput(group.fingerprint, group.revision, event_time_ms, value)

    def changes(self) -> Iterator[Record]:
        """Yield the records that changed since the last call."""
        for key in self._changed:
            _, what, name = key.split("/", 2)
            entity = self.alerts.get(name) if what == "line" else self.groups.get(name)
            yield key, None if entity is None else pack(msgspec.to_builtins(entity))
        self._changed.clear()
        if self._clock != (self.now_ms, self._seq):
            self._clock = (self.now_ms, self._seq)
            yield "alerts/clock", pack(list(self._clock))

    def discard_changes(self) -> None:
        """Forget what changed."""
        self._changed.clear()
        self._clock = (self.now_ms, self._seq)

    def restore(self, key: str, value: bytes | None) -> None:
        """Take over one record; the newest value of a key wins.

        Raises
        ------
        SnapshotError
            If the key or the layout is not the book's.
        """
        what, _, name = key.removeprefix("alerts/").partition("/")
        payload = None if value is None else unpack(key, value)
        try:
            if what == "clock":
                self.now_ms, self._seq = (0, 0) if payload is None else payload
                self._clock = (self.now_ms, self._seq)
            elif what == "line":
                self.alerts.pop(name, None)
                if payload is not None:
                    self.alerts[name] = msgspec.convert(payload, Alert)
            elif what == "group":
                self.groups.pop(name, None)
                if payload is not None:
                    self.groups[name] = msgspec.convert(payload, Group)
            else:
                raise SnapshotError(f"state record {key!r} is none of the coordinator's")
        except (msgspec.ValidationError, TypeError, ValueError) as error:
            raise SnapshotError(f"state record {key!r} has another layout: {error}") from error
        self._members = None

    def _memberships(self) -> dict[str, dict[str, None]]:
        if self._members is None:
            self._members = {name: {} for name in self.groups}
            for alert in self.alerts.values():
                if alert.group:
                    self._members[alert.group][alert.fingerprint] = None
        return self._members


def fingerprint_of(candidate: Candidate) -> str:
    """Name the alert of a candidate, from its line and how many alerts that line has had.

    Examples
    --------
    >>> one = Candidate("fire", "placeholder", "low", "a", "default", "web", 1, 0.01, "GBP", 5, "e")
    >>> fingerprint_of(one) == fingerprint_of(msgspec.structs.replace(one, action="resolve"))
    True
    >>> len(fingerprint_of(one))
    35
    """
    line = f"{candidate.sku}\0{candidate.location}\0{candidate.channel}\0{candidate.ordinal}"
    return _digest("line", line)


def _digest(what: str, key: str) -> str:
    return "pa_" + xxhash.xxh3_128_hexdigest(f"{what}\0{key}".encode())
