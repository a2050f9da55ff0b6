"""Bad input: refused with a stable code and what is allowed, and nothing is stored."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import Engine, func, select

from gpucloud_spawner.metering.adjustments import Correction, adjust, adjustments
from gpucloud_spawner.metering.budgets import Budgets
from gpucloud_spawner.metering.errors import LedgerError
from gpucloud_spawner.metering.idle import capacity
from gpucloud_spawner.metering.lines import intervals
from gpucloud_spawner.metering.prices import price_lines, set_price, sync_site_prices
from gpucloud_spawner.metering.query import GROUPS, Query
from gpucloud_spawner.metering.statements import usage
from gpucloud_spawner.metering.tables import ADJUSTMENT, PRICE
from gpucloud_spawner.model.usage import Window, month_of

from .objects import MONTH, T0, a_pod, ended, tell


def code_of(call: Callable[[], Any]) -> str:
    with pytest.raises(LedgerError) as caught:
        call()
    assert caught.value.message
    return caught.value.code


@pytest.mark.parametrize(
    ("question", "code"),
    [
        ({"group_by": "user,planet"}, "unknown_group_by"),
        ({"group_by": "user; DROP TABLE users"}, "unknown_group_by"),
        ({"filters": {"owner": "x"}}, "unknown_filter"),
        ({"filters": {"user": "a\0b"}}, "bad_filter"),
        ({"filters": {"user": "x" * 256}}, "bad_filter"),
        ({"start": "2026-11-02T00:00:00Z", "end": "2026-11-01T00:00:00Z"}, "end_before_start"),
        ({"start": "2026-11-01T00:00:00Z", "end": "2026-11-01T00:00:00Z"}, "end_before_start"),
        ({"start": "2026-11-01T00:00:00", "end": "2026-11-02T00:00:00Z"}, "bad_time"),
        ({"start": datetime(2026, 11, 1), "end": datetime(2026, 11, 2, tzinfo=UTC)}, "bad_time"),
        ({"start": "yesterday", "end": "2026-11-02T00:00:00Z"}, "bad_time"),
        ({"start": "1969-11-01T00:00:00Z", "end": "2026-11-02T00:00:00Z"}, "bad_time"),
        ({"start": "2026-11-01T00:00:00Z"}, "bad_window"),
        ({"month": "2026-11", "start": "2026-11-01T00:00:00Z"}, "bad_window"),
        ({"month": "2026-13"}, "bad_month"),
        ({"start": "2000-01-01T00:00:00Z", "end": "2026-11-01T00:00:00Z"}, "window_too_long"),
        (
            {"group_by": "day", "start": "2024-01-01T00:00:00Z", "end": "2026-01-01T00:00:00Z"},
            "window_too_long",
        ),
    ],
)
def test_a_bad_question(question: dict[str, Any], code: str) -> None:
    assert code_of(lambda: Query.parse(**question)) == code


def test_an_error_names_what_is_allowed() -> None:
    with pytest.raises(LedgerError) as caught:
        Query.parse(group_by="x")
    assert caught.value.details["allowed"] == list(GROUPS)
    assert "month" in caught.value.message


def test_a_good_question() -> None:
    query = Query.parse(
        group_by=" day,user ",
        start="2026-11-01T01:00:00+01:00",
        end=datetime(2026, 11, 2, tzinfo=UTC),
        filters={"user": "ada", "team": ["x", "y"]},
    )
    assert query.group_by == ("user", "day")
    assert query.window == Window(1793491200, 1793577600)
    assert query.filters == {"user": ("ada",), "team": ("x", "y")}
    assert Query.parse(now=T0).window == month_of(T0)
    assert Query.parse(month="2026-11").window.seconds == 30 * 86400


@pytest.mark.parametrize("size", [0, -1, 1001, 10**9])
def test_absurd_page_sizes(engine: Engine, size: int) -> None:
    assert code_of(lambda: intervals(engine, Query(MONTH), page_size=size)) == "bad_page_size"


@pytest.mark.parametrize(
    "cursor", ["x", "WzEsMiwzXQ==", "WzEsOSwzLDRd", "é", "W10=", "eyJhIjogMX0="]
)
def test_a_cursor_that_is_none(engine: Engine, cursor: str) -> None:
    assert code_of(lambda: intervals(engine, Query(MONTH), cursor=cursor)) == "bad_cursor"


@pytest.mark.parametrize(
    ("price", "code"),
    [
        ({"price": "-1"}, "bad_price"),
        ({"price": "NaN"}, "bad_price"),
        ({"price": "1e99"}, "bad_price"),
        ({"price": "x"}, "bad_price"),
        ({"price": "1", "kind": "cpu"}, "unknown_price_kind"),
        ({"price": "1", "kind": "storage", "profile": "tf"}, "bad_price_key"),
        ({"price": "1", "profile": "x" * 300}, "bad_price_key"),
        ({"price": "1", "profile": "a\nb"}, "bad_price_key"),
        ({"price": "1", "reason": " "}, "bad_reason"),
        ({"price": "1", "actor": ""}, "bad_actor"),
        ({"price": "1", "valid_from": T0 - 10**8}, "price_in_the_past"),
        ({"price": "1", "valid_from": 2**40}, "price_too_far_ahead"),
    ],
)
def test_a_bad_price_is_not_entered(engine: Engine, price: dict[str, Any], code: str) -> None:
    entry = {"actor": "admin", "reason": "r", **price}
    assert code_of(lambda: set_price(engine, **entry)) == code
    assert price_lines(engine) == []


@pytest.mark.parametrize(
    ("correction", "code"),
    [
        ({"gpu_seconds": 10**6 * 86400 * 30}, "adjustment_too_large"),
        ({"gpu_seconds": -(10**6) * 86400 * 30}, "adjustment_too_large"),
        ({"money": "1e12"}, "adjustment_too_large"),
        ({"money": "NaN"}, "adjustment_too_large"),
        ({"money": "x"}, "bad_adjustment"),
        ({"money": "0.0000000001"}, "bad_adjustment"),
        ({}, "bad_adjustment"),
        ({"gpu_seconds": 1.5}, "bad_adjustment"),
        ({"gpu_seconds": 1, "owner": ""}, "bad_adjustment"),
        ({"gpu_seconds": 1, "owner": "", "interval_uid": "nobody"}, "unknown_interval"),
        ({"gpu_seconds": 1, "interval_uid": "u1"}, "bad_adjustment"),  # and an owner
        ({"gpu_seconds": -101, "owner": "", "interval_uid": "u1"}, "adjustment_below_zero"),
        ({"gpu_seconds": 1, "effective_at": 2**40}, "bad_time"),
    ],
)
def test_a_bad_correction_is_not_entered(
    engine: Engine, correction: dict[str, Any], code: str
) -> None:
    tell(engine, ended(a_pod(), T0 + 100))
    wanted = Correction(**{"owner": "ada", **correction})
    assert code_of(lambda: adjust(engine, wanted, actor="admin", reason="r")) == code
    assert adjustments(engine) == []


def test_corrections_together_cannot_take_off_more_than_there_was(engine: Engine) -> None:
    tell(engine, ended(a_pod(), T0 + 100))
    less = Correction(gpu_seconds=-60, interval_uid="u1")
    adjust(engine, less, actor="admin", reason="r")
    assert code_of(lambda: adjust(engine, less, actor="admin", reason="r")) == (
        "adjustment_below_zero"
    )
    assert len(adjustments(engine)) == 1


def test_other_refusals(engine: Engine) -> None:
    assert code_of(lambda: capacity(engine, MONTH, ("user",))) == "unknown_group_by"
    assert code_of(lambda: sync_site_prices(engine, {"tf": "-1"})) == "bad_price"
    assert code_of(lambda: Budgets(users={"ada": Decimal(-1)})) == "bad_budget"
    with engine.connect() as connection:
        for table in (PRICE, ADJUSTMENT):
            assert connection.scalar(select(func.count()).select_from(table)) == 0


@pytest.mark.parametrize("name", ["'; DROP TABLE gpucloud_interval; --", '"x', "%s", "a\\", "日本"])
def test_names_are_data(engine: Engine, name: str) -> None:
    """SQL in a name is stored, found and grouped like any other."""
    tell(engine, ended(a_pod(user=name), T0 + 10))
    statement = usage(engine, Query(MONTH, ("user",), {"user": (name,)}))
    assert [(row.group["user"], row.gpu_seconds) for row in statement.rows] == [(name, 10)]
