"""The SQL of statements: sums of GPU-seconds and GiB-seconds by group and by price.

The database adds whole numbers; it is asked once for each piece of the window in which no price
changes. It adds by price first and multiplies afterwards: that is exact, and cheaper than a product
for each line. SQLite, whose integers end at 64 bits, leaves the product to Python.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    Integer,
    Select,
    Table,
    and_,
    case,
    cast,
    func,
    literal,
    literal_column,
    or_,
    select,
)
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import GenericFunction

from ..model.pricing import Price, PriceList
from ..model.usage import DAY, Window, day_name, month_name
from .query import Query
from .tables import ADJUSTMENT, INTERVAL, PRICE, VOLUME

COLUMNS = {
    "user": "owner",
    "team": "team",
    "app": "app",
    "job": "job",
    "component": "component",
    "profile": "profile",
    "product": "product",
}


class least(GenericFunction[int]):
    type = BigInteger()
    inherit_cache = True


class greatest(GenericFunction[int]):
    type = BigInteger()
    inherit_cache = True


@compiles(least, "sqlite")
def _least(element: Any, compiler: Any, **kwargs: Any) -> str:
    return f"min({compiler.process(element.clauses, **kwargs)})"


@compiles(greatest, "sqlite")
def _greatest(element: Any, compiler: Any, **kwargs: Any) -> str:
    return f"max({compiler.process(element.clauses, **kwargs)})"


@dataclass(frozen=True)
class Sum:
    """A sum over lines of one group."""

    key: tuple[str, ...]
    gpu_seconds: int
    gib_seconds: int
    amount: int
    running: bool


def conditions(table: Table, query: Query) -> list[ColumnElement[bool]]:
    """The filters of a query on one table; a table without the column only has empty values."""
    found: list[ColumnElement[bool]] = []
    for name, values in query.filters.items():
        column = table.c.get(COLUMNS[name])
        if column is not None:
            found.append(column.in_(values))
        elif "" not in values:
            found.append(literal(False))
    return found


def overlapping(table: Table, window: Window) -> list[ColumnElement[bool]]:
    """Rows that may have a part inside a window; open rows always may."""
    return [
        table.c.start_at < window.end,
        or_(table.c.end_at > window.start, table.c.end_at.is_(None)),
    ]


def clipped(table: Table, window: Window, as_of: int) -> tuple[Any, Any]:
    """Start and end of each row inside a window; open rows end at ``as_of``."""
    end = func.coalesce(table.c.end_at, as_of)
    return greatest(table.c.start_at, window.start), least(end, window.end)


def _keys(table: Table, query: Query) -> list[ColumnElement[Any]]:
    """The columns to group by. What a table does not have is "" in `group_value`."""
    columns = ((name, table.c.get(COLUMNS[name])) for name in query.group_by if name in COLUMNS)
    return [column.label(name) for name, column in columns if column is not None]


def gpu_price(prices: PriceList, at: int) -> ColumnElement[Any]:
    """Each interval's price at ``at``: `PriceList.gpu_price` as SQL."""
    table = INTERVAL
    whens: list[tuple[ColumnElement[bool], Any]] = []
    for source in ("admin", "site"):
        for line in prices.active("gpu", source, at):
            test = [table.c.profile == line.profile] if line.profile else []
            test += [table.c.product == line.product] if line.product else []
            if source == "site":
                test.append(or_(table.c.price_nano.is_(None), table.c.start_at < line.valid_from))
            whens.append((and_(True, *test), line.nano))
    base = func.coalesce(table.c.price_nano, 0)
    return case(*whens, else_=base) if whens else base


def _sums(
    table: Table,
    query: Query,
    window: Window,
    as_of: int,
    weight: ColumnElement[Any],
    price: ColumnElement[Any] | None,
) -> Iterator[Select[Any]]:
    """The statements whose rows add up to a window: one, or by day three."""

    start, end = clipped(table, window, as_of)
    where = [*_counted(table, window, as_of), *conditions(table, query)]
    keys = _keys(table, query)
    if "day" not in query.group_by:
        yield _sum(table, keys, weight * (end - start), price, where)
        return
    # Three parts of a line, so that no line must be joined with the days that it touches: on its
    # first day, on its last, and on whole days in between (the same sum for each of them).
    first, last = _day(start), _day(end - 1)
    where.append(end > start)
    for part, day, until, test in (
        (least(end, (first + 1) * DAY) - start, first, first + 1, first <= last),
        (end - last * DAY, last, last + 1, first < last),
        (literal(DAY, BigInteger), first + 1, last, first + 1 < last),
    ):
        days = [day.label("day"), until.label("until")]
        yield _sum(table, [*keys, *days], weight * part, price, [*where, test])


def _sum(
    table: Table,
    keys: Sequence[ColumnElement[Any]],
    seconds: ColumnElement[Any],
    price: ColumnElement[Any] | None,
    where: Sequence[ColumnElement[bool]],
) -> Select[Any]:
    """Seconds by ``keys``, and by price where there is one."""
    columns = [*keys] if price is None else [*keys, price.label("price")]
    return (
        select(
            *columns,
            func.sum(seconds).label("seconds"),
            (func.count() - func.count(table.c.end_at)).label("running"),
        )
        .where(*where)
        .group_by(*columns)
    )


def _amounts(by_price: Select[Any]) -> Select[Any]:
    """Sums over the prices, with the amount. For databases whose sums are exact without limit."""
    inner = by_price.subquery()
    figures = ("price", "seconds", "running")
    keys = [column for column in inner.c if column.name not in figures]
    return select(
        *keys,
        func.sum(inner.c.seconds).label("seconds"),
        func.sum(inner.c.seconds * inner.c.price).label("amount"),
        func.sum(inner.c.running).label("running"),
    ).group_by(*keys)


def _counted(table: Table, window: Window, as_of: int) -> list[ColumnElement[bool]]:
    """Rows that have a part inside a window by ``as_of``: none of them comes out negative."""
    closed = table.c.end_at > window.start
    if as_of <= window.start:
        return [table.c.start_at < window.end, closed]
    is_open = and_(table.c.end_at.is_(None), table.c.start_at < as_of)
    return [table.c.start_at < window.end, or_(closed, is_open)]


def _day(seconds: ColumnElement[Any]) -> ColumnElement[Any]:
    return cast(seconds, BigInteger) // literal_column(str(DAY), Integer)


def _pieces(query: Query, boundaries: Sequence[int]) -> Iterator[Window]:
    cuts = list(boundaries)
    if "month" in query.group_by and "day" not in query.group_by:
        cuts += query.window.month_starts()
    return iter(query.window.split(cuts))


def gpu_sums(connection: Connection, query: Query, prices: PriceList, as_of: int) -> Iterator[Sum]:
    """Sums over all GPU intervals."""
    unlimited = connection.dialect.name == "postgresql"
    for piece in _pieces(query, prices.boundaries("gpu")):
        price = gpu_price(prices, piece.start)
        for statement in _sums(INTERVAL, query, piece, as_of, INTERVAL.c.gpus, price):
            for row in connection.execute(_amounts(statement) if unlimited else statement):
                if row.seconds is None:  # the sum of no rows at all
                    continue
                seconds = int(row.seconds)
                amount = int(row.amount) if unlimited else seconds * row.price
                for key in _keys_of(query, row, piece):
                    yield Sum(key, seconds, 0, amount, row.running > 0)


def volume_sums(
    connection: Connection, query: Query, prices: PriceList, as_of: int
) -> Iterator[Sum]:
    """Sums over all volumes."""
    for piece in _pieces(query, prices.boundaries("storage")):
        nano = prices.storage_price(piece.start)
        for statement in _sums(VOLUME, query, piece, as_of, VOLUME.c.gib, None):
            for row in connection.execute(statement).all():
                if row.seconds is None:  # the sum of no rows at all
                    continue
                seconds = int(row.seconds)
                for key in _keys_of(query, row, piece):
                    yield Sum(key, 0, seconds, seconds * nano, row.running > 0)


def _keys_of(query: Query, row: Any, piece: Window) -> Iterator[tuple[str, ...]]:
    """The groups that a row's sums count in: one, or one for each of its days."""
    values = row._mapping
    times = [piece.start]
    if "day" in query.group_by:
        times = [day * DAY for day in range(row.day, row.until)]
    for at in times:
        yield tuple(group_value(name, values, at) for name in query.group_by)


def group_value(name: str, row: Mapping[str, Any], at: int) -> str:
    """The value of one group of a row whose time is the second ``at``."""
    if name == "day":
        return day_name(at)
    if name == "month":
        return month_name(at)
    return str(row.get(name, ""))


def adjustment_rows(connection: Connection, query: Query) -> list[dict[str, Any]]:
    """The corrections that take effect inside the window, oldest first."""
    window = query.window
    statement = (
        select(ADJUSTMENT)
        .where(
            ADJUSTMENT.c.effective_at >= window.start,
            ADJUSTMENT.c.effective_at < window.end,
            *conditions(ADJUSTMENT, query),
        )
        .order_by(ADJUSTMENT.c.id)
    )
    return [dict(row) for row in connection.execute(statement).mappings()]


def load_prices(connection: Connection) -> PriceList:
    """The whole price list."""
    rows = connection.execute(select(PRICE).order_by(PRICE.c.id)).mappings()
    return PriceList(
        Price(r["kind"], r["source"], r["profile"], r["product"], r["nano"], r["valid_from"])
        for r in rows
    )
