"""The SQL of statements: sums of GPU-seconds and GiB-seconds by group and by price.

The database adds whole numbers; it is asked once for each piece of the window in which no price
changes, and never multiplies by a price: that could overflow, and Python's integers cannot.
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
DAY_COLUMN = "day"


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
    """A sum over lines of one group and one price."""

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
    base = table.c.price_nano
    return case(*whens, else_=base) if whens else base


def _sums(
    table: Table,
    query: Query,
    window: Window,
    as_of: int,
    weight: ColumnElement[Any],
    price: ColumnElement[Any] | None,
) -> Iterator[Select[Any]]:
    """The statements whose rows add up to a window: one, or by day two."""
    start, end = clipped(table, window, as_of)
    where = [*overlapping(table, window), *conditions(table, query)]
    keys = _keys(table, query)
    if price is not None:
        keys.append(price.label("price"))
    marks = (func.count() - func.count(table.c.end_at)).label("running")
    if "day" not in query.group_by:
        seconds = func.sum(weight * greatest(end - start, 0)).label("seconds")
        yield select(*keys, seconds, marks).where(*where).group_by(*keys)
        return
    # most lines lie within one day: only the others are multiplied by the days they touch
    first, last = _day(start), _day(end - 1)
    seconds = func.sum(weight * (end - start)).label("seconds")
    day = first.label(DAY_COLUMN)
    yield (
        select(*keys, seconds, marks, day)
        .where(*where, end > start, first == last)
        .group_by(*keys, day)
    )
    days = select(literal(window.start // DAY, BigInteger).label("n")).cte("days", recursive=True)
    days = days.union_all(select(days.c.n + 1).where(days.c.n < (window.end - 1) // DAY))
    low, high = greatest(start, days.c.n * DAY), least(end, (days.c.n + 1) * DAY)
    seconds = func.sum(weight * (high - low)).label("seconds")
    day = days.c.n.label(DAY_COLUMN)
    yield (
        select(*keys, seconds, marks, day)
        .select_from(table)
        .join(days, and_(days.c.n >= first, days.c.n <= last))
        .where(*where, end > start, first != last)
        .group_by(*keys, day)
    )


def _day(seconds: ColumnElement[Any]) -> ColumnElement[Any]:
    return cast(seconds, BigInteger) // literal_column(str(DAY), Integer)


def _pieces(query: Query, boundaries: Sequence[int]) -> Iterator[Window]:
    cuts = list(boundaries)
    if "month" in query.group_by and "day" not in query.group_by:
        cuts += query.window.month_starts()
    return iter(query.window.split(cuts))


def gpu_sums(connection: Connection, query: Query, prices: PriceList, as_of: int) -> Iterator[Sum]:
    """Sums over all GPU intervals."""
    for piece in _pieces(query, prices.boundaries("gpu")):
        price = gpu_price(prices, piece.start)
        for statement in _sums(INTERVAL, query, piece, as_of, INTERVAL.c.gpus, price):
            for row in connection.execute(statement).all():
                if row.seconds is None:
                    continue
                seconds, nano = int(row.seconds), int(row.price or 0)
                key = _key(query, row, piece)
                yield Sum(key, seconds, 0, seconds * nano, row.running > 0)


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
                key = _key(query, row, piece)
                yield Sum(key, 0, seconds, seconds * nano, row.running > 0)


def _key(query: Query, row: Any, piece: Window) -> tuple[str, ...]:
    day = getattr(row, DAY_COLUMN, None)
    at = piece.start if day is None else day * DAY
    return tuple(group_value(name, row._mapping, at) for name in query.group_by)


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
