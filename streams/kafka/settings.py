"""Settings of the Kafka shell: where Kafka is, who this application is, and how a worker runs.

In: values of `[kafka]` and `[worker]`, wherever they were read. Out: `KafkaSettings`, `WorkerSettings`, and what each
Kafka client wants to hear of them.
Must not know: files of settings, environment variables, options; the door reads those. Rule: every number has bounds,
an unknown key is an error, and no text made of a model shows a secret; only what is handed to a client does.

Two errors come of it:

    ValueError          a value cannot be used (pydantic's ValidationError)
    SettingsError       a value is fine, but what it names on this machine is not
"""

from __future__ import annotations

import os
import re
import ssl
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator

LOOPBACK = "127.0.0.1"
MIB = 1 << 20

NAME = r"[a-zA-Z0-9._-]"
"""What Kafka allows in names of topics; groups and transactional ids may hold more, and gain nothing by it."""

_LONGEST_NAME = 200
"""Kafka's topics have 249 characters at most; the longest name after a prefix has 24."""

_ENDPOINT = re.compile(r"(\[[0-9a-fA-F:.]+\]|[a-zA-Z0-9._-]+):(\d{1,5})")


class SettingsError(Exception):
    """A setting is unknown, out of range, or names what is not there; one sentence that says which, and what to do."""


def refuse_truth(value: Any) -> Any:
    """Give a value back that is not true or false, which pydantic would take for 1 and 0.

    Raises
    ------
    ValueError
        If it is.
    """
    if isinstance(value, bool):
        raise ValueError("true and false are no value of it")
    return value


class Table(BaseModel):
    """What every table of settings does: never changes, refuses unknown keys, and repeats no input in its errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _no_truth_as_number(cls, value: Any) -> Any:
        return refuse_truth(value)

    def redacted(self) -> dict[str, Any]:
        """Names and values as JSON has them, secrets as stars."""
        return self.model_dump(mode="json")


class KafkaSettings(Table):
    """Where Kafka is, how to be let in, and which topics are this application's.

    One application id serves one shop; a second shop on the same Kafka is another `topic_prefix`.

    Examples
    --------
    >>> kafka = KafkaSettings(topic_prefix="north.", sasl_password=None)
    >>> kafka.topic("shop.orders.v1"), kafka.librdkafka()["bootstrap.servers"]
    ('north.shop.orders.v1', '127.0.0.1:9092')
    >>> KafkaSettings(security_protocol="SASL_SSL")
    Traceback (most recent call last):
    pydantic_core._pydantic_core.ValidationError: ...
    """

    bootstrap_servers: str = Field(
        default=f"{LOOPBACK}:9092", description="Brokers to ask first: `host:port`, several joined by commas."
    )
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        default="PLAINTEXT", description="Whether connections are encrypted (SSL) and authenticated (SASL)."
    )
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] | None = Field(
        default=None, description="How the password is proven; needed with SASL."
    )
    sasl_username: Annotated[str, Field(min_length=1)] | None = Field(
        default=None, description="User; needed with SASL."
    )
    sasl_password: SecretStr | None = Field(
        default=None, description="Password; needed with SASL. Best in a secret file."
    )
    ssl_ca_file: Path | None = Field(
        default=None,
        description="PEM file of the authorities that brokers are checked against; none: those of the system.",
    )
    ssl_certificate_file: Path | None = Field(default=None, description="PEM file of this client's certificate.")
    ssl_key_file: Path | None = Field(default=None, description="PEM file of the certificate's key.")
    ssl_key_password: SecretStr | None = Field(default=None, description="Password of the key file.")
    application_id: str = Field(
        default="shelftide", pattern=f"^{NAME}+$", max_length=_LONGEST_NAME,
        description="Name of the worker group, and head of its transactional ids.",
    )  # fmt: skip
    topic_prefix: str = Field(
        default="",
        pattern=f"^{NAME}*$",
        max_length=_LONGEST_NAME,
        description="Put before every topic's name, dot included.",
    )
    partitions: int = Field(
        default=4, ge=1, le=1024, description="Partitions of the item topics: the shards. Fixed once topics exist."
    )
    replication_factor: int = Field(default=1, ge=1, le=32, description="Copies of each topic, on as many brokers.")

    retention_days: int = Field(
        default=-1,
        ge=-1,
        le=36_500,
        description="Days that events are kept, counted from their record's timestamp; -1: for ever. A history that is "
        "played in late is as old as its events.",
    )

    @field_validator("retention_days")
    @classmethod
    def _at_least_a_day(cls, days: int) -> int:
        if days == 0:
            raise ValueError("0 days would delete events before they are read; give 1 or more, or -1")
        return days

    @field_validator("bootstrap_servers")
    @classmethod
    def _endpoints(cls, text: str) -> str:
        servers = [server.strip() for server in text.split(",")]
        for server in servers:
            match = _ENDPOINT.fullmatch(server)
            if match is None or not 0 < int(match[2]) < 65536:
                raise ValueError(f"{server!r} is not of the form host:port")
        return ",".join(servers)

    @model_validator(mode="after")
    def _fits_together(self) -> KafkaSettings:
        protocol = self.security_protocol
        sasl, encrypted = protocol.startswith("SASL"), protocol.endswith("SSL")
        for name in ("sasl_mechanism", "sasl_username", "sasl_password"):
            if sasl and getattr(self, name) is None:
                raise ValueError(f"security_protocol is {protocol}, which needs {name}")
            if not sasl and getattr(self, name) is not None:
                raise ValueError(f"security_protocol is {protocol}, so {name} has no effect; set SASL_SSL")
        for name in ("ssl_ca_file", "ssl_certificate_file", "ssl_key_file", "ssl_key_password"):
            if not encrypted and getattr(self, name) is not None:
                raise ValueError(f"security_protocol is {protocol}, so {name} has no effect; set SSL or SASL_SSL")
        if (self.ssl_certificate_file is None) != (self.ssl_key_file is None):
            raise ValueError("ssl_certificate_file and ssl_key_file go together")
        return self

    def topic(self, name: str) -> str:
        """The name of a topic of `contracts.md` on this Kafka."""
        return self.topic_prefix + name

    def librdkafka(self) -> dict[str, Any]:
        """Configuration of a confluent-kafka client: how to connect, and nothing else. Holds the secrets.

        Raises
        ------
        SettingsError
            If a file of the settings cannot be read.
        """
        return _given({
            "bootstrap.servers": self.bootstrap_servers,
            "client.id": self.application_id,
            "security.protocol": self.security_protocol,
            "sasl.mechanism": self.sasl_mechanism,
            "sasl.username": self.sasl_username,
            "sasl.password": _plain(self.sasl_password),
            "ssl.ca.location": self._file("ssl_ca_file"),
            "ssl.certificate.location": self._file("ssl_certificate_file"),
            "ssl.key.location": self._file("ssl_key_file"),
            "ssl.key.password": _plain(self.ssl_key_password),
        })  # fmt: skip

    def kafka_python(self) -> dict[str, Any]:
        """Arguments of kafka-python's clients; as `librdkafka`."""
        return _given({
            "bootstrap_servers": self.bootstrap_servers.split(","),
            "client_id": self.application_id,
            "security_protocol": self.security_protocol,
            "sasl_mechanism": self.sasl_mechanism,
            "sasl_plain_username": self.sasl_username,
            "sasl_plain_password": _plain(self.sasl_password),
            "ssl_context": self._ssl_context(),
        })  # fmt: skip

    def aiokafka(self) -> dict[str, Any]:
        """Arguments of aiokafka's clients, which want the names of kafka-python; as `librdkafka`."""
        return self.kafka_python()

    def faust(self) -> dict[str, Any]:
        """Arguments of `faust.App`: the brokers as URLs, and credentials; as `librdkafka`.

        Faust speaks to Kafka through aiokafka and takes credentials in objects of its own.
        """
        return {
            "broker": [f"kafka://{server}" for server in self.bootstrap_servers.split(",")],
            "broker_credentials": self._faust_credentials(),
        }

    def _faust_credentials(self) -> Any:
        from faust.auth import SASLCredentials, SSLCredentials  # late: importing Faust takes a second

        if self.sasl_mechanism is not None:
            return SASLCredentials(
                username=self.sasl_username,
                password=_plain(self.sasl_password),
                ssl_context=self._ssl_context(),
                mechanism=self.sasl_mechanism,
            )
        return SSLCredentials(self._ssl_context()) if self.security_protocol == "SSL" else None

    def _ssl_context(self) -> ssl.SSLContext | None:
        """Certificates for clients that check them in Python; names of hosts are always checked."""
        if not self.security_protocol.endswith("SSL"):
            return None
        name = "ssl_ca_file"
        try:
            context = ssl.create_default_context(cafile=self._file("ssl_ca_file"))
            if certificate := self._file("ssl_certificate_file"):
                name = "ssl_certificate_file"
                password = _plain(self.ssl_key_password) or ""  # none at all would make OpenSSL ask on the terminal
                context.load_cert_chain(certificate, self._file("ssl_key_file"), password)
        except (ssl.SSLError, ValueError) as error:
            raise SettingsError(
                f"kafka.{name}: {str(getattr(self, name))!r} cannot be used ({error}); "
                "give PEM files, a key that belongs to its certificate, and its password"
            ) from error
        return context

    def _file(self, name: str) -> str | None:
        path: Path | None = getattr(self, name)
        if path is None:
            return None
        path = path.expanduser()
        try:
            with path.open("rb"):
                return str(path)
        except OSError as error:
            raise SettingsError(f"kafka.{name}: {str(path)!r} cannot be read ({error.strerror or error})") from error


def _plain(secret: SecretStr | None) -> str | None:
    return None if secret is None else secret.get_secret_value()


def _given(configuration: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in configuration.items() if value is not None}


def state_folder() -> Path:
    """Where programs of this user keep state: of the environment, as the XDG base directories have it."""
    given = os.environ.get("XDG_STATE_HOME", "")
    return (Path(given) if os.path.isabs(given) else Path.home() / ".local" / "state") / "shelftide"


class LearnSettings(Table):
    """How `shelftide learn` fits nets beside the workers of a shop.

    Examples
    --------
    >>> LearnSettings().every_days
    7
    """

    every_days: int = Field(
        default=7, ge=1, le=365, description="Days of the shop between two generations of nets; a change that is seen "
        "brings the next one forward.",
    )  # fmt: skip
    nets: int = Field(default=3, ge=1, le=16, description="Nets of a generation, which answer as one.")
    steps: int = Field(
        default=2_000, ge=10, le=1_000_000, description="Steps of a net that is fitted anew; a tenth of them for one "
        "that learns on.",
    )  # fmt: skip
    core_share: float = Field(
        default=0.5, ge=0.01, le=1, description="Share of one core that fitting may take; it also runs at the lowest "
        "priority of the system.",
    )  # fmt: skip


class WorkerSettings(Table):
    """How one worker runs; none of it changes what is decided.

    Examples
    --------
    >>> WorkerSettings(metrics_port=-1).metrics_port is None
    True
    """

    instance_id: str | None = Field(
        default=None, pattern=f"^{NAME}+$", max_length=_LONGEST_NAME,
        description="Name of this worker in its group, kept over restarts: it then takes its shards back at once.",
    )  # fmt: skip
    session_timeout_ms: int = Field(
        default=10_000,
        ge=1_000,
        le=1_800_000,
        description="Silence after which Kafka gives a worker's shards to others.",
    )
    commit_interval_ms: int = Field(
        default=1_000, ge=10, le=30_000, description="Time between commits. Kafka aborts transactions after 60,000."
    )
    chunk_rows: int = Field(default=10_000, ge=1, le=1_000_000, description="Records fetched at once, at most.")
    max_buffered_bytes: int = Field(
        default=64 * MIB,
        ge=MIB,
        le=16_384 * MIB,
        description="Fetched and not yet processed, at most; then fetching waits.",
    )
    clock: Literal["wall", "record"] = Field(
        default="wall", description="What moves time on: this machine's clock, or the records' Kafka timestamps alone."
    )
    connect_timeout_s: float = Field(
        default=30.0,
        ge=0.1,
        le=3_600,
        description="How long a command or worker tries to reach Kafka before it gives up.",
    )
    forecast_rows: int = Field(
        default=2_048, ge=1, le=65_536, description="Series per batch of the forecaster, at most."
    )
    forecast_timeout_s: float = Field(
        default=30.0, ge=0.01, le=3_600, description="Time a batch may take before the baseline answers for the model."
    )
    forecast_wait_ms: int = Field(
        default=200,
        ge=0,
        le=3_600_000,
        description="How long records wait for forecasts that they made due, at most, with `backlog_forecasts` `all`.",
    )
    backlog_forecasts: Literal["all", "share"] = Field(
        default="share",
        description="While a backlog is worked off: `all` forecasts that a live worker would have made, or as many as "
        "a tenth of the time allows.",
    )
    metrics_host: str = Field(default=LOOPBACK, min_length=1, description="Address that metrics are served on.")
    metrics_port: int | None = Field(
        default=9_464, ge=-1, le=65_535, description="Port that metrics are served on: 0 any free one, -1 none."
    )
    state_folder: Path = Field(
        default_factory=state_folder,
        description="What a worker keeps on its machine; without it `shelftide` in `$XDG_STATE_HOME`, or in "
        "`.local/state` at home.",
    )
    log_format: Literal["text", "json"] = Field(default="text", description="Form of log lines on stderr.")
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="Least level that is logged."
    )

    @field_validator("metrics_port")
    @classmethod
    def _no_port(cls, port: int | None) -> int | None:
        return None if port == -1 else port
