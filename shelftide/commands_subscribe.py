"""The command `subscribe`: forecasts of demand or prices, alerts or triggers on the terminal, as they are committed.

In: options. Out: a line per item on stdout.
Must not know: how a subscriber works. Rule: an item counts as done when its line is written.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from shelftide.options import Bootstrap, Prefix, SettingsFile, kafka_options
from shelftide.report import moment, note

if TYPE_CHECKING:
    from streams.kafka.decisions import DemandForecast, PriceAlert, PriceForecast, ReplenishmentTrigger

_What = Literal["forecasts", "prices", "alerts", "triggers"]

What = Annotated[_What, typer.Argument(help="What to subscribe to.", show_default=False)]
FromStart = Annotated[
    bool,
    typer.Option(
        "--from-start",
        help="Begin with everything that is kept, of forecasts with the newest of every item. Without: with what comes "
        "next.",
    ),
]
Limit = Annotated[
    int | None,
    typer.Option(help="End after N items. Without: when interrupted.", metavar="N", min=1, show_default=False),
]
Group = Annotated[
    str | None,
    typer.Option(
        help="Name of this reader: readers of one name share the items and go on where they were.",
        metavar="NAME",
        show_default=False,
    ),
]
JsonLines = Annotated[bool, typer.Option("--json", help="Print the JSON of each item as it came, on a line.")]


def subscribe(
    what: What,
    from_start: FromStart = False,
    limit: Limit = None,
    group: Group = None,
    settings: SettingsFile = None,
    bootstrap: Bootstrap = None,
    prefix: Prefix = None,
    json: JsonLines = False,
) -> None:
    """Print forecasts of demand or prices, alerts or triggers as they come, each once.

    Reads forecast.demand.v1, forecast.price.v1, alerts.price.v1 or replenishment.trigger.v1: what is committed, and
    nothing of transactions that were aborted. A broker that goes away is waited for.

    Writes a line per item to stdout.
    """
    from shelftide.settings_sources import read_settings
    from streams.kafka.subscriber import subscribe as open_subscription

    logging.getLogger("kafka").setLevel(logging.CRITICAL)  # it tells of every attempt to connect
    chosen = read_settings(settings, kafka_options(bootstrap, prefix))
    how: dict[str, Any] = {
        "kafka": chosen.kafka,
        "group_id": group,
        "start": "earliest" if from_start else "latest",
        "connect_timeout_s": chosen.worker.connect_timeout_s,
    }
    lines: dict[str, Callable[[Any], str]] = {
        "forecasts": _forecast, "prices": _price, "alerts": _alert, "triggers": _trigger,
    }  # fmt: skip
    try:
        with open_subscription(what, **how) as subscription:
            note(f"{what} at {chosen.kafka.bootstrap_servers}; Ctrl-C ends")
            for item in subscription:
                typer.echo(subscription.value.replace(b"\n", b" ") if json else lines[what](item))
                if subscription.counts.handed_out == limit:
                    subscription.commit()
                    break
    except KeyboardInterrupt:
        note("interrupted")
        raise SystemExit(130) from None


def _forecast(one: DemandForecast) -> str:
    unit = "hours" if one.freq == "h" else "days"
    days = min(7, len(one.steps))
    low, middle, high = (one.still_to_come(days=days, level=level) for level in (0.1, 0.5, 0.9))
    return (
        f"{moment(one.as_of)}  {_item(one.sku, one.location)}  next {days} {unit}: {middle:g} "
        f"(80 %: {low:g} to {high:g}), {one.observed_in_open:g} seen so far  [{one.basis}]"
    )


def _price(one: PriceForecast) -> str:
    days = min(7, len(one.steps))
    where, odds, later = _item(one.sku, one.location, one.channel), one.p_change[days - 1], one.mean[days - 1]
    return (
        f"{moment(one.as_of)}  {where}  {one.price:g} {one.currency}, in {days} days another with {odds:.0%}, "
        f"{later:g} on average; {one.trend.direction} in {len(one.steps)}  [{one.basis}]"
    )


def _alert(one: PriceAlert) -> str:
    if one.sku is not None:
        where = _item(one.sku, one.location or "", one.channel or "")
    else:
        where = f"{len(one.items)} price lines"
    told = [f"{moment(one.event_time)}  {one.status}  {one.severity}  {one.kind}  {where}"]
    if one.observed is not None:
        told.append(f"price {one.observed.price:g} {one.observed.currency}")
    if one.expected is not None:
        told.append(f"expected {one.expected.p50:g}")
    if one.impact is not None and one.impact.money_at_risk is not None:
        told.append(f"{one.impact.money_at_risk:,.2f} {one.impact.currency} at risk")
    told.append(one.resolution or one.suggested_action)
    return ", ".join(told)


def _trigger(one: ReplenishmentTrigger) -> str:
    item, quantity = _item(one.sku, one.location), one.quantity.order_qty
    return (
        f"{moment(one.issued_at)}  {one.status}  {one.kind}  {item}  {quantity:g} by {one.order_by}, {one.urgency}: "
        f"{'; '.join(one.reasons)}  [{one.idempotency_key} revision {one.revision}]"
    )


def _item(*parts: str) -> str:
    return " ".join(part for part in parts if part)
