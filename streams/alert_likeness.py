"""Which alerts were hit alike: by the factor between the faulty price and the expected one.

In: alerts that wait.
Out: those that one cause may explain.
Must not know: time, windows, what is published. Rule: a pure function of the alerts, whatever their order.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from streams.alert_book import Alert
from streams.price_alerts import Candidate

ALIKE = math.log(2.0)
"""A decimal shift keeps within this of its group's median ratio; a common jump is no part of it."""


def log_ratio(candidate: Candidate) -> float:
    """Say how far a price is off, 0 where there is nothing to compare it with.

    Examples
    --------
    >>> one = Candidate("fire", "placeholder", "low", "a", "default", "web", 1, 0.01, "GBP", 5, "e")
    >>> log_ratio(one)
    0.0
    """
    if candidate.form in ("zero", "currency") or candidate.expected is None:
        return 0.0
    return math.log(candidate.price / candidate.expected.p50)


def middle(alerts: Sequence[Alert]) -> float:
    """Give the median of the ratios (the upper one of two).

    Examples
    --------
    >>> one = Candidate("fire", "zero_or_negative", "zero", "a", "default", "web", 1, 0.0, "GBP", 5, "e")
    >>> middle([Alert("f", 1, 5, one, 5)])
    0.0
    """
    ratios = sorted(log_ratio(alert.candidate) for alert in alerts)
    return ratios[len(ratios) // 2]


def once(alerts: list[Alert]) -> list[Alert]:
    """Keep one alert of each line, the first: a line that flaps is one line.

    Examples
    --------
    >>> one = Candidate("fire", "zero_or_negative", "zero", "a", "default", "web", 1, 0.0, "GBP", 5, "e")
    >>> [alert.fingerprint for alert in once([Alert("f", 1, 5, one, 5), Alert("g", 2, 5, one, 5)])]
    ['f']
    """
    lines: dict[tuple[str, str, str], Alert] = {}
    for alert in alerts:
        lines.setdefault((alert.candidate.sku, alert.candidate.location, alert.candidate.channel), alert)
    return list(lines.values())


def densest(alerts: list[Alert]) -> list[Alert]:
    """Give the alerts within `ALIKE` of the middle of the densest stretch of ratios, in order of entry.

    Examples
    --------
    >>> one = Candidate("fire", "zero_or_negative", "zero", "a", "default", "web", 1, 0.0, "GBP", 5, "e")
    >>> [alert.fingerprint for alert in densest([Alert("g", 2, 5, one, 5), Alert("f", 1, 5, one, 5)])]
    ['f', 'g']
    """
    near = sorted((log_ratio(alert.candidate), alert.seq) for alert in alerts)
    best, first, start = 0, 0, 0
    for end, (ratio, _) in enumerate(near):
        while ratio - near[start][0] > ALIKE:
            start += 1
        if end + 1 - start > best:
            best, first = end + 1 - start, start
    if not best:
        return []
    center = near[first + best // 2][0]
    alike = [alert for alert in alerts if abs(log_ratio(alert.candidate) - center) <= ALIKE]
    return sorted(alike, key=lambda alert: alert.seq)


def without(alerts: list[Alert], taken: Sequence[Alert]) -> list[Alert]:
    """Give the alerts that are not among those taken.

    Examples
    --------
    >>> without([], [])
    []
    """
    names = {alert.fingerprint for alert in taken}
    return [alert for alert in alerts if alert.fingerprint not in names]
