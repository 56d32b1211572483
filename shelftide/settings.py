"""Settings: what is set once for a shop, its Kafka and its workers, whatever the values come from.

In: values as `shelftide/settings_sources.py` found them. Out: `Settings`, and the engine's configuration made of it.
Must not know: commands, events, files, the environment. Rule: an unknown key, or a value out of range, is an error and
never ignored.

    time_zone = "Europe/London"
    base_currency = "GBP"

    [rates]
    EUR = 0.86

    [kafka]
    bootstrap_servers = "kafka-1:9092,kafka-2:9092"

    [worker]
    commit_interval_ms = 500
"""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from models.price import PriceModel
from streams.calendar import DAY_MS, HOUR_MS, Width, Zone
from streams.engine import EngineConfig
from streams.kafka.settings import KafkaSettings, LearnSettings, Table, WorkerSettings, refuse_truth, state_folder
from streams.kafka.settings import SettingsError as SettingsError
from streams.policy import ReplenishmentConfig
from streams.price_rules import PriceAlertConfig

if TYPE_CHECKING:
    from models.forecast import Forecaster


class ModelSettings(Table):
    """Which model answers, and where it runs.

    Examples
    --------
    >>> ModelSettings().name
    'pretrained'
    """

    name: str = Field(
        default="pretrained", min_length=1, max_length=200,
        description="Who forecasts: `pretrained` (the encoder in the package), `champion` of the registry, a model of "
        "it by digest or published name, the folder of a model, or `baseline`.",
    )  # fmt: skip
    registry: Path = Field(
        default_factory=lambda: state_folder() / "registry",
        description="Folder of fitted models; without it `registry` beside what workers keep on their machine.",
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        default="auto", description="Where the model runs; `auto`: on CUDA where there is such a device."
    )
    prices: PriceModel = Field(
        default="net",
        description="Who forecasts prices: `net` (a small net in the package), `hurdle` (counting alone, ten times as "
        "fast), or `off`: nobody, and no runs of prices are kept.",
    )  # fmt: skip
    learning: Literal["on", "off"] = Field(
        default="on",
        description="Whether workers and replays learn from what comes true, and correct forecasts where that pays.",
    )


MOST_SERIES = 10_000_000
"""Series of one engine at most: above it, slots and hashes would need wider integers than they have."""


class Settings(BaseSettings):
    """What is set once for a shop and where it runs; made by `settings_sources.read_settings`, or of values alone.

    Examples
    --------
    >>> Settings(time_zone="Europe/London", base_currency="GBP", rates={"EUR": 0.86}).engine().rates
    {'EUR': 0.86}
    >>> Settings().kafka.partitions
    4
    """

    model_config = SettingsConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    time_zone: str = Field(default="UTC", description="Where a day of the shop ends: IANA name.")
    location_time_zones: dict[str, str] = Field(default={}, description="Zones of locations that have their own.")
    base_currency: str = Field(default="EUR", description="Currency that revenue is summed in: ISO 4217 code.")
    rates: dict[str, Annotated[float, Field(strict=True)]] = Field(
        default={}, description="Units of the base currency per unit of other currencies."
    )
    bucket: Literal["day", "hour"] = Field(default="day", description="Width of the buckets that are forecast.")
    max_series: int = Field(default=100_000, ge=1, le=MOST_SERIES, description="Series that each engine holds at most.")
    partitioner: Literal["murmur2", "crc32"] = Field(
        default="murmur2", description="How producers spread SKUs over partitions: murmur2, or crc32 (librdkafka)."
    )
    kafka: KafkaSettings = Field(
        default_factory=KafkaSettings, description="Where Kafka is, and which topics are this shop's."
    )
    worker: WorkerSettings = Field(default_factory=WorkerSettings, description="How one worker runs.")
    model: ModelSettings = Field(default_factory=ModelSettings, description="Which model forecasts.")
    learn: LearnSettings = Field(
        default_factory=LearnSettings, description="How nets are fitted anew while the shop runs."
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Values alone: `settings_sources` reads everything else, since it also says where a wrong value stood."""
        return (init_settings,)

    @field_validator("max_series", mode="before")
    @classmethod
    def _no_truth_as_number(cls, value: Any) -> Any:
        return refuse_truth(value)

    @field_validator("time_zone")
    @classmethod
    def _known_zone(cls, name: str) -> str:
        Zone(name, Width.DAY)
        return name

    @field_validator("location_time_zones")
    @classmethod
    def _known_zones(cls, zones: dict[str, str]) -> dict[str, str]:
        for name in zones.values():
            Zone(name, Width.DAY)
        return zones

    @field_validator("base_currency")
    @classmethod
    def _currency_code(cls, code: str) -> str:
        if not (len(code) == 3 and code.isascii() and code.isalpha() and code.isupper()):
            raise ValueError(f"{code!r} is no currency code; give three capital letters such as GBP")
        return code

    @field_validator("rates")
    @classmethod
    def _usable_rates(cls, rates: dict[str, float]) -> dict[str, float]:
        for code, rate in rates.items():
            cls._currency_code(code)
            if not (rate > 0 and math.isfinite(rate)):
                raise ValueError(f"rate of {code} is {rate:g}; it must be a number above 0")
        return rates

    @model_validator(mode="after")
    def _base_currency_is_its_own_unit(self) -> Settings:
        if self.rates.get(self.base_currency, 1.0) != 1.0:
            raise ValueError(f"{self.base_currency} is the base currency; leave it out of rates")
        return self

    def engine(self) -> EngineConfig:
        """The configuration of this shop's engines."""
        rates = {**self.rates, self.base_currency: 1.0}
        hourly = self.bucket == "hour"
        return EngineConfig(
            max_series=self.max_series,
            width=Width.HOUR if hourly else Width.DAY,
            time_zone=self.time_zone,
            location_time_zones=self.location_time_zones,
            base_currency=self.base_currency,
            rates=self.rates,
            price_model=self.model.prices,
            learning=self.model.learning == "on",
            prices=PriceAlertConfig(rates=rates),
            replenishment=replace(ReplenishmentConfig(), bucket_ms=HOUR_MS if hourly else DAY_MS),
        )

    def forecaster(self) -> Forecaster:
        """Who forecasts; raises `models.forecast.ForecastError` where there is no such model."""
        from models.named import forecaster_named

        return forecaster_named(self.model.name, self.model.registry.expanduser(), self.model.device)

    def find_model(self, name: str) -> Forecaster:
        """The model that a command names; raises `models.forecast.ForecastError` where there is none here."""
        from models.named import registered

        return registered(name, self.model.registry.expanduser(), self.model.device)

    def redacted(self) -> dict[str, Any]:
        """Names and values as JSON has them, tables inside, secrets as stars."""
        return self.model_dump(mode="json")
