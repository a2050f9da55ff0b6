"""Statements against an oracle that cuts time at every instant anything happens.

The oracle imports nothing of the ledger: it adds fractions over elementary pieces.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, delete, insert

from gpucloud_spawner.metering import db
from gpucloud_spawner.metering.lines import Line, intervals
from gpucloud_spawner.metering.query import Query
from gpucloud_spawner.metering.statements import usage
from gpucloud_spawner.metering.tables import ADJUSTMENT, INTERVAL, POSITION, PRICE, VOLUME
from gpucloud_spawner.model.usage import Window

DAY = 86400
# The end of a month, so that days and months are both crossed.
BEGIN = int(datetime(2026, 10, 30, tzinfo=UTC).timestamp())
END = BEGIN + 4 * DAY
Row = dict[str, Any]

moments = st.integers(BEGIN, END) | st.sampled_from([BEGIN + n * DAY for n in range(5)])
owners = st.sampled_from(["ada", "alan"])
profiles = st.sampled_from(["tf", "cpu"])
products = st.sampled_from(["", "A100", "H100"])
# the last one makes amounts beyond 64 bits
prices_nano = st.none() | st.integers(0, 3 * 10**9) | st.just(10**15 + 1)


@st.composite
def interval_rows(draw: st.DrawFn) -> Row:
    start = draw(moments)
    return {
        "namespace": "n", "pod": "p", "node": "w", "component": "notebook", "app": "", "job": "",
        "resource": "nvidia.com/gpu", "start_source": "scheduled", "end_source": "",
        "ended_alone": False, "gone": False, "recorded_by": "watch",
        "owner": draw(owners), "team": draw(st.sampled_from(["x", "y"])),
        "profile": draw(profiles), "product": draw(products), "gpus": draw(st.integers(0, 8)),
        "price_nano": draw(prices_nano), "start_at": start,
        "end_at": draw(st.none() | st.integers(start, END + DAY)),
    }  # fmt: skip


@st.composite
def volume_rows(draw: st.DrawFn) -> Row:
    start = draw(moments)
    return {
        "namespace": "n", "claim": "c", "owner": draw(owners), "team": "x", "app": "",
        "profile": "", "gib": draw(st.integers(1, 100)), "start_at": start,
        "end_at": draw(st.none() | st.integers(start, END + DAY)), "end_source": "",
        "created_at": start, "first_seen": start, "gone": False,
    }  # fmt: skip


@st.composite
def price_rows(draw: st.DrawFn) -> Row:
    kind = draw(st.sampled_from(["gpu", "gpu", "storage"]))
    source = draw(st.sampled_from(["site", "admin"]))
    anything = st.just("") if kind == "storage" else st.sampled_from(["", "tf"])
    return {
        "kind": kind, "source": source, "profile": draw(anything),
        "product": "" if kind == "storage" else draw(st.sampled_from(["", "A100"])),
        "nano": draw(st.none() | st.integers(0, 5 * 10**9)), "valid_from": draw(moments),
        "entered_at": BEGIN, "actor": "a", "reason": "r",
    }  # fmt: skip


@st.composite
def adjustment_rows(draw: st.DrawFn) -> Row:
    return {
        "interval_uid": "", "owner": draw(owners), "team": draw(st.sampled_from(["x", "y"])),
        "app": "", "job": "", "profile": "", "product": "", "component": "",
        "gpu_seconds": draw(st.integers(-5000, 5000)),
        "money_nano": draw(st.integers(-(10**10), 10**10)), "effective_at": draw(moments),
        "entered_at": BEGIN, "actor": "a", "reason": "r",
    }  # fmt: skip


@st.composite
def ledgers(draw: st.DrawFn) -> dict[str, list[Row]]:
    pods = draw(st.lists(interval_rows(), max_size=8))
    claims = draw(st.lists(volume_rows(), max_size=4))
    return {
        "intervals": [{**row, "uid": f"pod-{i}"} for i, row in enumerate(pods)],
        "volumes": [{**row, "uid": f"claim-{i}"} for i, row in enumerate(claims)],
        "prices": draw(st.lists(price_rows(), max_size=5)),
        "adjustments": draw(st.lists(adjustment_rows(), max_size=3)),
    }


def fill(engine: Engine, ledger: dict[str, list[Row]], heartbeat: int) -> None:
    tables = {
        "intervals": INTERVAL, "volumes": VOLUME, "prices": PRICE, "adjustments": ADJUSTMENT,
    }  # fmt: skip
    with db.writing(engine).begin() as connection:
        for name, table in tables.items():
            connection.execute(delete(table))
            if ledger[name]:
                connection.execute(insert(table), ledger[name])
        connection.execute(delete(POSITION))
        connection.execute(insert(POSITION).values(stream="pods", heartbeat_at=heartbeat))


# --- the oracle ------------------------------------------------------------------------------


def price_at(ledger: dict[str, list[Row]], row: Row | None, at: int) -> int:
    """Billionths per hour at one second, straight from the rules."""
    kind = "storage" if row is None else "gpu"
    for source in ("admin", "site"):
        for profile, product in (("tf", "A100"), ("tf", ""), ("", "A100"), ("", "")):
            if row is not None and (
                profile not in ("", row["profile"]) or product not in ("", row["product"])
            ):
                continue
            lines = [
                (line["valid_from"], number, line["nano"])
                for number, line in enumerate(ledger["prices"])
                if (line["kind"], line["source"], line["profile"], line["product"])
                == (kind, source, profile, product) and line["valid_from"] <= at
            ]  # fmt: skip
            if not lines or max(lines)[2] is None:
                continue
            since, _, nano = max(lines)
            fixed = row is not None and row["price_nano"] is not None
            if source == "site" and fixed and row is not None and since <= row["start_at"]:
                continue  # the price it began with is newer, or of the same time
            return int(nano)
    return int(row["price_nano"] or 0) if row is not None else 0


def atoms(ledger: dict[str, list[Row]], window: Window, now: int) -> Iterator[tuple[Any, ...]]:
    """(row, at, GPU-seconds, GiB-seconds, cost) over pieces in which nothing changes."""
    cuts = {line["valid_from"] for line in ledger["prices"]} | {window.start, window.end}
    cuts |= set(range(BEGIN - 9 * DAY, END + 9 * DAY, DAY))
    for kind in ("intervals", "volumes"):
        for row in ledger[kind]:
            low = max(row["start_at"], window.start)
            high = min(now if row["end_at"] is None else row["end_at"], window.end)
            edges = [low, *sorted(c for c in cuts if low < c < high), high]
            for a, b in itertools.pairwise(edges):
                if a >= b:
                    continue
                gpu = kind == "intervals"
                amount = (b - a) * (row["gpus"] if gpu else row["gib"])
                nano = price_at(ledger, row if gpu else None, a)
                cost = Fraction(amount * nano, 3600 * 10**9)
                yield row, a, amount if gpu else 0, 0 if gpu else amount, cost
    for row in ledger["adjustments"]:
        if window.start <= row["effective_at"] < window.end:
            cost = Fraction(row["money_nano"], 10**9)
            yield row, row["effective_at"], row["gpu_seconds"], 0, cost


def expected(
    ledger: dict[str, list[Row]], window: Window, now: int, groups: tuple[str, ...]
) -> dict[tuple[str, ...], tuple[int, int, Fraction]]:
    columns = {"user": "owner"}
    sums: dict[tuple[str, ...], list[Any]] = defaultdict(lambda: [0, 0, Fraction(0)])
    for row, at, gpu, gib, cost in atoms(ledger, window, now):
        day = datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d")
        names = {"day": day, "month": day[:7]}
        key = tuple(names.get(g, row.get(columns.get(g, g), "")) for g in groups)
        for index, amount in enumerate((gpu, gib, cost)):
            sums[key][index] += amount
    return {key: (v[0], v[1], v[2]) for key, v in sums.items()}


def rounded(cost: Fraction) -> Decimal:
    """Half up, to cents."""
    sign = -1 if cost < 0 else 1
    whole = int(abs(cost) * 100 + Fraction(1, 2))
    return Decimal(sign * whole) / 100


GROUPS = st.sampled_from(
    [
        (),
        ("user",),
        ("team", "product"),
        ("user", "day"),
        ("day",),
        ("month",),
        ("profile", "month"),
        ("user", "team", "day", "month"),
        ("app", "job", "component"),
    ]
)
CHECK = settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@CHECK
@given(ledger=ledgers(), groups=GROUPS, ends=st.tuples(moments, moments), now=moments)
def test_a_statement_is_what_the_oracle_says(
    engine: Engine,
    ledger: dict[str, list[Row]],
    groups: tuple[str, ...],
    ends: tuple[int, int],
    now: int,
) -> None:
    fill(engine, ledger, now)
    window = Window(min(ends), max(ends) + 1)
    wanted = expected(ledger, window, now, groups)
    statement = usage(engine, Query(window, groups))
    got = {
        tuple(row.group[g] for g in groups): (row.gpu_seconds, row.storage_gib_seconds, row.cost)
        for row in statement.rows
        if row.gpu_seconds or row.storage_gib_seconds or row.amount
    }
    assert got == {
        key: (gpu, gib, rounded(cost))
        for key, (gpu, gib, cost) in wanted.items()
        if gpu or gib or cost
    }
    # the sum of the rows is the total, and a printed sheet adds up
    assert sum(row.amount for row in statement.rows) == statement.total.amount
    assert sum(row.gpu_seconds for row in statement.rows) == statement.total.gpu_seconds
    printed = sum((row.cost for row in statement.rows), Decimal(0)) + statement.rounding
    assert not statement.rows or printed == statement.total.cost


def all_lines(engine: Engine, query: Query, size: int) -> list[Line]:
    lines: list[Line] = []
    cursor = ""
    while True:
        page = intervals(engine, query, page_size=size, cursor=cursor)
        assert len(page.lines) <= size
        lines += page.lines
        cursor = page.cursor
        if not cursor:
            return lines


@CHECK
@given(
    ledger=ledgers(),
    size=st.integers(1, 5),
    ends=st.tuples(moments, moments),
    now=moments,
    who=st.sampled_from([{}, {"user": ("ada",)}, {"team": ("x",), "profile": ("tf", "")}]),
)
def test_the_lines_add_up_to_the_sum(
    engine: Engine,
    ledger: dict[str, list[Row]],
    size: int,
    ends: tuple[int, int],
    now: int,
    who: dict[str, tuple[str, ...]],
) -> None:
    fill(engine, ledger, now)
    query = Query(Window(min(ends), max(ends) + 1), (), who)
    lines = all_lines(engine, query, size)
    total = usage(engine, query).total
    assert sum(line.amount for line in lines) == total.amount
    assert sum(line.gpu_seconds for line in lines) == total.gpu_seconds
    assert sum(line.storage_gib_seconds for line in lines) == total.storage_gib_seconds
    uids = [line.uid for line in lines if line.kind != "adjustment"]
    assert len(uids) == len(set(uids))
    for line in lines:
        pieces = [(part.start, part.end) for part in line.parts]
        assert all(a[1] == b[0] for a, b in itertools.pairwise(pieces))
        if line.parts:
            assert (pieces[0][0], pieces[-1][1]) == (line.start, line.end)


@CHECK
@given(ledger=ledgers(), cuts=st.tuples(moments, moments, moments), now=moments)
def test_neighbouring_windows_add_up(
    engine: Engine, ledger: dict[str, list[Row]], cuts: tuple[int, int, int], now: int
) -> None:
    fill(engine, ledger, now)
    a, b, c = sorted(cuts)
    whole = usage(engine, Query(Window(a, c + 1))).total
    parts = [usage(engine, Query(Window(*w))).total for w in ((a, b), (b, c + 1)) if w[0] < w[1]]
    assert sum(part.amount for part in parts) == whole.amount
    assert sum(part.gpu_seconds for part in parts) == whole.gpu_seconds


def test_running_lines_are_marked_and_end_at_the_heartbeat(engine: Engine) -> None:
    row = {
        "namespace": "n", "pod": "p", "node": "w", "component": "notebook", "app": "", "job": "",
        "resource": "r", "start_source": "scheduled", "end_source": "", "ended_alone": False,
        "gone": False, "recorded_by": "watch", "owner": "ada", "team": "x", "profile": "tf",
        "product": "A100", "gpus": 2, "price_nano": 36 * 10**8, "start_at": BEGIN, "end_at": None,
        "uid": "u",
    }  # fmt: skip
    empty: dict[str, list[Row]] = {"volumes": [], "prices": [], "adjustments": []}
    fill(engine, {"intervals": [row], **empty}, BEGIN + 100)
    statement = usage(engine, Query(Window(BEGIN, END), ("user",)))
    (found,) = statement.rows
    assert (found.running, found.gpu_seconds, found.cost) == (True, 200, Decimal("0.20"))
    assert statement.as_json() == {
        "start": "2026-10-30T00:00:00Z",
        "end": "2026-11-03T00:00:00Z",
        "as_of": "2026-10-30T00:01:40Z",
        "currency": "EUR",
        "group_by": ["user"],
        "rows": [
            {"user": "ada", "gpu_seconds": 200, "storage_gib_seconds": 0, "cost": "0.20",
             "running": True}
        ],
        "total": {"gpu_seconds": 200, "storage_gib_seconds": 0, "cost": "0.20", "running": True},
        "rounding": "0.00",
    }  # fmt: skip
    # a later page counts up to the same moment as the first one
    first = intervals(engine, Query(Window(BEGIN, END)), page_size=1)
    assert (first.lines[0].running, first.lines[0].end) == (True, BEGIN + 100)


def test_an_empty_ledger_is_an_empty_statement(engine: Engine) -> None:
    statement = usage(engine, Query(Window(BEGIN, END)))
    assert statement.rows == []
    assert statement.as_json()["total"]["cost"] == "0.00"
    assert intervals(engine, Query(Window(BEGIN, END))).lines == []


@pytest.mark.parametrize("groups", [("day",), ("user", "month")])
def test_a_day_is_a_day_of_utc(engine: Engine, groups: tuple[str, ...]) -> None:
    ledger: dict[str, list[Row]] = {"intervals": [], "volumes": [], "prices": [], "adjustments": []}
    ledger["volumes"] = [
        {
            "namespace": "n", "claim": "c", "owner": "ada", "team": "x", "app": "", "profile": "",
            "gib": 1, "start_at": BEGIN + DAY + DAY - 1, "end_at": BEGIN + 2 * DAY + 1,
            "end_source": "", "created_at": BEGIN, "first_seen": BEGIN, "gone": False, "uid": "c",
        }
    ]  # fmt: skip
    fill(engine, ledger, END)
    rows = usage(engine, Query(Window(BEGIN, END), groups)).rows
    names = [row.group[groups[-1]] for row in rows]
    wanted = ["2026-10-31", "2026-11-01"] if groups == ("day",) else ["2026-10", "2026-11"]
    assert names == wanted
    assert [row.storage_gib_seconds for row in rows] == [1, 1]


@pytest.mark.parametrize("groups", [(), ("user",), ("user", "day"), ("month",)])
def test_amounts_beyond_64_bits_are_exact(engine: Engine, groups: tuple[str, ...]) -> None:
    """Of one line, of a sum of lines, or of none: a database must not round, nor give up."""
    base = {
        "namespace": "n", "pod": "p", "node": "w", "component": "notebook", "app": "", "job": "",
        "resource": "nvidia.com/gpu", "start_source": "scheduled", "end_source": "containers",
        "ended_alone": True, "gone": True, "recorded_by": "watch", "owner": "ada", "team": "x",
        "profile": "tf", "product": "", "gpus": 8, "start_at": BEGIN, "end_at": END,
    }  # fmt: skip
    prices = {
        "one line": [10**15 + 1],
        "their sum": [10**12 + 7] * 5,
        "none": [10**9 + 3, 10**9 + 4],
    }
    query = Query(Window(BEGIN, END), groups)
    for name, nanos in prices.items():
        rows = [{**base, "uid": f"{i}", "price_nano": nano} for i, nano in enumerate(nanos)]
        empty: dict[str, list[Row]] = {"volumes": [], "prices": [], "adjustments": []}
        fill(engine, {**empty, "intervals": rows}, END)
        expected = sum(8 * (END - BEGIN) * nano for nano in nanos)
        assert (expected > 2**63) == (name != "none"), name
        assert usage(engine, query).total.amount == expected, name
