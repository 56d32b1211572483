"""Stock and triggers of a few series for tests, with defaults: a test shows only what matters to it."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from models.forecast import LEVELS
from streams.calendar import DAY_MS
from streams.events import Kind, LeadTime, Placement
from streams.policy import ReplenishmentConfig
from streams.positions import Positions
from streams.replenishment import Replenishment
from streams.triggers import Trigger

DAY0 = 1_764_028_800_000  # 2025-11-25
PLACED = Placement(lead_time_days=LeadTime(9, 13), moq=24, pack_size=12, service_level=0.95)


def demand(per_day: float, steps: int = 28) -> npt.NDArray[np.float32]:
    """Cumulative demand of one series whose quantile at level p is 2 p times the median."""
    return np.asarray(per_day * np.arange(1, steps + 1)[:, None] * 2 * np.array(LEVELS), np.float32)


@dataclass
class Shop:
    """Stock and triggers of a few series; every call that may issue triggers keeps what was issued."""

    config: ReplenishmentConfig = field(default_factory=ReplenishmentConfig)
    names: dict[int, tuple[str, str]] = field(default_factory=dict)
    issued: list[Trigger] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.positions = Positions(10)
        self.engine = Replenishment(self.config, self.positions, self.name, local_date)

    def name(self, slot: int) -> tuple[str, str]:
        return self.names.get(slot, (f"A{slot}", "default"))

    def stocked(self, on_hand: float, day: float = 0, slot: int = 0, **more: float) -> Shop:
        self.positions.count(slot, on_hand=on_hand, time_ms=at(day), **more)
        return self

    def placed(self, placement: Placement | None = PLACED, slot: int = 0, **more: Any) -> Shop:
        self.positions.place(slot, placement, time_ms=DAY0, **more)
        return self

    def sold(self, quantity: float, day: float, kind: Kind = Kind.ORDER_PLACED) -> None:
        columns = [np.array([value]) for value in (0, kind, round(quantity * 1000), at(day))]
        self.positions.apply_flows(*columns)

    def decide(self, per_day: float = 2.0, day: float = 0, slots: tuple[int, ...] = (0,)) -> list[dict[str, Any]]:
        cumulative = np.repeat(demand(per_day)[None], len(slots), axis=0)
        steps = at(int(day)) + np.arange(28) * DAY_MS
        return self.keep(
            self.engine.decide(np.array(slots, np.int32), cumulative, at(day), lambda row: f"f{slots[row]}", steps)
        )

    def ack(self, key: str, status: str, day: float) -> list[dict[str, Any]]:
        return self.keep(self.engine.ack(key, status, at(day)))

    def keep(self, triggers: list[Trigger]) -> list[dict[str, Any]]:
        self.issued += triggers
        return [orjson.loads(trigger.value) for trigger in triggers]

    def opened(self) -> dict[str, Any]:
        [message] = self.decide()
        assert message["status"] == "open"
        return message


def at(day: float) -> int:
    return DAY0 + round(day * DAY_MS)


def local_date(slot: int, time_ms: int) -> str:
    return datetime.fromtimestamp(time_ms / 1000, UTC).date().isoformat()
