"""Pod facts and windows: merging commutes, ends follow the rules, pieces add up."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gpucloud_spawner.model.usage import (
    DAY,
    End,
    PodFacts,
    Window,
    day_name,
    end_of,
    epoch,
    merge,
    month_name,
    month_of,
    month_window,
    rfc3339,
)

times = st.integers(0, 1000)
maybe = st.none() | times


@st.composite
def facts(draw: st.DrawFn) -> PodFacts:
    start = draw(maybe)
    return PodFacts(
        uid="u",
        owner="ada",
        gpus=2,
        product=draw(st.sampled_from(["", "A100"])),
        start_at=start,
        start_source="" if start is None else draw(st.sampled_from(["scheduled", "created"])),
        finished_at=draw(maybe),
        ended_alone=draw(st.booleans()),
        failed_at=draw(maybe),
        deleted_at=draw(maybe),
        gone=draw(st.booleans()),
        last_seen=draw(maybe),
    )


losses = st.lists(st.tuples(times, maybe), max_size=3)


@given(facts(), facts(), facts())
def test_merging_is_a_semilattice(a: PodFacts, b: PodFacts, c: PodFacts) -> None:
    assert merge(a, a) == a
    assert merge(a, b) == merge(b, a)
    assert merge(merge(a, b), c) == merge(a, merge(b, c))
    assert merge(merge(a, b), b) == merge(a, b)


@given(facts(), losses)
@example(PodFacts(uid="u", start_at=0, gone=True), [(0, None), (0, 0)])  # lost twice in one second
def test_an_end_is_never_before_the_start(f: PodFacts, lost: list[tuple[int, int | None]]) -> None:
    end = end_of(f, lost)
    if f.start_at is None:
        assert end is None
    elif end is not None:
        assert end.at >= f.start_at


@given(facts(), losses)
def test_an_end_is_one_of_the_times_that_were_told(
    f: PodFacts, lost: list[tuple[int, int | None]]
) -> None:
    """Never "now", never computed."""
    end = end_of(f, lost)
    told = {f.start_at, f.finished_at, f.failed_at, f.deleted_at, f.last_seen}
    if end is not None:
        assert end.at in told | {at for at, _ in lost}


def pod(**known: object) -> PodFacts:
    return PodFacts(uid="u", start_at=100, start_source="scheduled", **known)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("known", "end"),
    [
        (pod(), None),
        (pod(finished_at=160, ended_alone=True), End(160, "containers")),
        (pod(finished_at=160, ended_alone=True, deleted_at=500), End(160, "containers")),
        (pod(finished_at=160, deleted_at=155), End(160, "containers")),
        # it waited to be restarted when it was deleted: it held its GPUs until then
        (pod(finished_at=160, deleted_at=500), End(500, "containers")),
        (pod(failed_at=170, deleted_at=200, gone=True), End(170, "pod-status")),
        (pod(deleted_at=200), None),  # asked to end, but still there
        (pod(deleted_at=200, gone=True, last_seen=210), End(200, "deletion")),
        (pod(gone=True, last_seen=180), End(180, "heartbeat")),
        (pod(gone=True), End(100, "heartbeat")),
        (pod(finished_at=90, ended_alone=True), End(100, "containers")),  # clocks differ
        (PodFacts(uid="u", deleted_at=200, gone=True), None),  # it never had a node
    ],
)
def test_the_end_by_precedence(known: PodFacts, end: End | None) -> None:
    assert end_of(known) == end


@pytest.mark.parametrize(
    ("loss", "end"),
    [
        ((150, None), End(150, "node-loss")),
        ((150, 400), End(150, "node-loss")),  # back only after the pod was given up
        ((150, 180), End(200, "deletion")),  # it came back: the pod went on
        ((250, None), End(200, "deletion")),
        ((50, None), End(200, "deletion")),  # lost before this pod: another story
    ],
)
def test_nobody_is_billed_for_a_lost_node(loss: tuple[int, int | None], end: End) -> None:
    assert end_of(pod(deleted_at=200, gone=True), [loss]) == end


def test_what_the_containers_reported_goes_before_a_loss() -> None:
    known = pod(finished_at=300, ended_alone=True, gone=True)
    assert end_of(known, [(150, None)]) == End(300, "containers")


windows = st.tuples(st.integers(0, 10**9), st.integers(1, 10**8)).map(
    lambda t: Window(t[0], t[0] + t[1])
)


@given(windows, st.lists(st.integers(0, 2 * 10**9), max_size=8))
def test_pieces_of_a_window_add_up_and_do_not_overlap(window: Window, cuts: list[int]) -> None:
    pieces = window.split(cuts)
    assert pieces[0].start == window.start
    assert pieces[-1].end == window.end
    assert all(a.end == b.start for a, b in itertools.pairwise(pieces))
    assert sum(p.seconds for p in pieces) == window.seconds
    assert {p.start for p in pieces[1:]} == {c for c in cuts if window.start < c < window.end}


@given(windows)
def test_months_are_calendar_months_of_utc(window: Window) -> None:
    month = month_of(window.start)
    assert month.start <= window.start < month.end
    first = datetime.fromtimestamp(month.start, UTC)
    assert (first.day, first.hour, first.minute, first.second) == (1, 0, 0, 0)
    last = datetime.fromtimestamp(month.end, UTC) - timedelta(days=1)
    assert (last.year, last.month) == (first.year, first.month)
    assert month_window(month_name(window.start)) == month


def test_clipping() -> None:
    window = Window(100, 200)
    assert window.clip(50, 150) == Window(100, 150)
    assert window.clip(150, 250) == Window(150, 200)
    assert window.clip(0, 100) is None
    assert window.clip(200, 300) is None
    assert list(Window(DAY - 1, 2 * DAY + 1).midnights()) == [DAY, 2 * DAY]


def test_times_as_text() -> None:
    assert epoch("1970-01-02T00:00:01Z") == DAY + 1
    assert epoch("1970-01-02T02:00:01.9+02:00") == DAY + 1
    assert rfc3339(DAY + 1) == "1970-01-02T00:00:01Z"
    assert day_name(DAY) == "1970-01-02"


@pytest.mark.parametrize(
    "text", ["", "2026-11-23", "2026-11-23T14:00:00", "now", "2026-13-01T00:00:00Z", "1700000000"]
)
def test_a_time_without_a_zone_is_no_time(text: str) -> None:
    with pytest.raises(ValueError, match=r"RFC 3339|month|range"):
        epoch(text)


@pytest.mark.parametrize("text", ["2026", "2026-13", "2026-1", "11-2026", "2026-11-01"])
def test_what_is_no_month(text: str) -> None:
    with pytest.raises(ValueError, match=r"month"):
        month_window(text)
