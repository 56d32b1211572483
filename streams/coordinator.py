"""The coordinator: candidates of all shards in, alerts out, with faults of one cause in one alert.

In: `Candidate` records in order of their tick, ticks, and commands about alerts.
Out: `AlertOutput`, each one revision of one alert.
Must not know: shards, Kafka, how prices are judged. Rule: everything is decided on the tick clock, as of the moment it
was due, so that results depend neither on chunks nor on how many ticks came between.

A fault of a feed hits many lines within seconds. A candidate therefore waits until `quiet_ms` pass without another of
its form. Hits of one feed come at random places of it, so gaps longer than that happen; once three candidates wait, the
gap that ends the waiting grows with the gaps seen. Lines that come later still
join: a group takes them in by an update.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import msgspec

from streams.alert_book import Alert, AlertBook, AlertOutput, Group
from streams.alert_likeness import ALIKE, densest, log_ratio, middle, once, without
from streams.calendar import DAY_MS, HOUR_MS
from streams.price_alerts import Candidate
from streams.price_rules import CERTAIN, Form
from streams.state import Record

__all__ = ["AlertOutput", "Coordinator", "CoordinatorConfig"]

# Candidates alike from which on the gap grows. A second shifted decimal within seconds is hardly ever another cause,
# while shops reprice a handful of items in one feed on any day, and those alerts must not wait for more.
_FEW_CERTAIN = 2
_FEW = 8
_CERTAIN_GAP_MS = 5_000  # after two certain faults alike, whose one gap says little about the next
_SURPRISE = 8.0  # mean gaps: hits at random places leave a longer one with probability e**-8
_LONGEST_GAP_MS = 10_000
_LIKELY = 8  # lines hit alike within seconds that are likely to become a group
_GROUP_LIFE_MS = 300_000  # a feed is over after five minutes: later faults are other faults


@dataclass(frozen=True, slots=True)
class CoordinatorConfig:
    """How long candidates wait and when alerts end by themselves.

    Attributes
    ----------
    quiet_ms
        A candidate waits until this long passes without another of its form: event to alert stays below 3 s.
    longest_ms
        Longest wait, and how long after its newest line a group takes in another.
    group_min
        Lines hit alike that make one alert.
    item_min
        Lines of one item hit alike that make one alert: an item repriced in all its stores is one decision.
    expire_ms
        An alert this old ends by itself (90 days: whoever wanted to act has).
    critical_money
        Money at risk from which on an alert of any kind is critical.
    """

    quiet_ms: int = 2_000
    longest_ms: int = 30_000
    group_min: int = 30
    item_min: int = 3
    expire_ms: int = 90 * DAY_MS
    critical_money: float = 1_000.0

    def __post_init__(self) -> None:
        """Refuse waits that end before they begin, and groups of one.

        Raises
        ------
        ValueError
            With the names of the fields.
        """
        if not 0 < self.quiet_ms <= self.longest_ms:
            raise ValueError(f"quiet_ms must be above 0 and at most longest_ms, got {self.quiet_ms}, {self.longest_ms}")
        if min(self.group_min, self.item_min) < 2:
            raise ValueError(f"group_min and item_min must be at least 2, got {self.group_min}, {self.item_min}")


@dataclass(slots=True)
class _Window:
    """Candidates that were hit alike and wait together."""

    name: str  # fingerprint of the first
    form: Form
    log_ratio: float  # of the first
    first_ms: int
    last_ms: int
    alerts: list[Alert] = field(default_factory=list)


class Coordinator:
    """Decide which candidates become alerts, alone or grouped, and follow each to its end.

    Parameters
    ----------
    config
        Waits and thresholds.

    Examples
    --------
    >>> one = Candidate("fire", "placeholder", "low", "a", "default", "web", 1, 0.01, "GBP", 5, "e", tick_ms=1000)
    >>> coordinator = Coordinator()
    >>> coordinator.offer(one), coordinator.tick(2999)
    ([], [])
    >>> [(alert.revision, alert.event_time_ms) for alert in coordinator.tick(3000)]
    [(1, 5)]
    """

    def __init__(self, config: CoordinatorConfig | None = None) -> None:
        self.config = config or CoordinatorConfig()
        self._book = AlertBook(self.config.critical_money)
        # what follows is derived from the book, and derived anew after a restore
        self._stale = False
        self._windows: list[_Window] = []  # in order of their first candidate
        self._recent: dict[Form, list[Alert]] = {}  # published alone a moment ago
        self._watched: dict[str, None] = {}  # snoozed alerts, and groups in recovery

    def __len__(self) -> int:
        """Count what stands: lines that are open or wait, and groups."""
        return len(self._book.alerts) + len(self._book.groups)

    def offer(self, candidate: Candidate) -> list[AlertOutput]:
        """Take one candidate; candidates come in order of `tick_ms`, which is applied first.

        Returns
        -------
        What became due, and what the candidate changes at once: updates and ends of open alerts.
        """
        out = self.tick(candidate.tick_ms)
        alert = self._book.find(candidate)
        if candidate.action == "fire":
            if alert is None:
                # only a replay, whose clock believes a jump after some events, is this far behind: its clock comes soon
                ahead = candidate.event_time > candidate.tick_ms + HOUR_MS
                self._enter(self._book.open(candidate, candidate.event_time if ahead else self._book.now_ms))
        elif alert is not None:
            out += (self._update if candidate.action == "update" else self._resolve)(alert, candidate)
        return out

    def tick(self, now_ms: int) -> list[AlertOutput]:
        """Advance the clock and publish what became due, in the order in which it was due."""
        self._derive()
        before = self._book.now_ms
        if now_ms <= before:
            return []
        hour_ms = now_ms - now_ms % HOUR_MS
        out = [*self._catch_up(hour_ms), *self._expire()] if before < hour_ms else []
        out += self._catch_up(now_ms)
        return out

    def acknowledge(self, fingerprint: str) -> list[AlertOutput]:
        """Mark a published alert as seen: nothing more is heard of it until its end."""
        return self._silence(fingerprint, 0)

    def snooze(self, fingerprint: str, until_ms: int) -> list[AlertOutput]:
        """Silence a published alert until a tick; if it is still open then, a revision says so."""
        return self._silence(fingerprint, until_ms)

    def changes(self) -> Iterator[Record]:
        """Yield the records that changed since the last call; their keys begin with ``alerts/``."""
        return self._book.changes()

    def discard_changes(self) -> None:
        """Forget what changed, for a shell that keeps no state."""
        self._book.discard_changes()

    def restore(self, key: str, value: bytes | None) -> None:
        """Take over one record of `changes`; the newest value of a key wins."""
        self._book.restore(key, value)
        self._stale = True

    # ------------------------------------------------------------------------------------------------ waiting
    def _catch_up(self, until_ms: int) -> list[AlertOutput]:
        """Do what is due until a tick, one thing after the other: each may change when the next is due."""
        out: list[AlertOutput] = []
        while True:
            due = [(self._due(window), 0, str(window.alerts[0].seq), window) for window in self._windows]
            again = [(self._due_again(name), 1, name, None) for name in self._watched]
            due_ms, _, name, window = min(
                [*due, *again], default=(until_ms + 1, 0, "", None), key=lambda entry: entry[:3]
            )
            if due_ms > until_ms:
                break
            self._book.now_ms = max(self._book.now_ms, due_ms)
            out += self._close(window) if window is not None else self._again(name)
        self._book.now_ms = max(self._book.now_ms, until_ms)
        return out

    def _enter(self, alert: Alert) -> None:
        """Let an alert wait with those of its form and, within a third, of its factor: a cause has one factor."""
        form, ratio = alert.candidate.form, log_ratio(alert.candidate)
        near = (
            window
            for window in self._windows
            if window.form == form
            and abs(window.log_ratio - ratio) <= abs(window.log_ratio) / 3
            and abs(window.last_ms - alert.waits_ms) <= self.config.longest_ms
        )
        window = next(near, None)
        alert.window = alert.fingerprint if window is None else window.name
        alert.log_ratio = ratio
        self._place(alert)

    def _place(self, alert: Alert) -> None:
        """Add an alert to its window, which its first alert opens."""
        if alert.window == alert.fingerprint:
            ms = alert.waits_ms
            self._windows.append(_Window(alert.window, alert.candidate.form, alert.log_ratio, ms, ms))
        window = next(window for window in self._windows if window.name == alert.window)
        if not alert.moved:
            window.last_ms = max(window.last_ms, alert.waits_ms)
        window.alerts.append(alert)

    def _due(self, window: _Window) -> int:
        return min(window.last_ms + self._gap(window), window.first_ms + self.config.longest_ms)

    def _gap(self, window: _Window) -> int:
        """Give the pause that ends the waiting: longer where the candidates lie wide apart."""
        waiting, certain = len(window.alerts), window.alerts[0].candidate.kind in CERTAIN
        if waiting < (_FEW_CERTAIN if certain else _FEW):
            return self.config.quiet_ms
        mean = (window.last_ms - window.first_ms) / (waiting - 1)
        shortest = max(self.config.quiet_ms, _CERTAIN_GAP_MS if certain and waiting < _FEW else 0)
        return max(shortest, min(round(_SURPRISE * mean), _LONGEST_GAP_MS))

    def _close(self, window: _Window) -> list[AlertOutput]:
        """Publish what waited together: with running groups, as new groups, and the rest one by one."""
        self._windows = [other for other in self._windows if other is not window]
        if (larger := self._larger(window)) is not None:
            for alert in window.alerts:
                alert.window, alert.moved = larger.name, True
                self._book.note(alert)
            larger.alerts += window.alerts
            return []
        # closed by the longest wait, the feed still runs: what is alike now is a part of what will be
        flowing = window.last_ms + self._gap(window) > self._book.now_ms
        enough = max(2, self.config.group_min // 3) if flowing else self.config.group_min
        form = window.form
        out, waiting = self._join(form, window.alerts)
        while len(alike := self._alike(form, waiting)) >= enough:
            out += self._enlist(self._book.open_group(form, "", middle(alike), alike), alike)
            waiting = without(waiting, alike)
        by_sku: dict[str, list[Alert]] = {}
        for alert in sorted(waiting, key=lambda alert: alert.seq):
            by_sku.setdefault(alert.candidate.sku, []).append(alert)
        for sku, alerts in by_sku.items():
            alike = densest(once(alerts))
            if len(alike) >= self.config.item_min:
                out += self._enlist(self._book.open_group(form, sku, middle(alike), alike), alike)
                waiting = without(waiting, alike)
        for alert in sorted(waiting, key=lambda alert: alert.seq):
            out += self._fire_alone(alert)
        return out

    def _larger(self, window: _Window) -> _Window | None:
        """Find a window that looks like a group and that would take these in: stragglers of one fault wait for it."""
        for other in self._windows:
            near = other.form == window.form and abs(other.log_ratio - window.log_ratio) <= ALIKE
            near = near and abs(other.last_ms - window.last_ms) <= self.config.longest_ms
            if near and len(other.alerts) >= max(_LIKELY, len(window.alerts)):
                return other
        return None

    def _join(self, form: Form, waiting: list[Alert]) -> tuple[list[AlertOutput], list[Alert]]:
        """Let running groups take in lines that were hit like theirs; give the revisions and the lines left."""
        out: list[AlertOutput] = []
        running = [
            group
            for group in self._book.groups.values()
            if group.form == form and self._book.now_ms <= group.fired_ms + _GROUP_LIFE_MS
        ]
        for group in sorted(running, key=lambda group: group.seq):
            alike = [
                alert
                for alert in waiting
                if group.sku in ("", alert.candidate.sku)
                and alert.waits_ms - group.joined_ms <= self.config.longest_ms
                and abs(log_ratio(alert.candidate) - group.log_ratio) <= ALIKE
            ]
            if alike:
                waiting = without(waiting, alike)
                group.joined_ms = max(alert.waits_ms for alert in alike)
                out += self._enlist(group, alike)
        return out, waiting

    def _alike(self, form: Form, waiting: list[Alert]) -> list[Alert]:
        """Find the largest set of lines hit alike, those that were published alone a moment ago included."""
        since_ms = self._book.now_ms - self.config.longest_ms
        alone = [a for a in self._recent.pop(form, []) if a.fired_ms >= since_ms and self._stands_alone(a)]
        if alone:
            self._recent[form] = alone
        alike = densest(once(sorted([*alone, *waiting], key=lambda alert: alert.seq)))
        return alike if any(alert.fired_ms < 0 for alert in alike) else []

    def _stands_alone(self, alert: Alert) -> bool:
        return not alert.group and alert.fingerprint in self._book.alerts

    # ------------------------------------------------------------------------------------------------ publishing
    def _fire_alone(self, alert: Alert) -> list[AlertOutput]:
        alert.fired_ms = self._book.now_ms
        self._recent.setdefault(alert.candidate.form, []).append(alert)
        out = [self._book.revise(alert, "firing", alert.candidate)]
        return out + self._resolve(alert, alert.ended) if alert.ended is not None else out

    def _enlist(self, group: Group, alike: Sequence[Alert]) -> list[AlertOutput]:
        """Make lines members of a group, publish it, and take out those that recovered while they waited."""
        out = []
        for alert in alike:
            if alert.fired_ms >= 0:
                over = msgspec.structs.replace(alert.candidate, resolution="expired")
                out.append(self._book.revise(alert, "resolved", over, superseded_by=group.fingerprint))
                self._watched.pop(alert.fingerprint, None)
                alert.quiet = None  # whoever silenced one line has not silenced a feed fault
            self._book.enlist(group, alert)
        newest = max(alert.candidate.event_time for alert in alike)
        if group.quiet is None:
            lines = self._book.members(group)
            out.append(self._book.revise_group(group, "updated" if group.revision else "firing", newest, lines))
        for alert in alike:
            if alert.ended is not None:
                out += self._resolve(alert, alert.ended)
        return out

    def _update(self, alert: Alert, candidate: Candidate) -> list[AlertOutput]:
        alert.candidate = candidate
        self._book.note(alert)
        if alert.fired_ms < 0 or alert.group or alert.quiet is not None:
            return []
        return [self._book.revise(alert, "updated", candidate)]

    def _resolve(self, alert: Alert, candidate: Candidate) -> list[AlertOutput]:
        if alert.fired_ms < 0:
            alert.ended = candidate
            self._book.note(alert)
            return []
        out = [] if alert.group else [self._book.revise(alert, "resolved", candidate)]
        self._book.close(alert)
        self._watched.pop(alert.fingerprint, None)
        return self._recover(self._book.groups[alert.group], alert, candidate) if alert.group else out

    def _recover(self, group: Group, alert: Alert, candidate: Candidate) -> list[AlertOutput]:
        """Follow a group of which a line recovered: the last one ends it, others are told together after a pause."""
        if not self._book.has_members(group):
            out = self._book.revise_group(group, "resolved", candidate.event_time, [alert], candidate.resolution)
            self._drop(group)
            return [out]
        if group.recovery_first_ms < 0:
            group.recovery_first_ms = self._book.now_ms
        group.recovery_last_ms = self._book.now_ms
        group.recovered_at = candidate.event_time
        self._watched[group.fingerprint] = None
        self._book.note(group)
        return []

    def _drop(self, group: Group) -> None:
        self._book.close_group(group)
        self._watched.pop(group.fingerprint, None)

    # ------------------------------------------------------------------------------------------------ afterwards
    def _due_again(self, name: str) -> int:
        """Give the tick at which a snooze ends, or at which a group tells who recovered."""
        entity = self._book.alerts.get(name) or self._book.groups[name]
        if entity.quiet == "snoozed":
            return entity.snoozed_until_ms
        if isinstance(entity, Alert):
            return self._book.now_ms
        return min(entity.recovery_last_ms + self.config.quiet_ms, entity.recovery_first_ms + self.config.longest_ms)

    def _again(self, name: str) -> list[AlertOutput]:
        del self._watched[name]
        alert = self._book.alerts.get(name)
        entity = alert or self._book.groups[name]
        if entity.quiet == "snoozed":
            entity.quiet = None
        self._book.note(entity)
        if alert is not None:
            return [self._book.revise(alert, "updated", alert.candidate)]
        group = self._book.groups[name]
        group.recovery_first_ms = group.recovery_last_ms = -1
        if group.quiet is not None:
            return []
        members = self._book.members(group)
        at = max([group.recovered_at, *(alert.candidate.event_time for alert in members)])
        return [self._book.revise_group(group, "updated", at, members)]

    def _silence(self, fingerprint: str, until_ms: int) -> list[AlertOutput]:
        self._derive()
        entity = self._book.alerts.get(fingerprint) or self._book.groups.get(fingerprint)
        if entity is None or entity.fired_ms < 0 or (isinstance(entity, Alert) and entity.group):
            return []
        entity.quiet = "snoozed" if until_ms else "acknowledged"
        entity.snoozed_until_ms = until_ms
        if until_ms:
            self._watched[fingerprint] = None
        elif isinstance(entity, Alert) or entity.recovery_first_ms < 0:
            self._watched.pop(fingerprint, None)
        if isinstance(entity, Alert):
            return [self._book.revise(entity, entity.quiet, entity.candidate)]
        members = self._book.members(entity)
        at = max(alert.candidate.event_time for alert in members)
        return [self._book.revise_group(entity, entity.quiet, at, members)]

    def _expire(self) -> list[AlertOutput]:
        """End alerts that nobody and nothing has ended."""
        oldest_ms = self._book.now_ms - self.config.expire_ms
        standing: list[Alert | Group] = [*self._book.alerts.values(), *self._book.groups.values()]
        old = [one for one in standing if 0 <= one.fired_ms <= oldest_ms]
        out = []
        for one in sorted(old, key=lambda one: one.seq):
            if isinstance(one, Group):
                members = self._book.members(one)
                out.append(self._book.revise_group(one, "resolved", one.starts_at, members, "expired"))
                self._drop(one)
            elif not one.group:
                out += self._resolve(one, msgspec.structs.replace(one.candidate, resolution="expired"))
        return out

    def _derive(self) -> None:
        """Find out from the book who waits, who was published a moment ago and who is watched."""
        if not self._stale:
            return
        self._stale = False
        self._windows, self._recent, self._watched = [], {}, {}
        alerts = sorted(self._book.alerts.values(), key=lambda alert: (alert.moved, alert.seq))
        for alert in alerts:  # those that were moved follow the first of their window
            if alert.fired_ms < 0:
                self._place(alert)
            elif not alert.group and self._book.now_ms - alert.fired_ms <= self.config.longest_ms:
                self._recent.setdefault(alert.candidate.form, []).append(alert)
            if alert.quiet == "snoozed":
                self._watched[alert.fingerprint] = None
        for group in self._book.groups.values():
            if group.quiet == "snoozed" or group.recovery_first_ms >= 0:
                self._watched[group.fingerprint] = None
