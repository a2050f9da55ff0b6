"""The single lines behind a statement, page by page, in the order of their start.

Lines add up to the statement of the same query exactly (`amount`, `gpu_seconds`,
`storage_gib_seconds`): the test of every sum.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from sqlalchemy import Connection, Engine, Table, and_, or_, select

from ..model.pricing import PriceList, nano_text, to_money
from ..model.usage import HOUR, Window, rfc3339
from .db import reading
from .errors import LedgerError
from .query import Query, check_page_size
from .statements import as_of_text, heartbeat
from .sums import conditions, load_prices, overlapping
from .tables import ADJUSTMENT, INTERVAL, VOLUME

_KINDS = ("gpu", "storage", "adjustment")


@dataclass(frozen=True)
class Part:
    """A piece of a line within which the price does not change."""

    start: int
    end: int
    price_nano: int

    def as_json(self) -> dict[str, str]:
        return {
            "start": rfc3339(self.start),
            "end": rfc3339(self.end),
            "price_per_hour": nano_text(self.price_nano),
        }


@dataclass(frozen=True)
class Line:
    """One interval (or volume, or correction), clipped to the window.

    ``start`` and ``end`` are the clipped ones; ``known_by`` says how the whole interval's start and
    end are known. ``amount`` is exact, ``cost`` is it rounded for reading.
    """

    kind: str
    uid: str
    names: dict[str, str]
    gpus: int
    gib: int
    start: int
    end: int
    running: bool
    known_by: tuple[str, str]
    parts: tuple[Part, ...]
    gpu_seconds: int
    storage_gib_seconds: int
    amount: int
    cost: Decimal
    note: str = ""

    def as_json(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "uid": self.uid,
            **self.names,
            "gpus": self.gpus,
            "gib": self.gib,
            "start": rfc3339(self.start),
            "end": rfc3339(self.end),
            "running": self.running,
            "start_known_by": self.known_by[0],
            "end_known_by": self.known_by[1],
            "prices": [part.as_json() for part in self.parts],
            "gpu_seconds": self.gpu_seconds,
            "storage_gib_seconds": self.storage_gib_seconds,
            "cost": str(self.cost),
            "note": self.note,
        }


@dataclass(frozen=True)
class Page:
    """Some lines, and the cursor of the next page ("" at the end)."""

    lines: list[Line]
    as_of: int
    cursor: str

    def as_json(self) -> dict[str, Any]:
        return {
            "as_of": as_of_text(self.as_of),
            "lines": [line.as_json() for line in self.lines],
            "next": self.cursor,
        }


@dataclass(frozen=True)
class _Place:
    """Where a page begins: after this row of this kind."""

    as_of: int
    kind: int = 0
    start: int = -1
    row_id: int = -1

    def encode(self) -> str:
        text = json.dumps([self.as_of, self.kind, self.start, self.row_id])
        return base64.urlsafe_b64encode(text.encode()).decode()

    @classmethod
    def decode(cls, cursor: str) -> _Place:
        try:
            numbers = json.loads(base64.urlsafe_b64decode(cursor.encode()))
            as_of, kind, start, row_id = numbers
            if any(type(n) is not int or not -1 <= n < 2**63 for n in numbers):
                raise ValueError("not four numbers")
            if not 0 <= kind < len(_KINDS):
                raise ValueError("no such kind")
        except (ValueError, TypeError, binascii.Error, UnicodeError) as error:
            raise LedgerError(
                "bad_cursor", "This is not a cursor of a page before. Begin without one."
            ) from error
        return cls(as_of, kind, start, row_id)


def intervals(
    engine: Engine, query: Query, *, page_size: int = 100, cursor: str = "", digits: int = 2
) -> Page:
    """A page of the lines behind ``query`` (its grouping does not matter).

    All pages count running intervals up to the heartbeat of the first page.
    """
    check_page_size(page_size)
    with reading(engine).connect() as connection:
        place = _Place.decode(cursor) if cursor else _Place(heartbeat(connection))
        prices = load_prices(connection)
        lines: list[Line] = []
        while True:
            rows = _rows(connection, query, place, page_size + 1 - len(lines))
            for row in rows:
                if len(lines) == page_size:
                    return Page(lines, place.as_of, place.encode())
                lines.append(_line(_KINDS[place.kind], row, query, prices, place.as_of, digits))
                place = _Place(place.as_of, place.kind, _order(row), row["id"])
            if place.kind + 1 == len(_KINDS):
                return Page(lines, place.as_of, "")
            place = _Place(place.as_of, place.kind + 1)


def _order(row: Mapping[str, Any]) -> int:
    return int(row["effective_at"] if "effective_at" in row else row["start_at"])


def _rows(connection: Connection, query: Query, place: _Place, limit: int) -> list[dict[str, Any]]:
    table: Table = (INTERVAL, VOLUME, ADJUSTMENT)[place.kind]
    if table is ADJUSTMENT:
        order = table.c.effective_at
        window = [order >= query.window.start, order < query.window.end]
    else:
        order = table.c.start_at
        window = overlapping(table, query.window)
    after = or_(order > place.start, and_(order == place.start, table.c.id > place.row_id))
    statement = (
        select(table)
        .where(*window, *conditions(table, query), after)
        .order_by(order, table.c.id)
        .limit(limit)
    )
    return [dict(row) for row in connection.execute(statement).mappings()]


def _line(
    kind: str, row: dict[str, Any], query: Query, prices: PriceList, as_of: int, digits: int
) -> Line:
    if kind == "adjustment":
        return _correction(row, digits)
    running = row["end_at"] is None
    end = max(row["start_at"], as_of) if running else row["end_at"]
    inside = query.window.clip(row["start_at"], end)
    if inside is None:  # it has no second inside the window
        at = min(max(row["start_at"], query.window.start), query.window.end)
        inside = Window(at, at)
    parts = _parts(kind, row, inside, prices)
    weight = row["gpus"] if kind == "gpu" else row["gib"]
    seconds = weight * inside.seconds
    amount = sum(weight * (part.end - part.start) * part.price_nano for part in parts)
    return Line(
        kind=kind,
        uid=row["uid"],
        names=_names(row),
        gpus=row.get("gpus", 0),
        gib=row.get("gib", 0),
        start=inside.start,
        end=inside.end,
        running=running,
        known_by=(row.get("start_source", "created"), row["end_source"]),
        parts=parts,
        gpu_seconds=seconds if kind == "gpu" else 0,
        storage_gib_seconds=seconds if kind == "storage" else 0,
        amount=amount,
        cost=to_money(amount, digits),
    )


def _parts(
    kind: str, row: Mapping[str, Any], inside: Window, prices: PriceList
) -> tuple[Part, ...]:
    parts: list[Part] = []
    for piece in inside.split(prices.boundaries(kind)):
        if kind == "gpu":
            nano = prices.gpu_price(
                row["profile"], row["product"], row["start_at"], row["price_nano"], piece.start
            )
        else:
            nano = prices.storage_price(piece.start)
        if parts and parts[-1].price_nano == nano:
            parts[-1] = Part(parts[-1].start, piece.end, nano)
        else:
            parts.append(Part(piece.start, piece.end, nano))
    return tuple(parts)


def _names(row: Mapping[str, Any]) -> dict[str, str]:
    names = {"user": row["owner"]}
    for name in ("team", "app", "job", "component", "profile", "product", "resource", "node"):
        names[name] = row.get(name, "")
    names["namespace"] = row.get("namespace", "")
    names["name"] = row.get("pod", row.get("claim", ""))
    return names


def _correction(row: dict[str, Any], digits: int) -> Line:
    amount = row["money_nano"] * HOUR
    at = row["effective_at"]
    return Line(
        kind="adjustment",
        uid=row["interval_uid"],
        names=_names(row),
        gpus=0,
        gib=0,
        start=at,
        end=at,
        running=False,
        known_by=(row["actor"], row["actor"]),
        parts=(),
        gpu_seconds=row["gpu_seconds"],
        storage_gib_seconds=0,
        amount=amount,
        cost=to_money(amount, digits),
        note=row["reason"],
    )
