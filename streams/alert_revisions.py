"""The JSON of an alert's revision, as `alerts.price.v1` carries it.

In: candidates and the standing of an alert.
Out: bytes, in the field order of the contract.
Must not know: grouping, waiting, state. Rule: a pure function of its arguments; money to the cent, other numbers with
four significant digits, the observed price as published.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import orjson

from streams.outputs import figure
from streams.price_alerts import Candidate, Expected, Resolution
from streams.price_rules import CERTAIN, Kind

Status = Literal["firing", "updated", "acknowledged", "snoozed", "resolved"]

_ACTIONS: dict[Kind, str] = {
    "zero_or_negative": "block",
    "placeholder": "block",
    "decimal_shift": "revert",  # the price before is the price that was meant
    "transposed": "revert",
    "feed_fault": "block",
}


def line_revision(
    fingerprint: str,
    revision: int,
    status: Status,
    candidate: Candidate,
    cause: Candidate,
    starts_at: int,
    critical_money: float,
    superseded_by: str | None = None,
) -> bytes:
    """Write one revision of the alert of one price line.

    Parameters
    ----------
    fingerprint, revision, status
        Of the alert.
    candidate
        Newest that fired or updated it: what is wrong, and the evidence.
    cause
        What caused this revision; its price is the observed one.
    starts_at
        Event time of the first faulty price.
    critical_money
        Money at risk from which on any kind is critical.
    superseded_by
        Fingerprint of the grouped alert that took over.

    Examples
    --------
    >>> one = Candidate("fire", "placeholder", "low", "a", "default", "web", 1, 0.01, "GBP", 5, "e")
    >>> orjson.loads(line_revision("f", 1, "firing", one, one, 5, 1000.0))["severity"]
    'critical'
    """
    over = status == "resolved"
    body = {
        **_head(fingerprint, revision, status, cause.event_time, candidate.kind),
        "severity": _severity(candidate.kind, candidate.money_at_risk, critical_money),
        "sku": candidate.sku,
        "location": candidate.location,
        "channel": candidate.channel,
        "starts_at": starts_at,
        "ends_at": cause.event_time if over else None,
        "observed": _observed(cause),
        "expected": _expected(candidate.expected),
        "p_value": _number(candidate.p_value),
        "impact": {
            "units_at_risk": _number(candidate.units_at_risk),
            "money_at_risk": None if candidate.money_at_risk is None else round(candidate.money_at_risk, 2),
            "currency": candidate.money_currency or candidate.currency,
        },
        "evidence": [_cents(price) for price in candidate.evidence],
        "suggested_action": _ACTIONS.get(candidate.kind, "review"),
        "resolution": cause.resolution if over else None,
        "count": cause.count,
    }
    if superseded_by is not None:
        body["superseded_by"] = superseded_by
    return orjson.dumps(body)


@dataclass(frozen=True, slots=True)
class GroupStanding:
    """Where a grouped alert stands at one revision.

    Attributes
    ----------
    event_time
        Of the newest price that caused the revision.
    starts_at
        Event time of the first faulty price.
    feed
        A fault of a feed; otherwise one item in several places.
    resolution
        Why it is over.
    """

    fingerprint: str
    revision: int
    status: Status
    event_time: int
    starts_at: int
    feed: bool = True
    resolution: Resolution | None = None


def group_revision(standing: GroupStanding, members: Sequence[Candidate], critical_money: float) -> bytes:
    """Write one revision of an alert on many lines.

    Parameters
    ----------
    standing
        Of the alert.
    members
        Candidates of its open lines, first hit first; at resolution, those of the last to recover.
    critical_money
        Money at risk from which on any alert is critical.

    Examples
    --------
    >>> hit = [Candidate("fire", "zero_or_negative", "zero", s, "default", "", 1, 0.0, "GBP", 5, s) for s in "abc"]
    >>> body = orjson.loads(group_revision(GroupStanding("g", 1, "firing", 7, 5), hit, 1000.0))
    >>> body["kind"], body["count"], [item["sku"] for item in body["items"]]
    ('feed_fault', 3, ['a', 'b', 'c'])
    """
    sample, impact = members[0], _group_impact(members)
    cause = Counter(member.kind for member in members).most_common(1)[0][0]
    kind: Kind = "feed_fault" if standing.feed else cause
    status, event_time = standing.status, standing.event_time
    body = {
        **_head(standing.fingerprint, standing.revision, status, event_time, kind),
        "severity": "critical" if standing.feed else _severity(cause, impact["money_at_risk"], critical_money),
        "items": [_item(member) for member in members],
        "starts_at": standing.starts_at,
        "ends_at": event_time if status == "resolved" else None,
        "observed": _observed(sample),
        "expected": _expected(sample.expected),
        "p_value": _number(sample.p_value),
        "impact": impact,
        "evidence": [_cents(price) for price in sample.evidence],
        "suggested_action": _ACTIONS.get(kind, "review"),
        "resolution": standing.resolution,
        "count": len(members),
        "cause": cause,
    }
    return orjson.dumps(body)


def _head(fingerprint: str, revision: int, status: Status, event_time: int, kind: Kind) -> dict[str, Any]:
    return {
        "fingerprint": fingerprint,
        "status": status,
        "revision": revision,
        "event_time": event_time,
        "kind": kind,
    }


def _item(member: Candidate) -> dict[str, Any]:
    return {
        "sku": member.sku,
        "location": member.location,
        "channel": member.channel,
        "price": member.price,
        "p50": None if member.expected is None else _cents(member.expected.p50),
    }


def _group_impact(members: Sequence[Candidate]) -> dict[str, Any]:
    """Sum over the members of the most frequent currency: amounts of others are not compared."""
    currency = Counter(member.money_currency or member.currency for member in members).most_common(1)[0][0]
    same = [member for member in members if (member.money_currency or member.currency) == currency]
    units = [member.units_at_risk for member in same if member.units_at_risk is not None]
    money = [member.money_at_risk for member in same if member.money_at_risk is not None]
    return {
        "units_at_risk": _number(sum(units)) if units else None,
        "money_at_risk": round(sum(money), 2) if money else None,
        "currency": currency,
    }


def _severity(kind: Kind, money_at_risk: float | None, critical_money: float) -> str:
    if kind in CERTAIN or (money_at_risk or 0.0) >= critical_money:
        return "critical"
    return "info" if kind == "out_of_range" else "warning"


def _observed(candidate: Candidate) -> dict[str, Any]:
    return {
        "price": candidate.price,
        "currency": candidate.currency,
        "event_time": candidate.event_time,
        "event_id": candidate.event_id,
    }


def _expected(expected: Expected | None) -> dict[str, Any] | None:
    if expected is None:
        return None
    return {
        "p01": _cents(expected.p01),
        "p50": _cents(expected.p50),
        "p99": _cents(expected.p99),
        "method": expected.method,
        "observations": expected.observations,
    }


def _cents(price: float) -> float:
    """Round a price to the cent, or to four digits where a cent is coarse (prices per gram or per screw)."""
    return round(price, 2) if price >= 1.0 else figure(price)


def _number(value: float | None) -> float | None:
    return None if value is None else figure(value)
