"""The SQL of statements: sums of GPU-seconds and GiB-seconds by group and by price.

The database adds whole numbers; it is asked once for each piece of the window in which no price
changes. Amounts stay exact. They fit into 64 bits almost always, so that the database simply adds
seconds times price; where they do not, it says so (`Overflow`), and is asked `safely`: PostgreSQL
multiplies by each half of a price and sums without limit, SQLite adds by price and Python
multiplies.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

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
from sqlalchemy.exc import DBAPIError
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
# Where prices (billionths) are split. The highest half, 10^10, times the GPU-seconds of a line of 8
# GPUs over three years, 10^9, is 10^19/8: below 2^63. An overflow would be an error, never a sum.
HALF = 10**5
# How PostgreSQL and SQLite say that a product or a sum is too large.
_OVERFLOWS = ("bigint out of range", "integer overflow")


class Overflow(ArithmeticError):
    """An amount does not fit into the database's integers: ask `safely`."""


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


class Sum(NamedTuple):
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


@dataclass(frozen=True)
class _Lines:
    """The lines of a table that have a part inside a window, and that part."""

    table: Table
    start: ColumnElement[Any]
    end: ColumnElement[Any]
    where: list[ColumnElement[bool]]
    running: bool


def _lines(table: Table, query: Query, window: Window, as_of: int) -> Iterator[_Lines]:
    """Closed and open lines apart: the many closed ones cost neither an OR nor a default."""
    start = greatest(table.c.start_at, window.start)
    where = conditions(table, query)
    closed = [table.c.end_at > window.start, table.c.start_at < window.end]
    yield _Lines(table, start, least(table.c.end_at, window.end), [*closed, *where], False)
    until = min(as_of, window.end)
    if until > window.start:
        is_open = [table.c.end_at.is_(None), table.c.start_at < until]
        yield _Lines(table, start, literal(until, BigInteger), [*is_open, *where], True)


def _sums(
    lines: _Lines,
    query: Query,
    weight: ColumnElement[Any],
    price: ColumnElement[Any] | None,
    halves: bool | None,
) -> Iterator[Select[Any]]:
    """The statements whose rows add up to the lines: one, or by day three."""
    start, end = lines.start, lines.end
    keys = _keys(lines.table, query)
    if "day" not in query.group_by:
        yield _sum(keys, weight * (end - start), price, halves).where(*lines.where)
        return
    # Three parts of a line, so that no line must be joined with the days that it touches: on its
    # first day, on its last, and on whole days in between (the same sum for each of them).
    first, last = _day(start), _day(end - 1)
    for part, day, until, test in (
        (least(end, (first + 1) * DAY) - start, first, first + 1, first <= last),
        (end - last * DAY, last, last + 1, first < last),
        (literal(DAY, BigInteger), first + 1, last, first + 1 < last),
    ):
        days = [day.label("day"), until.label("until")]
        statement = _sum([*keys, *days], weight * part, price, halves)
        yield statement.where(*lines.where, end > start, test)


def _sum(
    keys: Sequence[ColumnElement[Any]],
    seconds: ColumnElement[Any],
    price: ColumnElement[Any] | None,
    halves: bool | None,
) -> Select[Any]:
    """Seconds by ``keys`` and, where there is a price, their amount.

    ``halves``: None: the amount itself; True: for each half of the price; False: none, but the
    seconds by price, too.
    """
    columns = list(keys)
    figures: list[ColumnElement[Any]] = [func.sum(seconds).label("seconds")]
    if price is not None and halves is None:
        figures.append(func.sum(seconds * price).label("amount"))
    elif price is not None and halves:
        half = literal_column(str(HALF), Integer)
        figures.append(func.sum(seconds * (price // half)).label("high"))
        figures.append(func.sum(seconds * (price % half)).label("low"))
    elif price is not None:
        columns.append(price.label("price"))
    return select(*columns, *figures).group_by(*columns)


def _day(seconds: ColumnElement[Any]) -> ColumnElement[Any]:
    return cast(seconds, BigInteger) // literal_column(str(DAY), Integer)


def _pieces(query: Query, boundaries: Sequence[int]) -> Iterator[Window]:
    cuts = list(boundaries)
    if "month" in query.group_by and "day" not in query.group_by:
        cuts += query.window.month_starts()
    return iter(query.window.split(cuts))


def gpu_sums(
    connection: Connection, query: Query, prices: PriceList, as_of: int, *, safely: bool = False
) -> Iterator[Sum]:
    """Sums over all GPU intervals. Raises Overflow, but not ``safely``; then what came before is
    void, and the transaction, too."""
    halves = connection.dialect.name == "postgresql" if safely else None
    weight = INTERVAL.c.gpus
    for piece in _pieces(query, prices.boundaries("gpu")):
        price = gpu_price(prices, piece.start)
        for lines in _lines(INTERVAL, query, piece, as_of):
            for statement in _sums(lines, query, weight, price, halves):
                rows, keys_of = _read(connection, statement, query, piece)
                for row in rows:
                    seconds, amount = int(row.seconds), _amount(row, halves)
                    for key in keys_of(row):
                        yield Sum(key, seconds, 0, amount, lines.running)


def _amount(row: Any, halves: bool | None) -> int:
    if halves:
        return int(row.high) * HALF + int(row.low)
    if halves is False:
        return int(row.seconds) * int(row.price)
    if isinstance(row.amount, float):  # SQLite's way to go on after an overflow
        raise Overflow
    return int(row.amount)


def volume_sums(
    connection: Connection, query: Query, prices: PriceList, as_of: int
) -> Iterator[Sum]:
    """Sums over all volumes."""
    for piece in _pieces(query, prices.boundaries("storage")):
        nano = prices.storage_price(piece.start)
        for lines in _lines(VOLUME, query, piece, as_of):
            for statement in _sums(lines, query, VOLUME.c.gib, None, None):
                rows, keys_of = _read(connection, statement, query, piece)
                for row in rows:
                    seconds = int(row.seconds)
                    for key in keys_of(row):
                        yield Sum(key, 0, seconds, seconds * nano, lines.running)


Keys = Iterable[tuple[str, ...]]


def _read(
    connection: Connection, statement: Select[Any], query: Query, piece: Window
) -> tuple[Sequence[Any], Callable[[Any], Keys]]:
    """The rows of a sum, and what tells the groups that a row counts in. Raises Overflow."""
    try:
        result = connection.execute(statement)
        rows = result.all()
    except DBAPIError as error:
        if any(words in str(error.orig) for words in _OVERFLOWS):
            raise Overflow from error
        raise
    if len(rows) == 1 and rows[0].seconds is None:
        return [], tuple  # without groups, the sum of no lines is a row of NULLs
    groups = len(query.group_by)
    by_day = "day" in query.group_by
    if not by_day and tuple(result.keys())[:groups] == query.group_by:
        return rows, lambda row: (row[:groups],)  # the usual case, quick for thousands of rows

    def keys_of(row: Any) -> Keys:
        values = row._mapping
        for at in [day * DAY for day in range(row.day, row.until)] if by_day else [piece.start]:
            yield tuple(group_value(name, values, at) for name in query.group_by)

    return rows, keys_of


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
