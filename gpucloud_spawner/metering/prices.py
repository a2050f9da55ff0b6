"""The price list: append-only, by the site file and by admins. Blocking.

A price begins now or later: what was already used keeps the price it had. Which line holds when is
decided in `model.pricing`.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal

from sqlalchemy import Connection, Engine, insert, select

from ..model.pricing import Price, parse_price
from .db import writing
from .errors import LedgerError, not_allowed
from .lease import database_time
from .sums import load_prices
from .tables import PRICE

KINDS = ("gpu", "storage")
# For which time ahead a price may be announced.
MAX_AHEAD_SECONDS = 366 * 5 * 86400
MAX_REASON = 1000


def checked_price(price: str | Decimal | int) -> int:
    """A price in billionths. Raises LedgerError where it is none."""
    try:
        return parse_price(price)
    except ValueError as error:
        raise LedgerError("bad_price", f"{error}.", example="1.50", minimum="0") from error


def checked_name(code: str, what: str, name: str) -> str:
    """A name that fits into the ledger. Raises LedgerError otherwise."""
    if len(name) > 255 or any(not c.isprintable() for c in name):
        raise LedgerError(code, f"{what} must be at most 255 printable characters.")
    return name


def checked_text(code: str, what: str, text: str) -> str:
    """A reason or an actor: not empty, not endless. Raises LedgerError otherwise."""
    if not text.strip() or len(text) > MAX_REASON or "\0" in text:
        raise LedgerError(code, f"{what} must have 1 to {MAX_REASON} characters.")
    return text


def set_price(
    engine: Engine,
    *,
    price: str | Decimal | int | None,
    actor: str,
    reason: str,
    kind: str = "gpu",
    profile: str = "",
    product: str = "",
    valid_from: int | None = None,
) -> Price:
    """Enter an admin's price (per GPU-hour, or per GiB-hour of storage); it goes before the site
    file's. None hands back to the site file. "" as profile or product means any.

    Raises LedgerError; then nothing is stored.
    """
    if kind not in KINDS:
        raise not_allowed("unknown_price_kind", "Price kind", kind, KINDS)
    if kind == "storage" and (profile or product):
        raise LedgerError("bad_price_key", "A storage price holds for all profiles and products.")
    nano = None if price is None else checked_price(price)
    checked_name("bad_price_key", "The profile", profile)
    checked_name("bad_price_key", "The product", product)
    checked_name("bad_actor", "The actor", checked_text("bad_actor", "The actor", actor))
    checked_text("bad_reason", "The reason", reason)
    with writing(engine).begin() as connection:
        now = database_time(connection)
        at = now if valid_from is None else valid_from
        if at < now:
            raise LedgerError(
                "price_in_the_past",
                "A price can only begin now or later; use an adjustment to correct the past.",
                minimum=now,
            )
        if at > now + MAX_AHEAD_SECONDS:
            raise LedgerError("price_too_far_ahead", "A price begins within five years.")
        line = Price(kind, "admin", profile, product, nano, at)
        _enter(connection, line, now, actor, reason)
    return line


def _enter(connection: Connection, line: Price, now: int, actor: str, reason: str) -> None:
    connection.execute(
        insert(PRICE).values(
            kind=line.kind,
            source=line.source,
            profile=line.profile,
            product=line.product,
            nano=line.nano,
            valid_from=line.valid_from,
            entered_at=now,
            actor=actor,
            reason=reason,
        )
    )


def sync_site_prices(
    engine: Engine,
    gpu: Mapping[str, str | Decimal | int],
    storage: str | Decimal | int | None = None,
) -> int:
    """Enter what has changed in the site file since it was last read; returns how many lines.

    ``gpu``: profile slug -> price per GPU-hour; ``storage``: price per GiB-hour. A change holds
    from now on. Raises LedgerError; then nothing is stored.
    """
    wanted: dict[tuple[str, str], int | None] = {
        ("gpu", checked_name("bad_price_key", "The profile", slug)): checked_price(price)
        for slug, price in gpu.items()
    }
    wanted["storage", ""] = None if storage is None else checked_price(storage)
    count = 0
    with writing(engine).begin() as connection:
        now = database_time(connection)
        latest: dict[tuple[str, str], int | None] = {}
        for line in load_prices(connection).lines:
            if line.source == "site":
                latest[line.kind, line.profile] = line.nano
        for key, nano in wanted.items():
            if latest.get(key) != nano:
                line = Price(key[0], "site", key[1], "", nano, now)
                _enter(connection, line, now, "site file", "changed in the site file")
                count += 1
    return count


def price_lines(engine: Engine) -> list[dict[str, object]]:
    """The whole list with who entered what and why, oldest first."""
    with engine.connect() as connection:
        rows = connection.execute(select(PRICE).order_by(PRICE.c.id)).mappings()
        return [dict(row) for row in rows]
