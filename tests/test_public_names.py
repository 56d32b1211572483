"""The door: its names, and how little it takes to open it."""

from __future__ import annotations

import subprocess
import sys

import pytest

import shelftide


@pytest.mark.parametrize("name", shelftide.__all__)
def test_every_public_name_can_be_imported_and_says_what_it_is(name: str) -> None:
    value = getattr(shelftide, name)
    assert name in dir(shelftide)
    assert getattr(value, "__doc__", None)


def test_a_name_that_does_not_exist_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'Nothing'"):
        _ = shelftide.Nothing


def test_importing_the_door_is_quick_and_loads_nothing_heavy() -> None:
    code = (
        "import sys, time; began = time.perf_counter(); import shelftide; took = time.perf_counter() - began; "
        "print(took, *[name for name in ('numpy', 'polars', 'msgspec', 'typer') if name in sys.modules])"
    )
    took, *heavy = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, check=True, text=True
    ).stdout.split()
    assert heavy == []
    assert float(took) < 0.2


def test_the_help_of_the_program_loads_no_engine() -> None:
    code = "import sys, shelftide.cli; print(*[n for n in ('numpy', 'polars', 'streams.engine') if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    assert done.stdout.split() == []
