"""Outputs as other systems read them: topics, keys, CloudEvents headers, JSON values.

In: forecasts in arrays, dead letters, values that alerts and triggers encoded themselves.
Out: `Output`: topic, key and value bytes, headers.
Must not know: how a decision came about. Rule: ids, times and revisions come from state, never from a clock.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

import numpy as np
import numpy.typing as npt
import orjson
import xxhash

from models.forecast import LEVELS, Basis, Forecast

F32 = npt.NDArray[np.float32]

DEMAND_TOPIC = "forecast.demand.v1"
ALERT_TOPIC = "alerts.price.v1"
TRIGGER_TOPIC = "replenishment.trigger.v1"
DEADLETTER_TOPIC = "engine.deadletter.v1"

SOURCE = "/shelftide"
_LEVELS = list(LEVELS)
_POWERS = 10.0 ** np.arange(-36, 50)  # what float32 can hold, to four digits; looked up in a third of the time
_LAST_POWER = 36 + 3


def key_of(*parts: str) -> str:
    """Join the parts of a key with ``|``; a part that holds one is percent-encoded.

    Examples
    --------
    >>> key_of("mug", "default"), key_of("a|b", "x")
    ('mug|default', 'a%7Cb|x')
    """
    return "|".join(quote(part, safe="") if "|" in part or "%" in part else part for part in parts)


def significant(values: F32) -> F32:
    """Round to 4 significant digits, float32, same shape; zero stays zero and order is kept.

    Examples
    --------
    >>> orjson.dumps(significant(np.array([1234.56, 0.0, 0.0123449], np.float32)), option=orjson.OPT_SERIALIZE_NUMPY)
    b'[1235.0,0.0,0.01234]'
    """
    wide = values.astype(np.float64)
    safe = np.where(wide == 0, 1.0, np.abs(wide))
    scale = _POWERS.take(_LAST_POWER - np.floor(np.log10(safe)).astype(np.int64), mode="clip")
    rounded: F32 = (np.rint(wide * scale) / scale).astype(np.float32)
    return rounded


def figure(value: float) -> float:
    """One published number: four significant digits, as `significant` gives arrays of them.

    Examples
    --------
    >>> figure(79.34567), figure(123456.0), figure(0.0)
    (79.35, 123500.0, 0.0)
    """
    return float(f"{value:.4g}")


def rfc3339(time_ms: int) -> str:
    """An instant as RFC 3339 in UTC with milliseconds.

    Examples
    --------
    >>> rfc3339(1_300_000_000_005)
    '2011-03-13T07:06:40.005Z'
    """
    stamp = datetime.fromtimestamp(time_ms // 1000, UTC)
    return f"{stamp:%Y-%m-%dT%H:%M:%S}.{time_ms % 1000:03d}Z"


@dataclass(frozen=True, slots=True)
class Output:
    """One message for a topic.

    Attributes
    ----------
    topic
        Where it goes.
    key
        Message key; its text is the CloudEvents subject.
    value
        The JSON of the contract, or the raw bytes of a dead letter.
    event_id
        ``ce_id``: the same id never has two contents.
    time_ms
        Event time of the decision, epoch ms.
    extra
        Further headers.
    """

    topic: str
    key: bytes | None
    value: bytes | None
    event_id: str
    time_ms: int
    extra: tuple[tuple[str, bytes], ...] = ()

    @property
    def headers(self) -> list[tuple[str, bytes]]:
        """CloudEvents 1.0 headers of binary mode, then the extra ones."""
        if self.topic == DEADLETTER_TOPIC:
            return list(self.extra)
        return [
            ("ce_specversion", b"1.0"),
            ("ce_id", self.event_id.encode()),
            ("ce_type", self.topic.encode()),
            ("ce_source", SOURCE.encode()),
            ("ce_time", rfc3339(self.time_ms).encode()),
            ("ce_subject", self.key or b""),
            ("content-type", b"application/json"),
            *self.extra,
        ]


@dataclass(frozen=True, slots=True)
class ForecastSet:
    """Forecasts of one instant; a value is encoded when a shell asks for it, for most are never written.

    Attributes
    ----------
    keys
        SKU and location per row.
    forecast
        The rows' forecasts.
    as_of_ms
        Instant the forecasts stand for.
    at_close
        True for the refresh of all series at a bucket's close, False for changed series in between.
    day, hour
        Local day number and hour of step 1.
    freq
        ``D`` or ``h``.
    time_zone
        Zone in which buckets begin.
    steps
        Starts of the buckets, epoch ms, H of them.
    observed
        Demand already seen in step 1, float32 (B,).
    model
        Name and digest of the forecaster.
    shard
        Which engine made them.
    revision
        Of forecasts of one instant the greatest counts.
    reason
        Why another model than the one set answered, or None.
    """

    keys: list[tuple[str, str]]
    forecast: Forecast
    as_of_ms: int
    at_close: bool
    day: int
    hour: int
    freq: str
    time_zone: str
    steps: list[int]
    observed: F32
    model: str
    shard: int = 0
    revision: int = 1
    reason: str | None = None

    def __len__(self) -> int:
        return len(self.keys)

    def basis_counts(self) -> dict[str, int]:
        """Rows per basis."""
        codes, counts = np.unique(self.forecast.basis, return_counts=True)
        return {Basis(int(code)).name.lower(): int(count) for code, count in zip(codes, counts, strict=True)}

    def forecast_id(self, row: int) -> str:
        """Id of a row's forecast: hash of series, instant, revision and model."""
        text = f"{key_of(*self.keys[row])}|{self.as_of_ms}|{self.revision}|{self.model}"
        return f"fc_{xxhash.xxh3_64_hexdigest(text.encode())}"

    def encode(self, rows: list[int] | range | None = None) -> list[Output]:
        """Encode rows (all where none are named) as messages of ``forecast.demand.v1``."""
        picked = range(len(self)) if rows is None else rows
        at = np.asarray(picked, np.int64)
        f = self.forecast
        quantiles, cumulative = significant(f.quantiles[at]), significant(f.cumulative[at])
        mean, observed = significant(f.mean[at]), significant(self.observed[at])
        out = []
        for i, row in enumerate(picked):
            sku, location = self.keys[row]
            forecast_id = self.forecast_id(row)
            value = {
                "forecast_id": forecast_id,
                "revision": self.revision,
                "sku": sku,
                "location": location,
                "as_of": self.as_of_ms,
                "freq": self.freq,
                "time_zone": self.time_zone,
                "steps": self.steps,
                "observed_in_open": observed[i],
                "levels": _LEVELS,
                "mean": mean[i],
                "quantiles": quantiles[i],
                "cumulative": cumulative[i],
                "model": self.model,
                "basis": Basis(int(f.basis[row])).name.lower(),
                "reason": self.reason,
                "explanation": None,
            }
            body = orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)
            out.append(Output(DEMAND_TOPIC, key_of(sku, location).encode(), body, forecast_id, self.as_of_ms))
        return out


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a record came from; unknown parts are empty or -1."""

    topic: str = ""
    partition: int = -1
    offset: int = -1


def dead_letter(
    value: bytes | None, key: bytes | None, stage: str, reason: str, where: str = "", origin: Origin | None = None
) -> Output:
    """A record that cannot be used, bytes unchanged, with the reason in headers.

    Parameters
    ----------
    value, key
        The record as it came.
    stage
        decode, validate, route, late, ahead, apply, forecast or produce.
    reason
        One sentence.
    where
        Path of the field at fault, or empty.
    origin
        Where the record came from, where that is known.
    """
    origin = origin or Origin()
    message = f"{reason} - at `{where}`" if where and where not in reason else reason
    headers = {
        "__streams.errors.exception": "EventError",
        "__streams.errors.message": message,
        "__streams.errors.stacktrace": "",
        "__streams.errors.topic": origin.topic,
        "__streams.errors.partition": str(origin.partition),
        "__streams.errors.offset": str(origin.offset),
        "x-stage": stage,
    }
    extra = tuple((name, text.encode("utf-8", "replace")) for name, text in headers.items())
    return Output(DEADLETTER_TOPIC, key, value, "", 0, extra)


def with_origin(letter: Output, origin: Origin) -> Output:
    """A dead letter that names where its record came from."""
    known = {
        "__streams.errors.topic": origin.topic.encode(),
        "__streams.errors.partition": b"%d" % origin.partition,
        "__streams.errors.offset": b"%d" % origin.offset,
    }
    return replace(letter, extra=tuple((name, known.get(name, text)) for name, text in letter.extra))


def as_line(output: Output) -> bytes:
    """One output as a line of ``<topic>.jsonl``: the value itself; a dead letter as an object with its headers."""
    if output.topic != DEADLETTER_TOPIC:
        return output.value or b"null"
    line: dict[str, Any] = {}
    try:
        line["value"] = None if output.value is None else output.value.decode("utf-8")
    except UnicodeDecodeError:
        line["value_base64"] = base64.b64encode(output.value or b"").decode()
    line["key"] = None if output.key is None else output.key.decode("utf-8", "backslashreplace")
    line["headers"] = {name: text.decode("utf-8", "replace") for name, text in output.headers}
    return orjson.dumps(line)


@dataclass(slots=True)
class Outputs:
    """What one call of the engine gave: each entry with the chunk's row at which it arose, in order.

    A shell merges the outputs of several shards by row, so that their order does not depend on chunks.

    Attributes
    ----------
    forecasts, triggers, dead_letters
        For their topics.
    prices
        `streams.price_forecasting.PriceRequest`s: to be answered by whoever publishes forecasts of prices.
    candidates
        For the coordinator: `streams.price_alerts.Candidate`, and commands that concern alerts.
    row
        The row that is being worked on.
    """

    forecasts: list[tuple[int, ForecastSet]] = field(default_factory=list)
    prices: list[tuple[int, Any]] = field(default_factory=list)
    candidates: list[tuple[int, Any]] = field(default_factory=list)
    triggers: list[tuple[int, Output]] = field(default_factory=list)
    dead_letters: list[tuple[int, Output]] = field(default_factory=list)
    row: int = 0
