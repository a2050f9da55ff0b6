"""Statements: who used how much at what cost, and the single lines behind it.

Blocking functions for any thread; each reads one moment of the database. The SQL is in `sums`,
tables and files for people in `sheets`.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, NamedTuple

from sqlalchemy import Connection, Engine, select

from ..model.pricing import to_money
from ..model.usage import HOUR, month_of, rfc3339
from .db import reading
from .lease import database_time
from .query import DEFAULT_CURRENCY, Query
from .sums import (
    Overflow,
    Sum,
    adjustment_rows,
    gpu_sums,
    group_value,
    load_prices,
    volume_sums,
)
from .tables import POSITION


class Row(NamedTuple):  # not a dataclass: there are thousands, and it is made twice as quickly
    """One line of a statement. ``amount`` is exact (1/(3600*10^9) of the currency), ``cost`` is it
    rounded once. ``running``: contains intervals that go on, counted up to ``Statement.as_of``."""

    group: dict[str, str]
    gpu_seconds: int
    storage_gib_seconds: int
    amount: int
    cost: Decimal
    running: bool

    def as_json(self) -> dict[str, Any]:
        return {
            **self.group,
            "gpu_seconds": self.gpu_seconds,
            "storage_gib_seconds": self.storage_gib_seconds,
            "cost": str(self.cost),
            "running": self.running,
        }


@dataclass(frozen=True)
class Statement:
    """The answer to a query. Each row's cost is rounded by itself and ``total`` is rounded once
    from the exact sum; ``rounding`` is what the rounded rows lack, so that a sheet adds up."""

    query: Query
    currency: str
    as_of: int
    rows: list[Row]
    total: Row
    rounding: Decimal

    def as_json(self) -> dict[str, Any]:
        """The contract's answer of `GET api/usage`."""
        return {
            "start": rfc3339(self.query.window.start),
            "end": rfc3339(self.query.window.end),
            "as_of": as_of_text(self.as_of),
            "currency": self.currency,
            "group_by": list(self.query.group_by),
            "rows": [row.as_json() for row in self.rows],
            "total": self.total.as_json(),
            "rounding": str(self.rounding),
        }


class _Account:
    __slots__ = ("amount", "gib_seconds", "gpu_seconds", "running")

    def __init__(self) -> None:
        self.gpu_seconds = 0
        self.gib_seconds = 0
        self.amount = 0
        self.running = False

    def add(self, part: Sum) -> None:
        self.gpu_seconds += part.gpu_seconds
        self.gib_seconds += part.gib_seconds
        self.amount += part.amount
        self.running = self.running or part.running

    def include(self, other: _Account) -> None:
        self.gpu_seconds += other.gpu_seconds
        self.gib_seconds += other.gib_seconds
        self.amount += other.amount
        self.running = self.running or other.running

    def row(self, group: dict[str, str], digits: int) -> Row:
        return Row(
            group,
            self.gpu_seconds,
            self.gib_seconds,
            self.amount,
            to_money(self.amount, digits),
            self.running,
        )


def as_of_text(as_of: int) -> str | None:
    """The heartbeat for an answer; None before the first one."""
    return rfc3339(as_of) if as_of else None


def heartbeat(connection: Connection) -> int:
    """Until when everything is known: open intervals are counted up to here. 0: nothing yet."""
    query = select(POSITION.c.heartbeat_at).where(POSITION.c.stream == "pods")
    return int(connection.scalar(query) or 0)


def usage(
    engine: Engine,
    query: Query,
    *,
    currency: str = DEFAULT_CURRENCY,
    digits: int = 2,
    as_of: int | None = None,
) -> Statement:
    """The statement of a query. ``digits``: decimals of the currency.

    ``as_of``: count running intervals only up to here (default: the last heartbeat).
    """
    try:
        moment, accounts = _accounts(engine, query, as_of, safely=False)
    except Overflow:
        moment, accounts = _accounts(engine, query, as_of, safely=True)
    total = _Account()
    for account in accounts.values():
        total.include(account)
    rows = [
        accounts[key].row(dict(zip(query.group_by, key, strict=True)), digits)
        for key in sorted(accounts)
    ]
    whole = total.row({}, digits)
    rounding = whole.cost - sum((row.cost for row in rows), Decimal(0)) if rows else Decimal(0)
    return Statement(query, currency, moment, rows, whole, rounding)


def _accounts(
    engine: Engine, query: Query, as_of: int | None, *, safely: bool
) -> tuple[int, dict[tuple[str, ...], _Account]]:
    """Until when it counts, and the sums by group. Raises Overflow, but not ``safely``."""
    accounts: dict[tuple[str, ...], _Account] = defaultdict(_Account)
    with reading(engine).connect() as connection:
        moment = heartbeat(connection) if as_of is None else as_of
        prices = load_prices(connection)
        for part in gpu_sums(connection, query, prices, moment, safely=safely):
            accounts[part.key].add(part)
        for part in volume_sums(connection, query, prices, moment):
            accounts[part.key].add(part)
        for row in adjustment_rows(connection, query):
            named = {**row, "user": row["owner"]}
            key = tuple(group_value(name, named, row["effective_at"]) for name in query.group_by)
            accounts[key].add(Sum(key, row["gpu_seconds"], 0, row["money_nano"] * HOUR, False))
    return moment, accounts


def month_totals(engine: Engine) -> dict[tuple[str, str], tuple[int, Decimal]]:
    """GPU-seconds and cost of the present calendar month (UTC) by team and product."""
    with engine.connect() as connection:
        now = database_time(connection)
    statement = usage(engine, Query(month_of(now), ("team", "product")))
    return {
        (row.group["team"], row.group["product"]): (row.gpu_seconds, row.cost)
        for row in statement.rows
    }
