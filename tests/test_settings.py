"""Settings: which source wins, what is refused and in which words, and that secrets stay secret."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr, ValidationError

from shelftide.cli import run
from shelftide.settings import Settings, SettingsError
from shelftide.settings_page import settings_page
from shelftide.settings_sources import FILE, PREFIX, SECRETS, known_settings, origins, read_settings, settled, sources
from streams.calendar import Width
from streams.kafka.settings import KafkaSettings, WorkerSettings

PAGE = Path(__file__).parents[1] / "docs" / "settings.md"
HUSH = "hush-42"


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """No variable of the machine that runs the tests takes part."""
    for variable in [name for name in os.environ if name.upper().startswith(PREFIX)]:
        monkeypatch.delenv(variable)


@pytest.fixture
def toml(tmp_path: Path) -> Callable[[str], Path]:
    """A file of settings with this text."""

    def write(text: str) -> Path:
        path = tmp_path / "shop.toml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


@pytest.fixture
def secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """A folder of secret files that the environment names."""

    def write(**files: str) -> Path:
        folder = tmp_path / "secrets"
        folder.mkdir()
        for name, text in files.items():
            (folder / name).write_text(text, encoding="utf-8")
        monkeypatch.setenv(SECRETS, str(folder))
        return folder

    return write


Toml = Callable[[str], Path]
Secrets = Callable[..., Path]


# -- which source wins


def test_the_first_source_that_has_a_value_wins(toml: Toml, secrets: Secrets, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("application_id", "topic_prefix", "partitions", "replication_factor", "bootstrap_servers")
    file = toml("[kafka]\n" + "".join(f'{name} = "1"\n' for name in names[:4]))
    secrets(**{f"kafka__{name}": "2" for name in names[:3]})
    for name in names[:2]:
        monkeypatch.setenv(f"SHELFTIDE_KAFKA__{name.upper()}", "3")
    found = sources(file, {"kafka": {"application_id": "4"}, "worker": {"chunk_rows": None}})
    kafka = settled(found).kafka
    assert [str(getattr(kafka, name)) for name in names] == ["4", "3", "2", "1", "127.0.0.1:9092"]
    where = origins(found)
    assert [where[f"kafka.{name}"] for name in names] == [
        "option --application-id",
        "environment variable SHELFTIDE_KAFKA__TOPIC_PREFIX",
        f"secret file {str(file.parent / 'secrets' / 'kafka__partitions')!r}",
        repr(str(file)),
        "default",
    ]


def test_the_environment_names_the_file_unless_an_option_does(toml: Toml, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(FILE, "/none")
    assert read_settings(toml("max_series = 7"), {}).max_series == 7
    monkeypatch.setenv(FILE, str(toml("max_series = 8")))
    assert read_settings(None, {}).max_series == 8
    monkeypatch.setenv(FILE, "")
    assert read_settings(None, {}).max_series == 100_000


def test_tables_of_several_sources_are_merged(toml: Toml, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHELFTIDE_RATES", '{"USD": 0.9, "GBP": 1.1}')
    monkeypatch.setenv("SHELFTIDE_WORKER__CHUNK_ROWS", "5")
    file = toml("[rates]\nUSD = 0.8\nJPY = 0.006\n[worker]\nchunk_rows = 6\nforecast_rows = 7\n")
    settings = read_settings(file, {"rates": {"GBP": 1.2}})
    assert settings.rates == {"USD": 0.9, "GBP": 1.2, "JPY": 0.006}
    assert (settings.worker.chunk_rows, settings.worker.forecast_rows) == (5, 7)


def test_a_variable_set_to_nothing_counts_as_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHELFTIDE_KAFKA__SASL_USERNAME", "")
    assert read_settings(None, {}).kafka.sasl_username is None


def test_a_secret_keeps_its_blanks_and_loses_its_line_end(secrets: Secrets) -> None:
    secrets(**{"kafka__sasl_password": " a b \r\n", "kafka__sasl_username": "u\n", "tls.key": "of somebody else"})
    options = {"kafka": {"security_protocol": "SASL_SSL", "sasl_mechanism": "PLAIN"}}
    kafka = read_settings(None, options).kafka
    assert kafka.sasl_password is not None
    assert kafka.sasl_password.get_secret_value() == " a b "
    assert kafka.sasl_username == "u"


def test_files_with_tables_of_kafka_serve_a_replay_too(shop: Path, toml: Toml, tmp_path: Path) -> None:
    file = toml('base_currency = "GBP"\n[kafka]\npartitions = 8\n[worker]\nclock = "record"\n')
    assert run(["replay", str(shop), "--out", str(tmp_path / "out"), "--settings", str(file), "--json"]) == 0


def test_what_an_orchestrator_sets_for_a_service_of_this_name_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "SERVICE_HOST": "10.0.0.1",
        "SERVICE_PORT": "9464",
        "SERVICE_PORT_METRICS": "9464",
        "PORT": "tcp://10.0.0.1:9464",
        "PORT_9464_TCP": "tcp://10.0.0.1:9464",
        "PORT_9464_TCP_PROTO": "tcp",
        "KAFKA_PORT": "tcp://10.0.0.2:9092",
        "KAFKA_SERVICE_HOST": "10.0.0.2",
    }.items():
        monkeypatch.setenv(PREFIX + name, value)
    assert read_settings(None, {}) == Settings()


# -- what is refused, and in which words


WRONG_FILES = [
    ("colour = 1", "unknown field `colour`"),
    ("max_serie = 1", "unknown field `max_serie`; did you mean max_series?"),
    ("[kafak]\npartitions = 1", "unknown field `kafak`; did you mean kafka?"),
    ("[kafka]\npartition = 1", "unknown field `kafka.partition`; did you mean kafka.partitions?"),
    ("[worker]\ncolour = 1", "unknown field `worker.colour`"),
    ("kafka = 3", "[kafka] must be a table"),
    ("rates = 3", "rates is 3; it must be a table"),
    ("rates = {USD = true}", "rates.USD is True; it must be a valid number"),
    ("rates = {usd = 1}", "rates: 'usd' is no currency code"),
    ("max_series = 0", "max_series is 0; it must be greater than or equal to 1"),
    ("max_series = 1.5", "max_series is 1.5; it must be a valid integer"),
    ("max_series = true", "max_series: true and false are no value of it"),
    ("time_zone = 3", "time_zone is 3; it must be a valid string"),
    ("bucket = 'week'", "bucket is 'week'; it must be 'day' or 'hour'"),
    ("[kafka]\npartitions = true", "kafka.partitions: true and false are no value of it"),
    ("[kafka]\nretention_days = 0", "0 days would delete events before they are read"),
    ("[kafka]\nbootstrap_servers = 'kafka'", "'kafka' is not of the form host:port"),
    ("[kafka]\nbootstrap_servers = 'a:1,,b:2'", "'' is not of the form host:port"),
    ("[kafka]\nbootstrap_servers = 'a:99999'", "'a:99999' is not of the form host:port"),
    ("[kafka]\ntopic_prefix = 'a b'", "kafka.topic_prefix is 'a b'; it must match pattern"),
    ("[kafka]\napplication_id = ''", "kafka.application_id is ''; it must match pattern"),
    ("[worker]\nforecast_timeout_s = nan", "worker.forecast_timeout_s is nan; it must be a finite number"),
    ("[worker]\nmetrics_port = 70000", "worker.metrics_port is 70000; it must be less than or equal to 65535"),
    ("[kafka]\nsecurity_protocol = 'SASL_SSL'", "security_protocol is SASL_SSL, which needs sasl_mechanism"),
    ("[kafka]\nsasl_username = 'u'", "security_protocol is PLAINTEXT, so sasl_username has no effect"),
    ("[kafka]\nssl_ca_file = 'ca'", "security_protocol is PLAINTEXT, so ssl_ca_file has no effect"),
    (
        "[kafka]\nsecurity_protocol = 'SSL'\nssl_key_file = 'k'",
        "ssl_certificate_file and ssl_key_file go together",
    ),
    ("base_currency = 'GBP'\nrates = {GBP = 2}", "GBP is the base currency; leave it out of rates"),
    ("max_series =", "is no TOML file"),
]


@pytest.mark.parametrize(("text", "sentence"), WRONG_FILES)
def test_a_wrong_file_is_refused_with_the_file_the_setting_and_what_it_must_be(
    text: str, sentence: str, toml: Toml, capsys: pytest.CaptureFixture[str]
) -> None:
    file = toml(text)
    assert run(["settings", "--settings", str(file)]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    (line,) = shown.err.splitlines()
    assert sentence in line
    assert str(file) in line


WRONG_VARIABLES = [
    ("KAFKA__PARTITION", "3", "is no setting; did you mean SHELFTIDE_KAFKA__PARTITIONS?"),
    ("KAFKA_PARTITIONS", "3", "is no setting; did you mean SHELFTIDE_KAFKA__PARTITIONS?"),
    ("KAFKA", "{}", "is no setting"),
    ("RATES__USD", "1", "is no setting; did you mean SHELFTIDE_RATES?"),
    ("METRICS_PORT", "9464", "is no setting; did you mean SHELFTIDE_WORKER__METRICS_PORT?"),
    ("KAFKA__PARTITIONS", "many", "kafka.partitions is 'many'; it must be a valid integer"),
    ("KAFKA__PARTITIONS", "0", "kafka.partitions is '0'; it must be greater than or equal to 1"),
    ("RATES", "[1", 'must be JSON such as {"NAME": VALUE}'),
    ("RATES", "[1]", "rates is [1]; it must be a table"),
    ("TIME_ZONE", "Mars", "'Mars' is no IANA time zone"),
    ("KAFKA__APPLICATION_ID", "a" * 300, f"is '{'a' * 59}…; it must have at most 200 characters"),
    ("KAFKA__SECURITY_PROTOCOL", "SSL3", "it must be 'PLAINTEXT', 'SSL', 'SASL_PLAINTEXT' or 'SASL_SSL'"),
]


@pytest.mark.parametrize(("name", "value", "sentence"), WRONG_VARIABLES)
def test_a_wrong_variable_is_refused_by_its_name(
    name: str, value: str, sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(PREFIX + name, value)
    with pytest.raises(SettingsError, match=re.escape(sentence)) as refused:
        read_settings(None, {})
    assert str(refused.value).startswith(f"environment variable {PREFIX}{name}")


def test_a_variable_in_small_letters_is_refused_and_not_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("shelftide_time_zone", "UTC")
    with pytest.raises(SettingsError, match="environment variable shelftide_time_zone is no setting"):
        read_settings(None, {})


def test_a_misspelt_secret_is_refused(secrets: Secrets) -> None:
    secrets(kafka__sasl_pasword=HUSH)
    with pytest.raises(SettingsError, match="is no setting; did you mean kafka__sasl_password") as refused:
        read_settings(None, {})
    assert HUSH not in str(refused.value)


def test_a_folder_of_secrets_that_is_not_there_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SECRETS, str(tmp_path / "none"))
    with pytest.raises(SettingsError, match=f"{SECRETS}: '.*none' cannot be read"):
        read_settings(None, {})


def test_a_secret_that_is_no_text_is_refused(secrets: Secrets) -> None:
    folder = secrets()
    (folder / "kafka__sasl_password").write_bytes(b"\xff\xfe")
    with pytest.raises(SettingsError, match=r"kafka__sasl_password' is no UTF-8 text"):
        read_settings(None, {})


def test_an_option_is_named_as_the_user_gave_it() -> None:
    with pytest.raises(SettingsError, match=r"^option --bootstrap: kafka.bootstrap_servers: 'x' is not of the form"):
        read_settings(None, {"kafka": {"bootstrap_servers": "x"}})


# -- secrets


def sasl(**more: Any) -> KafkaSettings:
    """Settings with a user and two secrets."""
    return KafkaSettings(
        security_protocol="SASL_PLAINTEXT",
        sasl_mechanism="SCRAM-SHA-512",
        sasl_username="shop",
        sasl_password=SecretStr(HUSH),
        **more,
    )


def test_no_text_made_of_settings_holds_a_secret(capsys: pytest.CaptureFixture[str], secrets: Secrets) -> None:
    settings = Settings(kafka=sasl())
    for text in (repr(settings), str(settings), settings.model_dump_json(), json.dumps(settings.redacted())):
        assert HUSH not in text
        assert "**********" in text
    folder = secrets(kafka__sasl_password=HUSH, kafka__sasl_username="shop", kafka__sasl_mechanism="PLAIN")
    assert run(["settings"]) == 2  # the protocol is still without SASL
    (folder / "kafka__security_protocol").write_text("SASL_SSL")
    assert run(["settings"]) == 0
    assert run(["settings", "--json"]) == 0
    shown = capsys.readouterr()
    assert HUSH not in shown.out + shown.err
    assert "**********  (secret file" in shown.out


@pytest.mark.parametrize("value", [3, [HUSH], {"a": HUSH}])
def test_no_error_shows_a_secret(value: Any) -> None:
    given = {"security_protocol": "SASL_SSL", "sasl_mechanism": "PLAIN", "sasl_username": "u", "sasl_password": value}
    with pytest.raises(SettingsError, match=r"kafka.sasl_password; it must be a valid string") as refused:
        read_settings(None, {"kafka": given})
    assert HUSH not in str(refused.value)
    with pytest.raises(ValidationError) as raw:
        KafkaSettings(**given)
    assert HUSH not in str(raw.value)


# -- what clients get


def test_every_client_gets_user_and_password() -> None:
    kafka = sasl(bootstrap_servers="a:1, [::1]:2", application_id="north")
    assert kafka.librdkafka() == {
        "bootstrap.servers": "a:1,[::1]:2",
        "client.id": "north",
        "security.protocol": "SASL_PLAINTEXT",
        "sasl.mechanism": "SCRAM-SHA-512",
        "sasl.username": "shop",
        "sasl.password": HUSH,
    }
    assert kafka.kafka_python() == kafka.aiokafka() == {
        "bootstrap_servers": ["a:1", "[::1]:2"],
        "client_id": "north",
        "security_protocol": "SASL_PLAINTEXT",
        "sasl_mechanism": "SCRAM-SHA-512",
        "sasl_plain_username": "shop",
        "sasl_plain_password": HUSH,
    }  # fmt: skip
    app = kafka.faust()
    assert app["broker"] == ["kafka://a:1", "kafka://[::1]:2"]
    credentials = app["broker_credentials"]
    assert (credentials.username, credentials.password, credentials.ssl_context) == ("shop", HUSH, None)
    assert (credentials.protocol.value, credentials.mechanism.value) == ("SASL_PLAINTEXT", "SCRAM-SHA-512")


def test_in_plain_text_nothing_is_proven() -> None:
    kafka = KafkaSettings()
    assert set(kafka.librdkafka()) == {"bootstrap.servers", "client.id", "security.protocol"}
    assert kafka.faust()["broker_credentials"] is None


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate and its key, which has the password HUSH."""
    folder = tmp_path_factory.mktemp("certificate")
    made, key = folder / "cert.pem", folder / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-keyout", key, "-out", made, "-days", "2", "-passout",
         f"pass:{HUSH}", "-subj", "/CN=localhost"], check=True, capture_output=True,
    )  # fmt: skip
    return made, key


def test_tls_gives_paths_to_librdkafka_and_a_context_to_the_others(certificate: tuple[Path, Path]) -> None:
    made, key = certificate
    kafka = KafkaSettings(
        security_protocol="SSL", ssl_ca_file=made, ssl_certificate_file=made, ssl_key_file=key,
        ssl_key_password=SecretStr(HUSH),
    )  # fmt: skip
    given = kafka.librdkafka()
    assert given["ssl.ca.location"] == given["ssl.certificate.location"] == str(made)
    assert (given["ssl.key.location"], given["ssl.key.password"]) == (str(key), HUSH)
    context = kafka.kafka_python()["ssl_context"]
    assert (len(context.get_ca_certs()), context.check_hostname) == (1, True)
    assert kafka.faust()["broker_credentials"].context.check_hostname


def test_files_that_cannot_be_used_end_in_a_sentence(certificate: tuple[Path, Path], tmp_path: Path) -> None:
    made, key = certificate
    (tmp_path / "empty").touch()
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"ssl_ca_file": tmp_path / "none"}, r"kafka.ssl_ca_file: '.*none' cannot be read"),
        ({"ssl_ca_file": tmp_path / "empty"}, r"kafka.ssl_ca_file: '.*empty' cannot be used"),
        ({"ssl_certificate_file": made, "ssl_key_file": key}, r"kafka.ssl_certificate_file: .* cannot be used"),
        ({"ssl_certificate_file": made, "ssl_key_file": tmp_path}, r"kafka.ssl_key_file: .* cannot be read"),
    ]
    for given, sentence in wrong:
        with pytest.raises(SettingsError, match=sentence):
            KafkaSettings(security_protocol="SSL", **given).kafka_python()


# -- the models and their page


def test_every_number_has_bounds_and_every_setting_says_what_it_is() -> None:
    for table in (Settings, KafkaSettings, WorkerSettings):
        for name, field in table.model_fields.items():
            assert field.description, name
            if field.annotation in (int, float, int | None):
                bounds = {bound for one in field.metadata for bound in ("ge", "le") if hasattr(one, bound)}
                assert bounds == {"ge", "le"}, name


def test_settings_never_change() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Settings().kafka.partitions = 5


def test_hours_make_engines_of_hours() -> None:
    config = Settings(bucket="hour", time_zone="Asia/Tokyo", rates={"USD": 0.9}).engine()
    assert (config.width, config.time_zone, config.rates) == (Width.HOUR, "Asia/Tokyo", {"USD": 0.9})


def test_the_page_is_written_from_the_models() -> None:
    """Write it anew with: uv run python -c "from shelftide.settings_page import *; print(settings_page(), end='')"."""
    assert PAGE.read_text(encoding="utf-8") == settings_page()
    named = set(re.findall(r"^\| `(\w+)` \|", settings_page(), re.MULTILINE))
    assert named == {key[-1] for key in known_settings().values()}


def test_the_example_on_the_page_is_a_file_of_settings(toml: Toml) -> None:
    (example,) = re.findall(r"```toml\n(.*?)```", settings_page(), re.DOTALL)
    settings = read_settings(toml(example), {})
    assert settings.kafka.bootstrap_servers == "kafka-1:9093,kafka-2:9093"
    assert settings.worker.instance_id == "worker-1"


def test_the_command_says_what_holds_and_where_it_comes_from(
    toml: Toml, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SHELFTIDE_RATES", '{"USD": 0.9}')
    file = toml("max_series = 5")
    assert run(["settings", "--settings", str(file)]) == 0
    shown = capsys.readouterr().out
    assert re.search(rf"max_series +5  \('{re.escape(str(file))}'\)", shown)
    assert "USD 0.9  (environment variable SHELFTIDE_RATES)" in shown
    assert run(["settings", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["settings"]["kafka"]["partitions"] == 4
    assert told["sources"]["rates"] == "environment variable SHELFTIDE_RATES"
    assert told["sources"]["kafka.partitions"] == "default"


def test_help_loads_neither_models_of_settings_nor_clients() -> None:
    heavy = ("pydantic", "kafka", "confluent_kafka", "faust", "aiokafka")
    code = f"import sys, shelftide.cli; print(*[name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    assert done.stdout.split() == []
