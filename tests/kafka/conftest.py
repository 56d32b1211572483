"""One real broker for the run, and names of their own for each test's topics."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Iterator

import pytest

from streams.kafka.broker import LocalBroker, free_port


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalBroker]:
    """A running broker; `broker.bootstrap` says where."""
    if shutil.which("java") is None or shutil.which("mvn") is None:
        pytest.skip("no Java 17 or Maven on this machine")
    local = LocalBroker(tmp_path_factory.mktemp("broker"), free_port())
    local.up()
    yield local
    local.down(kill=True)


@pytest.fixture
def prefix() -> str:
    """A prefix of topics and groups that no other test has."""
    return f"t{secrets.token_hex(3)}."
