"""What a reader has had already, against oracles that remember everything."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from streams.kafka.repeats import Latest, Rank, Recent

Step = tuple[bytes, tuple[int, int] | None]
"""A key, and the instant and revision of its forecast; None: the key is deleted."""

STEPS = st.lists(
    st.tuples(st.sampled_from([b"tea", b"pot"]), st.none() | st.tuples(st.integers(0, 3), st.integers(1, 2))),
    max_size=12,
)


def read_twice(steps: list[Step], end: int) -> list[Step]:
    """What a reader is handed out that scans up to an end, then reads everything."""
    latest = Latest()
    out: list[Step] = []
    for key, moment in steps[:end]:
        if moment is None:
            latest.scan_deletion(key)
        else:
            latest.scan(Rank(key, *moment))
    for key, moment in steps:
        if moment is None:
            latest.forget(key)
        elif latest.is_new(Rank(key, *moment)):
            latest.finish(Rank(key, *moment))
            out.append((key, moment))
    return out


@given(STEPS, st.data())
def test_a_reader_ends_with_the_newest_forecast_of_every_item(steps: list[Step], data: st.DataObject) -> None:
    out = read_twice(steps, data.draw(st.integers(0, len(steps))))
    for key in (b"tea", b"pot"):
        mine = [moment for name, moment in steps if name == key]
        alive = mine[len(mine) - mine[::-1].index(None) :] if None in mine else mine
        handed = [moment for name, moment in out if name == key]
        if kept := [moment for moment in alive if moment is not None]:
            assert handed[-1] == max(kept)


@given(STEPS)
def test_what_lay_there_at_the_start_is_handed_out_once_per_item_and_never_outdated(steps: list[Step]) -> None:
    forecasts = [step for step in steps if step[1] is not None]
    out = read_twice(forecasts, len(forecasts))
    newest = {key: max(moment for name, moment in forecasts if name == key and moment) for key, _ in forecasts}
    assert sorted(out) == sorted(newest.items())


def test_of_a_deleted_item_nothing_is_handed_out() -> None:
    assert read_twice([(b"tea", (1, 1)), (b"tea", None)], 2) == []
    assert read_twice([(b"tea", (2, 1)), (b"tea", None), (b"tea", (1, 1))], 3) == [(b"tea", (1, 1))]


@given(st.lists(st.integers(0, 9)))
def test_the_last_ids_are_remembered_and_no_more(names: list[int]) -> None:
    recent = Recent(most=4)
    for at, name in enumerate(names):
        if name in names[max(0, at - 1) : at]:
            assert not recent.is_new(str(name))
        if recent.is_new(str(name)):
            recent.finish(str(name))
        assert not recent.is_new(str(name))
        assert len(recent) <= 4
